"""An encoder as part of a model hears what the caching stage hears, learns, stays without dropout, and is saved and loaded."""

import numpy as np
import pytest
import torch
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

from echox.errors import ModelError
from echox.models.hearing import Hearing
from echox.prepare.encode import EncoderSettings, load_encode
from echox.train.toy import write_encoder

TINY = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24, "conv_dim": (8, 8, 8),
        "conv_kernel": (10, 8, 4), "conv_stride": (5, 8, 8), "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 2}  # fmt: skip


def write_hubert(folder):
    torch.manual_seed(0)
    HubertModel(HubertConfig(**TINY)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def waves():
    rng = np.random.default_rng(0)
    return [rng.normal(size=n).astype(np.float32) * 0.1 for n in (6400, 3200, 5000)]


@pytest.mark.parametrize(("write", "window"), [(write_encoder, "short"), (write_hubert, "own")])
def test_it_hears_what_is_cached_learns_and_is_loaded_again(tmp_path, write, window):
    folder = write(tmp_path / "given")
    cached, hop = load_encode(EncoderSettings(encoder=folder, layer=2, window=window, device="cpu"))
    hearing = Hearing.from_pretrained(folder, 2).train()
    assert hearing.frame_samples == hop and hearing.width == 16
    heard = hearing(waves())
    for found, wanted in zip(heard, cached(waves()), strict=True):
        assert not found.requires_grad
        torch.testing.assert_close(found, torch.from_numpy(wanted).float(), atol=2e-3, rtol=2e-3)
    for parameter in hearing.parameters():
        parameter.requires_grad_(True)
    sum(row.square().mean() for row in hearing(waves())).backward()
    moved = [
        parameter for parameter in hearing.parameters() if parameter.grad is not None and parameter.grad.abs().sum()
    ]
    assert len(moved) > 10
    with torch.no_grad():
        for parameter in moved:
            parameter.sub_(0.1 * parameter.grad)
    hearing.save(tmp_path / "saved")
    loaded = Hearing.from_pretrained(tmp_path / "saved", 2)
    for now, again, before in zip(hearing(waves()), loaded(waves()), heard, strict=True):
        torch.testing.assert_close(now.detach(), again, atol=2e-2, rtol=2e-2)
        assert (again - before).abs().max() > 0.05
    with pytest.raises(ModelError, match="layer 9 does not exist"):
        Hearing.from_pretrained(folder, 9)
