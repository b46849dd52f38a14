"""Short windows, any batch: an utterance has the same states alone, in company, and where Hugging Face can run it too."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import WhisperFeatureExtractor, WhisperModel

from echox.errors import ModelError
from echox.features.logmel import log_mel
from echox.models.encoder import SpeechEncoder
from echox.models.weights import dequantize
from echox.train.pack import save_encoder
from echox.train.toy import write_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoder"))


def waves(*samples: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(n).astype(np.float32) * 0.1 for n in samples]


def test_mel_is_whispers():
    wave = waves(20_000)[0]
    theirs = WhisperFeatureExtractor()(wave, sampling_rate=16_000, padding=False, truncation=False).input_features[0]
    ours, lengths = log_mel([wave])
    assert lengths.tolist() == [125]
    np.testing.assert_allclose(ours[0].numpy(), theirs, atol=1e-5)


def test_company_changes_nothing(folder):
    encoder, several = SpeechEncoder.from_pretrained(folder), waves(16_000, 5_000, 30_123)
    together = encoder.encode(several, (1, 2))
    for wave, found in zip(several, together, strict=True):
        alone = encoder.encode([wave], (1, 2))[0]
        for layer in (1, 2):
            assert found[layer].shape == (len(wave) // 320, 16)
            torch.testing.assert_close(found[layer], alone[layer], atol=1e-5, rtol=1e-4)


def test_thirty_seconds_equal_hugging_face(folder):
    wave = waves(480_000)[0]
    features = WhisperFeatureExtractor()(wave, sampling_rate=16_000, return_tensors="pt").input_features
    theirs = WhisperModel.from_pretrained(folder).encoder(features).last_hidden_state[0]
    ours = SpeechEncoder.from_pretrained(folder).encode([wave], (2,))[0][2]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_longer_audio_is_encoded_in_equal_windows(folder):
    encoder, wave = SpeechEncoder.from_pretrained(folder), waves(500_000)[0]
    found = encoder.encode([wave], (2,))[0][2]
    assert found.shape == (500_000 // 320, 16)
    half = -(-(500_000 // 320) // 2) * 320
    torch.testing.assert_close(found[: half // 320], encoder.encode([wave[:half]], (2,))[0][2])


def test_half_precision_round_trip(folder, tmp_path):
    encoder, wave = SpeechEncoder.from_pretrained(folder), waves(8_000)[0]
    encoder.save(tmp_path / "small")
    again = SpeechEncoder.from_pretrained(tmp_path / "small")
    torch.testing.assert_close(
        encoder.encode([wave], (2,))[0][2], again.encode([wave], (2,))[0][2], atol=0.05, rtol=0.05
    )
    assert (tmp_path / "small" / "model.safetensors").stat().st_size < (folder / "model.safetensors").stat().st_size / 2


def test_bad_folder_and_tiny_wave(folder, tmp_path):
    with pytest.raises(ModelError, match="is not a Whisper encoder folder"):
        SpeechEncoder.from_pretrained(tmp_path)
    with pytest.raises(ModelError, match="too few"):
        SpeechEncoder.from_pretrained(folder).encode(waves(100), (1,))
    whole = SpeechEncoder.from_pretrained(folder, full_windows=True)
    assert len(whole.encode(waves(100), (1,))[0][1]) == whole.max_frames  # the last window of a long recording
    with pytest.raises(ModelError, match="0 samples are too few"):
        whole.encode(waves(0), (1,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("encoder.layers.0.fc1.weight"), "lacks tensor"),
        (lambda state: state.update({"encoder.extra": torch.zeros(2)}), "unexpected tensor encoder.extra"),
    ],
)
def test_an_encoder_with_other_tensors_is_refused(folder, tmp_path, change, message):
    state = load_file(folder / "model.safetensors")
    change(state)
    shutil.copytree(folder, tmp_path / "encoder")
    save_file(state, tmp_path / "encoder" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=message):
        SpeechEncoder.from_pretrained(tmp_path / "encoder")


def test_packed_in_int8_it_is_what_its_tensors_say(folder, tmp_path):
    save_encoder(SpeechEncoder.from_pretrained(folder), tmp_path / "small", int8=True)
    assert any(value.dtype == torch.int8 for value in load_file(tmp_path / "small" / "model.safetensors").values())
    (tmp_path / "plain").mkdir()
    shutil.copy(tmp_path / "small" / "config.json", tmp_path / "plain")
    save_file(dequantize(load_file(tmp_path / "small" / "model.safetensors")), tmp_path / "plain" / "model.safetensors")
    wave = waves(16_000)
    small, plain, whole = (
        SpeechEncoder.from_pretrained(place).encode(wave, (2,))[0][2]
        for place in (tmp_path / "small", tmp_path / "plain", folder)
    )
    assert torch.equal(small, plain) and not torch.equal(small, whole)
    torch.testing.assert_close(small, whole, atol=0.05, rtol=0.05)
