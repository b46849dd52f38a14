"""Spoken question answering by arms: what the language model knows, what hearing costs, and what speaking costs.

    t2t       typed question -> text                      the language model as it ships (adapters on)
    t2t-form  the same with a capital and a "?" -> text    shows what form brings: what is heard has it
    t2t-off   typed question -> text, adapters off        the language model before it learned to hear
    s2t       spoken question -> text                     scored on the text
    s2s       spoken question -> speech -> judge          scored on what the judge heard
    teacher   s2s's own text -> T2C -> speech -> judge    shows what the echo decoder itself loses (spec section 4)
    cascade   recogniser -> same LLM, typed -> speech -> judge

One reply of the s2s arm serves both s2s and s2t, since its text is what s2t would have said; where its speech failed,
s2t asks again for text alone. Everything written down is in `item_record`. Loads no model; knows nothing about files
but the wavs it saves.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from echox.errors import ConfigError, EndpointError
from echox.eval.judges import Judge
from echox.eval.model_under_test import NO_SOUND, SILENCE, Failure, Subject, ask_all, at_16k, say_all, sounds_of
from echox.eval.probes import can_turn_off, untouched
from echox.eval.questions import Item, chosen, load_question
from echox.eval.results import Results
from echox.eval.scorers.answers import Scorer
from echox.eval.tables import FORM
from echox.eval.tasks.spoken_answers import spoken_record
from echox.generate.types import Question

ARMS = ("t2t", FORM, "t2t-off", "s2s", "s2t", "teacher", "cascade")
"""Every arm, in the order in which they run: s2s before s2t and teacher, which use its text."""
SPOKEN_QUESTION = frozenset({"s2s", "s2t", "teacher", "cascade"})
SPOKEN_ANSWER = frozenset({"s2s", "teacher", "cascade"})
ADAPTERS_OFF = frozenset({"t2t-off", "cascade"})
"""Arms of the language model as it was before it learned to hear; they run in a pass of their own."""
CUT = frozenset({"length", "max_tokens", "max_seconds"})
FAILURES_IN_A_ROW = 12
FAILURES_AT_THE_START = 3
"""So many failures in a row stop a run, at any time and while a server has answered nothing yet."""


@dataclass
class QaRun:
    """Everything one run needs; `speaker` says the texts of teacher and cascade, `options` go to every `ask`.

    `places` are the questions' places in their file, which are written down for `echox eval export`.
    """

    subject: Subject
    judge: Judge | None
    scorers: Sequence[Scorer]
    folder: Path
    recogniser: Judge | None = None
    speaker: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    batch: int = 8
    tell: Callable[[int], None] = lambda count: None
    places: dict[str, int] = field(default_factory=dict)
    failures: int = 0
    answered: bool = False


def choose_arms(names: str, subject_can_turn_off: bool = True) -> tuple[str, ...]:
    """Return the arms of a comma-separated list in running order; `t2t` brings `t2t-off` along where that exists.

    Raises ConfigError for an unknown name.
    """
    wanted = set(chosen(names, ARMS, "--arms"))
    if "t2t" in wanted and subject_can_turn_off:
        wanted.add("t2t-off")
    return tuple(arm for arm in ARMS if arm in wanted)


def run_arms(run: QaRun, questions: Sequence[Item], arms: Sequence[str], results: Results) -> None:
    """Answer, judge, score and write every (arm, question) that `results` does not hold yet, a batch at a time.

    Raises EndpointError when a dozen questions in a row fail, or a server's first three: it is gone, and resuming is
    cheaper than waiting.
    """
    off = [arm for arm in arms if arm in ADAPTERS_OFF and (arm == "t2t-off" or can_turn_off(run.subject))]
    for some in ([arm for arm in arms if arm not in off], off):
        if all((arm, item.id) in results.done for arm in some for item in questions):
            continue
        one, start = replace(run, subject=untouched(run.subject)) if some is off else run, 0
        while start < len(questions):
            end = start + _batch_size(one)
            replies: dict[str, Any] = {}
            for arm in some:
                for batch in results.batches(arm, questions[start:end], one.batch):
                    _run_batch(one, arm, batch, results, replies)
            start = end


def _batch_size(run: QaRun) -> int:
    """Return how many questions to ask next: no more than three of a server that has not answered yet."""
    alone = getattr(run.subject, "ask_many", None) is None
    return min(run.batch, FAILURES_AT_THE_START) if alone and not run.answered else run.batch


def _run_batch(run: QaRun, arm: str, batch: Sequence[Item], results: Results, replies: dict[str, Any]) -> None:
    """Run one arm on one batch and append its items; `replies` carries s2s's answers to the arms after it."""
    heard: list[str | None] = [None] * len(batch)
    if arm in ("t2t", FORM, "t2t-off"):
        form = in_form if arm == FORM else str
        answers = ask_all(run.subject, [Question(typed=form(item.question)) for item in batch], True, **run.options)
    elif arm == "teacher":
        answers = _teacher(run, batch, results, replies)
    elif arm == "cascade":
        heard, answers = _cascade(run, batch)
    else:
        answers = _spoken(run, batch, arm == "s2t", replies)
        heard = [getattr(answer, "heard", None) or None for answer in answers]
    if arm in SPOKEN_ANSWER:
        answers = [_whole(answer) for answer in answers]
    words = _transcribe(run, answers) if arm in SPOKEN_ANSWER else [None] * len(batch)
    for item, answer, said, words_heard in zip(batch, answers, words, heard, strict=True):
        record = item_record(run, arm, item, answer, said)
        record["heard"] = words_heard
        results.append(record)
        run.tell(1)
        _count_failures(run, record["error"])


def in_form(question: str) -> str:
    """Return a question as one writes it: a capital first, and at the end a question mark unless the sentence ends otherwise."""
    question = question.strip()
    return question[:1].upper() + question[1:] + ("" if question.endswith((".", "?", "!")) else "?")


def _count_failures(run: QaRun, error: str) -> None:
    """Raise EndpointError when so many questions in a row have failed that the next one will, too."""
    run.failures = run.failures + 1 if error else 0
    run.answered = run.answered or not error
    dead = error.startswith("endpoint:") and not run.answered
    if run.failures >= (FAILURES_AT_THE_START if dead else FAILURES_IN_A_ROW):
        first = "the first " if dead else ""
        raise EndpointError(
            f"{first}{run.failures} questions in a row failed, the last with: {error}; mend it and resume."
        )


def _spoken(run: QaRun, batch: Sequence[Item], text_only: bool, replies: dict[str, Any]) -> list[Any]:
    """Return answers to the spoken questions, those in `replies` again; a failed one is asked again for text alone."""
    missing = [q for q in batch if q.id not in replies or (text_only and isinstance(replies[q.id], Failure))]
    waves: dict[str, Any] = {item.id: load_question(item) for item in missing}
    usable = [item for item in missing if not isinstance(waves[item.id], Failure)]
    if usable:
        answers = ask_all(run.subject, [Question(waves[item.id]) for item in usable], text_only, **run.options)
        waves |= dict(zip((item.id for item in usable), answers, strict=True))
    replies |= waves
    return [replies[item.id] for item in batch]


def _cascade(run: QaRun, batch: Sequence[Item]) -> tuple[list[str | None], list[Any]]:
    """Return what the recogniser heard and the spoken answers to it; times add up recogniser, LLM and voice."""
    if run.recogniser is None:
        raise ConfigError("the cascade needs a recogniser: give --recogniser or --judge.")
    loaded = [load_question(item) for item in batch]
    started = time.perf_counter()
    heard = run.recogniser.transcribe(sounds_of(loaded))
    hearing = time.perf_counter() - started
    typed = ask_all(run.subject, [Question(typed=words or "...") for words in heard], True, **run.options)
    own = [wave if isinstance(wave, Failure) else answer for wave, answer in zip(loaded, typed, strict=True)]
    return list(heard), _say(run, own, hearing)


def _teacher(run: QaRun, batch: Sequence[Item], results: Results, replies: dict[str, Any]) -> list[Any]:
    """Return the model's own texts spoken: from this batch, from the file of an earlier run, or asked now."""
    written: dict[str, Any] = {}
    for arm in ("s2t", "s2s"):
        for item in (results.items[arm, q.id] for q in batch if (arm, q.id) in results.items):
            if item["finish"] != "error":
                seconds = float(item.get("wall_seconds") or 0.0)
                written[item["id"]] = replace(SILENCE, text=item["text"], finish=item["finish"], wall_seconds=seconds)
    tried = {q.id: Failure(results.items["s2t", q.id]["error"]) for q in batch if ("s2t", q.id) in results.items}
    known = tried | {id: reply for id, reply in replies.items() if not isinstance(reply, Failure)} | written
    _spoken(run, [q for q in batch if q.id not in known], True, replies)
    return _say(run, [known.get(q.id) or replies[q.id] for q in batch])


def _say(run: QaRun, own: Sequence[Any], seconds: float = 0.0) -> list[Any]:
    """Return texts spoken, each with the reason why its text ended and with the seconds that were spent before."""
    spoken = say_all(run.speaker, [text.text for text in own], **run.options)
    return [_after(text, said, seconds) for text, said in zip(own, spoken, strict=True)]


def _after(own: Any, said: Any, seconds: float) -> Any:
    """Return what was said of an answer with the answer's reason and times; the first Failure where there is one."""
    if isinstance(own, Failure):
        return own
    if isinstance(said, Failure):
        return said
    before = seconds + float(own.wall_seconds or 0.0)
    first = None if said.first_audio_seconds is None else before + said.first_audio_seconds
    finish = own.finish if own.finish in CUT else said.finish
    return replace(said, finish=finish, wall_seconds=before + said.wall_seconds, first_audio_seconds=first)


def _transcribe(run: QaRun, answers: Sequence[Any]) -> list[str | None]:
    if run.judge is None:
        raise ConfigError("spoken answers need a judge: give --judge with a recogniser.")
    waves = [NO_SOUND if _audio(a) is None else at_16k(a.audio, a.sample_rate) for a in answers]
    return list(run.judge.transcribe(waves))


def item_record(run: QaRun, arm: str, item: Item, answer: Any, transcript: str | None) -> dict[str, Any]:
    """Return what is written about one question in one arm; a failed one scores 0 and says why in `error`."""
    failed = isinstance(answer, Failure)
    text = str(answer.text)
    prediction = text if transcript is None else transcript
    record: dict[str, Any] = {"arm": arm, "id": item.id, "kind": item.kind, "question": item.question}
    record |= {"place": run.places.get(item.id), "question_audio": None if item.audio is None else str(item.audio)}
    record |= {"answers": list(item.answers), "heard": None, "text": text, "transcript": transcript}
    error = answer.reason if failed else ""
    scores, fault = _score(run.scorers, "" if failed else prediction, item)
    again = () if failed or text == prediction else run.scorers[:1]  # the own text, where something else was heard
    own, own_fault = _score(again, text, item)
    record |= {"score": scores[run.scorers[0].name], "scores": scores, "error": error or fault or own_fault}
    record["text_score"] = own.get(run.scorers[0].name, record["score"])
    record["empty"] = not failed and not prediction.strip()
    record["finish"] = "error" if failed else str(getattr(answer, "finish", "stop"))
    record["cut"] = not failed and record["finish"] in CUT
    if not failed:
        for name in ("wall_seconds", "first_audio_seconds"):
            seconds = getattr(answer, name)
            record[name] = None if seconds is None else float(seconds)
    if transcript is not None and not failed:
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


def _audio(answer: Any) -> np.ndarray | None:
    audio = None if isinstance(answer, Failure) else answer.audio
    return None if audio is None or not len(audio) else audio


def _whole(answer: Any) -> Any:
    audio = _audio(answer)
    if audio is not None and not np.isfinite(audio).all():
        return Failure("the answer's audio holds samples that are not finite numbers", str(answer.text))
    return answer
