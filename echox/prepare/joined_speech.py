"""Utterances joined into windows of up to half a minute, with rooms, noise and telephone lines simulated; it knows no model.

A listener that only ever heard single sentences stops after the first one. Every window here holds one to several utterances
with gaps between them, or nothing that was said at all (silence, noise, tones), whose text is empty. A batch is a function of the
seed and its number alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from echox.audio import SAMPLE_RATE
from echox.config.load import Ordered, Settings, Share
from echox.data.manifest import read_audio, read_manifest, text_of
from echox.errors import InputError
from echox.prepare.perturb import coloured_noise, perturb
from echox.prepare.recipe import Perturbation

TALKERS = 24
Seconds = Annotated[int, Field(ge=1, le=30)]


class SpokenCorpus(Settings):
    """A corpus and its sampling weight."""

    path: Path
    share: float = Field(default=1.0, gt=0)


class JoinedSettings(Settings):
    """How windows are composed; `windows` are shares of batches by the seconds that their windows may last."""

    corpora: list[SpokenCorpus] = Field(min_length=1)
    perturb: Perturbation = Perturbation(room_share=0.45, room_seconds=(0.1, 0.8), telephone_share=0.15)
    perturbed_share: Share = 0.8  # the other windows stay as they were spoken
    windows: dict[Seconds, PositiveFloat] = Field({4: 0.25, 8: 0.3, 14: 0.25, 22: 0.12, 29: 0.08}, min_length=1)
    batch_seconds: PositiveInt = 120  # rows x longest
    most_rows: PositiveInt = 16
    gap_seconds: Annotated[tuple[NonNegativeFloat, NonNegativeFloat], Ordered] = (0.05, 1.0)
    single_share: Share = 0.4  # windows of one utterance, however long the window may be
    nothing_share: Share = 0.06


@dataclass
class Window:
    """One window: samples at 16 kHz and the text said in it, perhaps none."""

    wave_S: np.ndarray
    text: str


class JoinedSpeech:
    """An endless stream of batches of windows, with random access by step."""

    def __init__(self, settings: JoinedSettings, text_of: Callable[[str], str], seed: int = 0) -> None:
        self.settings, self.seed = settings, seed
        self.places = [(corpus.path, read_manifest(corpus.path / "manifest.jsonl")) for corpus in settings.corpora]
        for folder, records in self.places:
            if not records:
                raise InputError(f"{folder / 'manifest.jsonl'} is empty: make the corpus first.")
        self.shares = np.array([corpus.share for corpus in settings.corpora]) / sum(c.share for c in settings.corpora)
        self.text_of = text_of
        rng = np.random.default_rng((seed, 0))
        self.talkers = [self._draw(rng)[0] for _ in range(TALKERS)]

    def __getitem__(self, step: int) -> list[Window]:
        rng = np.random.default_rng((self.seed, 1, step))
        shares = np.array(list(self.settings.windows.values()))
        longest = int(rng.choice(list(self.settings.windows), p=shares / shares.sum()))
        rows = max(1, min(self.settings.most_rows, self.settings.batch_seconds // longest))
        return [self.window(longest, rng) for _ in range(rows)]

    def window(self, longest: int, rng: np.random.Generator) -> Window:
        """Return one window of at most `longest` seconds."""
        settings = self.settings
        if rng.random() < settings.nothing_share:
            return Window(nothing_said(rng.uniform(0.5, min(longest, 12)), rng), "")
        wave_S, text = self._joined(longest, rng)
        if rng.random() < settings.perturbed_share:
            wave_S, _ = perturb(wave_S, settings.perturb, self.talkers, rng)
        return Window(wave_S[: longest * SAMPLE_RATE], text)

    def _joined(self, longest: int, rng: np.random.Generator) -> tuple[np.ndarray, str]:
        settings = self.settings
        room = int((longest - 2 * settings.perturb.silence_seconds[1]) * SAMPLE_RATE)
        waves, texts = [], []
        while True:
            wave_S, text = self._draw(rng)
            if waves and sum(map(len, waves)) + len(wave_S) > room:
                break
            for _ in range(20):  # a window for short utterances starts with a short one
                if waves or len(wave_S) <= room:
                    break
                wave_S, text = self._draw(rng)
            if not waves:
                wave_S = wave_S[:room]
            waves += [wave_S, np.zeros(int(rng.uniform(*settings.gap_seconds) * SAMPLE_RATE), np.float32)]
            texts.append(text)
            if rng.random() < (settings.single_share if len(texts) == 1 else 0.15):
                break
        return np.concatenate(waves[:-1]), " ".join(texts)

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, str]:
        folder, records = self.places[int(rng.choice(len(self.places), p=self.shares))]
        record = records[int(rng.integers(len(records)))]
        return read_audio(record, folder, SAMPLE_RATE), self.text_of(text_of(record, folder))


def nothing_said(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Return silence, noise, hum, chords or clicks at 16 kHz: what a microphone hears when nobody speaks."""
    count = int(seconds * SAMPLE_RATE)
    time = np.arange(count) / SAMPLE_RATE
    kind = rng.integers(5)
    level = 10 ** (rng.uniform(-60, -6) / 20)
    if kind == 0:
        wave = np.zeros(count)
    elif kind == 1:
        wave = coloured_noise(count, str(rng.choice(["white", "pink"])), rng)
    elif kind == 2:  # mains and fans
        wave = sum(np.sin(2 * np.pi * f * n * time + rng.uniform(0, 6)) / n for f in (50, 60) for n in range(1, 6))
        wave = wave + 0.3 * coloured_noise(count, "pink", rng)
    elif kind == 3:  # chords that change
        wave = np.zeros(count)
        for start in np.arange(0, seconds, rng.uniform(0.2, 0.8)):
            root = 110 * 2 ** (rng.integers(24) / 12)
            since = np.maximum(time - start, 0)
            for step in rng.choice([0, 3, 4, 7, 10, 12], size=3, replace=False):
                wave += (time >= start) * np.exp(-3 * since) * np.sin(2 * np.pi * root * 2 ** (step / 12) * since)
    else:
        wave = coloured_noise(count, "pink", rng) * 0.02
        wave[rng.integers(count, size=max(1, int(4 * seconds)))] += rng.uniform(-1, 1)
    peak = np.max(np.abs(wave), initial=1e-9)
    return (wave * (level / peak if kind else 0.0)).astype(np.float32)
