"""UnitVocoder: released layout, padding invariance, context, files and bad input; at toy sizes."""

import numpy as np
import pytest
import torch
from tiny_vocoder import BOTH, tiny
from torch.nn import functional

from echox.errors import ConfigError, InputError, ModelError
from echox.generate.parts import load_vocoder
from echox.models.generators import add_weight_norm, inverse_stft
from echox.models.io import save_part
from echox.models.vocoder import UnitVocoder, VocoderConfig, expand


def released_reference(
    state: dict[str, torch.Tensor], units_U: torch.Tensor, durations_U: torch.Tensor
) -> torch.Tensor:
    """The released forward pass written from spec section 5 on the raw tensors of section 10.4."""

    def weight(name: str) -> torch.Tensor:
        g, v = state[f"{name}.weight_g"], state[f"{name}.weight_v"]
        return g * v / v.flatten(1).norm(dim=1)[:, None, None]

    def conv(x: torch.Tensor, name: str, dilation: int = 1) -> torch.Tensor:
        w = weight(name)
        return functional.conv1d(
            x, w, state[f"{name}.bias"], padding=dilation * (w.shape[2] - 1) // 2, dilation=dilation
        )

    x = conv(state["dict.weight"][units_U.repeat_interleave(durations_U)].T[None], "conv_pre")
    for i, (rate, kernel) in enumerate(zip((5, 4, 4, 2, 2), (11, 8, 8, 4, 4), strict=True)):
        name = f"ups.{i}"
        x = functional.leaky_relu(x, 0.1)
        x = functional.conv_transpose1d(x, weight(name), state[f"{name}.bias"], rate, padding=(kernel - rate) // 2)
        total = torch.zeros_like(x)
        for j, dilations in enumerate(((1, 3), (1, 2))):
            y = x
            for k, dilation in enumerate(dilations):
                block = f"resblocks.{2 * i + j}"
                z = conv(functional.leaky_relu(y, 0.1), f"{block}.convs1.{k}", dilation)
                y = y + conv(functional.leaky_relu(z, 0.1), f"{block}.convs2.{k}")
            total = total + y
        x = total / 2
    return torch.tanh(conv(functional.leaky_relu(x, 0.01), "conv_post"))[0, 0]


def released_state(vocoder: UnitVocoder) -> dict[str, torch.Tensor]:
    """Random tensors under the released names, in the shapes of `vocoder`."""
    add_weight_norm(vocoder.generator)
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    state = {}
    for name, value in vocoder.state_dict().items():
        for new, old in names.items():
            name = name.replace(new, old)
        name = name.removeprefix("generator.").replace("embedding.", "dict.")
        scale = 1.4 if name.endswith("weight_g") else 0.3
        state[name] = torch.randn(value.shape, generator=torch.Generator().manual_seed(len(state))) * scale
    return state


def test_released_sizes_have_the_released_names_and_count():
    """Spec section 10.4: 302 tensors, 13,485,443 parameters."""
    state = released_state(UnitVocoder(VocoderConfig(generator="hifigan")))
    assert len(state) == 302 and sum(v.numel() for v in state.values()) == 13_485_443
    expected = {
        "dict.weight": (1000, 128),
        "conv_pre.weight_v": (512, 128, 7),
        "conv_pre.weight_g": (512, 1, 1),
        "ups.0.weight_v": (512, 256, 11),
        "ups.0.weight_g": (512, 1, 1),
        "ups.4.weight_v": (32, 16, 4),
        "resblocks.14.convs2.2.weight_v": (16, 16, 11),
        "resblocks.0.convs1.0.weight_v": (256, 256, 3),
        "conv_post.weight_v": (1, 16, 7),
        "dur_predictor.conv1.0.weight": (128, 128, 3),
        "dur_predictor.ln2.bias": (128,),
        "dur_predictor.proj.weight": (1, 128),
    }
    assert {name: tuple(state[name].shape) for name in expected} == expected


def test_released_checkpoint_speaks_as_the_specification_says():
    vocoder = tiny("hifigan")
    state = released_state(vocoder)
    vocoder.load_released(state)
    units, durations = [3, 1, 4, 1, 5], [2, 1, 3, 1, 2]
    expected = released_reference(state, torch.tensor(units), torch.tensor(durations))
    assert expected.std() > 0.01
    np.testing.assert_allclose(vocoder.speak(units, durations), expected.numpy(), atol=2e-5)
    assert not any("parametrizations" in name for name in vocoder.state_dict())


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_released_checkpoint_must_fit(change):
    vocoder = tiny("hifigan")
    state = released_state(vocoder)
    if change == "missing":
        del state["conv_pre.bias"]
    elif change == "extra":
        state["spkr.weight"] = torch.zeros(1)
    else:
        state["dict.weight"] = torch.zeros(3, 8)
    with pytest.raises(ModelError, match={"missing": "conv_pre.bias", "extra": "spkr", "shape": "embedding"}[change]):
        vocoder.load_released(state)


@BOTH
def test_saved_vocoder_speaks_the_same(generator, tmp_path):
    vocoder = tiny(generator).half().float()
    save_part(tmp_path, vocoder)
    loaded = load_vocoder(tmp_path)
    units = [3, 1, 4, 1, 5, 9, 2, 6]
    np.testing.assert_array_equal(loaded.speak(units), vocoder.speak(units))
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


@BOTH
def test_rows_of_a_batch_sound_as_they_do_alone(generator):
    vocoder = tiny(generator).double()
    units = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 0, 0, 0]])
    durations = torch.tensor([[2, 1, 1, 3, 1, 2], [1, 2, 2, 0, 0, 0]])
    with torch.no_grad():
        wave_BS = vocoder(units, durations)
        alone_1S = vocoder(units[1:, :3], durations[1:, :3])
    assert wave_BS.shape == (2, 10 * 320) and alone_1S.shape == (1, 5 * 320)
    torch.testing.assert_close(wave_BS[1, : 5 * 320], alone_1S[0], atol=1e-5, rtol=0)
    assert alone_1S.std() > 1e-3 and not wave_BS[1, 5 * 320 :].any()


@BOTH
def test_padded_units_change_no_duration(generator):
    vocoder = tiny(generator)
    units = torch.tensor([[3, 1, 4, 0, 0], [2, 6, 5, 3, 5]])
    mask = torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    padded = vocoder.dur_predictor(vocoder.embedding(units), mask)[0, :3]
    torch.testing.assert_close(padded, vocoder.dur_predictor(vocoder.embedding(units[:1, :3]))[0])


@pytest.mark.parametrize(("log_value", "frames"), [(-2.0, 1), (np.log(2.4), 1), (np.log(3.6), 3), (np.log(8.0), 7)])
def test_duration_is_the_rounded_exponent_less_one_and_at_least_one(log_value, frames):
    vocoder = tiny("istft")
    with torch.no_grad():
        vocoder.dur_predictor.proj.weight.zero_()
        vocoder.dur_predictor.proj.bias.fill_(log_value)
    assert vocoder.predict_durations(torch.tensor([[1, 2]])).tolist() == [[frames, frames]]


@BOTH
def test_samples_depend_on_no_frame_beyond_the_stated_context(generator):
    vocoder = tiny(generator).double()
    context, middle = vocoder.look_ahead[1], 40
    frames = torch.randint(0, 20, (1, 2 * middle), generator=torch.Generator().manual_seed(1))
    hop = vocoder.config.hop

    def moved(frame: int) -> float:
        other = frames.clone()
        other[0, frame] = (other[0, frame] + 7) % 20
        with torch.no_grad():
            change = (vocoder.synthesize(other) - vocoder.synthesize(frames)).abs()[0]
        return float(change[middle * hop : (middle + 1) * hop].max())

    assert context < middle - 1
    assert moved(middle + context + 1) < 1e-7 and moved(middle - context - 1) < 1e-7
    assert moved(middle + 1) > 1e-4 and moved(middle - 1) > 1e-4


def test_expand_repeats_units():
    frames, mask = expand(torch.tensor([[5, 6, 7], [8, 9, 0]]), torch.tensor([[1, 3, 2], [2, 1, 0]]))
    assert frames.tolist() == [[5, 6, 6, 6, 7, 7], [8, 8, 9, 0, 0, 0]]
    assert mask.tolist() == [[True] * 6, [True] * 3 + [False] * 3]


def test_inverse_stft_equals_torch():
    spectrum = torch.randn(2, 30, 161, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    spectrum[..., [0, -1]] = spectrum[..., [0, -1]].real.to(torch.complex64)
    window = torch.hann_window(320)
    expected = torch.istft(spectrum.transpose(1, 2), 320, 80, window=window, center=True)
    # torch centres spectrum t on sample 80 t, this module on 80 t + 40; torch divides by 1.5, the sum of squared windows
    made = inverse_stft(spectrum, 320, 80) * (1.5**0.5 / 1.5)
    torch.testing.assert_close(made[:, 240:-240], expected[:, 200:-200], atol=1e-4, rtol=0)


def test_nothing_to_say_is_silence_of_no_length():
    assert tiny("istft").speak([]).shape == (0,)


@pytest.mark.parametrize(("units", "wrong"), [([3, 20], 20), ([-1, 3], -1)])
def test_unknown_units_are_refused(units, wrong):
    with pytest.raises(InputError, match=f"unit {wrong} is unknown.*units 0 to 19"):
        tiny("istft").speak(units)


@pytest.mark.parametrize("durations", [[1], [1, 0]])
def test_durations_must_fit(durations):
    with pytest.raises(InputError, match="durations for 2 units"):
        tiny("istft").speak([1, 2], durations)


@pytest.mark.parametrize(
    "sizes", [{"generator": "wavenet"}, {"generator": "hifigan", "hop": 256}, {"istft_steps": 7}, {"istft_fft": 200}]
)
def test_sizes_that_do_not_fit_are_refused(sizes):
    with pytest.raises(ConfigError):
        UnitVocoder(VocoderConfig(**sizes))
