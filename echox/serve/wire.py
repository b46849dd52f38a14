"""Sound of the realtime protocol: base64 of raw samples in one of three formats, its lengths, and the input buffer."""

import base64
import binascii
from dataclasses import dataclass, field

import numpy as np

from echox.audio import PCM16_SCALE, from_pcm16
from echox.generate.listening import Pace
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


@dataclass
class SoundBuffer:
    """The user's sound since the last turn; a session's clock counts received sound, not time."""

    form: str = "pcm16"
    start_ms: float = 0.0
    data: bytearray = field(default_factory=bytearray)
    pace: Pace = field(default_factory=Pace)  # at which it is listened to

    @property
    def end_ms(self) -> float:
        """Where the sound ends."""
        return self.start_ms + ms_of(len(self.data), self.form)

    def append(self, data: bytes) -> None:
        """Take more sound."""
        self.data += data
        self.pace.push(samples_of(data, self.form), rate_of(self.form))

    def is_due(self) -> bool:
        """Say whether enough new sound has come to process, and count it as processed if so."""
        return self.pace.is_due((self.end_ms - self.start_ms) / 1000)

    def keep_last(self, ms: float) -> None:
        """Forget all but the last `ms`."""
        self.take(max(0, len(self.data) - bytes_of(ms, self.form)))

    def start_at(self, ms: float) -> None:
        """Drop the sound before a time on the clock."""
        self.take(bytes_of(max(0.0, ms - self.start_ms), self.form))

    def until(self, ms: float) -> int:
        """Return how many bytes come before a time on the clock."""
        return min(len(self.data), bytes_of(max(0.0, ms - self.start_ms), self.form))

    def take(self, size: int | None = None) -> bytes:
        """Return and forget the first `size` bytes, or all."""
        taken = bytes(self.data[:size])
        del self.data[: len(taken)]
        self.start_ms += ms_of(len(taken), self.form)
        return taken

    def restart(self, form: str) -> None:
        """Drop everything and continue in another format."""
        self.take()
        self.form, self.pace = form, Pace()
