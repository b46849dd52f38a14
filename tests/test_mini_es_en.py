"""The shipped textless translator: a Spanish sentence becomes English speech, through its verb's default too."""

from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from echox import SpeechTranslator
from echox.audio import load_audio
from echox.cli import app
from echox.eval.tasks.hearing import KINDS, no_speech

SPANISH = Path(__file__).parents[1] / "examples" / "habla.wav"  # "¿Dónde está tu madre?"


@pytest.fixture(scope="module")
def translator():
    return SpeechTranslator.load("mini-es-en")


def test_spanish_becomes_english_speech(translator):
    found = translator.translate(SPANISH)
    assert found.finish == "stop" and found.text == "" and found.sample_rate == 24_000
    assert [int(unit) for word in found.unit_words for unit in word.split("_")] == found.units
    assert 0.6 < len(found.audio) / found.sample_rate < 3.0 and 0.01 < np.abs(found.audio).max() <= 1.0


def test_what_is_said_decides_what_is_answered(translator):
    backwards = load_audio(SPANISH)[::-1].copy()
    assert translator.translate(backwards).units != translator.translate(SPANISH).units


def test_where_nobody_speaks_nothing_is_said(translator):
    sounds = [next(one for one in map(partial(no_speech, kind), count()) if len(one) < 40_000) for kind in KINDS]
    pause = np.zeros(16_000, np.float32)
    *quiet, mixed, alone = translator.translate([*sounds, np.r_[sounds[1], pause, load_audio(SPANISH)], SPANISH])
    assert [(one.finish, len(one.audio)) for one in quiet] == [("unheard", 0)] * len(KINDS)
    assert mixed.finish == "stop" and len(mixed.unit_words) < 2 * len(alone.unit_words)


def test_it_is_what_speaks_unless_another_is_named(translator, tmp_path):
    done = CliRunner().invoke(app, ["translate", str(SPANISH), "-o", str(tmp_path / "speech.wav")])
    assert done.exit_code == 0
    assert abs(len(load_audio(tmp_path / "speech.wav", 24_000)) - len(translator.translate(SPANISH).audio)) <= 1
