"""Sound on the realtime wire: base64 of raw samples in one of three formats, and what their bytes mean."""

import base64
import binascii

import numpy as np

from echox.audio import PCM16_SCALE, from_pcm16
from echox.serve import g711
from echox.serve.refusals import Refusal
from echox.serve.sound import PHONE_RATE, RATE

APPEND_BYTES = 15 << 20  # of sound in one append
FORMS = {"audio/pcm": "pcm16", "audio/pcmu": "pcmu", "audio/pcma": "pcma"}  # the protocol's names, ours


def rate_of(form: str) -> int:
    """Return samples per second of a format."""
    return RATE if form == "pcm16" else PHONE_RATE


def bytes_of(ms: float, form: str) -> int:
    """Return the bytes, of whole samples, that `ms` milliseconds take."""
    samples = int(ms * rate_of(form) / 1000)
    return 2 * samples if form == "pcm16" else samples


def ms_of(count: int, form: str) -> float:
    """Return the milliseconds that `count` bytes take."""
    return 1000 * (count // 2 if form == "pcm16" else count) / rate_of(form)


def samples_of(data: bytes, form: str) -> np.ndarray:
    """Return raw sound as float32 [S] at `rate_of(form)`; half a sample at the end is dropped."""
    if form == "pcm16":
        return from_pcm16(data[: len(data) & ~1])
    return g711.DECODE[form](data).astype(np.float32) / PCM16_SCALE


def decoded(text: object, param: str) -> bytes:
    """Return the sound of a base64 string; Refusal when it is none, or too long."""
    if not isinstance(text, str):
        raise Refusal(400, f"{param} is missing: send base64.", "invalid_value", param)
    if len(text) * 3 // 4 > APPEND_BYTES + 3:
        message = f"{param} holds more than {APPEND_BYTES >> 20} MiB: send it in pieces."
        raise Refusal(400, message, "string_above_max_length", param)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(400, f"{param} is not base64: encode raw samples.", "invalid_value", param) from None
