"""How well a unit language's words end where words end: against byte pairs and random words of the same lengths (spec A9.1).

espeak-ng says sentences and tells where each word begins; mini's encoder and centroids make units; segmenters learn on most of
the sentences and are measured on the rest.

    python benchmarks/boundaries.py SENTENCES.jsonl --voices en-us en-us+f2 --take 600
"""

import argparse
import ctypes
import ctypes.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from echox.audio import resample
from echox.data.manifest import read_jsonl
from echox.eval.stats import paired_bootstrap
from echox.features.logmel import SAMPLE_RATE
from echox.models.encoder import FRAME_SAMPLES, SpeechEncoder
from echox.units.arms import RandomWords
from echox.units.estimate import LexiconConfig
from echox.units.extractor import load_centroids
from echox.units.kmeans import assign
from echox.units.sequence import deduplicate
from echox.units.tokenizer import UnitTokenizer

MINI = Path(__file__).parents[1] / "echox" / "mini"
RETRIEVAL, WORD, UTF8 = 1, 1, 1  # of espeak-ng's speak_lib.h
Spoken = tuple[np.ndarray, list[float]]  # a wave at 16 kHz, and the seconds at which words begin


class Event(ctypes.Structure):
    """espeak_EVENT."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    ]


class Espeak:
    """espeak-ng as a library, which tells where words begin."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1")
        self.rate = self.library.espeak_Initialize(RETRIEVAL, 0, None, 0)
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))
        self._callback = kind(self._take)
        self.library.espeak_SetSynthCallback(self._callback)

    def _take(self, wave, count, events) -> int:
        if wave and count:
            self._waves.append(np.ctypeslib.as_array(wave, (count,)).copy())
        place = 0
        while events[place].type:
            if events[place].type == WORD:
                self._begins.append(events[place].sample / self.rate)
            place += 1
        return 0

    def speak(self, text: str, voice: str) -> Spoken:
        """Return a sentence and where its words begin."""
        self._waves, self._begins = [], []
        self.library.espeak_SetVoiceByName(voice.encode())
        given = text.encode()
        self.library.espeak_Synth(given, len(given) + 1, 0, 1, 0, UTF8, None, None)
        self.library.espeak_Synchronize()
        wave = np.concatenate(self._waves).astype(np.float32) / 32768
        return resample(wave, self.rate, SAMPLE_RATE), self._begins


def units_of(spoken: list[Spoken]) -> list[tuple[np.ndarray, set[int]]]:
    """Return reduced units of each sentence and the places between units at which words begin."""
    encoder, (centroids_KD, meta) = SpeechEncoder.from_pretrained(MINI / "encoder"), load_centroids(MINI / "units")
    rows = []
    for first in range(0, len(spoken), 16):
        some = spoken[first : first + 16]
        states = encoder.encode([wave for wave, _ in some], (meta.layer,))
        for (wave, begins), found in zip(some, states, strict=True):
            units = deduplicate(assign(found[meta.layer].float().numpy(), centroids_KD))
            starts = np.cumsum([0, *units.durations])[:-1] * FRAME_SAMPLES / SAMPLE_RATE
            gold = {
                int(np.abs(starts - begin).argmin()) for begin in begins[1:] if begin < len(wave) / SAMPLE_RATE - 0.05
            } - {0}
            rows.append((units.ids, gold))
    return rows


def ends_of(lengths: list[int]) -> set[int]:
    """Return the places between units at which words of these lengths meet."""
    return set(np.cumsum(lengths)[:-1].tolist())


def counts_of(rows: list[tuple[np.ndarray, set[int]]], cut: Callable[[np.ndarray], set[int]], slack: int) -> np.ndarray:
    """Return (sentences, 4): right ends, ends said, true ends found, true ends; right is within `slack` units of a true one."""
    found = []
    for ids, gold in rows:
        ends = cut(ids)
        right = sum(any(abs(end - one) <= slack for one in gold) for end in ends)
        met = sum(any(abs(end - one) <= slack for end in ends) for one in gold)
        found.append((right, len(ends), met, len(gold)))
    return np.array(found, dtype=np.float64)


def f1(means: np.ndarray) -> np.ndarray:
    """Return F1 of mean counts (..., 4)."""
    precision, recall = means[..., 0] / means[..., 1], means[..., 2] / means[..., 3]
    return 2 * precision * recall / (precision + recall)


def main() -> None:
    """Print a row a segmenter."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sentences", type=Path)
    parser.add_argument("--field", default="text")
    parser.add_argument("--voices", nargs="+", default=["en-us"])
    parser.add_argument("--take", type=int, default=600)
    parser.add_argument("--vocabulary", type=int, default=1000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    espeak, texts = Espeak(), [row[given.field] for row in read_jsonl(given.sentences)[: given.take]]
    rows = units_of([espeak.speak(text, given.voices[n % len(given.voices)]) for n, text in enumerate(texts)])
    first = len(rows) * 4 // 5
    train, test = [ids for ids, _ in rows[:first]], rows[first:]
    config = LexiconConfig(units=256, vocabulary_size=given.vocabulary)
    language, bpe = UnitTokenizer.train(train, config), UnitTokenizer.train(train, config, "bpe")

    def words(tokenizer: UnitTokenizer) -> Callable[[np.ndarray], set[int]]:
        return lambda ids: ends_of([len(tokenizer.word(token)) for token in tokenizer.encode(ids)])

    cuts = {
        "unit language": words(language),
        "byte pairs": words(bpe),
        "random, same lengths": RandomWords(language, train).boundaries,
    }
    spoken = sum(len(ids) for ids, _ in test) / sum(len(gold) + 1 for _, gold in test)
    print(
        f"{len(test)} sentences held out of {len(rows)}, {len(given.voices)} voices, {spoken:.2f} units a spoken word"
    )
    first_N4 = counts_of(test, cuts["unit language"], 0)
    for name, cut in cuts.items():
        exact_N4, near_N4 = counts_of(test, cut, 0), counts_of(test, cut, 1)
        units = sum(len(ids) for ids, _ in test) / (exact_N4[:, 1].sum() + len(test))
        both = paired_bootstrap(np.concatenate([exact_N4, first_N4], 1), lambda m: f1(m[..., :4]) - f1(m[..., 4:]))
        exact, near = paired_bootstrap(exact_N4, f1), paired_bootstrap(near_N4, f1)
        print(f"{name:20s} {units:.2f} units/word  F1 {exact}  less unit language {both}  within one {near}")


if __name__ == "__main__":
    main()
