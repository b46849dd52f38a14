"""The text LLM in a Hugging Face folder: loading it, its tokenizer and its embedding table alone.

A Llama is loaded into models/llama.py, which needs no model code of transformers; every other kind is loaded by theirs.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from pydantic import Field
from safetensors import SafetensorError
from tokenizers import Tokenizer

from echox.errors import ConfigError, ModelError, reason_of, require
from echox.files import JSON_BYTES, read_json, read_text
from echox.models.bounds import Classes, Heads, Layers, Wide, Width, check_values
from echox.models.io import CONFIG, Unfilled, check_tensors, read_config, read_settings
from echox.models.llama import LlamaConfig, LlamaLm
from echox.models.packed import most_rows, multiplier, round_to_bits
from echox.models.packed_file import pack_kept
from echox.models.weights import WeightFiles

EMBEDDINGS = "model.embed_tokens.weight"
ROTARY = "rotary_emb."  # in names of tables that old files hold: they follow from the settings
WORD_START = "\u2581"  # how SentencePiece writes the space in front of a word
IN_BITS = {"int8": 8, "int4": 4}  # on a processor, by models/packed.py
MOSTLY = 0.5  # of an LLM's weights: with fewer packed it is faster in a dtype of its own
SPREADS = ("auto", "balanced", "balanced_low_0", "sequential")  # of accelerate
BY_LIBRARY = ("int8", "nf4")  # by bitsandbytes
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that byte-level tokens write as themselves
HIDDEN = sorted(set(range(256)) - set(PRINTABLE))
BYTE_OF = {chr(n): n for n in PRINTABLE} | {chr(256 + number): n for number, n in enumerate(HIDDEN)}


class LlmSizes:
    """What is held to bounds in the config.json of an LLM folder."""

    hidden_size: Width
    intermediate_size: Wide
    num_hidden_layers: Layers
    num_attention_heads: Heads
    num_key_value_heads: Heads
    head_dim: Width
    vocab_size: Classes
    max_position_embeddings: Annotated[int, Field(strict=True, ge=1, le=10_000_000)]


def check_llm(folder: str | Path) -> None:
    """Raise ModelError unless an LLM folder of somebody else is bounded, whole and finite, and brings no code of its own."""
    folder = Path(folder)
    values = read_config(folder)
    sizes = {name: values[name] for name in LlmSizes.__annotations__ if values.get(name) is not None}
    check_values(LlmSizes, sizes, folder / CONFIG)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            read_text(folder / name, JSON_BYTES, ModelError)
    try:
        llm = empty_llm(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, StrictDataclassError) as error:
        raise ModelError(f"{folder / CONFIG} does not describe a causal LM ({reason_of(error)}).") from error
    own = llm.state_dict()
    tied = set(llm.all_tied_weights_keys) if llm.config.tie_word_embeddings else set()
    files = WeightFiles(folder)
    stored = {name: described for name, described in files.headers.items() if ROTARY not in name}
    check_tensors(files.place, stored, {n: value for n, value in own.items() if n in stored or n not in tied})
    for _ in files.read(stored):  # each is looked at
        pass


def empty_llm(folder: str | Path) -> Any:
    """Return the causal LM that a folder's config.json describes, without numbers (on the device `meta`)."""
    sizes = LlamaConfig.from_values(read_config(folder), Path(folder) / CONFIG)
    with torch.device("meta"), Unfilled():
        if sizes is not None:
            return LlamaLm(sizes)
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def load_tokenizer(folder: str | Path) -> Any:
    """Return the tokenizer of an LLM folder; ModelError when there is none."""
    try:
        tokenizer = _tokenizer_class(Path(folder)).from_pretrained(folder, trust_remote_code=False)
        tokenizer("x", add_special_tokens=False)  # what its settings break shows at first use
        return tokenizer
    except Exception as error:  # tokenizers raises nothing more special
        raise ModelError(
            f"{folder} holds no tokenizer ({reason_of(error)}): give a Hugging Face LLM folder."
        ) from error


def _tokenizer_class(folder: Path) -> Any:
    """Return what reads a folder's tokenizer: the plain class where the folder says so, since looking for others imports models."""
    import transformers

    settings = folder / "tokenizer_config.json"
    named = read_json(settings).get("tokenizer_class") if settings.exists() else None
    plain = named in ("TokenizersBackend", "PreTrainedTokenizerFast") and (folder / "tokenizer.json").exists()
    return transformers.PreTrainedTokenizerFast if plain else transformers.AutoTokenizer


def load_text_tokenizer(path: str | Path) -> Tokenizer:
    """Return the bare tokenizer of a tokenizer.json; ModelError when there is none."""
    if not Path(path).exists():
        raise ModelError(f"{path} is missing: fetch the model again.")
    try:
        return Tokenizer.from_str(read_text(path, JSON_BYTES, ModelError))
    except Exception as error:
        raise ModelError(f"{path} is not a tokenizer ({error}): fetch the model again.") from error


@dataclass(frozen=True)
class Place:
    """Where a model goes and in what numbers its LLM is held.

    `device_map` ("auto", or module names to devices) spreads the LLM over devices through accelerate. `quantize` holds its linear
    layers in 8 or 4 bits: "int8" and "int4" on a processor that has kernels for them, "int8" and "nf4" elsewhere through
    bitsandbytes. With `packed`, what was stored in 4 or 8 bits runs in float32 on a processor and computes with these bits
    (models/packed.py), and `dtype` is for what was not.
    """

    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32
    device_map: str | dict[str, Any] | None = None
    quantize: str | None = None
    packed: bool = False

    @property
    def spread(self) -> bool:
        """Whether transformers places the LLM."""
        return self.device_map is not None or (self.quantize is not None and not self.in_bits)

    @property
    def has_kernels(self) -> bool:
        """Whether there are kernels for packed weights here."""
        return self.device.type == "cpu" and self.device_map is None and most_rows() > 0

    @property
    def in_bits(self) -> int | None:
        """To how many bits the LLM's layers are rounded here."""
        return IN_BITS.get(self.quantize or "") if self.has_kernels else None

    @property
    def packs(self) -> bool:
        """Whether weights may be packed here."""
        return self.packed and self.has_kernels

    def options(self) -> dict[str, Any]:
        """Return what `from_pretrained` is told; ConfigError for a combination that does not exist."""
        options: dict[str, Any] = {"dtype": "auto" if self.in_bits else self.dtype}
        if self.device_map is not None:
            require("accelerate", install="pip install openechox")
            check_device_map(self.device_map)
            options["device_map"] = self.device_map
        if self.quantize is None or self.in_bits:
            return options
        if self.quantize not in BY_LIBRARY:
            known = " or ".join(dict.fromkeys((*IN_BITS, *BY_LIBRARY) if self.device.type == "cpu" else BY_LIBRARY))
            reason = "needs AVX2 or AVX-512 and no device_map" if self.quantize in IN_BITS else "is unknown"
            raise ConfigError(f"quantize {self.quantize!r} {reason} on {self.device.type}: choose {known}.")
        if self.dtype == torch.float32 and self.device.type != "cpu":
            raise ConfigError("quantized weights compute in bfloat16 or float16 on this device: choose one as dtype.")
        require("bitsandbytes", extra="released")
        from transformers import BitsAndBytesConfig

        bits: dict[str, Any] = {"load_in_8bit": True}
        if self.quantize == "nf4":
            bits = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": self.dtype}
        return options | {"quantization_config": BitsAndBytesConfig(**bits)}


CPU = Place()


def check_device_map(device_map: str | dict[str, Any]) -> None:
    """Raise ConfigError for a name that is neither a device nor a way to spread layers over them."""
    if not isinstance(device_map, str) or device_map in SPREADS:
        return
    try:
        torch.device(device_map)
    except RuntimeError as error:
        known = ", ".join(SPREADS)
        raise ConfigError(
            f"device_map {device_map!r} is unknown: choose {known}, or a device such as cuda:0."
        ) from error


def load_llm(folder: str | Path, place: Place = CPU, kind: Any = None, config: Any = None) -> Any:
    """Return the frozen causal LM of a folder; ModelError when there is none, ConfigError for a place that is none.

    `kind` and `config` are for a folder whose own config.json is of another make: transformers' class, and its settings.
    """
    folder, options = Path(folder), place.options() | ({} if config is None else {"config": config})
    try:
        here = kind is None and not place.spread and (folder / CONFIG).exists()
        sizes = LlamaConfig.from_values(read_config(folder), folder / CONFIG) if here else None
        if place.packs and not place.in_bits and on_grid(folder):
            options["dtype"] = torch.float32
        if sizes is not None:
            llm: Any = _load_llama(folder, sizes, options["dtype"])
        else:
            from transformers import AutoModelForCausalLM

            kind = kind or AutoModelForCausalLM
            llm = kind.from_pretrained(folder, **options, use_safetensors=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        raise ModelError(
            f"{folder} holds no causal LM ({reason_of(error)}): give a Hugging Face LLM folder."
        ) from error
    if not place.spread:
        llm.to(place.device)
    return llm.eval().requires_grad_(False)


def _load_llama(folder: Path, sizes: LlamaConfig, dtype: torch.dtype | Literal["auto"]) -> LlamaLm:
    """Return our own Llama on the numbers of a folder, mapped from the disk where they are in `dtype` already, or "auto"."""
    with torch.device("meta"), Unfilled():
        llm = LlamaLm(sizes)
    state = _tensors(folder)
    if dtype != "auto":
        state = {name: value.to(dtype) for name, value in state.items()}
    if sizes.tie_word_embeddings and EMBEDDINGS in state:
        state["lm_head.weight"] = state[EMBEDDINGS]
    llm.load_state_dict(state, assign=True)
    llm.tie()
    llm.folder = folder
    generation = folder / "generation_config.json"
    values = read_settings(generation) if generation.exists() else read_config(folder)
    llm.generation_config = SimpleNamespace(eos_token_id=values.get("eos_token_id"))
    return llm


def settle_llm(llm: Any, place: Place) -> None:
    """Bring an LLM that `load_llm` made, its adapters merged, to the numbers that it computes with in its place."""
    if place.in_bits:
        round_to_bits(llm.get_decoder(), place.in_bits, llm.get_output_embeddings())
    if place.in_bits or (place.packs and pack_kept(llm, getattr(llm, "folder", None)) < MOSTLY):
        llm.to(place.dtype)


def on_grid(folder: Path) -> bool:
    """Say whether the first large matrix in an LLM folder lies on a grid of 4 or 8 bits."""
    large = next((name for name in WeightFiles(folder).headers if name.endswith("_proj.weight")), None)
    return large is not None and multiplier(_tensors(folder, large)[large]) is not None


def load_embeddings(folder: str | Path) -> torch.Tensor:
    """Return the token embeddings (V, H) of an LLM folder in float32 without loading the rest; ModelError."""
    found = _tensors(Path(folder), EMBEDDINGS)
    if not found:
        raise ModelError(f"{folder} holds no tensor {EMBEDDINGS} in safetensors: give a Llama-like LLM folder.")
    return found[EMBEDDINGS].float()


def _tensors(folder: Path, only: str | None = None) -> dict[str, torch.Tensor]:
    """Return the tensors of an LLM folder, or one of them, mapped from the disk and not looked at."""
    files = WeightFiles(folder)
    wanted = [name for name in files.headers if (name == only if only else ROTARY not in name)]
    return dict(files.read(wanted, checked=False))


def token_pieces(tokenizer: Any, ids: list[int]) -> list[str]:
    """Return the text that each token adds, a special one none.

    Of a character that spans tokens each has its bytes (`text_of_pieces` joins them).
    """
    pieces = tokenizer.batch_decode([[i] for i in ids], skip_special_tokens=True) if ids else []
    return [_whole(tokenizer, i, piece) for i, piece in zip(ids, pieces, strict=True)]


def _whole(tokenizer: Any, token_id: int, piece: str) -> str:
    """Return a token's text with what decoding it alone loses: bytes of a character, or the space in front of a word."""
    if "\ufffd" in piece:
        return _escaped(tokenizer, token_id) or piece
    starts_word = not piece.startswith(" ") and tokenizer.convert_ids_to_tokens(token_id).startswith(WORD_START)
    return f" {piece}" if starts_word else piece


def text_of_pieces(pieces: Iterable[str]) -> str:
    """Return the text of neighbouring tokens; what is no whole character becomes U+FFFD."""
    return "".join(pieces).encode(errors="surrogateescape").decode(errors="replace")


def _escaped(tokenizer: Any, token_id: int) -> str:
    """Return the bytes of a token of a byte-level or byte-fallback tokenizer as surrogate escapes, or '' for another's."""
    token = tokenizer.convert_ids_to_tokens(token_id)
    if re.fullmatch("<0x[0-9A-F]{2}>", token):
        spelt = bytes([int(token[3:5], 16)])
    else:
        spelt = bytes(BYTE_OF[letter] for letter in token if letter in BYTE_OF)
    return spelt.decode(errors="surrogateescape")
