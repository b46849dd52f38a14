"""Samples from anywhere (a microphone, a browser) to samples while they are made: the shape of a voice application."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from echox import Assistant, SpeechAssistant


def answer(assistant: Assistant, question: NDArray[np.int16], sample_rate: int) -> Iterator[NDArray[np.float32]]:
    """Yield the spoken answer to int16 samples, piece by piece, and print its words as they come."""
    for piece in assistant.stream(question, sample_rate=sample_rate):
        print(f"{piece.heard}\n" if piece.heard else "", piece.text, sep="", end="", flush=True)
        if piece.audio is not None:
            yield piece.audio


if __name__ == "__main__":
    tone = (8000 * np.sin(np.arange(48_000) / 9)).astype(np.int16)
    seconds = sum(len(wave) for wave in answer(SpeechAssistant.fake(), tone, 48_000)) / 16_000
    print(f"\n{seconds:.1f} s of speech")
