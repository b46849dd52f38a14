"""Toy data and models on which every stage runs in seconds, for `runs/debug.sh` and the tests: no download, no quality."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperForConditionalGeneration,
    WhisperModel,
)

from echox.audio import SAMPLE_RATE, as_int16, save_wav
from echox.data.manifest import join_shards, save_shard, write_jsonl
from echox.files import write_text

WORDS = "what who where is the capital of a big small red blue king queen river city france spain paris madrid".split()
FACTS = {
    "What is the capital of France?": "Paris",
    "What is the capital of Spain?": "Madrid",
    "Who is the king?": "Red",
    "Where is the river?": "City",
}
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORD_SAMPLES = 3840  # 0.24 s a word
PAIRS = [
    f"{size} {colour} {whose} of {place}."
    for size in ("a big", "the small")
    for colour in ("red", "blue")
    for whose in ("king", "queen", "river")
    for place in ("France", "Spain", "Paris", "Madrid")
]


def write_llm(folder: Path, width: int = 32, layers: int = 2, seed: int = 0) -> Path:
    """Write a tiny Llama with a byte-level tokenizer and a chat template."""
    texts = [*FACTS, *(f"The answer is {answer}." for answer in FACTS.values()), " ".join(WORDS)]
    tokenizer = _tokenizer(texts, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    end = tokenizer.token_to_id("<|im_end|>")
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=end,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def write_encoder(folder: Path) -> Path:
    """Write a tiny Whisper."""
    torch.manual_seed(0)
    WhisperModel(_whisper()).save_pretrained(folder)
    return folder


def write_whisper(folder: Path, seed: int = 0) -> Path:
    """Write a tiny Whisper with its decoder and a byte-level tokenizer that has Whisper's special tokens."""
    specials = ["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"]
    tokenizer = _tokenizer([*FACTS, " ".join(WORDS)], specials)
    torch.manual_seed(seed)
    config = _whisper(vocab_size=tokenizer.get_vocab_size(), decoder_layers=2, max_target_positions=64, eos_token_id=0)
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _tokenizer(texts: list[str], specials: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options: dict[str, Any] = {"special_tokens": specials, "initial_alphabet": alphabet, "show_progress": False}
    tokenizer.train_from_iterator(texts * 4, trainers.BpeTrainer(vocab_size=400, **options))
    return tokenizer


def _whisper(**others: Any) -> WhisperConfig:
    sizes: dict[str, Any] = {
        "d_model": 16,
        "encoder_layers": 2,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "vocab_size": 100,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
    }
    return WhisperConfig(**sizes | others)


def toy_translation(text: str) -> str:
    """Return the text in another language: the same words backwards, each spelled backwards."""
    return " ".join(word[::-1] for word in reversed(text.lower().strip("?.! ").split()))


def sound_of(text: str, pitch: float = 1.0) -> np.ndarray:
    """Return each word of `text` as its own chord, float32 at 16 kHz."""
    time = np.arange(WORD_SAMPLES) / SAMPLE_RATE
    envelope = np.minimum(1.0, np.minimum(time, time[::-1]) / 0.02)
    waves = []
    for word in text.lower().strip("?.! ").split():
        base = 150 + 37 * (sum(map(ord, word)) % 50)
        phase = np.pi * base * pitch * time
        waves.append(0.2 * envelope * (np.sin(2 * phase) + np.sin(5 * phase)))
    return np.concatenate(waves or [np.zeros(WORD_SAMPLES)]).astype(np.float32)


def write_corpus(folder: Path, rows: Iterable[dict], role: str) -> Path:
    """Write rows with `id` and `text` as one shard of spoken utterances."""
    said = []
    for number, row in enumerate(rows):
        wave = as_int16(sound_of(row["text"], 1 + 0.02 * (number % 5)))
        facts = {"samples": len(wave), "sample_rate": SAMPLE_RATE, "role": role, "speaker": "tones", "split": "train"}
        said.append((wave, row | facts))
    save_shard(folder, 0, said, files=False)
    join_shards(folder, 1)
    return folder


def write_must_c(root: Path, texts: list[str]) -> None:
    """Write one talk that says `texts`, laid out as MuST-C is handed out, from `en` to `toy`."""
    folder, at = root / "en-toy" / "data" / "train", 0.0
    waves, lines = [sound_of(text) for text in texts], []
    for wave in waves:
        seconds = len(wave) / SAMPLE_RATE
        lines.append(f"- {{duration: {seconds}, offset: {at}, speaker_id: tones, wav: talk.wav}}\n")
        at += seconds
    (folder / "wav").mkdir(parents=True, exist_ok=True)
    save_wav(folder / "wav" / "talk.wav", np.concatenate(waves), SAMPLE_RATE)
    write_text(folder / "txt" / "train.yaml", "".join(lines))
    write_text(folder / "txt" / "train.en", "\n".join(texts) + "\n")
    write_text(folder / "txt" / "train.toy", "\n".join(map(toy_translation, texts)) + "\n")


def write_world(root: Path, repeats: int = 6) -> Path:
    """Write llm/, encoder/, whisper/, data/{user,assistant,foreign,must_c,texts}/ under `root`."""
    write_llm(root / "llm")
    write_encoder(root / "encoder")
    write_whisper(root / "whisper")
    said = [*(f"The answer is {answer}." for answer in FACTS.values()), "A big red city.", "Is it?"]
    questions, sentences = [], []
    for copy in range(repeats):
        for n, (text, answer) in enumerate(FACTS.items()):
            row = {"id": f"q{n}-{copy}", "question": text, "text": text, "answers": [answer]}
            questions.append(row | {"translation": toy_translation(text)})
        sentences += [{"id": f"s{n}-{copy}", "text": text} for n, text in enumerate(said)]
    (root / "data" / "texts").mkdir(parents=True, exist_ok=True)
    write_jsonl(root / "data" / "texts" / "qa_train.jsonl", questions)
    write_jsonl(root / "data" / "texts" / "sentences.jsonl", sentences)
    lines = [f"{text}\t{toy_translation(text)}\n" for text in [*FACTS, *PAIRS]]
    write_text(root / "data" / "texts" / "pairs.txt", "".join(lines))
    write_corpus(root / "data" / "user", questions, "user")
    write_corpus(root / "data" / "assistant", sentences, "assistant")
    foreign = [row | {"id": f"{row['id']}@tones", "text": " ".join(reversed(row["text"].split()))} for row in sentences]
    write_corpus(root / "data" / "foreign", foreign, "user")
    write_must_c(root / "data" / "must_c", PAIRS)
    return root


if __name__ == "__main__":
    import sys

    write_world(Path(sys.argv[1]))
