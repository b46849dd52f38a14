"""`echox eval translation --tasks`: one model's speech translation, text translation and recognition, and what its spaces hold.

    st       recording ─► translation            asr      recording ─► words
    mt       true transcript ─► translation      cascade  recording ─► words ─► translation, by the same model or by the first
    spaces   mean encoder states of recordings and of their transcripts (scorers/spaces.py)

Each later model is compared with the first, which is the text specialist where the harm to text translation is measured. A model
that reads text only takes part in `mt`, and translates the words of the others in `cascade`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from echox.audio import load_audio
from echox.data.pairs import SpokenPair
from echox.errors import ConfigError, InputError, require
from echox.eval.questions import names_in
from echox.eval.results import Results
from echox.eval.scorers.spaces import Spaces, length_probe, modality_probe, retrieval
from echox.eval.scorers.translation import bleu, chrf, compare
from echox.eval.scorers.word_errors import errors_between
from echox.eval.tables import Items, Table, by_arm, over_seeds, percent, pooled_rate, shared
from echox.generate.joint import JointTranslator
from echox.generate.translation import Wanted
from echox.translator import SpeechTranslator

TASKS = ("st", "mt", "asr", "cascade", "spaces")
WRITTEN = ("st", "mt", "cascade")  # what BLEU scores
BATCH = 16
Models = dict[str, JointTranslator]


@dataclass(frozen=True)
class TasksOptions:
    """What is measured, where results go, what the pairs are called, the beam (none: the models' own), and the weights' marks."""

    tasks: tuple[str, ...]
    out: Path
    source: str
    beams: int | None = None
    weights: str = ""


def parse_tasks(text: str) -> tuple[str, ...]:
    """Return comma-separated tasks; ConfigError for one that is unknown."""
    names = tuple(names_in(text))
    for name in names:
        if name not in TASKS:
            raise ConfigError(f"task {name!r} is unknown: choose from {', '.join(TASKS)}.")
    return names


def load_models(names: Sequence[str], device: str, dtype: str | None) -> Models:
    """Return the models by their folders' names; ConfigError for two of one name, none, or one that does other tasks."""
    if not names or len({Path(name).name for name in names}) < len(names):
        raise ConfigError(f"models are told apart by their folders' names, and these are {', '.join(names) or 'none'}.")
    found = {Path(name).name: SpeechTranslator.load(name, device, dtype).model for name in names}
    for name, model in found.items():
        if not isinstance(model, JointTranslator):
            raise ConfigError(f"{name} writes no text: leave --tasks out to measure its speech.")
    return found  # type: ignore[return-value]


def run_tasks(pairs: Sequence[SpokenPair], models: Models, options: TasksOptions) -> list[Table]:
    """Return the tables of all tasks of all models, writing tasks.jsonl; a run that was stopped goes on."""
    require("sacrebleu", "eval")
    for pair in pairs:
        if not pair.target_text or not pair.source_text:
            raise InputError(
                f"{options.source}: {pair.id} has no source_text or no target_text: three tasks need both."
            )
    settings = {"task": "tasks", "model": ", ".join(models), "questions": options.source}
    settings |= {"beams": options.beams or "own", "weights": options.weights}
    with Results(options.out / "tasks.jsonl", settings) as results:
        for name, model in models.items():
            for task in options.tasks:
                if task == "spaces" or (task != "mt" and model.model.speech is None):
                    continue
                answer = answerer(task, model, next(iter(models.values())), Wanted(options.beams))
                for some in results.batches(f"{name} {task}", pairs, BATCH):
                    for pair, text in zip(some, answer(some), strict=True):
                        results.append(_record(f"{name} {task}", pair, text))
        rows = [row for row in results.rows if row["arm"].rpartition(" ")[2] in options.tasks]
        return tasks_tables(results.settings, rows)


def answerer(
    task: str, model: JointTranslator, first: JointTranslator, wanted: Wanted
) -> Callable[[Sequence[SpokenPair]], list[str]]:
    """Return what does a task on some pairs; the cascade is translated by the first model, the specialist where there is one."""

    def st(pairs: Sequence[SpokenPair]) -> list[str]:
        return [one.text for one in model.translate([load_audio(pair.audio) for pair in pairs], wanted)]

    def mt(pairs: Sequence[SpokenPair]) -> list[str]:
        return [one.text for one in model.translate_texts([pair.source_text for pair in pairs], wanted)]

    def asr(pairs: Sequence[SpokenPair]) -> list[str]:
        return model.transcribe([load_audio(pair.audio) for pair in pairs])

    def cascade(pairs: Sequence[SpokenPair]) -> list[str]:
        words = asr(pairs)
        said = iter(first.translate_texts([text for text in words if text], wanted) if any(words) else [])
        return [next(said).text if text else "" for text in words]

    return {"st": st, "mt": mt, "asr": asr, "cascade": cascade}[task]


def _record(arm: str, pair: SpokenPair, text: str) -> dict[str, Any]:
    wanted = pair.source_text if arm.endswith(" asr") else pair.target_text
    record = {"arm": arm, "id": pair.id, "reference": wanted, "text": text, "error": ""}
    return record | asdict(errors_between(wanted, text))


def tasks_tables(settings: dict[str, Any], items: Items) -> list[Table]:
    """Return scores by model and task, and each later model against the first on the tasks of both."""
    arms = {arm: sorted(mine, key=lambda one: one["id"]) for arm, mine in by_arm(items).items()}
    models = settings["model"].split(", ")
    rows, note, numbers = [], "", dict[str, float]()
    for arm, mine in arms.items():
        if arm.endswith(" asr"):
            rows.append((arm, str(len(mine)), "-", "-", pooled_rate(mine, "word_edits", "words")))
            numbers[arm] = 100 * sum(one["word_edits"] for one in mine) / max(1, sum(one["words"] for one in mine))
        else:
            score, letters = bleu(*_texts(mine)), chrf(*_texts(mine))
            note = f"{score.signature}; {letters.signature}; word errors of recognition alone"
            rows.append((arm, str(len(mine)), f"{score.score:.2f}", f"{letters.score:.1f}", "-"))
            numbers[arm] = score.score
    found = [Table("Three tasks", ("arm", "n", "BLEU", "chrF", "WER %"), tuple(rows), note)]
    found += over_seeds(numbers, "BLEU; of recognition (asr) word errors in %.")
    pairs = [(f"{name} {task}", f"{models[0]} {task}") for name in models[1:] for task in WRITTEN]
    pairs += [(f"{name} st", f"{models[0]} mt") for name in models]
    compared = [
        (one, other, *_compared(shared(arms[one], arms[other]))) for one, other in pairs if {one, other} <= arms.keys()
    ]
    if compared:
        head = ("arm", "against", "BLEU", "its BLEU", "ratio", "p")
        found.append(Table("Against the first model", head, tuple(compared), f"Paired bootstrap of sacrebleu. {note}"))
    return found


def _compared(both: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> tuple[str, ...]:
    """Return both scores with their half-widths, their ratio and p, over the pairs of both."""
    heard, references = _texts([one for one, _ in both])
    found = compare([other["text"] for _, other in both], heard, references)
    scores = [f"{found[side]:.2f} ± {found[f'{side}_half_width']:.2f}" for side in ("system", "baseline")]
    ratio = found["system"] / found["baseline"] if found["baseline"] else float("nan")
    return (*scores, f"{ratio:.3f}", f"{found['p']:.3f}")


def _texts(items: Items) -> tuple[list[str], list[str]]:
    return [item["text"] for item in items], [item["reference"] for item in items]


def read_spaces(pairs: Sequence[SpokenPair], model: JointTranslator) -> Spaces:
    """Return the mean encoder states of recordings and of their transcripts."""
    means: list[list[np.ndarray]] = [[], []]
    lengths: list[list[int]] = [[], []]
    for first in range(0, len(pairs), BATCH):
        some = pairs[first : first + BATCH]
        speech, _ = model.speech_states([load_audio(pair.audio) for pair in some])
        for side, states in enumerate((speech, model.text_states([pair.source_text for pair in some]))):
            for row, mask in zip(states.states_BNW, states.mask_BN, strict=True):
                means[side].append(row[mask].float().mean(0).cpu().numpy())
                lengths[side].append(int(mask.sum()))
    return Spaces(np.stack(means[0]), np.stack(means[1]), np.array(lengths[0]), np.array(lengths[1]))


def spaces_tables(models: Sequence[tuple[str, Spaces]]) -> list[Table]:
    """Return the probes and the retrieval of every model, and over seeds."""
    measures = {"probe": modality_probe, "lengths": length_probe, "retrieval": retrieval}
    found = {name: {kind: measure(one) for kind, measure in measures.items()} for name, one in models}
    rows = [(name, str(len(one.text_NW)), *map(percent, found[name].values())) for name, one in models]
    note = "Fresh linear probes, five folds over sentences: speech or text? 50 % is chance; by length alone beside it."
    head = ("model", "n", "modality probe %", "length probe %", "retrieval %")
    numbers = {f"{name} {kind}": 100 * one.value for name, mine in found.items() for kind, one in mine.items()}
    return [Table("Spaces", head, tuple(rows), note), *over_seeds(numbers, "In %.")]
