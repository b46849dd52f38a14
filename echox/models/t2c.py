"""Text to codec: a small decoder that reads text positions and writes unit words (spec section 3); it knows no LLM.

    positions in LLM width --(norm)--> adapter linear --.
                                                         + --> [text | BOS unit words ... EOS] --decoder--> unit words
    unit words --own embedding--------------------------'

The positions are the LLM's own text embeddings, frozen and never stored here, or (echo.py) denoised hidden states. The head
covers unit words, BOS and EOS only; the released V+U head lives in echox/released.

Text positions are numbered by where their sound should be: a token of c characters takes `words_per_character * c` places, so
that text and units which belong together stand at nearly the same rotary position and attention finds them early in training.

    text   |The|answer|is|Pa|ris|.      |
    place   0   3      9  11 13  16
    units   0 1 2 3 4 5 6 7 8 9 10 ...

With `spelling` every letter is a position of its own (echox/models/spelling.py).

Legend: B batch, H LLM width, N text tokens, C text positions, U unit words, W decoder width.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache, LlamaConfig, LlamaModel, PreTrainedConfig, PreTrainedModel

from echox.errors import ModelError
from echox.models.bounds import (
    Classes,
    Factor,
    Flag,
    Heads,
    Layers,
    Positions,
    Share,
    TokenId,
    Wide,
    Width,
    check_heads,
)
from echox.models.io import load_config, load_module, save_part
from echox.models.ragged import pad_left, pad_right
from echox.models.spelling import Speller, TextLayout, lay_out

LOOPS, LONGEST_LOOP = 4, 32  # a run of up to 32 unit words said four times in a row is a decoder that hangs


class T2CConfig(PreTrainedConfig):
    """Sizes of a text-to-codec decoder; released sizes: spec section 3.1."""

    model_type = "echox_t2c"
    llm_width: Width = 576
    width: Width = 384
    layers: Layers = 4
    heads: Heads = 6
    kv_heads: Heads = 6
    ffn: Wide = 1024
    unit_vocab_size: Classes = 0  # unit words and specials, from the unit tokenizer
    bos_token_id: TokenId | None = 0
    eos_token_id: TokenId | None = 1
    pad_token_id: TokenId | None = 2
    normalize_inputs: Flag = True  # text positions to unit mean square; False: spec section 3.1
    aligned_positions: Flag = True  # False: spec section 3.1, positions 0, 1, 2 ...
    words_per_character: Factor = 0.8  # measured on the training data
    spelling: Flag = False  # one position a letter; False: spec section 3.1, one a token
    spelling_width: Width = 128
    spelling_layers: Layers = 2
    max_positions: Positions = 2048
    dropout: Share = 0.0


def check_fit(config: T2CConfig) -> None:
    """Raise ModelError when the sizes of `config` do not fit together."""
    check_heads(config.width, config.heads, config.kv_heads, config.model_type)
    if config.width // config.heads % 2:
        raise ModelError(f"{config.model_type}: heads are {config.width // config.heads} wide, which should be even.")
    specials = (config.bos_token_id, config.eos_token_id, config.pad_token_id)
    if any(token is None or token >= config.unit_vocab_size for token in specials):
        raise ModelError(
            f"{config.model_type}: special tokens {specials} lie outside {config.unit_vocab_size} unit words."
        )


@dataclass
class T2CBatch:
    """Texts in LLM width, their layouts, and unit words with BOS in front and EOS at the end, one a row."""

    text: list[torch.Tensor]  # (N, H) each
    layouts: list[TextLayout]
    words: list[list[int]]


class TextToCodec(PreTrainedModel):
    """A decoder from text positions to unit words."""

    config_class = T2CConfig

    def __init__(self, config: T2CConfig) -> None:
        super().__init__(config)
        check_fit(config)
        W, U = config.width, config.unit_vocab_size
        self.text_adapter = nn.Linear(config.llm_width, W)
        if config.spelling:
            self.speller = Speller(W, config.spelling_width, config.spelling_layers)
        self.unit_embedding = nn.Embedding(U, W)
        nn.init.normal_(self.unit_embedding.weight, std=0.2)  # near the scale of the text positions beside it
        self.decoder = LlamaModel(_llama(config))
        self.decoder.embed_tokens = None
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(W, U, bias=False)

    @classmethod
    def load(cls, folder: str | Path) -> "TextToCodec":
        """Load a part saved by `save`; ModelError names what does not fit."""
        config = load_config(folder, T2CConfig)
        return load_module(folder, lambda: cls(config))

    def save(self, folder: str | Path) -> None:
        """Write the decoder to `folder`."""
        save_part(folder, self)

    def layout(self, pieces: list[str]) -> TextLayout:
        """Return where text tokens stand in the decoder, from their own texts."""
        config = self.config
        return lay_out(pieces, config.spelling, config.words_per_character if config.aligned_positions else None)

    def read(self, text: list[torch.Tensor], layouts: list[TextLayout]) -> list[torch.Tensor]:
        """Return decoder inputs (C, W) of texts (N, H) in LLM width."""
        weight = self.text_adapter.weight
        rows = []
        for text_NH, layout in zip(text, layouts, strict=True):
            if self.config.normalize_inputs:
                text_NH = nn.functional.rms_norm(text_NH.float(), text_NH.shape[-1:])
            text_NW = self.text_adapter(text_NH.to(weight.device, weight.dtype))
            rows.append(text_NW[layout.owners_C.to(weight.device)] if self.config.spelling else text_NW)
        if self.config.spelling:
            rows = self.speller(rows, [row.letters_C for row in layouts if row.letters_C is not None])
        return rows

    def forward(self, batch: T2CBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return logits (B, U-1, vocabulary), the unit words they predict (B, U-1) and their mask (B, U-1)."""
        device = self.head.weight.device
        words = [torch.tensor(row, device=device) for row in batch.words]
        rows, places = [], []
        for text_CW, layout, word_U in zip(self.read(batch.text, batch.layouts), batch.layouts, words, strict=True):
            rows.append(torch.cat([text_CW, self.unit_embedding(word_U[:-1])]))
            unit_places_U = torch.arange(len(word_U) - 1, device=device) + self.first_place(layout)
            places.append(torch.cat([layout.places_C.to(device), unit_places_U]))
        embeds_BNW, mask_BN = pad_right(rows)
        places_BN, _ = pad_right(places)
        output = self.decoder(
            inputs_embeds=self.dropout(embeds_BNW),
            attention_mask=mask_BN.long(),
            position_ids=places_BN,
            use_cache=False,
        )
        spans = [(len(layout), len(row)) for layout, row in zip(batch.layouts, rows, strict=True)]
        hidden_BUW, mask_BU = pad_right([h[a:b] for h, (a, b) in zip(output.last_hidden_state, spans, strict=True)])
        targets_BU, _ = pad_right([word[1:] for word in words])
        return self.head(hidden_BUW), targets_BU, mask_BU

    @torch.inference_mode()
    def generate(
        self, text: list[torch.Tensor], layouts: list[TextLayout], limit: int | None = None
    ) -> list[list[int]]:
        """Return greedy unit words for every row, without BOS and EOS; rows end at EOS or after `limit` words.

        The default limit grows with the text: three times the words that its characters suggest. A row that says one run
        four times over ends there.
        """
        limits = [limit or self.limit(layout) for layout in layouts]
        state = self.start(text, layouts)
        rows: list[list[int]] = [[] for _ in text]
        done = [False] * len(text)
        for _ in range(max(limits)):
            for row, word in enumerate(state.words_B.tolist()):
                if done[row]:
                    continue
                if word == self.config.eos_token_id or is_over(rows[row], limits[row]):
                    done[row] = True
                else:
                    rows[row].append(word)
            if all(done):
                break
            self.step(state)
        return rows

    def first_place(self, layout: TextLayout) -> int:
        """Return the rotary place of BOS: 0 beside the text, or behind it."""
        return 0 if self.config.aligned_positions else len(layout)

    def limit(self, layout: TextLayout) -> int:
        """Return how many unit words a text may take: three times what its length suggests, and some."""
        expected = float(layout.places_C[-1]) if self.config.aligned_positions else 4.0 * len(layout)
        return min(self.config.max_positions - 1, 24 + int(3 * expected))

    @torch.inference_mode()
    def start(self, text: list[torch.Tensor], layouts: list[TextLayout]) -> "T2CState":
        """Read the texts and return a state that holds the first unit word of every row."""
        device = self.head.weight.device
        bos_1W = self.unit_embedding(torch.tensor([self.config.bos_token_id], device=device))
        embeds_BNW, mask_BN = pad_left([torch.cat([row_CW, bos_1W]) for row_CW in self.read(text, layouts)])
        firsts = [self.first_place(layout) for layout in layouts]
        ones = [
            nn.functional.pad(row.places_C, (0, 1), value=first) for row, first in zip(layouts, firsts, strict=True)
        ]
        places_BN, _ = pad_left([row.to(device) for row in ones])
        output = self.decoder(
            inputs_embeds=embeds_BNW,
            attention_mask=mask_BN.long(),
            position_ids=places_BN,
            past_key_values=DynamicCache(config=self.decoder.config),
            use_cache=True,
        )
        next_B = torch.tensor(firsts, device=device) + 1
        state = T2CState(output.past_key_values, mask_BN, next_B, self._pick(output.last_hidden_state))
        return state

    @torch.inference_mode()
    def step(self, state: "T2CState") -> torch.Tensor:
        """Advance every row by one unit word, in place; return the new words (B,)."""
        state.mask_BN = nn.functional.pad(state.mask_BN, (0, 1), value=True)
        output = self.decoder(
            inputs_embeds=self.unit_embedding(state.words_B)[:, None],
            attention_mask=state.mask_BN.long(),
            position_ids=state.next_B[:, None],
            past_key_values=state.cache,
            use_cache=True,
        )
        state.next_B = state.next_B + 1
        state.words_B = self._pick(output.last_hidden_state)
        return state.words_B

    def _pick(self, hidden_BNW: torch.Tensor) -> torch.Tensor:
        """Return the best unit word after the last position, never BOS or padding."""
        logits_BU = self.head(hidden_BNW[:, -1])
        for never in (self.config.bos_token_id, self.config.pad_token_id):
            logits_BU[:, never] = -torch.inf
        best_B, word_B = logits_BU.max(-1)
        if not torch.isfinite(best_B).all():
            raise ModelError("the speech decoder's numbers overflow (NaN or infinity): fetch the model again.")
        return word_B


def is_over(words: list[int], limit: int) -> bool:
    """Say whether a text has been said at too great length: `limit` words, or the same run of words four times over."""
    if len(words) >= limit:
        return True
    for size in range(2, min(LONGEST_LOOP, len(words) // LOOPS) + 1):
        run = words[-size:]
        if all(words[-size * (n + 1) : -size * n] == run for n in range(1, LOOPS)):
            return True
    return False


@dataclass
class T2CState:
    """Everything one running generation owns."""

    cache: Any
    mask_BN: torch.Tensor
    next_B: torch.Tensor
    words_B: torch.Tensor


def _llama(config: T2CConfig) -> LlamaConfig:
    """Return the decoder's own Llama configuration."""
    return LlamaConfig(
        vocab_size=1,
        hidden_size=config.width,
        intermediate_size=config.ffn,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        max_position_embeddings=config.max_positions,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
