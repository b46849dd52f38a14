"""`echox eval translation --tasks`: what models that write make of pairs, where no judge hears them.

    st       recording ─► translation            asr      recording ─► words
    mt       true transcript ─► translation      cascade  recording ─► words ─► translation, by the same model or by the first
    spaces   mean encoder states of recordings and of their transcripts (scorers/states.py)

Each later model is compared with the first: the text specialist, where the harm to text translation is measured. A model that reads
text only takes part in `mt`, and translates the words of the others in `cascade`.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from echox.audio import load_audio
from echox.data.batching import groups
from echox.data.pairs import SpokenPair
from echox.errors import ConfigError, InputError, require
from echox.eval.model_under_test import Failure, attempt, through
from echox.eval.questions import take
from echox.eval.results import OURS, Results
from echox.eval.scorers.states import Spaces, length_probe, modality_probe, retrieval
from echox.eval.scorers.texts import NORMALISER, bleu, chrf, errors_between, normaliser_of
from echox.eval.tables import Items, Table, by_arm, failures, over_seeds, percent, pooled_rate
from echox.eval.tasks.translation import TranslationOptions, against, load_models, pairs_mark
from echox.files import refuse_others
from echox.generate.joint import JointTranslator
from echox.generate.translation import Wanted

TASKS = ("st", "mt", "asr", "cascade", "spaces")
WRITTEN, BATCH = ("st", "mt", "cascade"), 16  # what BLEU scores


def load_writers(names: Sequence[str], device: str, dtype: str | None) -> dict[str, JointTranslator]:
    """Return the models by their folders' names; ConfigError for none, or for one that writes no text."""
    models: dict[str, Any] = {name: found.model for name, found in load_models(names, device, dtype).items()}
    if not models:
        raise ConfigError("there is nothing to measure: give --model.")
    for name, model in models.items():
        if not isinstance(model, JointTranslator):
            raise ConfigError(f"{name} writes no text: leave --tasks out to measure its speech.")
    return models


def run_tasks(
    pairs: Sequence[SpokenPair],
    models: Mapping[str, JointTranslator],
    names: Sequence[str],
    options: TranslationOptions,
    beams: int | None = None,
) -> tuple[list[Table], list[tuple[str, Spaces]]]:
    """Return the tables of the tasks of these `names`, writing tasks.jsonl, and the spaces of every model if they are among them.

    A run that was stopped goes on. Raises InputError for a pair without text.
    """
    require("sacrebleu", "eval")
    refuse_others(options.out, ["spaces.svg"], "tasks.jsonl", OURS)
    asked = take(pairs, options.limit)
    for pair in asked:
        if not pair.target_text or not pair.source_text:
            where = f"{options.source}: {pair.id}"
            raise InputError(f"{where} has no source_text or no target_text, and three tasks need both.")
    normaliser = normaliser_of(*(model.language for model in models.values()))
    settings = {"task": "tasks", "model": ", ".join(models), "questions": options.source}
    settings |= {"wer_normaliser": normaliser, "beams": beams or "own", **options.how}
    first, wanted = next(iter(models.values())), Wanted(beams)
    arms = {
        f"{name} {task}": (task, model)
        for name, model in models.items()
        for task in names
        if task == "mt" or (task != "spaces" and model.model.speech is not None)
    }

    def answer(arm: str, some: Sequence[SpokenPair]) -> Iterator[dict[str, Any]]:
        task, model = arms[arm]
        loaded = [pair.source_text if task == "mt" else attempt(partial(load_audio, pair.audio)) for pair in some]
        texts = through(loaded, partial(_written, task, model, first, wanted))
        for pair, found in zip(some, texts, strict=True):
            text, fault = ("", found.reason) if isinstance(found, Failure) else (found, "")
            reference = pair.source_text if task == "asr" else pair.target_text
            record = {"id": pair.id, "reference": reference, "text": text, "error": fault}
            yield record | errors_between(reference, text, normaliser)

    results = Results(options.out / "tasks.jsonl", settings | {"questions_mark": pairs_mark(pairs)})
    done, items = results.fill(dict.fromkeys(arms, asked), BATCH, answer)
    tables = tasks_tables(done, [item for item in items if item["arm"].rpartition(" ")[2] in names])
    hearing = [(name, one) for name, one in models.items() if one.model.speech is not None and "spaces" in names]
    spaces = [(name, read_spaces(asked, one)) for name, one in hearing]
    return [*tables, *(spaces_tables(spaces) if spaces else [])], spaces


def _written(
    task: str, model: JointTranslator, first: JointTranslator, wanted: Wanted, given: Sequence[Any]
) -> list[str]:
    """Return what a model writes in one task of waves, or of texts in `mt`."""
    if task in ("st", "mt"):
        translate = model.translate if task == "st" else model.translate_texts
        return [one.text for one in translate(given, wanted)]
    words = model.transcribe(given)
    if task == "asr":
        return words
    said = iter(first.translate_texts([text for text in words if text], wanted) if any(words) else [])
    return [next(said).text if text else "" for text in words]


def tasks_tables(settings: dict[str, Any], items: Items) -> list[Table]:
    """Return scores by model and task, and each later model against the first on the tasks of both."""
    arms, models = by_arm(items), settings["model"].split(", ")
    rows, note, numbers = [], "", dict[str, float]()
    for arm, mine in arms.items():
        if arm.endswith(" asr"):
            cells = ("-", "-", pooled_rate(mine, "word_edits", "words"))
            numbers[arm] = 100 * sum(one["word_edits"] for one in mine) / max(1, sum(one["words"] for one in mine))
        else:
            score, letters = bleu(*_texts(mine)), chrf(*_texts(mine))
            note = f"{score.signature}; {letters.signature}; word errors of recognition alone: "
            note += settings.get("wer_normaliser", NORMALISER)
            cells, numbers[arm] = (f"{score.score:.2f}", f"{letters.score:.1f}", "-"), score.score
        rows.append((arm, str(len(mine)), *cells, str(failures(mine))))
    found = [Table("Three tasks", ("arm", "n", "BLEU", "chrF", "WER %", "failed"), tuple(rows), note)]
    found += over_seeds(numbers, "BLEU; of recognition (asr) word errors in %.")
    pairs = [(f"{name} {task}", f"{models[0]} {task}") for name in models[1:] for task in WRITTEN]
    pairs += [(f"{name} st", f"{models[0]} mt") for name in models]
    return found + against(pairs, arms, _texts, note)


def _texts(items: Items) -> tuple[list[str], list[str]]:
    return [item["text"] for item in items], [item["reference"] for item in items]


def read_spaces(pairs: Sequence[SpokenPair], model: JointTranslator) -> Spaces:
    """Return the mean encoder states of the recordings that can be read and of their transcripts."""
    means: list[list[np.ndarray]] = [[], []]
    lengths: list[list[int]] = [[], []]
    for batch in groups(pairs, BATCH):
        loaded = [(pair, attempt(partial(load_audio, pair.audio))) for pair in batch]
        some = [both for both in loaded if not isinstance(both[1], Failure)]
        if not some:
            continue
        speech, _ = model.speech_states([wave for _, wave in some])
        for side, states in enumerate((speech, model.text_states([pair.source_text for pair, _ in some]))):
            for row, mask in zip(states.states_BNW, states.mask_BN, strict=True):
                means[side].append(row[mask].float().mean(0).cpu().numpy())
                lengths[side].append(int(mask.sum()))
    return Spaces(*map(np.array, (*means, *lengths)))


def spaces_tables(models: Sequence[tuple[str, Spaces]]) -> list[Table]:
    """Return the probes and the retrieval of every model, and over seeds."""
    measures = {"probe": modality_probe, "lengths": length_probe, "retrieval": retrieval}
    found = {name: {kind: measure(one) for kind, measure in measures.items()} for name, one in models}
    rows = [(name, str(len(one.text_NH)), *map(percent, found[name].values())) for name, one in models]
    note = "Fresh linear probes, five folds over sentences: speech or text? 50 % is chance; by length alone beside it."
    head = ("model", "n", "modality probe %", "length probe %", "retrieval %")
    numbers = {f"{name} {kind}": 100 * one.value for name, mine in found.items() for kind, one in mine.items()}
    return [Table("Spaces", head, tuple(rows), note), *over_seeds(numbers, "In %.")]
