"""The microphone and the loudspeaker of this machine, through sounddevice; it knows no model and no file."""

from typing import Any

import numpy as np

from echox.audio import SAMPLE_RATE
from echox.errors import InputError, OutputError, require


def record(seconds: float) -> np.ndarray:
    """Return `seconds` from the default microphone, float32 [samples] at 16 kHz; InputError where there is none."""
    found = device("input", InputError)
    try:
        wave = found.rec(int(seconds * SAMPLE_RATE), samplerate=SAMPLE_RATE, channels=1, dtype="float32")
        found.wait()
    except Exception as error:
        raise InputError(f"the microphone cannot be read ({error}): choose another in your system settings.") from error
    return np.asarray(wave)[:, 0]


def play(wave: np.ndarray | None, sample_rate: int) -> None:
    """Play float [samples] and wait for the end (None: only look for a loudspeaker); OutputError where there is none."""
    found = device("output", OutputError)
    if wave is None or not len(wave):
        return
    try:
        found.play(wave, sample_rate)
        found.wait()
    except Exception as error:
        raise OutputError(f"the answer cannot be played ({error}): choose another device.") from error


def device(kind: str, problem: type[Exception]) -> Any:
    """Return sounddevice once it has found a default device of that kind."""
    try:
        sounddevice: Any = require("sounddevice", extra="audio")
    except OSError as error:  # its wheel for Linux has no PortAudio inside
        raise problem(f"sounddevice finds no PortAudio ({error}): run apt-get install libportaudio2.") from error
    try:
        sounddevice.query_devices(kind=kind)
    except Exception as error:
        name = "microphone" if kind == "input" else "loudspeaker"
        raise problem(f"this machine has no {name} ({error}): give a recording, or listen to the file.") from error
    return sounddevice
