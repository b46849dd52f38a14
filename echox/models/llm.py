"""The text LLM as Hugging Face knows it: loading it, its tokenizer and its embedding table alone."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from echox.errors import ModelError

EMBEDDINGS = "model.embed_tokens.weight"


def load_tokenizer(folder: str | Path) -> Any:
    """Return the tokenizer of an LLM folder; ModelError when there is none."""
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} holds no tokenizer ({error}): give a Hugging Face LLM folder.") from error


def load_text_tokenizer(path: str | Path) -> Tokenizer:
    """Return the bare tokenizer of a tokenizer.json; ModelError when there is none."""
    if not Path(path).is_file():
        raise ModelError(f"{path} is missing: fetch the model again.")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:
        raise ModelError(f"{path} is not a tokenizer ({error}): fetch the model again.") from error


def load_llm(folder: str | Path, dtype: torch.dtype = torch.float32) -> Any:
    """Return the frozen causal LM of a folder in `dtype`; ModelError when there is none."""
    try:
        llm = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} holds no causal LM ({error}): give a Hugging Face LLM folder.") from error
    return llm.eval().requires_grad_(False)


def load_embeddings(folder: str | Path) -> torch.Tensor:
    """Return the token embeddings (V, H) of an LLM folder in float32 without loading the rest."""
    for path in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            if EMBEDDINGS in file.keys():  # noqa: SIM118 - safe_open is not a mapping
                return file.get_tensor(EMBEDDINGS).float()
    raise ModelError(f"{folder} holds no tensor {EMBEDDINGS} in safetensors: give a Llama-like LLM folder.")


def token_pieces(tokenizer: Any, ids: list[int]) -> list[str]:
    """Return the text that each token adds, for counting characters."""
    return tokenizer.batch_decode([[i] for i in ids]) if ids else []
