"""The encoder's blocks beside Hugging Face's: the same numbers under the same names."""

import pytest
import torch
from transformers import WhisperConfig as TheirConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder as TheirEncoder

from echox.models.encoder import SpeechEncoder, WhisperConfig, WhisperEncoder

SIZES = {
    "d_model": 32, "encoder_layers": 3, "encoder_attention_heads": 2, "encoder_ffn_dim": 48,
    "num_mel_bins": 8, "max_source_positions": 10,
}  # fmt: skip


def pair(activation: str = "gelu"):
    torch.manual_seed(0)
    theirs = TheirEncoder(TheirConfig(**SIZES, activation_function=activation)).eval()
    ours = WhisperEncoder(WhisperConfig(**SIZES, activation_function=activation)).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@pytest.mark.parametrize("activation", ["gelu", "relu", "silu", "gelu_new"])
@torch.inference_mode()
def test_states_are_those_of_transformers(activation):
    theirs, ours = pair(activation)
    mel = torch.randn(2, 8, 20)
    found = SpeechEncoder(ours)(mel, torch.tensor([20, 20]), (3,))[0][3]
    torch.testing.assert_close(found, theirs(mel).last_hidden_state, rtol=0, atol=1e-6)


@torch.inference_mode()
def test_a_block_with_padding_is_that_of_transformers():
    theirs, ours = pair()
    states, mask = torch.randn(2, 10, 32), torch.zeros(2, 1, 1, 10)
    mask[0, ..., 7:] = torch.finfo(torch.float32).min
    for a, b in zip(theirs.layers, ours.layers, strict=True):
        x = a(states, mask)
        torch.testing.assert_close(b(states, mask), x[0] if isinstance(x, tuple) else x, rtol=0, atol=1e-6)


def test_half_precision_does_not_overflow():
    _, ours = pair()
    layer = ours.layers[0].half()
    torch.nn.init.constant_(layer.fc2.bias, 60_000.0)
    with torch.inference_mode():
        states = layer(layer(torch.ones(1, 4, 32, dtype=torch.float16)))
    assert torch.isfinite(states).all()
