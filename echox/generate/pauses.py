"""The ends of speech as it streams: silence around a segment is taken away, and at a limit it fades; it knows samples, not models.

A sentence, or each of its segments where these do not go on from one another, is an utterance of its own, with the silence around
it that such an utterance has. Joined, these silences are pauses that nobody would make, and the first of them delays the answer.

What is silence is told by a frame's peak and a fixed level, not by its power beside that of others as features/cuts.py tells it of
recordings: a vocoder is as loud as it learnt to be, the rest of the speech is not there yet, and no loud sample may be lost.

    utterance ____said something__   __and went on.______      held back until it is known whether more is said
    heard        _said something_and went on.__
"""

import numpy as np

FRAME_SECONDS = 0.01
QUIET = 10 ** (-46 / 20)  # peak of a frame in which nothing is said; where silence is cut, such a frame fades in or out
LEAD_SECONDS, TAIL_SECONDS = 0.03, 0.05  # silence kept around what is said
SENTENCE_SECONDS = 0.28  # silence kept after a sentence
FADE_SECONDS = 0.02  # before a limit: what is cut in the middle of a word would click


class TrimmedSpeech:
    """The speech of one utterance with its outer silence cut down; pieces together are the same however they come.

    Unless it `trims`, every sample is kept.
    """

    def __init__(self, sample_rate: int, trims: bool = True) -> None:
        self.trims, self.frame = trims, int(FRAME_SECONDS * sample_rate)
        self.lead = round(LEAD_SECONDS / FRAME_SECONDS)
        self.rising_S = np.linspace(0, 1, self.frame, dtype=np.float32)
        self.rest_S = np.zeros(0, np.float32)  # less than a frame
        self.held: list[np.ndarray] = []  # silent frames: at the front, or perhaps at the end
        self.begun = False

    def push(self, wave_S: np.ndarray) -> np.ndarray:
        """Return what of the samples so far is certainly heard, float32 [S]."""
        if not self.trims:
            return wave_S
        wave_S = np.concatenate([self.rest_S, wave_S])
        count = len(wave_S) // self.frame
        self.rest_S = wave_S[count * self.frame :]
        ready: list[np.ndarray] = []
        for frame_S in wave_S[: count * self.frame].reshape(count, self.frame):
            if np.abs(frame_S).max() < QUIET:
                self.held.append(frame_S)
                continue
            if not self.begun and len(self.held) > self.lead:
                self.held = self.held[-self.lead :]
                self.held[0] = self.held[0] * self.rising_S
            ready += [*self.held, frame_S]
            self.held, self.begun = [], True
        return np.concatenate(ready) if ready else np.zeros(0, np.float32)

    def flush(self, text: str) -> np.ndarray:
        """Return the end of the utterance that says `text`, its silence cut; a silent one keeps what a pause needs."""
        last = [*self.held, self.rest_S]
        if self.held and np.abs(self.rest_S).max(initial=0.0) < QUIET:
            last = self.held[: round(tail_of(text) / FRAME_SECONDS)]
            last[-1] = last[-1] * self.rising_S[::-1]
        return np.concatenate(last)


def tail_of(text: str) -> float:
    """Return the seconds of silence that an utterance keeps at its end: more after a sentence."""
    return SENTENCE_SECONDS if text.rstrip().endswith((".", "!", "?", ":", ";", '"')) else TAIL_SECONDS


def trimmed(wave_S: np.ndarray, sample_rate: int, text: str) -> np.ndarray:
    """Return the whole speech of a text with its outer silence cut down: what the stream gives, at once."""
    speech = TrimmedSpeech(sample_rate)
    return np.concatenate([speech.push(wave_S), speech.flush(text)])


def within(wave_S: np.ndarray, left: int, sample_rate: int) -> np.ndarray:
    """Return the samples of a wave before a limit `left` samples from its start, fading out towards it.

    Each sample's gain follows from its place alone, so that pieces together are the same however they come: speech that ends by
    itself just before the limit fades, too.
    """
    wave_S, fade = wave_S[:left], int(FADE_SECONDS * sample_rate)
    if len(wave_S) <= left - fade:
        return wave_S
    return wave_S * np.minimum(np.arange(left, left - len(wave_S), -1, dtype=np.float32) / fade, 1)
