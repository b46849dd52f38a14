"""Streaming equals offline, sample by sample, whatever the pieces (house rule 16)."""

import numpy as np
import pytest
from tiny_vocoder import BOTH, tiny

from echox.errors import InputError

UNITS = np.random.default_rng(3).integers(0, 20, 90).tolist()


@BOTH
@pytest.mark.parametrize("chunk", [1, 2, 7, 40, 200])
def test_stream_equals_offline(generator, chunk):
    vocoder = tiny(generator)
    expected = vocoder.speak(UNITS)
    voice = vocoder.stream()
    pieces = [voice.push(UNITS[i : i + chunk]) for i in range(0, len(UNITS), chunk)]
    pieces.append(voice.flush())
    made = np.concatenate(pieces)
    assert made.shape == expected.shape and expected.std() > 1e-3
    np.testing.assert_allclose(made, expected, atol=2e-5)
    if chunk < 40:
        assert sum(len(piece) > 0 for piece in pieces) > 2


@BOTH
def test_first_samples_come_after_the_stated_look_ahead(generator):
    vocoder = tiny(generator)
    units, frames = vocoder.look_ahead
    voice, pushed = vocoder.stream(), 0
    while not len(voice.push([UNITS[pushed]])):
        pushed += 1
    settled = vocoder.predict_durations(vocoder.as_units(UNITS[: pushed + 1]))[0]
    assert int(settled[: pushed + 1 - units].sum()) > frames >= int(settled[: pushed - units].sum())


@BOTH
def test_speech_that_is_settled_early_goes_on_where_it_was(generator):
    vocoder = tiny(generator)
    voice, hop = vocoder.stream(), vocoder.config.hop
    assert len(voice.settle()) == 0
    first = np.concatenate([voice.push(UNITS[:40]), voice.settle()])
    cut = len(first) + hop  # the last frame fades into what follows
    ended = vocoder.speak(UNITS[:40])
    assert cut == len(ended)
    np.testing.assert_allclose(first, ended[:-hop], atol=2e-5)
    rest = np.concatenate([voice.push(UNITS[40:60]), voice.push(UNITS[60:]), voice.flush()])
    settled = [*vocoder.predict_durations(vocoder.as_units(UNITS[:40]))[0].tolist()]
    later = vocoder.predict_durations(vocoder.as_units(UNITS))[0].tolist()[40:]
    whole = vocoder.speak(UNITS, settled + later)
    assert len(first) + len(rest) == len(whole)
    np.testing.assert_allclose(rest[hop:], whole[cut:], atol=2e-5)
    again = np.concatenate([voice.push(UNITS[:40]), voice.settle(), voice.flush()])
    np.testing.assert_allclose(again, ended, atol=2e-5)


def test_two_streams_share_a_model_and_a_flushed_stream_begins_again():
    vocoder = tiny("istft")
    one, two = vocoder.stream(), vocoder.stream()
    first = [one.push(UNITS[:30]), two.push(UNITS[30:60]), one.flush(), two.flush()]
    np.testing.assert_allclose(np.concatenate(first[0::2]), vocoder.speak(UNITS[:30]), atol=2e-5)
    np.testing.assert_allclose(np.concatenate(first[1::2]), vocoder.speak(UNITS[30:60]), atol=2e-5)
    again = np.concatenate([one.push(UNITS[60:]), one.flush()])
    np.testing.assert_allclose(again, vocoder.speak(UNITS[60:]), atol=2e-5)
    assert len(one.flush()) == 0


def test_an_unknown_unit_leaves_the_stream_as_it_was():
    vocoder = tiny("istft")
    voice = vocoder.stream()
    start = voice.push(UNITS[:20])
    with pytest.raises(InputError):
        voice.push([1, 99])
    rest = np.concatenate([start, voice.push(UNITS[20:25]), voice.flush()])
    np.testing.assert_allclose(rest, vocoder.speak(UNITS[:25]), atol=2e-5)
