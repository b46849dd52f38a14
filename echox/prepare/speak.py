"""The `speak` step: a file of texts in, shards of int16 samples and a manifest out.

Every utterance has its own random generator (seed and text id), so corpora are equal however the work is
split, resumed or repeated. A shard is written whole or not at all. Knows voices only through their Protocol.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from echox.audio import SAMPLE_RATE, as_int16, resample
from echox.config.record import Record, check_same, read_run, write_run
from echox.config.shard import Shard
from echox.data.batching import groups
from echox.data.manifest import gold_answers, join_shards, read_fields, read_jsonl, refuse_other_corpora, save_shard
from echox.data.tables import ANSWER_MARK, write_rows
from echox.errors import InputError
from echox.prepare.perturb import perturb
from echox.prepare.recipe import Corpus, VoiceChoice
from echox.prepare.voices import Voice

TALKERS = 24
FILE_NAME = re.compile(r"[^/\\\0\ud800-\udfff.][^/\\\0\ud800-\udfff]{0,199}")  # no path, and no hidden one
Progress = Callable[[int, int], None]


def generator(seed: int, *names: str) -> np.random.Generator:
    """Return a random generator that depends only on the seed and the names."""
    digest = hashlib.sha256("\x1f".join([str(seed), *names]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


class Speaker:
    """Speaks one corpus: picks a voice for each text, changes pitch and tempo, and perturbs the sound as the recipe asks."""

    def __init__(self, corpus: Corpus, make: Callable[[VoiceChoice], Voice], sample_rate: int = SAMPLE_RATE) -> None:
        self.corpus = corpus
        self.sample_rate = sample_rate
        self.voices = [make(choice) for choice in corpus.voices]
        shares = np.array([choice.share for choice in corpus.voices])
        self._shares = shares / shares.sum()
        self._talkers: list[np.ndarray] | None = None

    def _clean(self, key: str, text: str) -> tuple[np.ndarray, dict[str, Any]]:
        rng = generator(self.corpus.seed, "voice", key)
        number = int(rng.choice(len(self.voices), p=self._shares))
        choice, voice = self.corpus.voices[number], self.voices[number]
        styles = choice.styles or voice.styles
        style = str(rng.choice(styles))
        if rng.random() < choice.mixes:
            other = str(rng.choice([name for name in styles if name != style]))
            style = f"{style}+{other}@{rng.uniform(0.25, 0.5):.2f}"
        pitch = round(float(np.exp(rng.uniform(*np.log(choice.pitch)))), 3)
        tempo = round(float(rng.uniform(*choice.tempo)), 3)
        wave = voice.speak(text, style, round(tempo / pitch, 3), int(rng.integers(2**31)))
        if not len(wave):
            raise InputError(f"{choice.kind} said nothing for {text!r} ({key}); remove that text.")
        wave = resample(wave, voice.sample_rate * pitch, self.sample_rate)
        facts = {"speaker": f"{choice.kind}-{style}-p{pitch:.3f}", "tempo": tempo}
        return wave, facts

    def talkers(self, texts: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
        """Return the utterances that babble is made of: the first texts of the corpus, in its own voices."""
        if self._talkers is None:
            self._talkers = [self._clean(f"babble-{row['id']}", row[self.corpus.field])[0] for row in texts[:TALKERS]]
        return self._talkers

    def say(self, row: Mapping[str, Any], texts: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, dict[str, Any]]:
        """Return int16 [samples] and the manifest record (without `audio`) of one text."""
        wave, facts = self._clean(row["id"], row[self.corpus.field])
        if self.corpus.perturb is not None:
            babbles = "babble" in self.corpus.perturb.noise_kinds
            rng = generator(self.corpus.seed, "perturb", row["id"])
            wave, done = perturb(wave, self.corpus.perturb, self.talkers(texts) if babbles else (), rng)
            facts["perturbed"] = done
        pcm = as_int16(wave)
        record = {"id": row["id"], "samples": len(pcm), "sample_rate": self.sample_rate, "text": row[self.corpus.field]}
        record |= {"role": self.corpus.role, "split": self.corpus.split, **facts}
        if row.get("translation"):
            record["translation"] = row["translation"]
        if row.get("answers"):
            record |= {"answers": list(row["answers"]), "answer": row["answers"][0]}
        return pcm, record


def speak_corpus(
    texts: Path, folder: Path, speaker: Speaker, size: int, part: Shard = (0, 1), progress: Progress | None = None
) -> int:
    """Speak the shards of `part` that are not there yet; write `manifest.jsonl` once all are. Returns lines made.

    `texts` is JSONL with `id` and the corpus's field. Raises InputError when a row lacks them, ConfigError where `folder` holds
    shards of other voices or another seed, OutputError where files would be replaced that are somebody else's.
    """
    corpus = speaker.corpus
    refuse_other_corpora(folder, *(["questions.tsv"] if corpus.files else []))
    rows = list(islice(read_fields(texts, corpus.field), corpus.take))
    for row in rows:
        gold_answers(row, texts)
    if corpus.files:
        check_files(folder, rows, texts)
    folder.mkdir(parents=True, exist_ok=True)
    made, parts = 0, groups(rows, size)
    check_same_texts(folder, parts, corpus.field)
    record = Record.of(corpus)
    check_same(folder, record, only=("voices", "perturb", "seed"))
    write_run(folder, record, "done")  # what stands in a folder is whole, shard by shard
    for number, group in enumerate(parts):
        if number % part[1] == part[0] and not (folder / f"shard-{number:05d}.jsonl").exists():
            save_shard(folder, number, [speaker.say(row, rows) for row in group], corpus.files)
            made += len(group)
            if progress is not None:
                progress(min((number + 1) * size, len(rows)), len(rows))
    if join_shards(folder, len(parts)) and corpus.files:
        write_table(folder)
    return made


def check_files(folder: Path, rows: Sequence[Mapping[str, Any]], texts: Path) -> None:
    """Raise InputError for an id that is no file name, OutputError where a file of that name stands that no run here made."""
    for row in rows:
        if not FILE_NAME.fullmatch(row["id"]):
            raise InputError(f"{texts}: the id {row['id']!r} is no file name: use letters, digits, dots, - and _.")
    if read_run(folder) is None:  # a run that was killed leaves recordings, and says before them whose they are
        refuse_other_corpora(folder, *(f"{row['id']}.wav" for row in rows))


def check_same_texts(folder: Path, parts: Sequence[Sequence[Mapping[str, Any]]], field: str) -> None:
    """Raise InputError when `folder` holds a shard made of other texts than those of these parts."""
    meant = {f"shard-{number:05d}": [(row["id"], row[field]) for row in part] for number, part in enumerate(parts)}
    for path in sorted(folder.glob("shard-*.jsonl")):
        if [(record.get("id"), record.get("text")) for record in read_jsonl(path)] != meant.get(path.stem):
            raise InputError(f"{path} was made of other texts: remove it with its .npy, or choose another folder.")


def write_table(folder: Path) -> None:
    """Write `questions.tsv` (id, question, answers joined by ` | `, audio) from the manifest in `folder`."""
    rows = [
        record | {"question": record["text"], "answers": ANSWER_MARK.join(record.get("answers", ()))}
        for record in read_jsonl(folder / "manifest.jsonl")
    ]
    write_rows(folder / "questions.tsv", ("id", "question", "answers", "audio"), rows)
