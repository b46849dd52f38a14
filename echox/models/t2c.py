"""Text to codec: a small decoder that reads text positions and writes unit words (spec section 3); it knows no LLM.

    positions in LLM width --(norm)--> adapter linear --.
                                                         + --> [text | BOS unit words ... EOS] --decoder--> unit words
    unit words --own embedding--------------------------'

The positions are the LLM's own text embeddings, frozen and never stored here, or (echo.py) denoised hidden states.

The released decoders (spec section 3.1) are a setting, `text_vocab_size` = V: text tokens come before the unit words in the
numbering, in a table of their own and in the head; units have embeddings as wide as the LLM and pass the adapter; constant tokens
stand `before` and `after` the text; BOS is the first word that the decoder says, not one that it is given.

Text positions are numbered by where their sound should be: a token of c characters takes `words_per_character * c` places, so
that text and units which belong together stand at nearly the same rotary position and attention finds them early in training.

    text   |The|answer|is|Pa|ris|.      |
    place   0   3      9  11 13  16
    units   0 1 2 3 4 5 6 7 8 9 10 ...

With `spelling` every letter is a position of its own (echox/models/spelling.py).

Legend: B batch, H LLM width, N text tokens, C text positions, U unit words, V text vocabulary, W decoder width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn
from transformers import PreTrainedConfig

from echox.errors import ModelError
from echox.models.bounds import (
    Classes,
    Factor,
    Few,
    Flag,
    Heads,
    Layers,
    Positions,
    Share,
    Small,
    TokenId,
    Wide,
    Width,
    check_heads,
    check_values,
)
from echox.models.decoding import Generated, Line, decode, gathered
from echox.models.io import WholePart
from echox.models.llama import Llama, LlamaConfig
from echox.models.ragged import pad_right, unpad
from echox.models.slots import Row
from echox.models.spelling import Speller, TextLayout, lay_out
from echox.text.speakable import aloud

LONGEST_LOOP = 32  # unit words of a run that a decoder which hangs says over and over


class RopeSettings:
    """Rotary places of an LLM's kind: what a config.json may say of them."""

    rope_type: Literal["default", "llama3", "linear"]
    rope_theta: Annotated[float, Field(strict=True, ge=1, le=1e9)]
    factor: Annotated[float, Field(strict=True, ge=1, le=1000)]
    low_freq_factor: Annotated[float, Field(strict=True, ge=0.1, le=1000)]
    high_freq_factor: Annotated[float, Field(strict=True, ge=0.1, le=1000)]
    original_max_position_embeddings: Annotated[int, Field(strict=True, ge=1, le=1_000_000)]


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
    bos_token_id: TokenId = 0
    eos_token_id: TokenId = 1
    pad_token_id: TokenId | None = 2
    normalize_inputs: Flag = True  # text positions to unit mean square; False: spec section 3.1
    aligned_positions: Flag = True  # False: spec section 3.1, positions 0, 1, 2 ...
    words_per_character: Factor = 0.8  # measured on the training data
    spelling: Flag = False  # one position a letter; False: spec section 3.1, one a token
    spelling_width: Width = 128
    spelling_layers: Layers = 2
    words_in: Literal["en"] | None = "en"  # of one that spells: whose words stand for numbers and signs; none: raw text
    max_positions: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = 2048
    dropout: Share = 0.0
    loops: Small = 4  # a run of unit words said so many times in a row ends the speech; 0: it never does
    longest: Positions | None = None  # unit words of a text; None: three times what its characters suggest
    text_vocab_size: Classes = 0  # V, text tokens of its own; 0: it reads the LLM's embeddings, and writes units alone
    says_text: Flag = False  # True: spec section 3.1, text tokens may be chosen too
    before: Annotated[tuple[TokenId, ...], Few] = ()  # text tokens around every text (spec sections 3.2, 6.2)
    after: Annotated[tuple[TokenId, ...], Few] = ()
    unseen: Annotated[tuple[TokenId, ...], Few] = ()  # tokens among them that are not attended to
    head_dim: Width | None = None
    norm_eps: Annotated[float, Field(gt=0, le=0.1)] = 1e-6
    rope: dict[str, Any] | None = None  # RopeSettings; None: Llama's defaults


def check_fit(config: T2CConfig) -> None:
    """Raise ModelError when the sizes of `config` do not fit together."""
    check_heads(config.width, config.heads, config.kv_heads, config.model_type)
    if config.width // config.heads % 2:
        raise ModelError(f"{config.model_type}: heads are {config.width // config.heads} wide, which should be even.")
    check_values(RopeSettings, config.rope or {}, f"{config.model_type}, rope,")
    words, V = config.text_vocab_size + config.unit_vocab_size, config.text_vocab_size
    specials = (config.bos_token_id, config.eos_token_id, *(() if V else (config.pad_token_id,)))
    if any(token is None or token >= words for token in specials):
        raise ModelError(f"{config.model_type}: special tokens {specials} lie outside {words} unit words.")
    if any(token >= V for token in (*config.before, *config.after)):
        raise ModelError(f"{config.model_type}: the tokens around a text lie outside {V} text tokens.")
    if V and config.spelling:
        raise ModelError(f"{config.model_type}: a decoder with text tokens of its own does not spell.")


@dataclass
class T2CBatch:
    """Texts in LLM width, their layouts, and unit words with BOS in front and EOS at the end, one a row."""

    text: list[torch.Tensor]  # (N, H) each
    layouts: list[TextLayout]
    words: list[list[int]]


class TextToCodec(WholePart[T2CConfig]):
    """A decoder from text positions to unit words."""

    config_class = T2CConfig

    def __init__(self, config: T2CConfig) -> None:
        super().__init__(config)
        check_fit(config)
        W, U = config.width, config.unit_vocab_size
        self.text_adapter = nn.Linear(config.llm_width, W)
        if config.spelling:
            self.speller = Speller(W, config.spelling_width, config.spelling_layers)
        self.unit_embedding = nn.Embedding(U, config.llm_width if config.text_vocab_size else W)
        nn.init.normal_(self.unit_embedding.weight, std=0.2)  # near the scale of the text positions beside it
        if config.text_vocab_size:
            self.text_embedding = nn.Embedding(config.text_vocab_size, config.llm_width)
        self.decoder = _decoder(config)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(W, config.text_vocab_size + U, bias=False)

    def said(self, text: str) -> str:
        """Return a text as it is given to this decoder: one that spells reads numbers, signs and acronyms as they are said."""
        return aloud(text) if self.config.spelling and self.config.words_in else text

    def layout(self, pieces: list[str], frame: T2CConfig | None = None) -> TextLayout:
        """Return where text tokens stand in the decoder, from their own texts, and what stands around them.

        `frame` is the config whose `before` and `after` are meant: an echo decoder's, or by default its own.
        """
        config, frame = self.config, frame or self.config
        texts = [""] * len(frame.before) + pieces + [""] * len(frame.after)
        layout = lay_out(texts, config.spelling, config.words_per_character if config.aligned_positions else None)
        return replace(layout, before=frame.before, after=frame.after, unseen=frame.unseen)

    def embed_text(self, ids: Sequence[int], embeddings_VH: torch.Tensor) -> torch.Tensor:
        """Return what is read of text tokens, (N, H): its own embeddings of them, or the LLM's."""
        table_VH = self.text_embedding.weight if self.config.text_vocab_size else embeddings_VH
        return table_VH[torch.tensor(list(ids), dtype=torch.long, device=table_VH.device)]

    def read(self, text: list[torch.Tensor], layouts: list[TextLayout]) -> list[torch.Tensor]:
        """Return decoder inputs (C, W) of texts (N, H) in LLM width, with what their layouts put around them."""
        weight = self.text_adapter.weight
        rows = []
        for text_NH, layout in zip(text, layouts, strict=True):
            if layout.before or layout.after:
                text_NH = text_NH.to(weight.device)
                around = [self.embed_text(ids, text_NH) for ids in (layout.before, layout.after)]
                text_NH = torch.cat([around[0], text_NH.to(around[0].dtype), around[1]])
            rows.append(text_NH)
        every_NH = torch.cat(rows).to(weight.device)  # all rows at once: a position is read alone
        if self.config.normalize_inputs:
            every_NH = nn.functional.rms_norm(every_NH.float(), every_NH.shape[-1:])
        every_NW = self.text_adapter(every_NH.to(weight.dtype))
        if not self.config.spelling:
            return list(every_NW.split([len(row) for row in rows]))
        starts = [0, *accumulate(map(len, rows))]
        owners = torch.cat([layout.owners_C + start for layout, start in zip(layouts, starts, strict=False)])
        spelt = every_NW[owners.to(weight.device)].split([len(layout) for layout in layouts])
        return self.speller(list(spelt), [row.letters_C for row in layouts if row.letters_C is not None])

    def embed_tokens(self, tokens_B: torch.Tensor) -> torch.Tensor:
        """Return the decoder's inputs (B, W) of unit words (B,), or of text tokens where it has its own."""
        V = self.config.text_vocab_size
        if not V:
            return self.unit_embedding(tokens_B)
        is_unit_B = tokens_B >= V
        text_BH = self.text_embedding(tokens_B.masked_fill(is_unit_B, 0))
        unit_BH = self.unit_embedding((tokens_B - V).clamp(min=0))
        return self.text_adapter(torch.where(is_unit_B[:, None], unit_BH, text_BH))

    def forward(self, batch: T2CBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return logits (B, U-1, vocabulary), the unit words they predict (B, U-1) and their mask (B, U-1)."""
        states_BUW, targets_BU, mask_BU = self.states(batch)
        return self.head(states_BUW), targets_BU, mask_BU

    def states(self, batch: T2CBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the states (B, U-1, W) that predict each unit word, the words and their mask as in `forward`."""
        device = self.head.weight.device
        given = self._given
        counts = [len(row) - 1 for row in batch.words]
        said = self.embed_tokens(torch.tensor([word for row in batch.words for word in row[:-1]], device=device))
        pairs = zip(self.read(batch.text, batch.layouts), said.split(counts), strict=True)
        lengths = [len(layout) + count for layout, count in zip(batch.layouts, counts, strict=True)]
        embeds_BNW, mask_BN = pad_right(list(torch.cat([piece for pair in pairs for piece in pair]).split(lengths)))
        places = [
            torch.cat([layout.places_C, torch.arange(count) + self.first_place(layout)])
            for layout, count in zip(batch.layouts, counts, strict=True)
        ]
        places_BN = pad_right(places)[0].to(device)
        embeds_BNW, seen_BN = self.dropout(embeds_BNW), self._seen(mask_BN, batch.layouts).long()
        output = self.decoder(inputs_embeds=embeds_BNW, attention_mask=seen_BN, position_ids=places_BN, use_cache=False)
        starts_B = torch.tensor([len(layout) - 1 + given for layout in batch.layouts], device=device)
        predicts_BN = mask_BN & (torch.arange(mask_BN.shape[1], device=device) >= starts_B[:, None])
        states_BUW, mask_BU = pad_right(unpad(output.last_hidden_state, predicts_BN))
        targets_BU = pad_right([torch.tensor(row[given:]) for row in batch.words])[0].to(device)
        return states_BUW, targets_BU, mask_BU

    @property
    def _given(self) -> int:
        """How many words the decoder is given: BOS, which one with text tokens of its own says itself."""
        return 0 if self.config.text_vocab_size else 1

    @staticmethod
    def _seen(mask_BN: torch.Tensor, layouts: list[TextLayout]) -> torch.Tensor:
        """Return the mask (B, N) of right-padded rows without what their layouts hide."""
        hidden = [(row, layout.seen_C) for row, layout in enumerate(layouts) if layout.seen_C is not None]
        if hidden:
            mask_BN = mask_BN.clone()
        for row, seen_C in hidden:
            mask_BN[row, : len(seen_C)] &= seen_C.to(mask_BN.device)
        return mask_BN

    @property
    def mark(self) -> torch.Tensor:
        """What a part that learnt with the states of this decoder knows it by, (W,): the scales of its last norm.

        They pass through float16 unchanged, and nothing packs them.
        """
        return self.decoder.norm.weight.detach().half()

    @property
    def body(self) -> Any:
        """The decoder without its head."""
        return self.decoder

    def token_logits(self, hidden_BW: torch.Tensor) -> torch.Tensor:
        """Return scores (B, V + U) of the next word: unit words and EOS, and whatever else the settings allow."""
        config, V = self.config, self.config.text_vocab_size
        if V and not config.says_text:
            marks = torch.tensor([config.bos_token_id, config.eos_token_id], device=hidden_BW.device)
            logits_BU = hidden_BW.new_full((len(hidden_BW), len(self.head.weight)), -torch.inf)
            logits_BU[:, V:] = hidden_BW @ self.head.weight[V:].t()
            logits_BU[:, marks] = hidden_BW @ self.head.weight[marks].t()
            return logits_BU
        logits_BU = self.head(hidden_BW)
        for never in (config.bos_token_id, config.pad_token_id) if not V else ():
            logits_BU[:, never] = -torch.inf
        return logits_BU

    def _rows(self, text: list[torch.Tensor], layouts: list[TextLayout]) -> list[Row]:
        device, given = self.head.weight.device, self._given
        bos_1W = self.embed_tokens(torch.tensor([self.config.bos_token_id] * given, dtype=torch.long, device=device))
        rows = []
        for text_CW, layout in zip(self.read(text, layouts), layouts, strict=True):
            first = self.first_place(layout)
            places_N = nn.functional.pad(layout.places_C, (0, given), value=first)
            seen_N = layout.seen_C
            seen_N = None if seen_N is None else nn.functional.pad(seen_N, (0, given), value=True)
            rows.append(Row(torch.cat([text_CW, bos_1W]), places_N, first + given, seen_N))
        return rows

    @torch.inference_mode()
    def line(self, text_NH: torch.Tensor, layout: TextLayout) -> Line:
        """Return the greedy way of one text (N, H) through a batch; it ends as in `generate`."""
        limit, config = self.limit(layout), self.config
        return Line(self._rows([text_NH], [layout])[0], {config.eos_token_id}, lambda said: self.is_over(said, limit))

    @torch.inference_mode()
    def generate(
        self, text: list[torch.Tensor], layouts: list[TextLayout], limit: int | None = None, states: bool = False
    ) -> list[Generated]:
        """Return greedy unit words for every row, without EOS and a BOS that was given, and if asked the `states` behind them.

        They are at most `limit`, by default three times the words that the text's characters suggest. A row that says one run
        `loops` times over ends there.
        """
        limits = [limit or self.limit(layout) for layout in layouts]
        stops, rows = {self.config.eos_token_id}, self._rows(text, layouts)
        steps = decode(self, rows, stops, lambda row, words: self.is_over(words, limits[row]))
        return gathered(steps, len(rows), states)

    def framed(self, words: list[int], whole: bool = True) -> list[int]:
        """Return generated unit words as a training row: BOS in front, and EOS at the end of a whole one."""
        bos = [self.config.bos_token_id] * self._given
        return [*bos, *words, *([self.config.eos_token_id] if whole else [])]

    def first_place(self, layout: TextLayout) -> int:
        """Return the rotary place of the first unit word: 0 beside the text, or behind it."""
        return 0 if self.config.aligned_positions else len(layout)

    def limit(self, layout: TextLayout) -> int:
        """Return how many unit words a text may take: as many as its config says, or as its length suggests."""
        expected = float(layout.places_C[-1]) if self.config.aligned_positions else 4.0 * len(layout)
        return self.config.longest or min(self.config.max_positions - 1, 24 + int(3 * expected))

    def is_over(self, words: list[int], limit: int) -> bool:
        """Say whether a text has been said at too great length: `limit` words, or one run of words over and over."""
        return len(words) >= limit or (self.config.loops > 0 and loops(words, self.config.loops))


def loops(words: list[int], times: int) -> bool:
    """Say whether `words` end with the same run of at least two words, `times` times over."""
    for size in range(2, min(LONGEST_LOOP, len(words) // times) + 1):
        run = words[-size:]
        if all(words[-size * (n + 1) : -size * n] == run for n in range(1, times)):
            return True
    return False


def _decoder(config: T2CConfig) -> Any:
    """Return the decoder's body without a token table: our Llama, or transformers' where places are scaled."""
    sizes: dict[str, Any] = dict(
        vocab_size=1,
        hidden_size=config.width,
        intermediate_size=config.ffn,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        rms_norm_eps=config.norm_eps,
        head_dim=config.head_dim or config.width // config.heads,
    )
    rope = config.rope or {}
    if rope.get("rope_type", "default") == "default":
        return Llama(LlamaConfig(**sizes, rope_theta=rope.get("rope_theta", 10_000.0)), embedded=False)
    import transformers

    theirs = transformers.LlamaConfig(
        **sizes,
        max_position_embeddings=config.max_positions,
        rope_parameters=rope,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    body = transformers.LlamaModel(theirs)
    body._modules["embed_tokens"] = None
    return body
