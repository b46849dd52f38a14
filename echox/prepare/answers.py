"""What the text model itself answers to typed questions: file to file, resumable; it knows no audio.

These are the targets that keep a text model's knowledge when it learns to listen: spoken question, its own typed answer.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch

from echox.config.load import Settings
from echox.data.manifest import read_jsonl, write_jsonl
from echox.models.llm import load_llm, load_tokenizer, token_pieces
from echox.prepare.targets import write_targets
from echox.prepare.texts import SPEAKABLE
from echox.text.prompt import encode
from echox.text.segmenter import cut_text

SYSTEM = "You are a helpful voice assistant. Answer in one short sentence."
LONG_NUMBER = re.compile(r"\d{4}[\d,]{12,}")  # no voice has words for these


class Recipe(Settings):
    """Recipe of stage `answers`: `questions` and `talk` are typed to the LLM, and targets are made of its answers."""

    stage: Literal["answers"]
    out: Path  # the folder that gets own.jsonl, targets.jsonl and spoken.jsonl (what the voice will be asked to say)
    llm: Path
    questions: Path  # JSONL with id, question, answers
    own_questions: int = 6000  # the first so many in the file are also asked; the rest gets the carrier sentence
    talk: Path | None = None  # JSONL with id, text: those that are questions are small talk
    talk_questions: int = 2500
    system: str = SYSTEM
    llm_dtype: Literal["float32", "bfloat16"] = "float32"
    max_new_tokens: int = 32


def run(recipe: Recipe) -> Path:
    """Ask what was not asked yet, then write the targets."""
    asked = read_jsonl(recipe.questions)[: recipe.own_questions]
    rows = [{"id": r["id"], "question": r["question"]} for r in asked]
    if recipe.talk is not None:
        talk = [r for r in read_jsonl(recipe.talk) if r["id"].startswith("tatoeba") and r["text"].endswith("?")]
        rows += [{"id": f"talk-{r['id']}", "question": r["text"]} for r in talk[: recipe.talk_questions]]
    recipe.out.mkdir(parents=True, exist_ok=True)
    own = recipe.out / "own.jsonl"
    llm = load_llm(recipe.llm, getattr(torch, recipe.llm_dtype))
    answer_file(llm, load_tokenizer(recipe.llm), rows, own, recipe.system, recipe.max_new_tokens)
    write_targets(recipe.questions, own, recipe.out / "targets.jsonl")
    write_jsonl(recipe.out / "spoken.jsonl", segments(read_jsonl(own), load_tokenizer(recipe.llm)))
    return recipe.out


def segments(answers: list[dict[str, Any]], tokenizer: Any) -> Iterator[dict[str, str]]:
    """Yield {"id", "text"} of every distinct segment in which answers are voiced, as far as a voice can say it."""
    seen = set()
    for answer in answers:
        pieces = token_pieces(tokenizer, encode(tokenizer, answer["answer"]))
        for number, (first, end) in enumerate(cut_text(pieces)):
            text = "".join(pieces[first:end]).strip()
            sayable = SPEAKABLE.fullmatch(text) and not LONG_NUMBER.search(text)
            if len(text) > 1 and text not in seen and sayable:
                seen.add(text)
                yield {"id": f"{answer['id']}-{number}", "text": text}


def answer_typed(
    llm: Any, tokenizer: Any, questions: list[str], system: str = SYSTEM, max_new_tokens: int = 40
) -> list[str]:
    """Return the model's greedy answers to a batch of typed questions."""
    prompts = []
    for question in questions:
        turns = [{"role": "system", "content": system}, {"role": "user", "content": question}]
        prompts.append(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    with torch.inference_mode():
        tokens = llm.generate(
            **batch.to(llm.device), max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
    return tokenizer.batch_decode(tokens[:, batch.input_ids.shape[1] :], skip_special_tokens=True)


def answer_file(
    llm: Any, tokenizer: Any, rows: list[dict], target: Path, system: str = SYSTEM, max_new_tokens: int = 40
) -> None:
    """Append {"id", "question", "answer"} to `target` for every row that it does not hold yet."""
    done = {record["id"] for record in read_jsonl(target)} if target.exists() else set()
    todo = [row for row in rows if row["id"] not in done]
    with target.open("a", encoding="utf-8") as out:
        for some in _chunks(todo, 96):
            answers = answer_typed(llm, tokenizer, [row["question"] for row in some], system, max_new_tokens)
            for row, answer in zip(some, answers, strict=True):
                line = {"id": row["id"], "question": row["question"], "answer": answer.strip()}
                out.write(json.dumps(line, ensure_ascii=False) + "\n")
            out.flush()


def _chunks(items: list[dict], size: int) -> Iterator[list[dict]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
