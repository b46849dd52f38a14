"""Spoken sets: typed answers in, chosen questions out, spoken once by held-out voices and spoilt in several ways.

    DIR/questions.tsv           id question answers audio kind, the kind being typed-right or typed-wrong
    DIR/set.json                how the set was made, and how many questions of each kind it was chosen from
    DIR/<condition>/<id>.wav    clean, noise, telephone, room: the same utterances

Few questions of a pool are answered right by a small model, so a sample of the pool says little about what is kept of
them. A set holds the right ones and as many wrong ones, chosen by hash; how many each stands for is written down, and
`qa_tables.py` puts them together again. Made by `echox eval spoken-set`, which goes on where it was stopped.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from echox.audio import PCM16_SCALE, SAMPLE_RATE, load_audio
from echox.data.manifest import read_jsonl
from echox.errors import ConfigError, InputError
from echox.eval.questions import (
    Item,
    check_questions,
    chosen,
    one_line,
    read_questions,
    safe_name,
    save_sound,
    take,
    write_questions,
)
from echox.eval.results import read_results
from echox.eval.scorers.answers import Scorer
from echox.eval.tasks.qa_tables import TYPED_ARMS
from echox.files import read_json, refuse_others, write_text
from echox.prepare.perturb import perturb
from echox.prepare.recipe import ASKING_VOICES, Corpus, Perturbation, VoiceChoice
from echox.prepare.speak import Speaker, generator
from echox.prepare.texts import fraction
from echox.text.normalize import squad_normalize

RIGHT, WRONG = "typed-right", "typed-wrong"
KINDS = (RIGHT, WRONG)

HELD_OUT = VoiceChoice(kind="kokoro", styles=ASKING_VOICES)


def _only(**changes: Any) -> Perturbation:
    """Return a perturbation that does one thing to every recording, at one level."""
    nothing = {"noise_share": 0, "room_share": 0, "telephone_share": 0}
    nothing |= {"silence_seconds": (0, 0), "peak_dbfs": (-6, -6)}
    return Perturbation.model_validate(nothing | changes)


SPOILT = {
    "noise": _only(noise_share=1, snr_db=(10, 10), noise_kinds=("white", "pink")),
    "telephone": _only(telephone_share=1),
    "room": _only(room_share=1, room_seconds=(0.3, 0.5)),
}
"""What is done to the clean recordings: noise at 10 dB, the telephone's band and codec, an echoing room."""
CONDITIONS = ("clean", *SPOILT)


def read_typed(paths: Sequence[Path], scorer: Scorer) -> list[Item]:
    """Return typed questions whose `kind` says whether their typed answer is right.

    Files are results of `echox eval qa` (the arm t2t-off, else t2t) or JSONL with id, question, answers and answer. A question that
    two files ask in the same words counts once, as the first has it. Raises InputError for lines without these, an id that is
    there twice, or no answers at all.
    """
    found = []
    for path in paths:
        for number, line in enumerate(_typed_lines(path), start=1):
            text = line.get("answer", line.get("text"))
            if not all(line.get(name) for name in ("id", "question", "answers")) or text is None:
                raise InputError(f"{path} answer {number} lacks id, question, answers or answer: give typed answers.")
            answers = tuple(map(str, line["answers"]))
            right = bool(str(text).strip()) and scorer.score(str(text), answers, line["question"]) > 0
            found.append(Item(str(line["id"]), str(line["question"]), answers, kind=RIGHT if right else WRONG))
    check_questions(found, ", ".join(map(str, paths)), need_audio=False)
    first = {squad_normalize(item.question): item for item in reversed(found)}
    return [item for item in found if first[squad_normalize(item.question)] is item]


def _typed_lines(path: Path) -> list[dict[str, Any]]:
    lines = read_jsonl(path)
    if not lines or lines[0].get("type") != "settings":
        return lines
    _, items = read_results(path)
    arm = next((arm for arm in TYPED_ARMS if any(item["arm"] == arm for item in items)), None)
    if arm is None:
        raise InputError(f"{path} holds no typed answers: run `echox eval qa --arms t2t-off` first.")
    return [item for item in items if item["arm"] == arm]


def choose(typed: Sequence[Item], right: int, wrong: int, seed: int = 0) -> list[Item]:
    """Return up to so many questions of each kind, chosen by hash of their ids, the kinds taking turns.

    A longer choice begins with a shorter one, and a part of a larger pool keeps its choice.
    """
    picked = []
    for kind, count in zip(KINDS, (right, wrong), strict=True):
        own = [item for item in typed if item.kind == kind]
        picked.append(sorted(own, key=lambda item: fraction("spoken-set", str(seed), item.id))[:count])
    return [item for turn in zip_longest(*picked) for item in turn if item is not None]


def make_set(
    folder: Path,
    typed: Sequence[Item],
    counts: tuple[int, int],
    voice: Callable[[], Any],
    wanted: str,
    shard: str = "0/1",
    seed: int = 0,
) -> list[Item]:
    """Speak what is missing of this shard; write questions.tsv once every recording is there. Returns the questions.

    `voice` makes the voice that speaks; the conditions `wanted` are comma-separated. Raises ConfigError for an unknown condition,
    or when the folder was made by other voices or with another seed.
    """
    conditions = ["clean", *(name for name in chosen(wanted, CONDITIONS, "--conditions") if name != "clean")]
    found = [replace(item, audio=Path(f"{safe_name(item.id)}.wav")) for item in choose(typed, *counts, seed)]
    pool = Counter(item.kind for item in typed)
    made = {"seed": seed, "voices": list(ASKING_VOICES), "pool": {kind: pool[kind] for kind in KINDS}}
    refuse_others(folder, ["questions.tsv"], "set.json", b'{\n "seed": ')
    earlier = _read_settings(folder) or made
    for name in ("seed", "voices"):
        if (there := earlier.get(name)) != made[name]:
            raise ConfigError(f"{folder} was made with {name} {there}, not {made[name]}: choose another --out.")
    write_text(folder / "set.json", json.dumps(made, indent=1))
    corpus = Corpus(texts="", role="user", split="heldout", field="question", seed=seed, voices=(HELD_OUT,))
    speaker = cache(lambda: Speaker(corpus, lambda choice: voice(), SAMPLE_RATE))  # made when something is to be said

    def sound(condition: str, item: Item) -> np.ndarray:
        if condition == "clean":
            return speaker().say({"id": item.id, "question": one_line(item.question)}, ())[0] / PCM16_SCALE
        rng = generator(seed, condition, item.id)
        return perturb(load_audio(folder / "clean" / str(item.audio)), SPOILT[condition], (), rng)[0]

    own = take(found, None, shard)
    for condition in conditions:
        for item in tqdm(own, condition, unit=" questions", disable=None):
            if not (folder / condition / str(item.audio)).is_file():
                save_sound(folder / condition, item.id, sound(condition, item), SAMPLE_RATE)
    if all((folder / condition / str(item.audio)).is_file() for condition in conditions for item in found):
        write_questions(folder / "questions.tsv", found)
    return found


def read_set(folder: Path, condition: str = "clean") -> tuple[list[Item], str, dict[str, int]]:
    """Return a spoken set under one condition: its questions, its printed name, how many questions each kind was chosen from.

    Raises InputError when it is not whole, naming what is there.
    """
    settings = _read_settings(folder)
    if settings is None or not (folder / "questions.tsv").is_file():
        raise InputError(f"{folder} is not a finished spoken set: make it with `echox eval spoken-set`.")
    if not (folder / condition).is_dir():
        there = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir()))
        raise InputError(f"{folder} has no condition {condition!r}: it has {there}.")
    pool = settings.get("pool")
    if not (isinstance(pool, dict) and pool and all(type(count) is int and count >= 0 for count in pool.values())):
        raise InputError(
            f"{folder / 'set.json'} lacks `pool`: run `echox eval spoken-set` again with the same options."
        )
    questions = read_questions(folder / "questions.tsv", folder / condition, need_audio=True)
    return questions, f"{folder.resolve().name}, {condition}", pool


def _read_settings(folder: Path) -> dict[str, Any] | None:
    """Return how a set was made, None for a folder that is not one yet."""
    path = folder / "set.json"
    found = read_json(path) if path.is_file() else None
    if found is not None and not isinstance(found, dict):
        raise InputError(f"{path} holds no settings: make the set again in another folder.")
    return found
