"""The text model's own answers to typed questions, and training targets made of them: file to file, resumable; knows no audio.

A model that learns to answer spoken questions with its own typed answers keeps its knowledge. Where its answer is wrong, the
target is a short carrier sentence with the gold answer. Questions without a gold answer (small talk) take its own first sentence.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import NonNegativeInt, PositiveInt

from echox.config.load import Settings, known
from echox.config.record import RUN, Record, check_same, write_run
from echox.config.shard import Shard
from echox.data.batching import groups
from echox.data.manifest import gold_answers, read_fields, write_jsonl
from echox.errors import InputError
from echox.files import LINES_BYTES, drop_partial_line, only_one, read_text, refuse_others
from echox.models.decoding import at_most
from echox.models.device import pick_device
from echox.models.llm import Place, load_llm, load_tokenizer, settle_llm, text_of_pieces, token_pieces
from echox.models.s2t import SpeechToText
from echox.prepare.texts import SPEAKABLE
from echox.text.normalize import holds_answer
from echox.text.prompt import ChatDialect, Turn, encode, stop_ids
from echox.text.segmenter import PhraseSegmenter, PhraseSettings, cut_text
from echox.text.speakable import aloud

SYSTEM = "You are a helpful voice assistant. Answer in one short sentence."
CARRIER = "The answer is {}."
LONGEST = 18  # words of a sentence that is kept
BATCH = 96  # questions answered together
SENTENCE = re.compile(r"\s*(.+?(?<!\b[A-Z])(?<!\b(?:Mr|Dr|St))(?<!\bMrs)[.!?])(?=\s|$)", flags=re.S)
LONG_NUMBER = re.compile(r"\d{4}[\d,]{12,}")  # no voice has words for these


class Recipe(Settings):
    """Recipe of stage `answers`: `questions` and `talk` are typed to the LLM, and targets are made of its answers."""

    stage: Literal["answers"]
    out: Path  # the folder that gets own.jsonl, targets.jsonl and spoken.jsonl (what the voice will be asked to say)
    llm: Path
    questions: Path  # JSONL with id, question, answers
    own_questions: NonNegativeInt = 6000  # the first so many are asked; the others get the carrier sentence
    talk: Path | None = None  # JSONL with id, text: those that are questions are small talk
    talk_questions: NonNegativeInt = 2500
    system: str = SYSTEM
    llm_dtype: Literal["float32", "bfloat16"] = "float32"
    max_new_tokens: PositiveInt = 32
    phrases: Annotated[dict[str, int], known(PhraseSettings)] = {}  # where phrases end a segment, as in stage pack
    device: str = "auto"
    shard: Shard = (0, 1)


def run(recipe: Recipe) -> Path:
    """Answer the questions that are left, then write the targets; of several shards the last to finish writes them."""
    record = Record.of(recipe)
    check_same(recipe.out, record, only=("stage", "llm", "llm_dtype", "system", "max_new_tokens"))
    refuse_others(recipe.out, ["own.jsonl", "targets.jsonl", "spoken.jsonl"], RUN)
    rows, (part, parts) = typed_questions(recipe), recipe.shard
    write_run(recipe.out, record, "done")  # a file of answers is whole, line by line
    tokenizer = load_tokenizer(recipe.llm)
    place = Place(pick_device(recipe.device), getattr(torch, recipe.llm_dtype), packed=True)
    s2t = SpeechToText.plain(load_llm(recipe.llm, place))
    settle_llm(s2t.llm, place)
    name = "own.jsonl" if parts == 1 else f"own-{part}-of-{parts}.jsonl"
    known = answered(recipe.out, rows)
    todo = [row for row in rows[part::parts] if row["id"] not in known]
    with only_one(recipe.out, f".{name}.lock"):
        answer_file(s2t, tokenizer, todo, recipe.out / name, recipe.system, recipe.max_new_tokens)
    own = list(answered(recipe.out, rows).values())
    if len(own) == len(rows):
        if parts > 1:
            write_jsonl(recipe.out / "own.jsonl", own)
        write_targets(recipe.questions, own, recipe.out / "targets.jsonl")
        write_jsonl(recipe.out / "spoken.jsonl", segments(own, tokenizer, PhraseSegmenter(**recipe.phrases)))
    return recipe.out


def typed_questions(recipe: Recipe) -> list[dict[str, str]]:
    """Return {"id", "question"} of all questions to type; InputError for a line without them, or no line."""
    asked = list(read_fields(recipe.questions, "question"))
    for record in asked:
        gold_answers(record, recipe.questions)  # before anything is asked
    rows = [{"id": record["id"], "question": record["question"]} for record in asked[: recipe.own_questions]]
    if recipe.talk is not None:
        talk = [record for record in read_fields(recipe.talk, "text") if record["text"].endswith("?")]
        rows += [{"id": f"talk-{r['id']}", "question": r["text"]} for r in talk[: recipe.talk_questions]]
    if not rows:
        raise InputError(f"{recipe.questions} is empty: make it first.")
    return list({row["id"]: row for row in rows}.values())


def answered(out: Path, rows: list[dict[str, str]]) -> dict[str, dict[str, Any]]:
    """Return the answers in `out` by id, in the order of `rows`, without those whose question has changed."""
    found = {}
    for path in sorted(out.glob("own*.jsonl")):
        whole = read_text(path, LINES_BYTES).rpartition("\n")[0]  # another process may be writing the last line
        try:
            records = [json.loads(line) for line in whole.splitlines()]
            found |= {(record["id"], record["question"]): record for record in records}
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} holds a line that is no answer ({error}): remove the line.") from error
    keys = [(row["id"], row["question"]) for row in rows]
    return {key[0]: found[key] for key in keys if key in found}


def segments(
    answers: list[dict[str, Any]], tokenizer: Any, segmenter: PhraseSegmenter | None = None
) -> Iterator[dict[str, str]]:
    """Yield {"id", "text"} of every distinct segment of the answers, normalised for speech, if a voice can say it."""
    seen = set()
    for answer in answers:
        pieces = token_pieces(tokenizer, encode(tokenizer, answer["answer"]))
        for number, (first, end) in enumerate(cut_text(pieces, segmenter)):
            written = text_of_pieces(pieces[first:end]).strip()
            text = aloud(written)
            sayable = SPEAKABLE.fullmatch(text) and not LONG_NUMBER.search(written)
            if len(text) > 1 and text not in seen and sayable:
                seen.add(text)
                yield {"id": f"{answer['id']}-{number}", "text": text}


def answer_typed(
    s2t: SpeechToText, tokenizer: Any, questions: list[str], system: str = SYSTEM, max_new_tokens: int = 40
) -> list[str]:
    """Return the model's greedy answers to a batch of typed questions, as an assistant would give them."""
    dialect = ChatDialect(tokenizer, system)
    prompts = [s2t.row(dialect.prompt([Turn("user", question)]), []) for question in questions]
    made = s2t.generate(prompts, stop_ids(tokenizer, s2t.llm), at_most(max_new_tokens))
    return [tokenizer.decode(one.ids, skip_special_tokens=True) for one in made]


def answer_file(
    s2t: SpeechToText, tokenizer: Any, rows: list[dict], target: Path, system: str = SYSTEM, max_new_tokens: int = 40
) -> None:
    """Append {"id", "question", "answer"} to `target` for every row, in batches; a partial last line is dropped first."""
    if target.exists():
        drop_partial_line(target, b"{")
    with target.open("a", encoding="utf-8") as out:
        for some in groups(rows, BATCH):
            answers = answer_typed(s2t, tokenizer, [row["question"] for row in some], system, max_new_tokens)
            for row, answer in zip(some, answers, strict=True):
                line = {"id": row["id"], "question": row["question"], "answer": answer.strip()}
                out.write(json.dumps(line, ensure_ascii=False) + "\n")
            out.flush()


def first_sentence(text: str) -> str:
    """Return the first sentence of the text, or '' when it does not end."""
    match = SENTENCE.match(text)
    return " ".join(match.group(1).split()) if match else ""


def target(answers: list[str], own: str | None) -> str | None:
    """Return the answer to learn, or None when there is none worth learning."""
    sentence = first_sentence(own or "")
    short = bool(sentence) and len(sentence.split()) <= LONGEST
    if answers and not (short and holds_answer(sentence, answers)):
        return CARRIER.format(answers[0].strip().rstrip("."))
    return sentence if short else None


def write_targets(questions: Path, own: list[dict[str, Any]], out: Path) -> None:
    """Write {"id", "question", "answer"} lines.

    `questions` hold gold answers, `own` the model's typed answers by id; ids that only `own` holds are small talk.
    """
    said = {record["id"]: record for record in own}
    asked = list(read_fields(questions, "question"))
    known = {record["id"] for record in asked}
    rows = []
    for record in (*asked, *(record for name, record in said.items() if name not in known)):
        answer = target(gold_answers(record, questions), said.get(record["id"], {}).get("answer"))
        if answer is not None:
            rows.append({"id": record["id"], "question": record["question"], "answer": answer})
    write_jsonl(out, rows)
