"""Published parallel speech as a pair of corpora: VoxPopuli S2ST and CVSS-C, read in place, with the usual filters.

    VoxPopuli (facebookresearch/voxpopuli, get_asr_data and get_s2s_data)      CVSS-C (cvss_c_<src>_en_v1.0) with Common Voice 4
      ROOT/transcribed_data/<src>/<year>/<src_id>.ogg                            CVSS/<split>.tsv        clip.mp3 <tab> translation
      ROOT/transcribed_data/<src>/<tgt>/<year>/<tgt_id>.ogg                      CVSS/<split>/clip.mp3.wav
      ROOT/transcribed_data/<src>/<tgt>/s2s.tsv or s2s_ref.tsv                   COMMON_VOICE/clips/clip.mp3, validated.tsv

Nothing is copied: manifests name the published files. A pair is left out when either side is missing, silent, shorter or longer
than the limits, or when one side is more than `ratio` times as long as the other; how many and why is told.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from echox.audio import load_audio, save_wav
from echox.data.manifest import read_audio, tell_dropped, write_shards
from echox.data.pairs import COLUMNS, matched
from echox.data.states import records_of
from echox.data.tables import lines_of, table_rows, write_rows
from echox.errors import InputError
from echox.features.logmel import SAMPLE_RATE
from echox.files import LINES_BYTES, read_text, refuse_others

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """Bounds on the seconds of a side, and on the ratio of the two sides."""

    shortest: float = 0.5
    longest: float = 20.0
    ratio: float = 3.0


@dataclass(frozen=True)
class Published:
    """One published pair: both files and what their makers say of them."""

    id: str
    source: Path
    target: Path
    source_text: str = ""
    target_text: str = ""
    speaker: str = ""


def read_voxpopuli(root: Path, source: str, target: str) -> Iterator[Published]:
    """Yield the pairs of one VoxPopuli direction; InputError where get_s2s_data has not made its table."""
    spoken = Path(root) / "transcribed_data" / source
    tables = [spoken / target / name for name in ("s2s_ref.tsv", "s2s.tsv")]
    table = next((path for path in tables if os.path.isfile(path)), None)
    if table is None:
        how = f"run voxpopuli.get_asr_data and get_s2s_data for {source} and {target} first"
        raise InputError(f"{tables[1]} is missing: {how}.")
    for _, row in table_rows(table, ("src_id", "tgt_id")):
        one, other = row["src_id"], row["tgt_id"]
        facts = (row.get(name, "") for name in ("src_text", "tgt_text", "src_speaker_id"))
        yield Published(one, spoken / one[:4] / f"{one}.ogg", spoken / target / other[:4] / f"{other}.ogg", *facts)


def read_cvss(root: Path, common_voice: Path, split: str) -> Iterator[Published]:
    """Yield the pairs of one split of CVSS-C (train, dev, test); InputError where the table or the clips are missing."""
    table, clips = Path(root) / f"{split}.tsv", Path(common_voice) / "clips"
    if not os.path.isdir(clips):
        raise InputError(f"{clips} is missing: give the Common Voice 4 folder of the source language.")
    said = {}
    if os.path.isfile(Path(common_voice) / "validated.tsv"):
        said = {row["path"]: row for _, row in table_rows(Path(common_voice) / "validated.tsv", ("path", "sentence"))}
    for number, line in enumerate(lines_of(read_text(table, LINES_BYTES)), start=1):
        clip, tab, translation = line.partition("\t")
        if not tab:
            raise InputError(f"{table} line {number} is not a clip and its translation, tab separated: fetch it again.")
        known = said.get(clip, {})
        name, speaker = clip.removesuffix(".mp3"), known.get("client_id", "")[:16]
        target = Path(root) / split / f"{clip}.wav"
        yield Published(name, clips / clip, target, known.get("sentence", ""), translation.strip(), speaker)


def write_corpora(pairs: Iterator[Published], out: Path, split: str, limits: Limits | None = None) -> int:
    """Write `out`/source and `out`/target with the pairs that pass, and return their number; InputError when none does."""
    limits, dropped = limits or Limits(), Counter[str]()
    sides: tuple[list[dict], list[dict]] = ([], [])
    for pair in pairs:
        lengths, why = _lengths(pair, limits)
        if why:
            dropped[why] += 1
            continue
        texts = (pair.source_text, pair.target_text)
        for side, path, text, samples in zip(sides, (pair.source, pair.target), texts, lengths, strict=True):
            record = {"id": pair.id, "audio": str(path.resolve()), "samples": samples, "sample_rate": SAMPLE_RATE}
            speaker = {"speaker": pair.speaker} if side is sides[0] and pair.speaker else {}
            side.append(record | {"text": text, "role": "user", "split": split} | speaker)
    tell_dropped(dropped, len(sides[0]), "pairs")
    for name, records in zip(("source", "target"), sides, strict=True):
        write_shards(out / name, records)
    return len(sides[0])


def write_table(source: Path, target: Path, out: Path) -> int:
    """Write `out`/pairs.tsv and both sides' sound files of two corpora whose ids match, and return how many pairs there are."""
    sides = [{str(record["id"]): record for record in records_of(corpus)} for corpus in (source, target)]
    pairs, rows = matched(sides[0].values(), sides[1], str(target), sides[0]), []
    refuse_others(out, ["pairs.tsv", *(f"{one['id']}.wav" for one, _ in pairs)], "**/*.target.wav", b"RIFF")
    for one, other in pairs:
        names = [f"{one['id']}.wav", f"{one['id']}.target.wav"]
        for record, corpus, name in ((one, source, names[0]), (other, target, names[1])):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            save_wav(out / name, read_audio(record, corpus, SAMPLE_RATE), SAMPLE_RATE)
        texts = {"source_text": one.get("text", ""), "target_text": other.get("text", "")}
        rows.append({"id": one["id"], "audio": names[0], "target_audio": names[1]} | texts)
    write_rows(out / "pairs.tsv", COLUMNS, rows)
    return len(rows)


def _lengths(pair: Published, limits: Limits) -> tuple[list[int], str]:
    """Return the samples of both sides at 16 kHz, and why the pair is left out, or ""."""
    lengths = []
    for path in (pair.source, pair.target):
        if not os.path.isfile(path):
            return [], "with a recording missing"
        try:
            lengths.append(len(load_audio(path)))
        except InputError as error:
            log.warning("%s", error)
            return [], "silent or unreadable"
    seconds = [length / SAMPLE_RATE for length in lengths]
    if min(seconds) < limits.shortest or max(seconds) > limits.longest:
        return [], f"outside {limits.shortest:g} to {limits.longest:g} s"
    if max(seconds) > limits.ratio * min(seconds):
        return [], f"with one side over {limits.ratio:g} times the other"
    return lengths, ""
