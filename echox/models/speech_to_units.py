"""Textless translation: speech in one language to units, or unit words, of speech in another (spec A3); it knows no objective.

    filterbank ──conv x 4──► A-Enc ─┬─► T-Enc ─┬─► ... ──norm──► main decoder ──► units of the translation
    (or frozen encoder's states)    │          │
                           tap 6 ◄──┤ prompt 0 │ tap 8 ◄── prompt 1 takes its place          tap 12 ◄── before the norm

A tap is the residual stream after a layer, for the decoders that guide the translator while it trains (`Guided`): nothing of them
is saved with it, and it never runs them. Prompts are learnt vectors: the first one is put in front after its layer and the mask
grows by one; each later one takes its place. Taps are stored before every change, and are never the tensor that is changed.
`prompt_style: released` is what the published code does instead (A3.4): the prompt overwrites the first frame, also where stored.

Legend: B batch, D width, F features, P prompts, T frames, U tokens, V vocabulary.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import torch
from torch import nn
from transformers import PreTrainedConfig

from echox.errors import ModelError
from echox.models.bounds import Classes, Few, Flag, Heads, Layers, Positions, Positive, Share, TokenId, Wide, Width
from echox.models.io import WholePart
from echox.models.ragged import within
from echox.models.transformer import Block, DecoderState, EncoderLayer, TransformerDecoder, shorten, sinusoids

PRESETS: dict[str, dict[str, Any]] = {
    "base": {},  # the paper's: 12 + 6 layers of 512
    "small": {"width": 256, "ffn": 1024, "heads": 4, "encoder_layers": 8, "decoder_layers": 3, "conv_channels": 512},
}
KERNEL = 5
MAIN = "main"  # the task of the main decoder, beside those of its guides


class SpeechToUnitsConfig(PreTrainedConfig):
    """Sizes of a textless translator; the defaults are the paper's."""

    model_type = "echox_speech_to_units"
    input: Literal["filterbank", "states"] = "filterbank"  # states: of a frozen encoder, one of its layers
    input_width: Width = 80  # mel bins, or the frozen encoder's width
    strides: Annotated[list[Positive] | tuple[Positive, ...], Few] = (2, 2)  # of the convolutions in front
    conv_channels: Wide = 1024
    width: Width = 512
    heads: Heads = 8
    ffn: Wide = 2048
    encoder_layers: Layers = 12
    decoder_layers: Layers = 6
    says: Literal["units", "words"] = "units"  # what the main decoder writes
    vocabulary: Classes = 1003  # specials and units, or specials and unit words
    bos_token_id: TokenId | None = 1
    eos_token_id: TokenId | None = 2
    pad_token_id: TokenId | None = 0
    prompts: Annotated[list[Layers] | tuple[Layers, ...], Few] = ()  # after which layers; (6, 8) in the paper
    prompt_style: Literal["insert", "released"] = "insert"
    prompts_alike: Flag = False  # control: one vector in every place
    dropout: Share = 0.1
    attention_dropout: Share = 0.1
    activation_dropout: Share = 0.1
    max_positions: Positions = 3000  # tokens of an output

    @property
    def block(self) -> Block:
        """The sizes of one layer."""
        return Block(self.width, self.heads, self.ffn, self.dropout, self.attention_dropout, self.activation_dropout)


def check_fit(config: SpeechToUnitsConfig) -> None:
    """Raise ModelError when the sizes of `config` do not fit together."""
    specials = (config.bos_token_id, config.eos_token_id, config.pad_token_id)
    if any(token is None or token >= config.vocabulary for token in specials) or len(set(specials)) < len(specials):
        raise ModelError(f"{config.model_type}: special tokens {specials} do not fit {config.vocabulary} tokens.")
    places = list(config.prompts)
    if places != sorted(set(places)) or any(not 0 < place < config.encoder_layers for place in places):
        raise ModelError(
            f"{config.model_type}: prompts after {places} do not fit {config.encoder_layers} layers: name each once, in order."
        )


@dataclass
class Encoded:
    """The encoder's output with its mask, and (states, mask) of every layer that was asked for."""

    memory_BTD: torch.Tensor
    mask_BT: torch.Tensor
    taps: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)


class Subsampler(nn.Module):
    """Convolutions with gated linear units that shorten features in time."""

    def __init__(self, config: SpeechToUnitsConfig) -> None:
        super().__init__()
        self.convolutions, last = nn.ModuleList(), len(config.strides) - 1
        for number, stride in enumerate(config.strides):
            read = config.conv_channels // 2 if number else config.input_width
            write = 2 * config.width if number == last else config.conv_channels
            self.convolutions.append(nn.Conv1d(read, write, KERNEL, stride, KERNEL // 2))

    def forward(self, features_BTF: torch.Tensor, lengths_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (B, T', D) and the lengths (B,); padding reaches no real frame."""
        return shorten(self.convolutions, features_BTF, lengths_B)


class SpeechToUnits(WholePart[SpeechToUnitsConfig]):
    """Speech features to the units, or unit words, of their translation."""

    config_class = SpeechToUnitsConfig

    def __init__(self, config: SpeechToUnitsConfig) -> None:
        super().__init__(config)
        check_fit(config)
        self.subsampler, self.dropout = Subsampler(config), nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(EncoderLayer(config.block) for _ in range(config.encoder_layers))
        self.norm = nn.LayerNorm(config.width)
        if config.prompts:
            different = 1 if config.prompts_alike else len(config.prompts)
            self.prompts_PD = nn.Parameter(torch.randn(different, config.width))
        pad = int(config.pad_token_id or 0)
        self.decoder = TransformerDecoder(config.vocabulary, config.decoder_layers, config.block, pad)

    def encode(self, features_BTF: torch.Tensor, lengths_B: torch.Tensor, taps: tuple[int, ...] = ()) -> Encoded:
        """Return the memory (B, T, D) of features padded to the right, and the states after the layers `taps`."""
        x_BTD, lengths_B = self.subsampler(features_BTF, lengths_B)
        x_BTD = x_BTD.to(self.norm.weight.dtype)  # under autocast the residual stream stays in float32
        x_BTD = self.dropout(x_BTD + sinusoids(x_BTD.shape[1], x_BTD.shape[2]).to(x_BTD))
        mask_BT, kept = within(lengths_B, x_BTD.shape[1]), {}
        for number, layer in enumerate(self.layers, start=1):
            x_BTD = layer(x_BTD, mask_BT)
            before = x_BTD, mask_BT
            if number in self.config.prompts:
                x_BTD, mask_BT = self._prompt(x_BTD, mask_BT, list(self.config.prompts).index(number))
            if number in taps:
                kept[number] = before if self.config.prompt_style == "insert" else (x_BTD, mask_BT)
        return Encoded(self.norm(x_BTD), mask_BT, kept)

    def _prompt(self, x_BTD: torch.Tensor, mask_BT: torch.Tensor, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the states with the prompt of `place` in front, and their mask."""
        prompt_B1D = self.prompts_PD[0 if self.config.prompts_alike else place].to(x_BTD).expand(len(x_BTD), 1, -1)
        if place or self.config.prompt_style == "released":
            return torch.cat([prompt_B1D, x_BTD[:, 1:]], 1), mask_BT
        return torch.cat([prompt_B1D, x_BTD], 1), torch.cat([torch.ones_like(mask_BT[:, :1]), mask_BT], 1)

    def forward(self, features_BTF: torch.Tensor, lengths_B: torch.Tensor, tokens_BU: torch.Tensor) -> torch.Tensor:
        """Return logits (B, U, V) of the token after each of `tokens_BU`."""
        encoded = self.encode(features_BTF, lengths_B)
        return self.decoder(tokens_BU, encoded.memory_BTD, encoded.mask_BT)

    def start(self, features_BTF: torch.Tensor, lengths_B: torch.Tensor) -> DecoderState:
        """Return the decoder's state before the first token, for `decoder.step`."""
        encoded = self.encode(features_BTF, lengths_B)
        return self.decoder.start(encoded.memory_BTD, encoded.mask_BT)


@dataclass(frozen=True)
class Guide:
    """One auxiliary decoder: the encoder layer it reads, the tokens it tells apart, its layers and dropout."""

    layer: int
    vocabulary: int
    layers: int = 2
    dropout: float = 0.3


@dataclass
class PairBatch:
    """Features padded to the right with their lengths, and the tokens of every task from BOS to EOS, one a row."""

    features_BTF: torch.Tensor
    lengths_B: torch.Tensor
    tokens: dict[str, tuple[torch.Tensor, torch.Tensor]]  # task: (tokens (B, U), mask (B, U))


@dataclass
class Predicted:
    """What one task predicts: logits (B, U, V), the tokens meant (B, U) and which of them are real."""

    logits_BUV: torch.Tensor
    targets_BU: torch.Tensor
    mask_BU: torch.Tensor


class Guided(nn.Module):
    """The translator and its guides; the forward pass of every task over one encoding."""

    def __init__(self, translator: SpeechToUnits, guides: dict[str, Guide]) -> None:
        super().__init__()
        self.translator, config = translator, translator.config
        self.reads = {name: guide.layer for name, guide in guides.items()}
        self.guides, pad = nn.ModuleDict(), int(config.pad_token_id or 0)
        for name, guide in guides.items():
            if not 1 <= guide.layer <= config.encoder_layers:
                last = config.encoder_layers
                raise ModelError(f"task {name} reads layer {guide.layer}, the encoder has 1 to {last}.")
            block = replace(config.block, dropout=guide.dropout)
            self.guides[name] = TransformerDecoder(guide.vocabulary, guide.layers, block, pad)

    def forward(self, batch: PairBatch) -> dict[str, Predicted]:
        """Return what the main decoder and every guide predict, by the task's name."""
        device = self.translator.norm.weight.device
        features_BTF, lengths_B = batch.features_BTF.to(device), batch.lengths_B.to(device)
        encoded = self.translator.encode(features_BTF, lengths_B, tuple(set(self.reads.values())))
        found = {}
        for name, (tokens_BU, mask_BU) in batch.tokens.items():
            tokens_BU, mask_BU = tokens_BU.to(device), mask_BU.to(device)
            if name == MAIN:
                decoder, states_BTD, seen_BT = self.translator.decoder, encoded.memory_BTD, encoded.mask_BT
            else:
                decoder, (states_BTD, seen_BT) = self.guides[name], encoded.taps[self.reads[name]]
            logits_BUV = decoder(tokens_BU[:, :-1], states_BTD, seen_BT)
            found[name] = Predicted(logits_BUV, tokens_BU[:, 1:], mask_BU[:, 1:])
        return found
