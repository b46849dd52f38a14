"""Published speech translation corpora to ours: MuST-C v1 and CoVoST 2 as they are handed out, to shards and manifests.

    MuST-C v1   ROOT/en-de/data/train/txt/train.{yaml,en,de}   ROOT/en-de/data/train/wav/ted_1.wav
    CoVoST 2    ROOT/validated.tsv  ROOT/clips/*.mp3  ROOT/covost_v2.en_de.tsv      (ROOT: Common Voice of the source language)

Every utterance becomes int16 at 16 kHz in a shard, with its `text`, `translation` and `speaker`; encoder states are made from
those (prepare/encode.py). A shard is written whole or not at all, and those that are there are not made again.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import PositiveFloat, PositiveInt

from echox.audio import SAMPLE_RATE, as_int16, load_audio
from echox.config.load import Settings
from echox.config.record import Record, check_same, write_run
from echox.data.batching import groups
from echox.data.manifest import join_shards, refuse_other_corpora, save_shard, tell_dropped
from echox.data.tables import lines_of, table_rows
from echox.errors import InputError
from echox.files import LINES_BYTES, read_text

log = logging.getLogger(__name__)
_talk = lru_cache(maxsize=1)(load_audio)  # whole: its utterances come one after the other


@dataclass(frozen=True)
class Utterance:
    """One published triple: where its speech lies (seconds into a file, or all of it) and both texts."""

    id: str
    audio: Path
    text: str
    translation: str
    speaker: str = ""
    offset: float = 0.0
    duration: float | None = None


class Recipe(Settings):
    """Recipe of stage `triples`."""

    stage: Literal["triples"]
    out: Path
    format: Literal["must-c", "covost"]
    root: Path
    source: str = "en"
    target: str
    split: str = "train"  # MuST-C: train, dev, tst-COMMON, tst-HE; CoVoST: train, dev, test
    longest_seconds: PositiveFloat = 30.0  # longer utterances are left out
    shard_utterances: PositiveInt = 500


def run(recipe: Recipe) -> Path:
    """Write the shards of a split that are not there yet; InputError for files that are missing or do not fit together."""
    record = Record.of(recipe)
    check_same(recipe.out, record)
    refuse_other_corpora(recipe.out)
    read = read_must_c if recipe.format == "must-c" else read_covost
    rows, dropped, long = [], Counter[str](), f"longer than {recipe.longest_seconds:g} s"
    for one in read(recipe.root, recipe.source, recipe.target, recipe.split):
        if not one.text or not one.translation:
            dropped["without a text"] += 1
        elif one.duration is None or one.duration <= recipe.longest_seconds:
            rows.append(one)
        else:
            dropped[long] += 1
    tell_dropped(dropped, len(rows), f"utterances of {recipe.split} in {recipe.root}")
    recipe.out.mkdir(parents=True, exist_ok=True)
    for number, group in enumerate(groups(rows, recipe.shard_utterances)):
        if not (recipe.out / f"shard-{number:05d}.jsonl").exists():
            said = [cut for one in group if (cut := said_by(one, recipe)) is not None]
            save_shard(recipe.out, number, said, files=False)
    join_shards(recipe.out, -(-len(rows) // recipe.shard_utterances))
    write_run(recipe.out, record, "done")
    return recipe.out


def read_must_c(root: Path, source: str, target: str, split: str) -> Iterator[Utterance]:
    """Yield the utterances of one MuST-C split; InputError where the three text files disagree."""
    folder = Path(root) / f"{source}-{target}" / "data" / split
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a table of 200,000 lines takes minutes without libyaml
    try:
        places = yaml.load(read_text(folder / "txt" / f"{split}.yaml", LINES_BYTES), Loader=loader)
    except yaml.YAMLError as error:
        raise InputError(f"{folder / 'txt' / split}.yaml is not YAML: unpack the corpus again.") from error
    sides = [lines_of(read_text(folder / "txt" / f"{split}.{name}", LINES_BYTES)) for name in (source, target)]
    places = places if isinstance(places, list) else []
    if not len(places) == len(sides[0]) == len(sides[1]):
        counts = f"{len(places)}, {len(sides[0])} and {len(sides[1])}"
        raise InputError(f"{folder / 'txt'} has {counts} lines in its three files of {split}: unpack the corpus again.")
    numbers: dict[str, int] = {}
    for place, text, translation in zip(places, *sides, strict=True):
        try:
            talk, offset, duration = str(place["wav"]), float(place["offset"]), float(place["duration"])
        except (KeyError, TypeError, ValueError) as error:
            lacks = "has a line without wav, offset or duration"
            raise InputError(f"{folder / 'txt' / split}.yaml {lacks}: unpack the corpus again.") from error
        number = numbers[talk] = numbers.get(talk, -1) + 1
        name, speaker = f"{Path(talk).stem}_{number}", str(place.get("speaker_id", ""))
        yield Utterance(name, folder / "wav" / talk, text.strip(), translation.strip(), speaker, offset, duration)


def read_covost(root: Path, source: str, target: str, split: str) -> Iterator[Utterance]:
    """Yield the utterances of one CoVoST 2 split, in the order of its table; `train` is the authors' larger train_covost too."""
    said = {row["path"]: row for _, row in table_rows(Path(root) / "validated.tsv", ("path", "sentence", "client_id"))}
    wanted = {split, "train_covost"} if split == "train" else {split}
    for _, row in table_rows(Path(root) / f"covost_v2.{source}_{target}.tsv", ("path", "translation", "split")):
        if row["split"] in wanted and row["path"] in said:
            own = said[row["path"]]
            clip = Path(root) / "clips" / row["path"]
            yield Utterance(Path(row["path"]).stem, clip, own["sentence"], row["translation"], own["client_id"])


def said_by(one: Utterance, recipe: Recipe) -> tuple[np.ndarray, dict[str, Any]] | None:
    """Return int16 samples and the record of an utterance, or None, told, where it is too long or cannot be used."""
    if one.duration is None:
        if not one.audio.is_file():
            raise InputError(f"{one.audio} is missing: unpack the corpus again.")
        try:
            wave = load_audio(one.audio)
        except InputError as error:  # one silent clip of a million
            log.warning("left out: %s", error)
            return None
    else:
        wave = _talk(one.audio)
        first = round(one.offset * SAMPLE_RATE)
        wave = wave[first : first + round(one.duration * SAMPLE_RATE)]
        if not len(wave):
            raise InputError(f"{one.audio} ends before {one.id} begins at {one.offset:g} s: unpack the corpus again.")
    if len(wave) > recipe.longest_seconds * SAMPLE_RATE:
        log.warning("left out: %s is longer than %g s.", one.audio, recipe.longest_seconds)
        return None
    pcm = as_int16(wave)
    facts = {"text": one.text, "translation": one.translation, "speaker": one.speaker, "split": recipe.split}
    return pcm, {"id": one.id, "samples": len(pcm), "sample_rate": SAMPLE_RATE} | facts
