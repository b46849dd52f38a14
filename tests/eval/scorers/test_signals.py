"""Speech measures by hand: edits, pauses, rate, clipping, offsets, absent packages."""

import sys

import numpy as np
import pytest

from echox.errors import InputError, MissingDependency
from echox.eval.scorers import sounds as speech
from echox.eval.scorers.sounds import clipped_share, signal_checks, speech_frames
from echox.eval.scorers.texts import errors_between

RATE = 16_000


def tone(seconds: float, level: float = 0.5) -> np.ndarray:
    """Returns a tone of whole frames."""
    return level * np.sin(np.arange(int(seconds * RATE)) * 0.4)


def silence(seconds: float) -> np.ndarray:
    """Returns so many zeros."""
    return np.zeros(int(seconds * RATE))


def test_edits_are_counted_after_normalising():
    same = errors_between("It's twenty-five dollars!", "it is $25")
    assert (same["word_edits"], same["character_edits"]) == (0, 0)
    found = errors_between("the cat sat", "the bat sat down")
    assert (found["words"], found["word_edits"], found["characters"]) == (3, 2, 11)  # one exchanged, one added
    nothing = errors_between("red blue", "")
    assert nothing["word_edits"] == nothing["words"] == 2


def test_a_reference_without_words_makes_every_heard_word_an_edit():
    found = errors_between("!?", "thank you")
    assert (found["words"], found["word_edits"]) == (0, 2)


def test_pauses_rate_and_edges():
    wave = np.concatenate([silence(0.5), tone(1), silence(0.4), tone(0.5), silence(0.1), tone(0.5), silence(0.3)])
    found = signal_checks(wave, RATE, "one two three four five")
    assert found["seconds"] == pytest.approx(3.3) and found["speech_seconds"] == pytest.approx(2.5)
    assert found["pauses"] == 1 and found["pause_seconds"] == pytest.approx(0.4)  # 0.1 s is no pause, edges are none
    assert found["longest_pause"] == pytest.approx(0.4) and found["words_per_second"] == pytest.approx(2.0)


def test_silence_and_nothing_have_no_speech():
    assert not speech_frames(silence(1)).any()
    for wave in (silence(1), silence(0)):
        found = signal_checks(wave, RATE, "words")
        assert found["speech_seconds"] == 0 and found["words_per_second"] == 0 and found["pauses"] == 0


def test_clipping_needs_a_run_at_full_scale():
    wave = np.zeros(100)
    wave[10] = wave[20:22] = 1.0
    assert clipped_share(wave) == 0  # single peaks and pairs may be true
    wave[30:34] = -1.0
    assert clipped_share(wave) == pytest.approx(0.04)
    wave[96:] = 1.0
    assert clipped_share(wave) == pytest.approx(0.08)  # a run at the very end counts
    assert clipped_share(np.zeros(0)) == 0


def test_an_offset_is_seen_and_what_is_no_number_is_refused():
    assert signal_checks(tone(1) + 0.05, RATE)["dc"] == pytest.approx(0.05, abs=1e-3)
    with pytest.raises(InputError, match="finite"):
        signal_checks(np.array([0, np.nan]), RATE)


def test_an_absent_package_gives_its_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "speechmos.dnsmos", None)
    with pytest.raises(MissingDependency, match=r"pip install .*\[eval\]"):
        speech.dnsmos()
    monkeypatch.setitem(sys.modules, "distillmos", None)
    with pytest.raises(MissingDependency, match="pip install --no-deps distillmos xls-r-sqa"):
        speech.distillmos()
    monkeypatch.setitem(sys.modules, "resemblyzer", None)
    with pytest.raises(MissingDependency, match="pip install --no-deps resemblyzer webrtcvad-wheels"):
        speech.speaker_similarity(np.zeros(16_000))


def test_torchaudio_is_stood_in_for_only_while_importing(monkeypatch):
    monkeypatch.delitem(sys.modules, "torchaudio", raising=False)
    with speech._torchaudio_in_name_only():
        assert "torchaudio" in sys.modules
    assert "torchaudio" not in sys.modules
    real = object()
    monkeypatch.setitem(sys.modules, "torchaudio", real)
    with speech._torchaudio_in_name_only():
        assert sys.modules["torchaudio"] is real
    assert sys.modules["torchaudio"] is real
