"""Kokoro gets phoneme ids, a style row for their number and a mix of two voices; flite and Piper say something."""

import json
import shutil
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from echox.errors import ConfigError, InputError
from echox.prepare.recipe import VoiceChoice
from echox.prepare.voices import KokoroVoice, make_voice, spanish_phonemes

VOCABULARY = {"a": 5, "b": 6, "ʃ": 7}


class Session:
    """Answers with the inputs it was given."""

    def __init__(self, path, options) -> None:
        self.path, self.threads = path, options.intra_op_num_threads

    def run(self, names, feeds):
        self.feeds = feeds
        return [np.arange(4, dtype=np.float32)[None]]


@pytest.fixture
def kokoro(tmp_path, monkeypatch):
    runtime, hibari, g2p = (ModuleType(name) for name in ("onnxruntime", "hibari", "hibari.g2p"))
    runtime.InferenceSession = Session
    runtime.SessionOptions = SimpleNamespace
    g2p.G2P = lambda british=False: lambda text: text.upper() if british else text
    for module in (runtime, hibari, g2p):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    (tmp_path / "voices").mkdir()
    for number, name in enumerate(("af_one", "bm_two", "xx_other"), start=1):
        table = np.arange(510, dtype="<f4")[:, None] + np.full((510, 256), 1000 * number, dtype="<f4")
        table.tofile(tmp_path / "voices" / f"{name}.bin")
    (tmp_path / "vocab.json").write_text(json.dumps({"vocab": VOCABULARY}), encoding="utf-8")
    (tmp_path / "kokoro-v1.0.int8.onnx").write_bytes(b"")
    return tmp_path


def test_kokoro_feeds_ids_style_and_speed(kokoro):
    voice = make_voice(VoiceChoice(kind="kokoro", styles=("af_one",)), kokoro)
    assert voice.styles == ("af_one", "bm_two")
    np.testing.assert_array_equal(voice.speak("ab!ʃ", "af_one", 1.25, 0), [0, 1, 2, 3])
    feeds = voice._session.feeds
    np.testing.assert_array_equal(feeds["tokens"], [[0, 5, 6, 7, 0]])
    np.testing.assert_array_equal(feeds["style"], np.full((1, 256), 1003, dtype=np.float32))
    assert feeds["speed"] == np.float32(1.25)


def test_kokoro_mixes_two_voices(kokoro):
    voice = KokoroVoice(kokoro)
    voice.speak("ab", "af_one+bm_two@0.25", 1.0, 0)
    np.testing.assert_allclose(voice._session.feeds["style"], np.full((1, 256), 1252.0))


def test_kokoro_without_a_known_phoneme_is_silent_and_british_voices_get_british_phonemes(kokoro):
    voice = KokoroVoice(kokoro)
    assert len(voice.speak("ab", "bm_two", 1.0, 0)) == 0  # the stand-in's British phonemes are capitals
    assert len(voice.speak("ab", "af_one", 1.0, 0)) == 4


def test_broken_kokoro_folders_are_named(kokoro):
    with pytest.raises(ConfigError, match="no voice af_none"):
        KokoroVoice(kokoro).speak("a", "af_none", 1.0, 0)
    (kokoro / "vocab.json").write_text('{"vocab": {"a": "x"}}')
    with pytest.raises(InputError, match="does not map phonemes"):
        KokoroVoice(kokoro)
    (kokoro / "vocab.json").write_text("no json")
    with pytest.raises(InputError, match="cannot be read"):
        KokoroVoice(kokoro)
    (kokoro / "kokoro-v1.0.int8.onnx").unlink()
    with pytest.raises(InputError, match="is missing"):
        KokoroVoice(kokoro)


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_flite_speaks_at_the_asked_speed():
    voice = make_voice(VoiceChoice(kind="flite"))
    slow, fast = (voice.speak("Where is the sea?", "slt", speed, 0) for speed in (0.8, 1.25))
    assert np.abs(slow).max() > 0.05 and 1.3 < len(slow) / len(fast) < 1.8


needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


@needs_espeak
def test_espeak_says_a_variant_faster_and_as_long_whatever_the_seed():
    voice = make_voice(VoiceChoice(kind="espeak", styles=("es.f2",)))
    slow, fast = (voice.speak("Buenos días, señora.", "es.f2", speed, 0) for speed in (1.0, 1.4))
    assert len(fast) < 0.85 * len(slow) and np.abs(slow).max() > 0.05
    again = voice.speak("Buenos días, señora.", "es.f2", 1.0, 1)
    assert len(again) == len(slow)  # on a loaded machine espeak-ng itself now and then says other samples
    assert not np.array_equal(slow[:2000], voice.speak("Buenos días, señora.", "es.m3", 1.0, 0)[:2000])
    with pytest.raises(InputError, match="could not say"):
        voice.speak("hola", "xx-nowhere", 1.0, 0)


@needs_espeak
def test_spanish_phonemes_are_kokoros_with_punctuation():
    said = spanish_phonemes("¿Dónde está? Muchas gracias, señor.")
    assert said.startswith("¿") and "?" in said and said.endswith(".") and "ʧ" in said and "tʃ" not in said


def test_spanish_voices_read_spanish(kokoro, monkeypatch):
    monkeypatch.setattr("echox.prepare.voices.spanish_phonemes", lambda text: "ab")
    np.full((510, 256), 5.0, dtype="<f4").tofile(kokoro / "voices" / "ef_uno.bin")
    voice = KokoroVoice(kokoro)
    voice.speak("ʃ", "ef_uno", 1.0, 0)
    np.testing.assert_array_equal(voice._session.feeds["tokens"], [[0, 5, 6, 0]])
