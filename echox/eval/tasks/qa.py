"""`echox eval qa`: spoken question answering by arms: what the language model knows, what hearing costs, and what speaking costs.

    t2t       typed question -> text                      the language model as it ships (adapters on)
    t2t-form  the same with a capital and a "?" -> text    shows what form brings: what is heard has it
    t2t-off   typed question -> text, adapters off        the language model before it learned to hear
    s2t       spoken question -> text                     scored on the text
    s2s       spoken question -> speech -> judge          scored on what the judge heard
    teacher   s2s's own text -> T2C -> speech -> judge    shows what the echo decoder itself loses (spec section 4)
    cascade   recogniser -> same LLM, typed -> speech -> judge

One reply of the s2s arm serves both s2s and s2t, since its text is what s2t would have said; where its speech failed,
s2t asks again for text alone. Everything written down is in `item_record`; what is printed of it stands in qa_tables.py.
"""

import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from echox.errors import ConfigError, EndpointError, InputError
from echox.eval.judges import choose_judges, find_judge, warn_if_own_ear
from echox.eval.model_under_test import (
    NO_SOUND,
    SILENCE,
    Failure,
    ModelChoice,
    ask_all,
    at_16k,
    attempt,
    load_subject,
    machine,
    sounds_of,
    through,
)
from echox.eval.probes import can_turn_off, untouched
from echox.eval.questions import Item, chosen, fingerprint, load_question, take
from echox.eval.results import OURS, REPORT, Results, read_results, results_path
from echox.eval.scorers.answers import Scorer
from echox.eval.scorers.texts import NORMALISER
from echox.eval.tables import FORM
from echox.eval.tasks.qa_tables import TYPED_ARMS
from echox.eval.tasks.spoken_answers import spoken_record
from echox.files import refuse_others
from echox.generate.types import Question

ARMS = ("t2t", FORM, "t2t-off", "s2s", "s2t", "teacher", "cascade")
"""Every arm, in the order in which they run: s2s before s2t and teacher, which take its texts."""
TYPED = frozenset({"t2t", FORM, "t2t-off"})
ADAPTERS_OFF = frozenset({"t2t-off", "cascade"})
SPOKEN_QUESTION = frozenset({"s2s", "s2t", "teacher", "cascade"})
SPOKEN_ANSWER = frozenset({"s2s", "teacher", "cascade"})
CUT = frozenset({"length", "max_tokens", "max_seconds"})
NOT_ON_A_SERVER = ("teacher", "t2t-off")
NO_SUCH_ARMS = "a server has neither a teacher nor adapters to turn off"
FAILURES_IN_A_ROW = 12  # stop a run
FAILURES_AT_THE_START = 3  # stop it while a server has answered nothing yet


@dataclass(frozen=True)
class QaOptions:
    """The options of one `echox eval qa` besides model, questions and scorers; see `echox eval qa --help`."""

    arms: str
    judge: str
    judge_window: int
    recogniser: str
    out: Path
    limit: int | None
    shard: str
    batch: int
    seed: int
    max_seconds: float | None
    retry_failed: bool
    pool: dict[str, int] | None  # of a spoken set: how many questions each kind was chosen from
    typed_from: Path | None


def run_qa(
    questions: Sequence[Item],
    source: str,
    choice: ModelChoice,
    scorers: Sequence[Scorer],
    options: QaOptions,
    tell: Callable[[str], None],
) -> Results:
    """Run what is left of one evaluation and return its results; errors of its inputs come before a model is loaded."""
    refuse_others(options.out, REPORT, "*.jsonl", OURS)
    wanted, started = choose_arms(options.arms, False, bool(choice.endpoint)), time.perf_counter()
    without = [arm for arm in choose_arms(options.arms, False) if arm not in wanted]
    if without:
        tell(f"{NO_SUCH_ARMS}: left out {', '.join(without)}")
    todo, spoken = take(questions, options.limit, options.shard), bool(SPOKEN_ANSWER & set(wanted))
    server = load_subject(choice) if choice.endpoint else None  # it is asked once before judges are loaded
    cascade, window = "cascade" in wanted, options.judge_window
    judge, recogniser = choose_judges(options.judge, options.recogniser, spoken, cascade, window, choice.device)
    subject, name = server or load_subject(choice)
    warn_if_own_ear(choice.folder, find_judge(options.judge) if judge else None, tell)
    arms = choose_arms(",".join(wanted), can_turn_off(subject))
    settings = {"task": "qa", "model": name, "questions": source, "questions_mark": fingerprint(questions)}
    settings |= {"count": len(questions), "scorer": scorers[0].name, "scorers": [scorer.name for scorer in scorers]}
    settings |= {"normaliser": scorers[0].normaliser, "judge": judge.name if judge else None}
    settings |= {"recogniser": recogniser.name if recogniser else None, "wer_normaliser": NORMALISER}
    settings |= {name: getattr(options, name) for name in ("seed", "max_seconds", "batch", "limit", "shard")}
    settings |= {"started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
    settings |= {"system": choice.system} if choice.system else {}
    settings |= {"arms": list(arms), "machine": machine(), "load_seconds": round(time.perf_counter() - started, 2)}
    settings |= {"retention": {"pool": options.pool}} if options.pool else {}
    asked = {"seed": options.seed} | ({"max_seconds": options.max_seconds} if options.max_seconds is not None else {})
    results = Results(results_path(options.out, options.shard), settings, options.retry_failed)
    places = {item.id: place for place, item in enumerate(questions)}
    if options.typed_from is not None:
        copy_typed(options.typed_from, todo, results)
    run = QaRun(subject, judge, scorers, options.out, recogniser, asked, options.batch, places)
    run_arms(run, todo, arms, results)
    return results


def copy_typed(path: Path, questions: Sequence[Item], results: Results) -> None:
    """Put another run's typed answers, which no recording changes, into `results`; ConfigError where it was made otherwise."""
    settings, items = read_results(path)
    for name in ("model", "scorers", "seed", "batch", "system"):
        here, there = results.settings.get(name), settings.get(name)
        if here != there:
            raise ConfigError(f"--typed-from {path} was made with {name} {there!r}, not {here!r}: leave it out.")
    wanted = {item.id: (item.question, list(item.answers)) for item in questions}
    for item in items:
        same = wanted.get(item["id"]) == (item["question"], item["answers"])
        if same and item["arm"] in TYPED_ARMS and (item["arm"], item["id"]) not in results.done:
            results.append({name: value for name, value in item.items() if name != "type"})


def refuse_all_failed(results: Results) -> None:
    """Raise InputError when results hold no single answer: every item of them failed."""
    errors = [str(item["error"]) for item in results.items.values()]
    if errors and all(errors):
        raise InputError(f"all {len(errors)} items of {results.path} failed, the last with: {errors[-1].rstrip('.')}.")


@dataclass
class QaRun:
    """Everything one run needs: `options` go to every `ask`, `places` (in the file of questions) into the records."""

    subject: Any
    judge: Any  # a Judge, and so is the recogniser, where arms are spoken
    scorers: Sequence[Scorer]
    folder: Path
    recogniser: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    batch: int = 8
    places: dict[str, int] = field(default_factory=dict)
    failures: int = 0  # in a row
    answered: bool = False

    @cached_property
    def untouched(self) -> Any:
        """The model before it learned to hear, loaded when an arm asks for it."""
        return untouched(self.subject)


def choose_arms(names: str, adapters: bool = True, on_a_server: bool = False) -> tuple[str, ...]:
    """Return the arms of a comma-separated list in running order; `t2t` brings `t2t-off` along where that exists.

    Raises ConfigError for an unknown name, and where a server can have none of them.
    """
    wanted = set(chosen(names, ARMS, "--arms"))
    if "t2t" in wanted and adapters:
        wanted.add("t2t-off")
    left = tuple(arm for arm in ARMS if arm in wanted and not (on_a_server and arm in NOT_ON_A_SERVER))
    if not left:
        raise ConfigError(f"{NO_SUCH_ARMS}: choose other arms than {names}.")
    return left


def run_arms(run: QaRun, questions: Sequence[Item], arms: Sequence[str], results: Results) -> None:
    """Answer, judge, score and write every (arm, question) that `results` does not hold yet, a batch at a time.

    Raises EndpointError when a dozen questions in a row fail, or a server's first three: it is gone, and resuming is
    cheaper than waiting.
    """
    order = sorted(arms, key=ADAPTERS_OFF.__contains__)  # a second LLM is loaded last
    results.fill(dict.fromkeys(order, questions), run.batch, partial(_records, run, results))


def _records(run: QaRun, results: Results, arm: str, some: Sequence[Item]) -> Iterator[dict[str, Any]]:
    """Give the records of one arm's questions; a server that has answered nothing yet is asked a few at a time."""
    while some:
        few = len(some) if run.answered or hasattr(run.subject, "ask_many") else FAILURES_AT_THE_START
        batch, some = some[:few], some[few:]
        heard, answers = _answers(run, results, arm, batch)
        transcripts = [None] * len(batch)
        if arm in SPOKEN_ANSWER:
            answers = [_whole(answer) for answer in answers]
            sounds = through(answers, lambda said: [at_16k(_audio(one), one.sample_rate) for one in said])
            transcripts = run.judge.transcribe(sounds_of(sounds))
        for item, answer, words, transcript in zip(batch, answers, heard, transcripts, strict=True):
            record = item_record(run, arm, item, answer, transcript) | {"heard": words}
            yield record
            _check_alive(run, str(record["error"]))


def _check_alive(run: QaRun, error: str) -> None:
    """Count failures in a row, of which this one's `error` is empty if it is none; EndpointError for too many."""
    run.failures, run.answered = run.failures + 1 if error else 0, run.answered or not error
    dead = error.startswith("endpoint:") and not run.answered
    if run.failures >= (FAILURES_AT_THE_START if dead else FAILURES_IN_A_ROW):
        which = f"{'the first ' if dead else ''}{run.failures} questions in a row"
        raise EndpointError(f"{which} failed, the last with: {error}; mend it and resume.")


def _answers(run: QaRun, results: Results, arm: str, batch: Sequence[Item]) -> tuple[list[str | None], list[Any]]:
    """Return what was heard of the questions of an arm, None where nothing was said, and the answers or Failures."""
    if arm in TYPED:
        form, subject = in_form if arm == FORM else str, run.untouched if arm == "t2t-off" else run.subject
        typed = [Question(typed=form(item.question)) for item in batch]
        return [None] * len(batch), ask_all(subject, typed, True, **run.options)
    if arm == "cascade":
        return _cascade(run, batch)
    found = {item.id: None if arm == "s2s" else _on_file(results, item.id, arm == "teacher") for item in batch}
    waves = [load_question(item) for item in batch if found[item.id] is None]
    asked = through(waves, lambda some: ask_all(run.subject, list(map(Question, some)), arm != "s2s", **run.options))
    new = iter(asked)
    answers = [next(new) if one is None else one for one in found.values()]
    if arm == "teacher":
        return [None] * len(batch), _say(run, answers)
    return [getattr(answer, "heard", None) or None for answer in answers], answers


def _on_file(results: Results, name: str, failures: bool) -> Any:
    """Return the model's own text of a question as s2s or s2t wrote it down, None where it has to be asked for.

    With `failures`, one that s2t did not give either is a Failure.
    """
    said, written = (results.items.get((arm, name)) for arm in ("s2s", "s2t"))
    for item in (said, written if failures else None):
        if item and item["finish"] != "error":
            kept = ("text", "heard", "finish", "wall_seconds", "first_audio_seconds")
            return replace(SILENCE, **{key: item[key] for key in kept if item.get(key) is not None})
    return Failure(written["error"]) if failures and written else None


def in_form(question: str) -> str:
    """Return a question as one writes it: a capital first, and at the end a question mark unless the sentence ends otherwise."""
    question = question.strip()
    return question[:1].upper() + question[1:] + ("" if question.endswith((".", "?", "!")) else "?")


def _cascade(run: QaRun, batch: Sequence[Item]) -> tuple[list[str | None], list[Any]]:
    """Return what the recogniser heard and the spoken answers to it; times add up recogniser, LLM and voice."""
    loaded = [load_question(item) for item in batch]
    started = time.perf_counter()
    heard = run.recogniser.transcribe(sounds_of(loaded))
    hearing = time.perf_counter() - started
    subject = run.untouched if can_turn_off(run.subject) else run.subject
    typed = ask_all(subject, [Question(typed=words or "...") for words in heard], True, **run.options)
    own = [wave if isinstance(wave, Failure) else answer for wave, answer in zip(loaded, typed, strict=True)]
    return list(heard), _say(run, own, hearing)


def _say(run: QaRun, own: Sequence[Any], seconds: float = 0.0) -> list[Any]:
    """Return texts spoken, each with its finish reason, and with the seconds spent before added; no text is said as SILENCE."""
    limit = {name: value for name, value in run.options.items() if name == "max_seconds"}

    def say(one: Any) -> Any:
        said = attempt(lambda: run.subject.say(one.text, **limit), text=one.text) if one.text.strip() else SILENCE
        if isinstance(said, Failure):
            return said
        before = seconds + float(one.wall_seconds or 0.0)
        first = None if said.first_audio_seconds is None else before + said.first_audio_seconds
        finish = one.finish if one.finish in CUT else said.finish
        return replace(said, finish=finish, wall_seconds=before + said.wall_seconds, first_audio_seconds=first)

    return through(own, lambda texts: list(map(say, texts)))


def item_record(run: QaRun, arm: str, item: Item, answer: Any, transcript: str | None) -> dict[str, Any]:
    """Return the record of one question in one arm; a failed one scores 0 and says why in `error`."""
    failed, text = isinstance(answer, Failure), str(answer.text)
    prediction = text if transcript is None else transcript
    scores, fault = _score(run.scorers, "" if failed else prediction, item)
    again = () if failed or text == prediction else run.scorers[:1]  # the own text, where something else was heard
    own, own_fault = _score(again, text, item)
    first = run.scorers[0].name
    finish = "error" if failed else str(getattr(answer, "finish", "stop"))
    record: dict[str, Any] = {"arm": arm, "id": item.id, "kind": item.kind, "question": item.question}
    record |= {"place": run.places.get(item.id), "question_audio": None if item.audio is None else str(item.audio)}
    record |= {"answers": list(item.answers), "heard": None, "text": text, "transcript": transcript}
    record |= {"score": scores[first], "scores": scores, "text_score": own.get(first, scores[first])}
    record |= {"error": (answer.reason if failed else "") or fault or own_fault, "finish": finish, "cut": finish in CUT}
    record["empty"] = not failed and not prediction.strip()
    if failed:
        return record
    for name in ("wall_seconds", "first_audio_seconds"):
        seconds = getattr(answer, name)
        record[name] = None if seconds is None else float(seconds)
    if transcript is not None:
        record |= spoken_record(record, _audio(answer), answer.sample_rate, run.folder, arm)
    return record


def _score(scorers: Sequence[Scorer], prediction: str, item: Item) -> tuple[dict[str, float], str]:
    """Return the prediction's score by every scorer, 0 where one fails, and why it failed."""
    scores, fault = {}, ""
    for scorer in scorers:
        try:
            value = scorer.score(prediction, item.answers, item.question) / scorer.best if prediction.strip() else 0.0
        except EndpointError as error:
            value, fault = 0.0, f"scorer: {error}"
        scores[scorer.name] = float(value)
    return scores, fault


def _audio(answer: Any) -> np.ndarray:
    return NO_SOUND if answer.audio is None else answer.audio


def _whole(answer: Any) -> Any:
    if isinstance(answer, Failure) or np.isfinite(_audio(answer)).all():
        return answer
    return Failure("the answer's audio holds samples that are not finite numbers", str(answer.text))
