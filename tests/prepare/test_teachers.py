"""Teachers with a known decoder: the ONNX reader, hibari's decoder rebuilt, and the toy one."""

import numpy as np
import pytest
import torch

from echox.errors import InputError, ModelError
from echox.models.spectral import Sound, as_inputs
from echox.prepare.teachers import HibariTeacher, ToyTeacher, hibari_decoder, read_weights, with_outputs


def field(number: int, value: bytes | int) -> bytes:
    """One field of a protobuf message; values below 128."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value)]) + value


def tensor(name: str, kind: int, dims: list[int], number: int, values: bytes) -> bytes:
    return field(
        5, b"".join(field(1, d) for d in dims) + field(2, kind) + field(8, name.encode()) + field(number, values)
    )


def tiny_model() -> bytes:
    whole = np.arange(6, dtype=np.float32).tobytes()
    graph = tensor("raw", 1, [2, 3], 9, whole) + tensor("scale", 1, [], 4, np.float32(0.25).tobytes())
    graph += tensor("zero", 3, [1], 5, b"\xfe" + b"\xff" * 8 + b"\x01")  # -2
    return field(1, 8) + field(7, graph) + field(8, b"\x10\x11")


def test_weights_are_read_however_they_are_stored(tmp_path):
    (tmp_path / "m.onnx").write_bytes(tiny_model())
    weights = read_weights(tmp_path / "m.onnx")
    np.testing.assert_array_equal(weights["raw"], np.arange(6, dtype=np.float32).reshape(2, 3))
    assert weights["scale"].shape == () and weights["scale"] == 0.25
    assert weights["zero"].dtype == np.int8 and weights["zero"].tolist() == [-2]


def test_one_more_output_leaves_the_rest_of_the_model_as_it_is(tmp_path):
    more = with_outputs(tiny_model(), ["inner"])
    (tmp_path / "m.onnx").write_bytes(more)
    assert set(read_weights(tmp_path / "m.onnx")) == {"raw", "scale", "zero"}
    added = field(12, field(1, b"inner"))
    assert added in more and len(more) == len(tiny_model()) + len(added) and more.startswith(tiny_model()[:2])
    assert more.endswith(tiny_model()[-4:])


def test_what_is_no_model_is_named(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"not a model")
    with pytest.raises(InputError, match="m.onnx"):
        read_weights(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="hibari-tts"):
        hibari_decoder({"m.dec_in.weight": np.zeros((256, 130, 7), np.float32)})


def test_the_toy_says_each_letter_for_a_tenth_of_a_second():
    teacher = ToyTeacher()
    (said,) = teacher.say("abba", seed=0)
    assert said.latents_FL.shape == (32, 8) and said.prosody_F2.shape == (32, 2) and len(said.wave_S) == 32 * 300
    np.testing.assert_array_equal(said.latents_FL[:8], said.latents_FL[24:])
    assert said.wave_S.std() > 1e-4
    np.testing.assert_array_equal(teacher.say("abba", seed=0)[0].wave_S, said.wave_S)


@pytest.mark.pretrained
def test_hibari_is_rebuilt():
    """The only difference is that the graph quantises activations on the way."""
    pytest.importorskip("hibari")
    teacher = HibariTeacher()
    ids = teacher._tts.ids(teacher._tts.phonemize("The quick brown fox jumps over the lazy dog.")[0])
    *expected, f0_F, inputs_FI, lengths_P = teacher.run(ids)
    assert len(lengths_P) == len(ids) and lengths_P.sum() == len(f0_F)
    with torch.inference_mode():
        made = teacher.decoder(torch.from_numpy(inputs_FI)[None])[0]
        wave_S = Sound(teacher.decoder.config).push(made, torch.from_numpy(f0_F), last=True).numpy()
    for ours, graph in zip(made.chunk(5, dim=1), expected, strict=True):
        assert float((ours - torch.from_numpy(graph)).abs().mean()) < 0.06
    rebuilt = as_inputs(
        torch.from_numpy(inputs_FI[None, :, :-2]),
        torch.from_numpy(f0_F)[None],
        torch.from_numpy(inputs_FI[None, :, -1]),
    )
    np.testing.assert_allclose(rebuilt[0].numpy(), inputs_FI, atol=1e-5)
    (said,) = teacher.say("The quick brown fox jumps over the lazy dog.", seed=0)
    assert wave_S.shape == said.wave_S.shape
    assert said.text.split()[3] == "fox" and len(said.begins) == 9 and said.begins[-1] < len(f0_F)
    assert said.begins[0] == 0 and (np.diff(said.begins) > 5).all()  # frames, 80 a second
    assert abs(float(wave_S.std() / said.wave_S.std()) - 1) < 0.05
    ours, theirs = (
        np.log(np.abs(np.fft.rfft(w[4000:36000].reshape(-1, 800))).mean(0) + 1e-4) for w in (wave_S, said.wave_S)
    )
    assert np.abs(ours - theirs).mean() < 0.25  # of the average spectrum, in nepers; phase and noise are not the same
