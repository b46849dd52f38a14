"""Sound files in and out: decode, mix to mono, resample, refuse what cannot be a question; it knows nothing of models.

    file --soundfile, in blocks--> [frames, channels] --mix--> [frames] --soxr--> [samples] float32 in [-1, 1]

Seconds appear only at this edge; everything behind it counts samples. Decoding is libsndfile's (WAV, FLAC, OGG, MP3, ...) and,
for what phones and browsers record (M4A, AAC, WebM), PyAV's; resampling is soxr's; none is written by hand here.
"""

import io
import os
import re
import struct
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

import numpy as np

from echox.errors import InputError, OutputError, reason_of
from echox.files import open_regular, write_file

SAMPLE_RATE = 16_000  # samples per second that every model here listens to
QUESTION_SECONDS = 120.0  # longest question an assistant takes unless told otherwise
RECORDING_SECONDS = 600.0  # longest recording that is translated or written down
SHORTEST_SECONDS = 0.1  # five encoder frames; below this nobody has said anything
SILENCE = 10 ** (-70 / 20)  # peak distance from the mean, -70 dB of full scale: the noise of an empty 16-bit recording
LOUDEST = 2.0  # float files may overshoot full scale a little; beyond this they were never scaled to it
BLOCK = 1 << 20  # samples decoded at once
CANCELLED = 0.01  # share of the loudest channel's energy below which a mix has lost what was said
LOWEST_RATE, HIGHEST_RATE = 100, 1_000_000  # samples per second
HEADER_SLIP = 64  # bytes or frames by which many programs miscount their own file
MP3_FRAME = 1152  # samples
NO_SOUND = b"data" + bytes(4)  # the head of a WAV's samples, none of them
HEADER_BYTES, UNSIZED_BYTES = 4096, 64 << 20  # where that head is looked for, and how long such a file may be
UNKNOWN_SIZE = 0xFFFFFFFF - 36  # bytes of samples, in the WAV header of a stream
PROMISES = (  # libsndfile's remarks on a file that is shorter than its header says: WAV, AU and W64; RF64; AIFF
    r"\b(?:data|Data Size|riff)\s*: (?P<wanted>\d+) \(should be (?P<held>\d+)\)",
    r"Calculated frame count (?P<held>\d+) does not match value from 'ds64' chunk of (?P<wanted>\d+)",
    r"'COMM' chunk \((?P<wanted>\d+)\) not equal to frame count\s+\S+ calculated from length of 'SSND' chunk \((?P<held>\d+)\)",
)
PCM16_SCALE = 32_768  # the same in both directions, so that the round trip is exact
CONTAINERS = (  # what only PyAV reads, by its first bytes; nothing else reaches it, since playlists may name other files
    (4, b"ftyp", "mov"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (0, b"\xff\xf1", "aac"),
    (0, b"\xff\xf9", "aac"),
    (0, b"#!AMR", "amr"),
)
GIVEN = "the sound that was given"  # what bytes and file objects are called

Sound: TypeAlias = str | Path | bytes | bytearray | BinaryIO | np.ndarray


def read_question(
    sound: Sound, sample_rate: int | None = None, max_seconds: float | None = QUESTION_SECONDS
) -> np.ndarray:
    """Return any sound as mono float32 [samples] at 16 kHz: a path, a file's bytes, an open file, or samples.

    Samples are float in [-1, 1] or int16, mono, at `sample_rate` (None: 16 kHz). Raises InputError as `load_audio` does.
    """
    if not isinstance(sound, np.ndarray):
        return load_audio(sound, max_seconds=max_seconds)
    rate = SAMPLE_RATE if sample_rate is None else sample_rate
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise InputError(f"a sample_rate of {rate} is none that a recording has: give samples per second.")
    if sound.dtype.kind not in "fi" or (sound.dtype.kind == "i" and sound.dtype != np.int16):
        raise InputError(f"the question is an array of {sound.dtype}: give float samples in [-1, 1], or int16.")
    samples = sound.astype(np.float32) / (PCM16_SCALE if sound.dtype == np.int16 else 1.0)
    check_samples(samples, rate, "the question", max_seconds)
    return np.clip(resample(samples, rate, SAMPLE_RATE), -1.0, 1.0)


def load_audio(
    path: str | Path | bytes | bytearray | BinaryIO, sample_rate: int = SAMPLE_RATE, max_seconds: float | None = None
) -> np.ndarray:
    """Return a file (path, bytes, or open) as mono float32 [samples] in [-1, 1] at `sample_rate`, whole: nothing is cut off.

    Raises InputError, in one sentence that names the file, when it is missing, a folder, unreadable, empty, not audio,
    damaged, silent, shorter than 0.1 s, longer than `max_seconds`, or holds samples that are not numbers.
    """
    if isinstance(path, (str, Path)):
        name = str(path)
        with open_regular(path) as file:
            samples, rate = _decode(file, name, max_seconds)
    else:
        name = GIVEN
        if not isinstance(path, (bytes, bytearray)) and not hasattr(path, "read"):
            raise InputError(
                f"{name} is a {type(path).__name__}: give a path, bytes, an open file, or an array of samples."
            )
        given = path if isinstance(path, (bytes, bytearray)) else path.read()
        if not isinstance(given, (bytes, bytearray)):
            raise InputError(f"{name} is an open text file: open it in binary mode.")
        samples, rate = _decode(io.BytesIO(given), name, max_seconds)
    check_samples(samples, rate, name, max_seconds)
    return np.clip(resample(samples, rate, sample_rate), -1.0, 1.0)


def resample(wave: np.ndarray, source: float, target: float) -> np.ndarray:
    """Return float32 [samples x target / source]; rates in Hz (a `source` too high moves pitch and formants up)."""
    wave = np.asarray(wave, dtype=np.float32)
    if source == target:
        return wave
    import soxr

    return soxr.resample(wave, source, target)


def check_samples(samples: np.ndarray, sample_rate: int, name: str, max_seconds: float | None = None) -> None:
    """Refuse [samples] that cannot be a question with an InputError that starts with `name`."""
    if samples.ndim != 1:
        raise InputError(f"{name} has shape {samples.shape}: give one mono wave of shape [samples].")
    seconds = len(samples) / sample_rate
    if len(samples) == 0:
        raise InputError(f"{name} is empty: it holds no sound; record it again.")
    if seconds < SHORTEST_SECONDS:
        raise InputError(f"{name} is too short ({seconds:.3f} s): give at least {SHORTEST_SECONDS} s of sound.")
    if max_seconds is not None and seconds > max_seconds:
        raise _too_long(name, seconds, max_seconds)
    if not np.isfinite(samples).all():
        raise InputError(f"{name} holds samples that are not finite numbers (NaN or infinity): export it again.")
    peak = float(np.abs(samples).max())
    if peak > LOUDEST:
        raise InputError(f"{name} holds samples up to {peak:.6g}, far outside -1 to 1: save it as 16-bit or scale it.")
    if float(np.abs(samples - samples.mean(dtype=np.float64)).max()) < SILENCE:
        raise InputError(f"{name} is silent: check the microphone and record it again.")


def _too_long(name: str, seconds: float, limit: float) -> InputError:
    return InputError(f"{name} is too long ({seconds:.1f} s, the limit is {limit:g} s): cut it into shorter questions.")


def _decode(file: BinaryIO, name: str, max_seconds: float | None) -> tuple[np.ndarray, int]:
    """Return mono float32 [samples] and the file's own rate; at most one sample more than the limit is decoded.

    Decoded and mixed in blocks: many channels or a high rate cost no more memory than the mono wave.
    """
    import soundfile

    head = file.read(16)
    if not head:
        raise InputError(f"{name} is empty (0 bytes): record or copy it again.")
    file.seek(0)
    for place, mark, container in CONTAINERS:
        if head[place : place + len(mark)] == mark:
            return _decode_container(file, name, container, max_seconds)
    file = _sized(file)
    advice = "give WAV, FLAC, OGG, MP3, M4A or WebM"
    steady = cast(BinaryIO, _Steady(file))  # reading, seeking and telling are all that soundfile asks of it
    try:
        with soundfile.SoundFile(steady) as sound:
            rate, promised = sound.samplerate, sound.frames
            advice = "it is damaged; copy it again"
            if not LOWEST_RATE <= rate <= HIGHEST_RATE:
                raise InputError(f"{name} claims {rate} samples a second, which no recording has: export it again.")
            limit = None if max_seconds is None else int(max_seconds * rate)
            if limit is not None and limit < promised < 2**62:  # 2**63 - 1 stands for an unknown length
                raise _too_long(name, promised / rate, float(max_seconds or 0))
            samples = _mixed(lambda: _blocks(steady, 2**62 if limit is None else limit + 1))
            share = _share_held(sound.extra_info, sound.format, len(samples), promised, file)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: headerless .raw, whose layout nobody knows
        reason = getattr(error, "error_string", str(error)).strip().rstrip(".")
        raise InputError(f"{name} cannot be read as audio ({reason}): {advice}.") from error
    if share < 1:
        raise InputError(f"{name} is damaged: it holds {100 * share:.0f} % of the sound it promises; copy it again.")
    return samples, rate


def _sized(file: BinaryIO) -> BinaryIO:
    """Return a file at its start; a WAV whose recorder died before it wrote how much there is says instead that nobody knows."""
    head = file.read(HEADER_BYTES)
    file.seek(0)
    at = head.find(NO_SOUND) if head[:4] == b"RIFF" else -1
    if at < 0 or at + len(NO_SOUND) == len(head):
        return file
    content = file.read(UNSIZED_BYTES + 1)
    file.seek(0)
    if len(content) > UNSIZED_BYTES:
        return file
    unsized = io.BytesIO(content)
    unsized.seek(at)
    unsized.write(b"data" + b"\xff" * 4)
    unsized.seek(0)
    return unsized


class _Steady:
    """A file for libsndfile's callbacks, where an error would be printed and not raised: a seek to nowhere does not move."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.readinto, self.tell, self._seek = file.read, file.readinto, file.tell, file.seek  # type: ignore[attr-defined]

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move and return the position, the old one where the new one cannot be."""
        with suppress(OSError, ValueError, OverflowError):
            self._seek(offset, whence)
        return self.tell()

    def write(self, data: bytes) -> int:
        """Never called: the file is open for reading."""
        return 0


def _decode_container(file: BinaryIO, name: str, kind: str, max_seconds: float | None) -> tuple[np.ndarray, int]:
    """Return what `_decode` does of the first sound track of a container that PyAV reads."""
    try:
        import av
        from av.error import FFmpegError
    except ImportError as error:
        raise InputError(
            f'{name} is of a kind that needs PyAV: pip install "openechox[formats]", or save it as WAV, FLAC, OGG or MP3.'
        ) from error
    try:
        with av.open(file, "r", format=kind) as container:
            if not container.streams.audio:
                raise InputError(f"{name} has no sound track: give a recording.")
            track = container.streams.audio[0]
            rate = int(track.rate)
            if not LOWEST_RATE <= rate <= HIGHEST_RATE:
                raise InputError(f"{name} claims {rate} samples a second, which no recording has: export it again.")
        limit = 2**62 if max_seconds is None else int(max_seconds * rate) + 1
        return _mixed(lambda: _container_blocks(file, kind, limit)), rate
    except (FFmpegError, ValueError, TypeError) as error:
        reason = reason_of(getattr(error, "strerror", None) or error)
        raise InputError(f"{name} cannot be read as audio ({reason}): record or copy it again.") from error


def _container_blocks(file: BinaryIO, kind: str, frames: int) -> Iterator[np.ndarray]:
    """Yield at most `frames` frames of the first sound track, from the start, float32 [frames, channels] in blocks."""
    import av

    file.seek(0)
    with av.open(file, "r", format=kind) as container:
        track = container.streams.audio[0]
        plain, first = av.AudioResampler("fltp", rate=int(track.rate)), None
        for frame in container.decode(track):
            for block in plain.resample(frame):
                first = first or (block.sample_rate, block.layout.name)
                if (block.sample_rate, block.layout.name) != first:
                    raise ValueError("its sample rate or its channels change midway")
                yield block.to_ndarray().T[:frames]
                frames -= block.samples
                if frames <= 0:
                    return


def _blocks(file: BinaryIO, frames: int) -> Iterator[np.ndarray]:
    """Yield at most `frames` frames from the start, float32 [frames, channels] in blocks; telephones' codings have no way back."""
    import soundfile

    file.seek(0)
    with soundfile.SoundFile(file) as sound:
        size = max(1, BLOCK // sound.channels)
        while frames > 0 and len(block := sound.read(min(size, frames), dtype="float32", always_2d=True)):
            yield block
            frames -= len(block)


def _mixed(blocks: Callable[[], Iterator[np.ndarray]]) -> np.ndarray:
    """Return the mean of the channels, float32 [samples]; the loudest alone where they cancel each other, read once more."""
    pieces, energy_C, kept = [np.zeros(0, np.float32)], np.zeros(1), 0.0
    with np.errstate(all="ignore"):  # samples that are no numbers are refused later
        for block in blocks():
            pieces.append(block.mean(axis=1, dtype=np.float32))
            energies = [channel.var() for channel in block.T]  # over both axes at once it takes 30 times as long
            energy_C = energy_C + len(block) * np.array(energies)
            kept += len(block) * float(pieces[-1].var())
    if kept < CANCELLED * energy_C.max():
        pieces = [block[:, energy_C.argmax()].copy() for block in blocks()]
    return np.concatenate(pieces)


def _share_held(notes: str, form: str, read: int, promised: int, file: BinaryIO) -> float:
    """Return the share of the promised sound that a file holds, 1 where it promises nothing or all of it is there.

    `notes` is what libsndfile remarked while reading the header: it mends lengths silently. A length of 0, or of about
    2**31 (arecord) or 2**32, is what a program writes that could not know (a pipe).
    """
    if form == "MP3":
        file.seek(0)
        head = file.read(1 << 20)
        tagged = any(mark in head for mark in (b"Xing", b"Info", b"VBRI"))  # else `promised` is a guess
        return read / promised if tagged and read < promised - MP3_FRAME and promised < 2**62 else 1.0
    for pattern in PROMISES:
        if found := re.search(pattern, notes):
            wanted, held = int(found["wanted"]), int(found["held"])
            unknown = wanted == 0 or (wanted + 4096) % 2**31 < 8192 <= wanted
            if not unknown and held < wanted - HEADER_SLIP:
                return held / wanted
    return 1.0


def as_int16(samples: np.ndarray) -> np.ndarray:
    """Return float [samples] as int16, clipped to full scale; ValueError when not finite."""
    if not np.isfinite(samples).all():
        raise ValueError("samples hold NaN or infinity and cannot become 16-bit PCM")
    scaled = np.rint(np.asarray(samples, dtype=np.float64) * PCM16_SCALE)
    return np.clip(scaled, -PCM16_SCALE, PCM16_SCALE - 1).astype(np.int16)


def to_pcm16(samples: np.ndarray) -> bytes:
    """Return float [samples] as 16-bit little-endian mono PCM, clipped to full scale; ValueError when not finite."""
    return as_int16(samples).astype("<i2", copy=False).tobytes()


def from_pcm16(pcm: bytes) -> np.ndarray:
    """Return 16-bit little-endian mono PCM as float32 [samples] in [-1, 1); the exact inverse of `to_pcm16`."""
    if len(pcm) % 2:
        raise InputError(f"16-bit PCM needs an even number of bytes, and here are {len(pcm)}: send whole samples.")
    return np.frombuffer(pcm, dtype="<i2").astype(np.float32) / PCM16_SCALE


def wav_header(sample_rate: int, size: int = UNKNOWN_SIZE) -> bytes:
    """Return the 44 bytes before `size` bytes of mono 16-bit samples, or before a stream of them."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", 36 + size, b"WAVE") + form + struct.pack("<4sI", b"data", size)


def save_wav(path: str | Path, samples: np.ndarray, sample_rate: int) -> None:
    """Write float [samples] as a mono 16-bit WAV, clipped, whole or not at all; OutputError as in `wav_writer`."""
    with wav_writer(path, sample_rate) as write:
        write(np.asarray(samples).reshape(-1))


@contextmanager
def wav_writer(path: str | Path, sample_rate: int) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield a function that appends float [samples] to a mono 16-bit WAV, which appears at the end, whole or not at all.

    Raises OutputError when the folder is missing, the place cannot be written, or a sample is not a finite number. Python's own
    writer is used, since soundfile's only prints that a disk is full.
    """
    path = Path(path)
    check_output(path)
    with write_file(path) as partial, partial.open("wb") as file, wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(sample_rate)

        def write(samples: np.ndarray) -> None:
            try:
                pcm = to_pcm16(samples)
            except ValueError as error:
                raise OutputError(f"{path} was not written, because the {error}.") from error
            sound.writeframesraw(pcm)

        yield write


def check_output(path: str | Path) -> None:
    """Raise OutputError, before any work is done, when a WAV file could not be written to `path`."""
    path = Path(path)
    if os.path.isdir(path):  # unlike those of Path, no long name or loop of links ends it
        raise OutputError(f"{path} is a folder: give the name of a file in it.")
    if path.suffix.lower() != ".wav":
        raise OutputError(
            f"{path} does not end in .wav, the one format written here: name it {path.stem or 'answer'}.wav."
        )
    if not os.path.isdir(path.parent):
        raise OutputError(f"{path} cannot be written: the folder {path.parent} does not exist; make it first.")
    if os.path.exists(path) and not os.access(path, os.W_OK):
        raise OutputError(f"{path} is there and may not be written: choose another name.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{path} cannot be written: no permission in the folder {path.parent}.")
