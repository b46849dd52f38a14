"""LatentVocoder: pieces equal the whole, stated look-ahead, durations, joins without clicks, files and bad input; toy sizes."""

import json

import numpy as np
import pytest
import torch

from echox.errors import ConfigError, InputError, ModelError
from echox.generate.parts import load_vocoder
from echox.models.io import save_part
from echox.models.latent_vocoder import MOST_OWED, LatentVocoder, LatentVocoderConfig, Pace, Stretch
from echox.models.ragged import pad_right

UNITS = np.random.default_rng(3).integers(0, 20, 90).tolist()
SIZES = {"num_units": 20, "width": 12, "duration_width": 8, "max_duration": 6, "duration_aheads": [2, 1]}
BLOCKS = {"frame_aheads": [2, 4, 0], "frame_dilations": [1, 2, 4], "latent_aheads": [1, 1]}
DECODER = {"latents": 6, "width": 10, "layers": 2, "kernel": 5}


def tiny(**changes) -> LatentVocoder:
    """A vocoder whose weights are large enough for every layer to matter; about half of it is voiced."""
    torch.manual_seed(2)
    vocoder = LatentVocoder(LatentVocoderConfig(**SIZES | BLOCKS | {"decoder": DECODER} | changes)).eval()
    with torch.no_grad():
        for parameter in vocoder.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 0.2))
        vocoder.mean_O[-2] = np.log(180.0)
        vocoder.spread_O[-2] = 0.1
        vocoder.decoder.head.weight.mul_(0.1)
    return vocoder


@pytest.fixture(scope="module")
def vocoder() -> LatentVocoder:
    return tiny()


STATES_UW = torch.from_numpy(np.random.default_rng(4).standard_normal((len(UNITS), 5)).astype(np.float32))


def pieces(
    vocoder: LatentVocoder, units: list[int], chunk: int, states_UW: torch.Tensor | None = None
) -> list[np.ndarray]:
    voice, states_UW = (
        vocoder.stream(),
        torch.zeros(len(units), vocoder.state_width) if states_UW is None else states_UW,
    )
    cuts = range(0, len(units), chunk)
    return [*(voice.push(units[i : i + chunk], states_UW[i : i + chunk]) for i in cuts), voice.flush()]


@pytest.mark.parametrize("chunk", [1, 7, 40])
def test_stream_equals_offline(vocoder, chunk):
    expected, made = vocoder.speak(UNITS), pieces(vocoder, UNITS, chunk)
    assert sum(len(piece) > 0 for piece in made) > 1
    made = np.concatenate(made)
    assert made.shape == expected.shape and expected.std() > 1e-3
    np.testing.assert_allclose(made, expected, atol=1e-3 * np.abs(expected).max())  # CPUs differ: 3e-4 seen on one


@pytest.mark.parametrize("chunk", [1, 7, 40])
def test_stream_with_states_equals_offline_and_the_network_on_everything(chunk):
    from echox.models.spectral import Sound

    vocoder = tiny(state_width=5)
    expected = vocoder.speak(UNITS, states_UW=STATES_UW)
    made = np.concatenate(pieces(vocoder, UNITS, chunk, STATES_UW))
    np.testing.assert_allclose(made, expected, atol=1e-3 * np.abs(expected).max())
    durations = vocoder.predict_durations(torch.tensor([UNITS]), STATES_UW[None])[0]
    frames_BT = torch.tensor(UNITS).repeat_interleave(durations)[None]
    with torch.no_grad():
        outputs = vocoder.predict(frames_BT, states_BTW=STATES_UW.repeat_interleave(durations, dim=0)[None])
        inputs_BJI, f0_BJ = vocoder.decoder_inputs(outputs)
        wave_S = Sound(vocoder.decoder.config).push(vocoder.decoder(inputs_BJI)[0], f0_BJ[0], last=True).numpy()
    inner = slice(200, len(expected) - 300)  # the ends fade
    np.testing.assert_allclose(expected[inner], wave_S[: len(expected)][inner], atol=1e-4 * np.abs(wave_S).max())


def test_states_change_sounds_and_lengths_and_may_be_left_out():
    vocoder = tiny(state_width=5)
    without, zeros, given = (vocoder.speak(UNITS, states_UW=s) for s in (None, torch.zeros(90, 5), STATES_UW))
    np.testing.assert_array_equal(without, zeros)
    assert len(given) != len(without)
    timed = [vocoder.speak(UNITS, [3] * len(UNITS), states_UW) for states_UW in (None, STATES_UW)]
    assert np.abs(timed[0] - timed[1]).max() > 1e-3
    with pytest.raises(InputError, match=r"states \(89, 5\) came with 90 units: this vocoder reads \(90, 5\)"):
        vocoder.speak(UNITS, states_UW=STATES_UW[1:])


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_the_shortest_utterances(vocoder, count):
    units = UNITS[:count]
    expected = vocoder.speak(units)
    durations = vocoder.predict_durations(torch.tensor([units]).long())
    assert len(expected) == int(durations.sum()) * vocoder.config.hop
    np.testing.assert_allclose(np.concatenate(pieces(vocoder, units, 1)), expected, atol=1e-4)


def test_speech_is_the_network_and_the_decoder_on_whole_utterances(vocoder):
    """The slow twin: no stream, padded convolutions over everything at once."""
    from echox.models.spectral import Sound

    durations = vocoder.predict_durations(torch.tensor([UNITS]))[0]
    frames_BT = torch.tensor(UNITS).repeat_interleave(durations)[None]
    with torch.no_grad():
        inputs_BJI, f0_BJ = vocoder.decoder_inputs(vocoder.predict(frames_BT))
        wave_S = Sound(vocoder.decoder.config).push(vocoder.decoder(inputs_BJI)[0], f0_BJ[0], last=True).numpy()
    assert 0.2 < float((f0_BJ > 0).float().mean()) < 0.8
    made = vocoder.speak(UNITS)
    inner = slice(200, len(made) - 300)  # the ends fade
    np.testing.assert_allclose(made[inner], wave_S[: len(made)][inner], atol=1e-4 * np.abs(wave_S).max())


@torch.no_grad()
def test_a_row_is_the_same_alone_and_padded_in_a_batch(vocoder):
    rows = [torch.tensor(UNITS[:count]) for count in (40, 7, 22)]
    units_BU, mask_BU = pad_right(rows)
    outputs_BJO, logits_BUD = vocoder.predict(units_BU, mask_BU), vocoder.durations(units_BU, mask_BU=mask_BU)
    for row, outputs, logits in zip(rows, outputs_BJO, logits_BUD, strict=True):
        alone = vocoder.predict(row[None])[0]
        torch.testing.assert_close(outputs[: len(alone)], alone, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(logits[: len(row)], vocoder.durations(row[None])[0], atol=1e-4, rtol=1e-4)


def test_first_samples_come_after_the_stated_look_ahead(vocoder):
    units, frames = vocoder.look_ahead
    voice, pushed = vocoder.stream(), 0
    while not len(voice.push([UNITS[pushed]])):
        pushed += 1
    settled = vocoder.predict_durations(vocoder.as_units(UNITS[: pushed + 1]))[0]
    known = int(settled[: pushed + 1 - units].sum())
    assert frames - 3 <= known <= frames + int(settled.max())  # a decoder frame and the fade are held back


def test_samples_do_not_depend_on_frames_beyond_the_look_ahead(vocoder):
    frames = np.random.default_rng(1).integers(0, 20, 120).tolist()
    _, ahead = vocoder.look_ahead
    one, other = (vocoder.speak(row, [1] * len(row)) for row in (frames, [*frames[:80], *([7] * 40)]))
    same = (80 - ahead) * vocoder.config.hop
    np.testing.assert_allclose(one[:same], other[:same], atol=1e-4 * np.abs(one).max())
    assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("timed", [False, True])
def test_speech_that_is_settled_early_goes_on_where_it_was(vocoder, timed):
    """What is given before its future is known is all that was said so far; from a look-ahead on, nothing else has changed."""
    lengths = [1 + unit % 4 for unit in UNITS] if timed else None
    whole, voice = vocoder.speak(UNITS, lengths), vocoder.stream(lengths)
    first = np.concatenate([voice.push(UNITS[:50]), voice.settle()])
    rest = np.concatenate([voice.push(UNITS[50:70]), voice.push(UNITS[70:]), voice.flush()])
    hop, fade = vocoder.config.hop, len(voice.fade_S)
    if timed:
        cut = sum(lengths[:50]) * hop
        assert len(first) == cut - fade and len(first) + len(rest) == len(whole)
        ahead = (vocoder.look_ahead[1] + 1) * hop
        np.testing.assert_allclose(first[: cut - ahead], whole[: cut - ahead], atol=1e-3 * np.abs(whole).max())
        np.testing.assert_allclose(rest[fade:], whole[cut:], atol=1e-3 * np.abs(whole).max())
    ended = vocoder.speak(UNITS[:50], lengths and lengths[:50])
    np.testing.assert_allclose(first, ended[:-fade], atol=1e-3 * np.abs(whole).max())
    jump = np.abs(np.diff(np.concatenate([first, rest])))
    assert jump[len(first) - 2 * fade : len(first) + 2 * fade].max() <= jump.max(
        initial=0, where=np.arange(len(jump)) < len(first) - 2 * fade
    )


def test_settling_changes_nothing_where_nothing_follows(vocoder):
    voice = vocoder.stream()
    assert len(voice.settle()) == 0
    made = [voice.push(UNITS[:30]), voice.settle(), voice.settle(), voice.flush()]
    again = [voice.push(UNITS[:30]), voice.flush()]
    np.testing.assert_allclose(np.concatenate(made), np.concatenate(again), atol=1e-5)


def test_settled_streams_say_every_unit_once(vocoder, monkeypatch):
    voice, said, lengths = vocoder.stream(), [], []
    frames = type(voice)._frames

    def watched(self, durations):
        said.extend(self.waiting[: len(durations)])
        lengths.extend(durations)
        return frames(self, durations)

    monkeypatch.setattr(type(voice), "_frames", watched)
    samples = 0
    for start in range(0, len(UNITS), 9):
        made = voice.push(UNITS[start : start + 9]), voice.settle()
        samples += sum(map(len, made))
        assert not voice.waiting and voice.frames == sum(lengths) and len(said) == min(start + 9, len(UNITS))
        assert all(np.isfinite(wave).all() for wave in made)
    assert samples + len(voice.flush()) == sum(lengths) * vocoder.config.hop
    assert said == UNITS and abs(sum(lengths) - int(vocoder.predict_durations(vocoder.as_units(UNITS)).sum())) < 10


def test_given_durations_are_kept_and_must_fit(vocoder):
    durations = [1 + i % 3 for i in range(len(UNITS))]
    assert len(vocoder.speak(UNITS, durations)) == sum(durations) * vocoder.config.hop
    for wrong in (durations[1:], [*durations, 1], [0, *durations[1:]]):
        with pytest.raises(InputError, match="duration"):
            vocoder.speak(UNITS, wrong)


def test_speech_keeps_pace_with_the_means_of_its_durations():
    """Medians of a distribution whose mean is 1.8 frames are 1 and lose the rest; the pace loses nothing, and stays likely."""
    shares_D = torch.tensor([0.6, 0.1, 0.2, 0.1])
    picked = Pace(1.0).pick(shares_D.log().expand(200, 4))
    sums, means = np.cumsum(picked), 1.8 * np.arange(1, 201)
    assert np.abs(sums - means).max() < 5 and set(picked) <= {1, 2, 3}
    sure = torch.tensor([0.0, 1.0, 0.0, 0.0])
    assert Pace(1.5).pick((sure + 1e-9).log().expand(50, 4)) == [2] * 50  # what is owed makes no duration up
    pace = Pace(1.5)
    assert (
        pace.pick((sure + 1e-9).log().expand(50, 4)) == [2] * 50 and pace.owed == MOST_OWED
    )  # or it would never catch up
    assert sum(Pace(1.2).pick(shares_D.log().expand(200, 4))) == pytest.approx(1.2 * 360, abs=6)


def test_a_larger_stretch_speaks_slower():
    fast, slow = (tiny(duration_stretch=s).predict_durations(torch.tensor([UNITS])) for s in (0.9, 1.2))
    assert int(slow.sum()) > int(fast.sum()) and int(fast.min()) >= 1


def test_utterances_begin_and_end_in_silence_so_that_joins_do_not_click(vocoder):
    wave = vocoder.speak(UNITS)
    loud = np.abs(wave).max()
    assert np.abs(wave[[0, -1]]).max() < 0.02 * loud
    joined = np.concatenate([wave, vocoder.speak(UNITS[:40])])
    steps = np.abs(np.diff(joined))
    assert steps[len(wave) - 3 : len(wave) + 3].max() < np.quantile(steps, 0.99)


def test_streams_share_a_model_and_a_flushed_stream_begins_again(vocoder):
    one, two = vocoder.stream(), vocoder.stream()
    first = [one.push(UNITS[:30]), two.push(UNITS[30:60]), one.flush(), two.flush()]
    np.testing.assert_allclose(np.concatenate(first[0::2]), vocoder.speak(UNITS[:30]), atol=1e-3)
    np.testing.assert_allclose(np.concatenate(first[1::2]), vocoder.speak(UNITS[30:60]), atol=1e-3)
    np.testing.assert_allclose(
        np.concatenate([one.push(UNITS[60:]), one.flush()]), vocoder.speak(UNITS[60:]), atol=1e-3
    )
    assert len(one.flush()) == 0


def test_an_unknown_unit_leaves_the_stream_as_it_was(vocoder):
    voice = vocoder.stream()
    start = voice.push(UNITS[:20])
    with pytest.raises(InputError, match="unit 99 is unknown"):
        voice.push([1, 99])
    rest = np.concatenate([start, voice.push(UNITS[20:25]), voice.flush()])
    np.testing.assert_allclose(rest, vocoder.speak(UNITS[:25]), atol=1e-3)


@pytest.mark.parametrize("chunk", [1, 3, 8])
def test_stretch_is_linear_interpolation(chunk):
    rows = torch.randn(1, 25, 4)
    expected = torch.nn.functional.interpolate(rows.transpose(1, 2), size=40, mode="linear").transpose(1, 2)
    stretch = Stretch(480, 300)
    made = [stretch.push(rows[:, i : i + chunk], last=i + chunk >= 25) for i in range(0, 25, chunk)]
    torch.testing.assert_close(torch.cat(made, dim=1), expected)


def test_a_folder_says_which_vocoder_it_holds(vocoder, tmp_path):
    save_part(tmp_path, vocoder)
    loaded = load_vocoder(tmp_path).eval()
    assert isinstance(loaded, LatentVocoder) and loaded.config.sample_rate == 24_000
    assert len(loaded.speak(UNITS)) == len(vocoder.speak(UNITS))
    with pytest.raises(ModelError, match="embedding"):
        save_part(tmp_path, tiny(num_units=19))
        (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text().replace("19", "18"))
        load_vocoder(tmp_path)


def test_sizes_must_fit():
    with pytest.raises(ConfigError, match="sample_rate"):
        tiny(sample_rate=16_000)
    with pytest.raises(ConfigError, match="frame_dilations"):
        tiny(frame_dilations=[1])
    with pytest.raises(ConfigError, match="ahead"):
        tiny(latent_aheads=[9])
    with pytest.raises(ConfigError, match="hops"):
        tiny(decoder=DECODER | {"hop": 500})


@pytest.mark.parametrize("broken", [{"decoder": {"width": 10**6}}, {"decoder": {"depth": 3}}, {"max_duration": 10**6}])
def test_a_hostile_config_ends_in_a_sentence(vocoder, tmp_path, broken):
    save_part(tmp_path, vocoder)
    config = json.loads((tmp_path / "config.json").read_text()) | broken
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="config.json"):
        load_vocoder(tmp_path)
