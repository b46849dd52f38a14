"""Encodes speech: float samples at a model's rate to bytes in any format of the protocol, streamed.

    float [S] ─► soxr (streaming) ─► 24 kHz ─► PCM | WAV header + PCM | PyAV encoder (MP3, Opus, AAC, FLAC)
                                  └► 8 kHz  ─► G.711 (g711.py)

Raw PCM is 16-bit little-endian mono at 24 kHz by the protocol's convention.
"""

import io
from fractions import Fraction
from typing import Any

import numpy as np
import soxr

from echox.audio import to_pcm16, wav_header
from echox.errors import require
from echox.serve import g711

RATE = 24_000  # samples per second of everything but G.711
PHONE_RATE = 8_000
MEDIA_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
    "pcm16": "audio/pcm",
}
CODECS = {  # format: container, codec, its own sample format, bits a second
    "mp3": ("mp3", "libmp3lame", 64_000),
    "opus": ("ogg", "libopus", 32_000),
    "aac": ("adts", "aac", 64_000),
    "flac": ("flac", "flac", None),
}


class Resampled:
    """A streaming resampler; the pieces together equal the whole wave resampled."""

    def __init__(self, rate: int, wanted: int) -> None:
        self.stream = None if rate == wanted else soxr.ResampleStream(rate, wanted, 1, dtype="float32")

    def push(self, wave: np.ndarray, last: bool = False) -> np.ndarray:
        """Return the samples that are final so far, float32 [S]; all of them with the `last` piece."""
        wave = np.asarray(wave, np.float32)
        return wave if self.stream is None else self.stream.resample_chunk(wave, last)


class Speech:
    """One answer's samples as bytes of a format."""

    def __init__(self, rate: int, form: str, streamed: bool = True) -> None:
        self.phone = form in g711.ENCODE
        self.resampled = Resampled(rate, PHONE_RATE if self.phone else RATE)
        self.form, self.encoder = form, _Encoder(form, streamed and form != "flac") if form in CODECS else None
        self.begun = False

    def push(self, wave: np.ndarray, last: bool = False) -> bytes:
        """Return the bytes that are final so far; all of them with the `last` piece."""
        return self._encoded(np.clip(self.resampled.push(wave, last), -1.0, 1.0), last)

    def flush(self) -> bytes:
        """Return the remaining bytes."""
        return self.push(np.zeros(0, np.float32), last=True)

    def _encoded(self, wave: np.ndarray, last: bool) -> bytes:
        if self.phone:
            return g711.ENCODE[self.form](np.frombuffer(to_pcm16(wave), "<i2"))
        if self.encoder is not None:
            return self.encoder.push(np.frombuffer(to_pcm16(wave), "<i2"), last)
        head = b"" if self.begun or self.form != "wav" else wav_header(RATE)
        self.begun = True
        return head + to_pcm16(wave)


def whole(wave: np.ndarray, rate: int, form: str) -> bytes:
    """Return a whole answer in a format; unlike a stream, it knows its length."""
    data = Speech(rate, form, streamed=False).push(wave, last=True)
    return wav_header(RATE, len(data) - 44) + data[44:] if form == "wav" else data


class _Encoder:
    """PyAV writing into memory, drained after every push; a whole file comes at the end, with its length in the header.

    FLAC is never streamed: libsndfile reads an unknown length as the largest possible one, and allocates that much.
    """

    def __init__(self, form: str, streamed: bool) -> None:
        self.av: Any = require("av", extra="serve")
        container, codec, bits = CODECS[form]
        self.out = _Pipe() if streamed else io.BytesIO()
        self.container = self.av.open(self.out, "w", format=container)
        self.track = self.container.add_stream(codec, rate=RATE, layout="mono")
        if bits is not None:
            self.track.bit_rate = bits
        self.samples = 0

    def push(self, pcm: np.ndarray, last: bool) -> bytes:
        """Return what the encoder has written since the last call."""
        if len(pcm):
            frame = self.av.AudioFrame.from_ndarray(pcm[None], "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, self.samples, Fraction(1, RATE)
            self.samples += len(pcm)
            self.container.mux(self.track.encode(frame))
        if last:
            self.container.mux(self.track.encode(None))
            self.container.close()
        return self.out.getvalue() if last or isinstance(self.out, _Pipe) else b""


class _Pipe:
    """A file that can only be written; `getvalue` returns what was written since the last call."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: Any) -> int:
        """Keep `data`."""
        self.written.append(bytes(data))
        return len(data)

    def getvalue(self) -> bytes:
        """Return what was written since the last call."""
        data, self.written = b"".join(self.written), []
        return data
