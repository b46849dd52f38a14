"""Real-time factor and first-chunk cost of a unit vocoder on one thread.

    python benchmarks/vocoder.py                      # the sizes of recipes/mini/voice.yaml, random weights
    python benchmarks/vocoder.py --model FOLDER       # a trained vocoder
    python benchmarks/vocoder.py --recipe recipes/hifigan/vocoder.yaml --seconds 5

Prints one JSON object. Processor seconds, not wall seconds, so that other programs on the machine matter less.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from echox.config.load import read_yaml
from echox.generate.parts import load_vocoder
from echox.models.latent_vocoder import LatentVocoder, LatentVocoderConfig
from echox.models.vocoder import UnitVocoder, VocoderConfig

FRAMES_PER_SECOND = 50
DURATION = 2  # frames per unit, about the mean of 20-ms units


def cost(run: Callable[[], object], repeats: int) -> float:
    """Return the median processor seconds of one call."""
    run()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        run()
        times.append(time.process_time() - started)
    return float(np.median(times))


def measure(vocoder: UnitVocoder | LatentVocoder, seconds: float, push: int, repeats: int) -> dict[str, float]:
    """Return offline and streaming costs for `seconds` of speech pushed `push` units at a time."""
    units = np.random.default_rng(0).integers(0, vocoder.config.num_units, int(seconds * FRAMES_PER_SECOND / DURATION))
    ids = units.tolist()
    audio_seconds = len(vocoder.speak(ids)) / vocoder.config.sample_rate

    def until(first_only: bool) -> None:
        voice = vocoder.stream()
        for start in range(0, len(ids), push):
            if len(voice.push(ids[start : start + push])) and first_only:
                return
        voice.flush()

    ahead_units, ahead_frames = vocoder.look_ahead
    return {
        "parameters": sum(parameter.numel() for parameter in vocoder.parameters()),
        "audio_seconds": audio_seconds,
        "offline_rtf": cost(lambda: vocoder.speak(ids), repeats) / audio_seconds,
        "stream_rtf": cost(lambda: until(False), repeats) / audio_seconds,
        "first_chunk_seconds": cost(lambda: until(True), repeats),
        "look_ahead_units": ahead_units,
        "look_ahead_frames": ahead_frames,
    }


def main() -> None:
    """Parse the command line, measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--recipe", type=Path, default=Path(__file__).parents[1] / "recipes/mini/voice.yaml")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--push", type=int, default=16, help="units per push")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.model:
        vocoder = load_vocoder(options.model)
    elif "voice" in (recipe := read_yaml(options.recipe)):
        vocoder = LatentVocoder(LatentVocoderConfig(**recipe["voice"]["model"]))
    else:
        vocoder = UnitVocoder(VocoderConfig(**recipe["vocoder"]["model"]))
        vocoder.remove_weight_norm()
    numbers = measure(vocoder.eval(), options.seconds, options.push, options.repeats)
    print(json.dumps({name: round(value, 4) for name, value in numbers.items()}))


if __name__ == "__main__":
    main()
