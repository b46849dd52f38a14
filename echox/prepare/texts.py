"""The `texts` step: sources in, `qa_train.jsonl`, `qa_heldout.jsonl`, `qa_reserve.jsonl`, `sentences.jsonl`, `short.jsonl` out.

Knows nothing about audio. Every choice is a hash of the text, so the same sources give the same files in any order
and on any machine (questions that are measured are never trained on, nor nearly repeated).
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from echox.data.manifest import write_jsonl
from echox.errors import ConfigError
from echox.files import refuse_others
from echox.prepare.recipe import Recipe, Source, Texts
from echox.prepare.sources import Question, read_captions, read_replies, read_tatoeba, read_trivia, read_webquestions
from echox.text.speakable import words_of

FILES = ("qa_train", "qa_heldout", "qa_reserve", "sentences", "short")
QUESTION_WORDS, ANSWER_WORDS, SHORT_WORDS = 18, 6, 4  # at most
WH_WORDS = frozenset(["what", "who", "whom", "whose", "which", "when", "where", "why", "how"])
NEEDS_CHOICES = re.compile(
    r"(?i)\b(these|following|except|one of them|listed|below|above|pictured?|true or false|not true|odd one|"
    r"which (one )?(of|is not|does not|did not|was not)|not (a|an|one) )\b|_{2,}|\.\.\.|\n"
)
NOT_AN_ANSWER = re.compile(r"(?i)\b(all of|none of|both|neither|any of|true|false|yes|no|of these|of the above)\b")
LETTER = "[0-9A-Za-zÀ-ÖØ-öø-ɏ]"  # of the scripts that an English voice can say
SPEAKABLE = re.compile(rf"{LETTER}(?:{LETTER}|[ ,.'’?!:;&%$+/\-–\"()])*")
CARRIERS = (
    "{}.",
    "The answer is {}.",
    "It was {}.",
    "It is {}.",
    "I believe it is {}.",
    "That would be {}.",
    "I think it was {}.",
    "The correct answer is {}.",
    "That was {}, as far as I know.",
    "It is called {}.",
)
NUMBER_CARRIERS = (
    *CARRIERS[:6],
    "It happened in {}.",
    "There are {} of them.",
    "He was born in {}.",
    "About {}.",
    "is approximately {}",
    "standing at {}",
    "with a length of {} and a width of {}.",
    "It is {} ({}) tall.",
    "of {}, or {},",
    "from {} to {}.",
)
NUMBER_UNITS = (
    "", "", " years", " miles", " days", " people", " percent", "%", " dollars", " feet", " million", " degrees", " meters",
    " kilometers", " km", " m", " square miles", " pounds", " kg", "°C", "°F", " times", " hours", " minutes", " billion",
)  # fmt: skip
MONTHS = tuple("January February March April May June July August September October November December".split())


def words(text: str) -> list[str]:
    """Return the lower-case words of a text, without punctuation."""
    return re.findall(r"[a-z0-9]+(?:'[a-z]+)?", text.lower().replace("’", "'"))


def fraction(*parts: str) -> float:
    """Return a number in [0, 1) that depends only on the given strings (sha256)."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def is_askable(entry: Question) -> bool:
    """Tell whether a question can be asked aloud, without choices, and answered in a few speakable words."""
    asked = words(entry.question)
    return (
        entry.question.endswith("?")
        and 3 <= len(asked) <= QUESTION_WORDS
        and any(word in WH_WORDS for word in asked[:5])
        and not NEEDS_CHOICES.search(entry.question)
        and SPEAKABLE.fullmatch(entry.question) is not None
        and any(is_short_answer(answer) for answer in entry.answers)
    )


def is_short_answer(answer: str) -> bool:
    """Tell whether an answer has 1 to `ANSWER_WORDS` words that a voice can say and stands without the choices."""
    count = len(words(answer))
    speakable = SPEAKABLE.fullmatch(answer) is not None
    return 1 <= count <= ANSWER_WORDS and speakable and not NOT_AN_ANSWER.search(answer)


def unique(questions: Iterable[Question]) -> list[Question]:
    """Return the questions whose words have not been seen before, in order."""
    seen: set[tuple[str, ...]] = set()
    kept = []
    for entry in questions:
        key = tuple(words(entry.question))
        if key not in seen:
            seen.add(key)
            kept.append(entry)
    return kept


def lowest(questions: Sequence[Question], count: int, salt: str) -> list[Question]:
    """Return the `count` questions with the lowest hash: a random choice that does not depend on order."""
    return sorted(questions, key=lambda entry: fraction(salt, " ".join(words(entry.question))))[:count]


def near_repeats(questions: Sequence[Question], held_out: Sequence[Question], limit: float = 0.8) -> set[str]:
    """Return ids of questions whose word set has Jaccard similarity >= `limit` with a held-out one.

    Through an index of words, only pairs that share one are compared (twin: `near_repeats_reference` in the tests).
    """
    test_sets = [frozenset(words(entry.question)) for entry in held_out]
    holders: dict[str, list[int]] = defaultdict(list)
    for index, own in enumerate(test_sets):
        for word in own:
            holders[word].append(index)
    found = set()
    for entry in questions:
        own = frozenset(words(entry.question))
        shared: dict[int, int] = defaultdict(int)
        for word in own:
            for index in holders.get(word, ()):
                shared[index] += 1
        if any(n >= limit * (len(own) + len(test_sets[index]) - n) for index, n in shared.items()):
            found.add(entry.id)
    return found


def answer_sentences(questions: Iterable[Question], per_answer: int = 1) -> list[tuple[str, str]]:
    """Return (id, sentence) with every distinct short answer inside `per_answer` hash-chosen carrier sentences."""
    sentences = []
    seen: set[str] = set()
    for entry in questions:
        for index, answer in enumerate(entry.answers):
            answer = answer.strip().rstrip(".")
            if answer.lower() in seen or not is_short_answer(answer):
                continue
            seen.add(answer.lower())
            order = sorted(CARRIERS, key=lambda carrier: fraction("carrier", answer, carrier))
            for turn, carrier in enumerate(order[:per_answer]):
                sentences.append((f"answer-{entry.id}-{index}-{turn}", carrier.format(answer)))
    return sentences


def choice_sentences(questions: Iterable[Question], count: int) -> list[tuple[str, str]]:
    """Return (id, sentence) for `count` hash-chosen wrong choices, each in one carrier: more names than answers have.

    A choice that is also the right answer of some question is left to `answer_sentences`.
    """
    entries = list(questions)
    answers = {answer.lower().strip().rstrip(".") for entry in entries for answer in entry.answers}
    found: dict[str, str] = {}
    for choice in (choice.strip().rstrip(".") for entry in entries for choice in entry.choices):
        if choice.lower() not in answers and is_short_answer(choice):
            found.setdefault(choice.lower(), choice)
    chosen = sorted(found, key=lambda key: fraction("choice", key))[:count]
    carried = [min(CARRIERS, key=lambda one: fraction("carrier", found[key], one)).format(found[key]) for key in chosen]
    return [(f"choice-{index:06d}", text) for index, text in enumerate(carried)]


def number_sentences(count: int) -> list[tuple[str, str]]:
    """Return (id, sentence) with years, dates and amounts that follow from their index alone; three of four in words."""
    sentences = []
    for index in range(count):
        key = f"number-{index:05d}"
        carrier = min(NUMBER_CARRIERS, key=lambda carrier: fraction("carrier", key, carrier))
        text = carrier.format(*(_number(f"{key}-{place}") for place in range(carrier.count("{}"))))
        sentences.append((key, text if index % 4 == 0 else words_of(text)))
    return sentences


def _number(key: str) -> str:
    kind, draw = fraction("number-kind", key), fraction("number", key)
    if kind < 0.2:
        return str(int(2030 - 1000 * draw**3))
    if kind < 0.3:
        month = MONTHS[int(12 * fraction("month", key))]
        return f"{month} {1 + int(31 * draw)}" + (f", {int(1700 + 325 * draw)}" if kind < 0.25 else "")
    if kind < 0.35:
        return f"${int(10 ** (1 + 4 * draw)):,}"
    unit = NUMBER_UNITS[int(len(NUMBER_UNITS) * fraction("unit", key))]
    amount = 10 ** (1 + 4 * draw) if kind > 0.65 and not unit.endswith("illion") else 2 + 120 * draw
    return (f"{amount:,.1f}" if fraction("decimal", key) < 0.3 else f"{int(amount):,}") + unit


def plain_sentences(
    lines: Iterable[str], source: str, count: int, min_words: int = 3, max_words: int = 14
) -> list[tuple[str, str]]:
    """Return (id, sentence) for `count` hash-chosen distinct speakable lines of `min_words` to `max_words` words."""
    seen: dict[str, str] = {}
    for line in lines:
        if min_words <= len(words(line)) <= max_words and SPEAKABLE.fullmatch(line):
            seen.setdefault(" ".join(words(line)), line)
    chosen = sorted(seen, key=lambda key: fraction(source, key))[:count]
    return [(f"{source}-{index:06d}", seen[key]) for index, key in enumerate(chosen)]


def short_utterances(texts: Texts, lines: Sequence[str], answers: Sequence[str]) -> list[tuple[str, str]]:
    """Return (id, text), in hash order, of what is said in at most `SHORT_WORDS` words, which has no context to be heard by.

    Short sentences and stretches of longer ones among `lines`, `answers`, and every number to a hundred; what people say to an
    assistant (`texts.replies`) so often that many voices say it.
    """
    said = plain_sentences(lines, "short", texts.short_sentences, min_words=1, max_words=SHORT_WORDS)
    said += [(f"stretch-{n:05d}", text) for n, text in enumerate(stretches_of(lines, texts.short_stretches))]
    short = sorted({one for one in answers if is_short_answer(one)}, key=lambda one: fraction("short", one))
    said += [(f"answer-{n:05d}", f"{one}.") for n, one in enumerate(short[: texts.short_answers])]
    replies = read_replies(texts.replies) + [f"{words_of(str(n))}." for n in range(101)] if texts.replies else []
    said += [(f"reply-{n:04d}-{turn:02d}", text) for n, text in enumerate(replies) for turn in range(texts.reply_times)]
    capitalised = ((key, text[0].upper() + text[1:]) for key, text in said)
    return sorted(capitalised, key=lambda pair: fraction("order", pair[0]))


def stretches_of(lines: Sequence[str], count: int) -> list[str]:
    """Return `count` hash-chosen stretches of 1 to `SHORT_WORDS` words that stand in a line, each once, with a full stop."""
    found: dict[str, None] = {}
    for line in sorted(lines, key=lambda line: fraction("stretch", line)):
        if len(found) >= count:
            break
        parts = line.rstrip(".?!").split()
        length = min(len(parts), 1 + int(SHORT_WORDS * fraction("length", line)))
        first = int((len(parts) - length + 1) * fraction("first", line))
        text = " ".join(parts[first : first + length]).strip(",;:()\"' ")
        if words(text) and SPEAKABLE.fullmatch(text):
            found[f"{text}."] = None
    return list(found)


def shuffled(sentences: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return sentences with distinct text, in hash order."""
    by_text: dict[str, str] = {}
    for key, text in sentences:
        by_text.setdefault(text, key)
    return sorted(((key, text) for text, key in by_text.items()), key=lambda pair: fraction("order", pair[1]))


def _path(recipe: Recipe, name: str) -> Path:
    if recipe.sources is None:
        raise ConfigError("the recipe names no sources: its texts are written by a stage of `echox train`.")
    source: Source = getattr(recipe.sources, name)
    if source.path is None:
        raise ConfigError(f"source {name} has no local path: download {source.url} and give --source {name}=FOLDER.")
    return source.path


def split_questions(recipe: Recipe) -> tuple[list[Question], list[Question], list[Question]]:
    """Return (train, measured, reserve) questions.

    Measured and reserve hold WebQuestions val and devtest whole and a hash-chosen part of the trivia; train holds the
    rest of the trivia and WebQuestions trainmodel, without near repeats of either.
    """
    settings = recipe.texts
    web = _path(recipe, "webquestions")
    trivia = unique(filter(is_askable, read_trivia(_path(recipe, "opentriviaqa"))))
    web_test = unique([*read_webquestions(web / "val.json"), *read_webquestions(web / "devtest.json")])
    web_test = lowest(web_test, len(web_test), "held-out")
    trivia_test = lowest(trivia, settings.trivia_held_out, "held-out")
    half = settings.measured_per_source
    turns = zip(web_test[:half], trivia_test[:half], strict=False)
    measured = [entry for pair in turns for entry in pair]  # any even prefix is half of each
    reserve = [*web_test[half:], *trivia_test[half:]]
    train = unique([*trivia, *filter(is_askable, read_webquestions(web / "trainmodel.json"))])
    repeats = near_repeats(train, [*measured, *reserve], settings.near_repeat_jaccard)
    train = [entry for entry in train if entry.id not in repeats]
    return lowest(train, len(train), "train"), measured, reserve


def write_texts(recipe: Recipe, folder: Path) -> dict[str, int]:
    """Write the five text files into `folder` and return how many lines each has."""
    refuse_others(folder, [f"{name}.jsonl" for name in FILES], "qa_train.jsonl", b'{"id": ')
    train, measured, reserve = split_questions(recipe)
    captions = _path(recipe, "multi30k")
    captions = next((path for path in (captions / "train.en.gz", captions / "train.en") if path.exists()), captions)
    tatoeba = _path(recipe, "tatoeba")
    english = [line for line, _ in read_tatoeba(tatoeba / "fra-eng.zip" if tatoeba.is_dir() else tatoeba)]
    counts = recipe.texts
    sentences = shuffled(
        [
            *answer_sentences(train, counts.carriers_per_answer),
            *choice_sentences(train, counts.choice_sentences),
            *number_sentences(counts.number_sentences),
            *plain_sentences(english, "tatoeba", counts.tatoeba_sentences),
            *plain_sentences(read_captions(captions), "multi30k", counts.multi30k_sentences, max_words=18),
        ]
    )
    said = [*english, *(text for _, text in sentences), *(entry.question for entry in train)]
    short = short_utterances(counts, said, [answer for entry in train for answer in entry.answers])
    files = dict(zip(FILES, (train, measured, reserve), strict=False))
    for name, questions in files.items():
        rows = ({key: value for key, value in asdict(entry).items() if key != "choices"} for entry in questions)
        write_jsonl(folder / f"{name}.jsonl", rows)
    for name, said in zip(FILES[3:], (sentences, short), strict=True):
        write_jsonl(folder / f"{name}.jsonl", ({"id": key, "text": text} for key, text in said))
    return {name: len(rows) for name, rows in (files | {"sentences": sentences, "short": short}).items()}
