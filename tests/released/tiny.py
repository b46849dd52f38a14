"""Tiny random checkpoints in every released layout, with a tokenizer that has Llama-3's special tokens by name."""

import json
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from echox.released.config import ReleasedConfig
from echox.released.keymap import expected_shapes

SPECIALS = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
]
PIECES = [
    "▁5",
    "▁12",
    "▁7",
    "▁9",
    "▁1",
    "0",
    "3",
    "▁40",
    "▁998",
    "▁1003",
    "1",
    "2",
    "4",
    "6",
    "8",
    "▁2",
    "▁3",
    "▁4",
    "▁6",
    "▁8",
]
WIDTH = 24  # of the encoder
WINDOW_FRAMES = 100  # encoder frames: 2 s

LLAMA = {
    "vocab_size": 0,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "torch_dtype": "float16",
    "adapter_size": WIDTH,
    "audio_tower": "./whisper-tiny-random",
}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE that knows the four role names as single tokens, then specials, then units."""
    tokenizer = Tokenizer.from_str(_trained())
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", pad_token="<|eot_id|>"
    )


@lru_cache
def _trained() -> str:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    roles = ["system", "user", "assistant", "speaker"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=320, initial_alphabet=sorted(alphabet), show_progress=False)
    tokenizer.train_from_iterator([role for role in roles for _ in range(50)], trainer)
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in SPECIALS])
    tokenizer.add_special_tokens([AddedToken("<audio_patch>", special=True)])
    tokenizer.add_tokens([AddedToken(f"<|unit_{piece}|>", normalized=False) for piece in PIECES])
    bos = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", bos)]
    )
    return tokenizer.to_str()


def settings(kind: str = "EchoX", tied: bool = False, **changes: object) -> dict:
    """config.json of a tiny checkpoint whose vocabulary is that of `make_tokenizer`."""
    vocabulary = make_tokenizer().get_vocab()
    raw = {**LLAMA, "model_type": kind, "vocab_size": vocabulary["<audio_patch>"] + 1, "tie_word_embeddings": tied}
    if kind == "EchoX":
        raw |= {"unit_output": "finetune_kd", "unit_vocab_size": len(PIECES), "unit_model": "large"}
    raw |= {"segment_prefix_id": 77, **changes}
    return {key: value for key, value in raw.items() if value is not None}


def random_state(config: ReleasedConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors of the layout, norms near one, large enough that argmax and cosines vary."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in expected_shapes(config).items():
        noise = torch.randn(shape, generator=generator)
        is_norm = "norm" in name and name.endswith("weight")
        fan = shape[-1] if len(shape) > 1 else 100
        state[name] = 1 + 0.1 * noise if is_norm else noise * (1.5 / fan**0.5)
    return state


def save_sharded(folder: Path, state: dict[str, torch.Tensor], shards: int = 3) -> None:
    """Write `state` as model-0000i-of-0000n.safetensors with an index."""
    names = list(state)
    where = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = names[number::shards]
        save_file({name: state[name].contiguous() for name in part}, folder / file, metadata={"format": "pt"})
        where.update(dict.fromkeys(part, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def write_whisper(folder: Path, width: int = WIDTH, prefix: str = "model.encoder.", seed: int = 1) -> WhisperEncoder:
    """A random Whisper folder (encoder tensors under `prefix`) with windows of 2 s."""
    config = WhisperConfig(
        d_model=width, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=32, decoder_layers=1,
        decoder_attention_heads=2, decoder_ffn_dim=8, num_mel_bins=16, max_source_positions=WINDOW_FRAMES,
        vocab_size=60000,
    )  # fmt: skip
    torch.manual_seed(seed)
    encoder = WhisperEncoder(config).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({prefix + n: t.contiguous() for n, t in encoder.state_dict().items()}, folder / "model.safetensors")
    config.save_pretrained(folder)
    return encoder


def write_checkpoint(
    folder: Path, raw: dict | None = None, dtype: torch.dtype = torch.float32, shards: int = 3, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Write a checkpoint with tokenizer and, beside it, the encoder its config names; return its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = raw or settings()
    state = {n: t.to(dtype) for n, t in random_state(ReleasedConfig.from_dict(raw), seed).items()}
    (folder / "config.json").write_text(json.dumps(raw))
    save_sharded(folder, state, shards)
    make_tokenizer().save_pretrained(folder)
    (folder / "generation_config.json").write_text("{}")
    if not (folder.parent / "whisper-tiny-random").exists():
        write_whisper(folder.parent / "whisper-tiny-random", raw["adapter_size"])
    return state


if __name__ == "__main__":  # runs/debug.sh
    import sys

    from tests.released.test_fairseq import write_vocoder

    write_checkpoint(Path(sys.argv[1]), settings(adapter_size=16))
    write_vocoder(Path(sys.argv[1]), num_embeddings=1000)
