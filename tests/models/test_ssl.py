import json

import numpy as np
import pytest
import torch
from transformers import (
    HubertConfig,
    HubertModel,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperModel,
)

from echox.errors import InputError, ModelError
from echox.models.ssl import HiddenStates

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8, 8, 8),
    "conv_kernel": (10, 8, 4),
    "conv_stride": (5, 8, 8),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
KINDS = {
    "hubert-group": lambda: HubertModel(HubertConfig(**TINY)),
    "hubert-layer": lambda: HubertModel(
        HubertConfig(**TINY, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True)
    ),
    "wav2vec2": lambda: Wav2Vec2Model(Wav2Vec2Config(**TINY, feat_extract_norm="layer")),
    "wavlm": lambda: WavLMModel(WavLMConfig(**TINY, feat_extract_norm="layer", num_buckets=16)),
}


def tiny_whisper() -> WhisperModel:
    sizes = {"d_model": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24}
    return WhisperModel(
        WhisperConfig(**sizes, encoder_layers=3, decoder_layers=1, decoder_ffn_dim=8, max_source_positions=50,
                      num_mel_bins=80, vocab_size=8, pad_token_id=0, bos_token_id=1, eos_token_id=2,
                      decoder_start_token_id=1)
    )  # fmt: skip


def waves() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=n).astype(np.float32) * 0.1 for n in (5000, 3200, 5000, 1700)]


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # inside transformers' WavLM
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("normalize", [False, True])
def test_a_batch_equals_one_by_one(kind: str, normalize: bool) -> None:
    torch.manual_seed(0)
    encode = HiddenStates(KINDS[kind](), layer=2, normalize=normalize)
    batch = encode(waves())
    for together, alone in zip(batch, [encode([wave])[0] for wave in waves()], strict=True):
        assert together.shape == alone.shape
        np.testing.assert_allclose(together, alone, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_layer_is_the_one_transformers_calls_so(kind: str, layer: int) -> None:
    torch.manual_seed(1)
    model = KINDS[kind]().eval()
    with torch.no_grad():
        expected = model(torch.from_numpy(waves()[0])[None], output_hidden_states=True).hidden_states[layer][0]
    np.testing.assert_allclose(HiddenStates(model, layer)([waves()[0]])[0], expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_whisper_pads_each_window_and_cuts_the_frames_of_the_padding(layer: int) -> None:
    torch.manual_seed(2)
    model = tiny_whisper()
    encode = HiddenStates(model, layer)
    window = 50 * 320
    long = np.random.default_rng(1).normal(size=window + 4000).astype(np.float32) * 0.1
    frames = encode([long])[0]
    assert frames.shape == ((window + 4000) // 320, 16)
    np.testing.assert_allclose(frames[:50], encode([long[:window]])[0], atol=1e-6)
    np.testing.assert_allclose(frames[50:], encode([long[window:]])[0], atol=1e-6)
    if layer == 3:  # the last layer carries the encoder's final norm
        np.testing.assert_allclose(frames.mean(1), 0, atol=1e-5)


def test_a_folder_loads_with_its_own_normalisation(tmp_path) -> None:
    from transformers import Wav2Vec2FeatureExtractor

    torch.manual_seed(3)
    model = KINDS["hubert-layer"]()
    model.save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(tmp_path)
    loaded = HiddenStates.from_pretrained(tmp_path, layer=2)
    assert loaded.normalize
    np.testing.assert_allclose(loaded(waves())[0], HiddenStates(model, 2, normalize=True)(waves())[0], atol=1e-6)


def test_unusable_input_is_refused(tmp_path, monkeypatch) -> None:
    encode = HiddenStates(KINDS["hubert-group"](), layer=1)
    with pytest.raises(InputError, match="too short"):
        encode([np.zeros(20, np.float32)])
    with pytest.raises(ModelError, match="layer 4 does not exist"):
        HiddenStates(KINDS["hubert-group"](), layer=4)
    with pytest.raises(ModelError, match="is not a speech encoder"):
        HiddenStates.from_pretrained(tmp_path, layer=1)
    encode.model.save_pretrained(tmp_path / "broken")
    settings = tmp_path / "broken" / "config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"num_attention_heads": 3}))
    with pytest.raises(ModelError, match="is not a speech encoder"):
        HiddenStates.from_pretrained(tmp_path / "broken", layer=1)
    whole = json.loads(settings.read_text()) | {"num_attention_heads": 2}
    for change in (
        {"num_hidden_layers": 1_000_000},
        {"hidden_size": 10**9},
        {"conv_dim": [8, 8, 10**9]},
        {"conv_stride": [5, 8, 0]},
        {"conv_kernel": [4] * 100_000},
        {"num_conv_pos_embeddings": -1},
        {"num_labels": 10**12},
        {"intermediate_size": "24"},
    ):
        settings.write_text(json.dumps(whole | change))
        (name,) = change
        with pytest.raises(ModelError, match=rf"broken: its config\.json has {name}.*, which cannot be"):
            HiddenStates.from_pretrained(tmp_path / "broken", layer=1)
    settings.write_text(json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": "a.A", "AutoModel": "a.B"}}))
    (tmp_path / "broken" / "a.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(ModelError, match="contains custom code"):  # it is not run, and nobody is asked
        HiddenStates.from_pretrained(tmp_path / "broken", layer=1)
    assert not (tmp_path / "ran").exists()
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    Wav2Vec2BertModel(Wav2Vec2BertConfig(**sizes, vocab_size=8)).save_pretrained(tmp_path / "bert")
    SeamlessM4TFeatureExtractor().save_pretrained(tmp_path / "bert")
    with pytest.raises(ModelError, match="wav2vec2-bert model, which does not read waves"):
        HiddenStates.from_pretrained(tmp_path / "bert", layer=1)
    with pytest.raises(
        ModelError, match=r"nowhere is not .* \(there is no such folder\): give the folder or the hub name"
    ):
        HiddenStates.from_pretrained(tmp_path / "nowhere", layer=1)
