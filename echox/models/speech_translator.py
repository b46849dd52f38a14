"""One model for three tasks: speech or text in, text of another language out, and what was said by CTC (S-Align, spec B2.1).

    encoder frames ─linear─► convolutions (x4) ─┬─► CTC over the joint vocabulary, the decoder's own embeddings
                                                └─► shrink: one vector a run ─norm─────────┐
    source tokens ─embeddings────────────────────────────────────────┐                     │
                                                                     ▼                     ▼
                                                       the same transformer layers; last norm: each side's own, or one
                                                                     └──────► decoder ──► target tokens

The text model is transformers' M2M100 (pre-norm, sinusoidal positions). The layers that read speech are
its encoder's own objects. It knows no data, no loss, and no speech encoder but its width.

Legend: B batch, D encoder width, N positions (tokens or runs), S target tokens, T frames, V vocabulary, W width.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import linear
from transformers import M2M100Config, M2M100ForConditionalGeneration, PreTrainedConfig
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutput

from echox.errors import InputError
from echox.models.bounds import Classes, Flag, Heads, Layers, Odd, Positions, Positive, Share, Text, Wide, check_heads
from echox.models.io import Part, load_config, load_module, save_part
from echox.models.ragged import first_of_runs, pad_right, unpad, within
from echox.models.transformer import shorten

BLANK, PAD, END, UNKNOWN = range(4)  # `<s>`, also CTC's blank and where a translation begins; `<pad>`; `</s>`; `<unk>`
TIED = ("text.lm_head.", "text.model.encoder.embed_tokens.", "text.model.decoder.embed_tokens.")  # text.model.shared


class TranslatorConfig(PreTrainedConfig):
    """Sizes of a translator; the defaults are the paper's."""

    model_type = "echox_speech_translator"
    vocab_size: Classes = 10_000
    width: Annotated[int, Field(strict=True, ge=4, le=16_384)] = 512
    ffn: Wide = 2048
    heads: Heads = 8
    encoder_layers: Layers = 6
    decoder_layers: Layers = 6
    dropout: Share = 0.1
    max_positions: Positions = 1024
    encoder_width: Annotated[int, Field(strict=True, ge=0, le=16_384)] = 0  # 0: it reads text only
    convolutions: Positive = 2  # each halves the frames
    kernel: Odd = 5
    runs: Literal["states", "tokens"] = "states"  # a run becomes its first state (the paper), or what it expects
    last_norm: Literal["own", "shared"] = "own"  # of speech after the shared layers: its own (the paper), or text's
    mask_after_shrink: Flag = True  # False: padding after shrinking is attended to, as released (spec B2.1 step 5)
    source: Text = "en"
    target: Text = "es"
    source_lower: Flag = True  # how source texts are written before they become tokens (text/cleaning.py)
    source_punctuation: Literal["keep", "remove", "blank"] = "remove"


@dataclass
class Heard:
    """What the adapter made of speech: states (B, T, W), CTC logits (B, T, V) and frames (B,)."""

    states_BTW: torch.Tensor
    logits_BTV: torch.Tensor
    frames_B: torch.Tensor


@dataclass
class Positioned:
    """Vectors (B, N, W), which of them are real, and for runs the token that CTC hears in each (B, N)."""

    states_BNW: torch.Tensor
    mask_BN: torch.Tensor
    tokens_BN: torch.Tensor | None = None

    def rows(self, rows: list[int]) -> "Positioned":
        """Return some rows."""
        tokens_BN = None if self.tokens_BN is None else self.tokens_BN[rows]
        return Positioned(self.states_BNW[rows], self.mask_BN[rows], tokens_BN)


class SpeechSide(nn.Module):
    """The parameters that only speech passes: linear, convolutions with gated linear units, norms."""

    def __init__(self, config: TranslatorConfig) -> None:
        super().__init__()
        W = config.width
        self.linear = nn.Linear(config.encoder_width, W)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(W, 2 * W, config.kernel, stride=2, padding=config.kernel // 2) for _ in range(config.convolutions)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.run_norm = nn.LayerNorm(W) if config.runs == "states" else None  # after shrinking
        self.last_norm = nn.LayerNorm(W) if config.last_norm == "own" else None  # after the shared layers

    def forward(self, frames_BTD: torch.Tensor, lengths_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return states (B, T', W), zero beyond their lengths (B,): a row is the same alone and in any batch."""
        x_BTW, lengths_B = shorten(self.convolutions, self.linear(frames_BTD), lengths_B)
        return self.dropout(x_BTW), lengths_B


class SpeechTranslatorModel(Part[TranslatorConfig]):
    """Text encoder and decoder, and the way of speech into them."""

    def __init__(self, config: TranslatorConfig) -> None:
        super().__init__(config)
        check_heads(config.width, config.heads, 1, "the translator")
        self.text: Any = M2M100ForConditionalGeneration(text_config(config))
        model = self.text.model
        for table in (self.text.lm_head, model.encoder.embed_tokens, model.decoder.embed_tokens):
            table.weight = model.shared.weight
        self.speech = SpeechSide(config) if config.encoder_width else None

    @property
    def embeddings_VW(self) -> torch.Tensor:
        """The one table of the vocabulary: input, output and CTC."""
        return self.text.model.shared.weight

    def embed(self, tokens_BN: torch.Tensor) -> torch.Tensor:
        """Return scaled embeddings (B, N, W), as the shared layers read them."""
        return self.text.model.encoder.embed_tokens(tokens_BN)

    def read(self, tokens_BN: torch.Tensor, mask_BN: torch.Tensor) -> Positioned:
        """Return the text encoder's states of source tokens."""
        states = self.text.model.encoder(tokens_BN, attention_mask=mask_BN.long()).last_hidden_state
        return Positioned(states, mask_BN)

    def hear(self, frames_BTD: torch.Tensor, lengths_B: torch.Tensor) -> Heard:
        """Return adapted frames and their CTC logits; InputError for a model that reads text only."""
        if self.speech is None:
            raise InputError("this model reads text only: train the joint stage, or give text.")
        states_BTW, frames_B = self.speech(frames_BTD, lengths_B)
        return Heard(states_BTW, linear(states_BTW, self.embeddings_VW), frames_B)

    def shrink(self, heard: Heard, noise: bool = False) -> Positioned:
        """Return one vector a run of equal best tokens, blank runs too; with `noise` the best of Gumbel-perturbed logits.

        The temperature of the paper's hard Gumbel-softmax does not change which token is best, so there is none here.
        """
        logits = heard.logits_BTV.detach().float()
        if noise and self.config.runs == "states":  # what is expected is sure of nothing as it is
            logits = logits - torch.empty_like(logits).exponential_().log()
        tokens_BT = logits.argmax(-1)
        runs_BT = first_of_runs(tokens_BT, heard.frames_B)
        if self.config.runs == "tokens":
            return self._expected(heard, tokens_BT, runs_BT & (tokens_BT != BLANK))
        assert self.speech is not None and self.speech.run_norm is not None  # noqa: S101  it was heard
        states_BNW, mask_BN = pad_right(unpad(heard.states_BTW, runs_BT))
        tokens_BN = pad_right(unpad(tokens_BT, runs_BT))[0]
        mask_BN = mask_BN if self.config.mask_after_shrink else torch.ones_like(mask_BN)
        return Positioned(self.speech.run_norm(states_BNW), mask_BN, tokens_BN)

    def _expected(self, heard: Heard, tokens_BT: torch.Tensor, runs_BT: torch.Tensor) -> Positioned:
        """Return for every wanted run the embedding that CTC expects where it speaks, and then the end that text has.

        Sure of its tokens, speech is to the shared layers what its transcript is.
        """
        logits_BNV, mask_BN = pad_right(unpad(heard.logits_BTV, runs_BT))
        spoken = torch.arange(logits_BNV.shape[-1], device=mask_BN.device) != BLANK
        shares_BNV = logits_BNV.masked_fill(~spoken, -torch.inf).softmax(-1)
        scale = self.text.model.encoder.embed_tokens.embed_scale
        vectors_BNW = shares_BNV @ self.embeddings_VW * scale
        tokens_BN = pad_right(unpad(tokens_BT, runs_BT))[0]
        tokens_BN = nn.functional.pad(tokens_BN.masked_fill(~mask_BN, PAD), (0, 1), value=PAD)
        counts_B1 = mask_BN.sum(1, keepdim=True)
        tokens_BN = tokens_BN.scatter(1, counts_B1, END)
        vectors_BNW = nn.functional.pad(vectors_BNW, (0, 0, 0, 1))
        vectors_BNW = torch.where((tokens_BN == END)[..., None], self.embed(tokens_BN), vectors_BNW)
        return Positioned(vectors_BNW, within(counts_B1[:, 0] + 1, tokens_BN.shape[1]), tokens_BN)

    def unshrunk(self, heard: Heard) -> Positioned:
        """Return every frame: what the shared layers read before shrinking begins (spec B2.7)."""
        return Positioned(heard.states_BTW, within(heard.frames_B, heard.states_BTW.shape[1]))

    def shared_layers(self, found: Positioned) -> Positioned:
        """Return the states of speech after positions, the text encoder's own layers, and the last norm."""
        assert self.speech is not None  # noqa: S101  it was heard
        encoder = self.text.model.encoder
        if found.states_BNW.shape[1] > self.config.max_positions:
            raise InputError(
                f"speech of {found.states_BNW.shape[1]} positions is longer than the model's {self.config.max_positions}: split it."
            )
        x_BNW = found.states_BNW + encoder.embed_positions(None, found.states_BNW).to(found.states_BNW.dtype)
        x_BNW = nn.functional.dropout(x_BNW, self.config.dropout, self.training)
        seen_BN = found.mask_BN.long()
        mask = create_bidirectional_mask(config=encoder.config, inputs_embeds=x_BNW, attention_mask=seen_BN)
        for layer in encoder.layers:
            x_BNW = layer(x_BNW, mask)
        norm = encoder.layer_norm if self.speech.last_norm is None else self.speech.last_norm
        return Positioned(norm(x_BNW), found.mask_BN, found.tokens_BN)

    def logits(self, states: Positioned, targets_BS: torch.Tensor) -> torch.Tensor:
        """Return (B, S, V): what the decoder expects at every target position, given those before."""
        begin = torch.full_like(targets_BS[:, :1], BLANK)
        return self.text(
            encoder_outputs=BaseModelOutput(last_hidden_state=states.states_BNW),
            attention_mask=states.mask_BN.long(),
            decoder_input_ids=torch.cat([begin, targets_BS[:, :-1]], 1),
            use_cache=False,
        ).logits

    def save(self, folder: str | Path) -> None:
        """Write the model to `folder` in float16, every table once."""
        save_part(folder, self, absent=TIED)

    @classmethod
    def load(cls, folder: str | Path) -> "SpeechTranslatorModel":
        """Load a folder written by `save`, ready to answer; ModelError names what does not fit."""
        config = load_config(folder, TranslatorConfig)
        return load_module(folder, lambda: cls(config), absent=TIED).float().eval()


def text_config(config: TranslatorConfig) -> M2M100Config:
    """Return the sizes of the text model in transformers' words."""
    return M2M100Config(
        vocab_size=config.vocab_size,
        d_model=config.width,
        encoder_ffn_dim=config.ffn,
        decoder_ffn_dim=config.ffn,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        encoder_attention_heads=config.heads,
        decoder_attention_heads=config.heads,
        dropout=config.dropout,
        attention_dropout=config.dropout,
        activation_dropout=config.dropout,
        encoder_layerdrop=0.0,
        decoder_layerdrop=0.0,
        max_position_embeddings=config.max_positions,
        init_std=config.width**-0.5,
        scale_embedding=True,
        bos_token_id=BLANK,
        pad_token_id=PAD,
        eos_token_id=END,
        decoder_start_token_id=BLANK,
    )
