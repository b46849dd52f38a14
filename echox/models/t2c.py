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
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import torch
from torch import nn

from echox.models.decoding import Generated, Line, decode, gathered
from echox.models.io import WholePart
from echox.models.llama import Llama, LlamaConfig
from echox.models.ragged import pad_right, unpad
from echox.models.slots import Row
from echox.models.spelling import Speller, TextLayout, lay_out
from echox.models.t2c_config import T2CConfig, check_fit
from echox.text.segmenter import ends_sentence
from echox.text.speakable import aloud

LONGEST_LOOP = 32  # unit words of a run that a decoder which hangs says over and over


@dataclass
class T2CBatch:
    """Texts in LLM width, their layouts, and unit words with BOS in front and EOS at the end, one a row.

    `past` are the unit words said just before each text; without any of them no text has a past.
    """

    text: list[torch.Tensor]  # (N, H) each
    layouts: list[TextLayout]
    words: list[list[int]]
    past: list[list[int]] = field(default_factory=list)


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
        device, given = self.head.weight.device, self._given
        rows = self._rows(batch.text, batch.layouts, [words[:-1] for words in batch.words], batch.past)
        embeds_BNW, mask_BN = pad_right([row.inputs_NW for row in rows])
        places, seen = zip(*(row.laid_out for row in rows), strict=True)
        places_BN, seen_BN = pad_right(list(places))[0].to(device), pad_right(list(seen))[0].to(device)
        embeds_BNW = self.dropout(embeds_BNW)
        output = self.decoder(
            inputs_embeds=embeds_BNW, attention_mask=seen_BN.long(), position_ids=places_BN, use_cache=False
        )
        counts_B = torch.tensor([len(words) - given for words in batch.words], device=device)
        starts_B1 = (mask_BN.sum(1) - counts_B)[:, None]
        predicts_BN = mask_BN & (torch.arange(mask_BN.shape[1], device=device) >= starts_B1)
        states_BUW, mask_BU = pad_right(unpad(output.last_hidden_state, predicts_BN))
        targets_BU = pad_right([torch.tensor(row[given:]) for row in batch.words])[0].to(device)
        return states_BUW, targets_BU, mask_BU

    @property
    def _given(self) -> int:
        """How many words the decoder is given: BOS, which one with text tokens of its own says itself."""
        return 0 if self.config.text_vocab_size else 1

    @property
    def _ends_by_median(self) -> bool:
        """Whether segments end in the middle of sentences, where nothing falls silent."""
        return self.config.past_words > 0

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

    def _rows(
        self, text: list[torch.Tensor], layouts: list[TextLayout], said: list[list[int]], past: Sequence[list[int]] = ()
    ) -> list[Row]:
        """Return what is read of texts: the unit words said before each, the text, and those `said` of it, BOS among them."""
        pasts = past or [[]] * len(text)
        words = [part for pair in zip(pasts, said, strict=True) for part in pair]
        flat = torch.tensor([word for part in words for word in part], dtype=torch.long, device=self.head.weight.device)
        parts, rows = iter(self.embed_tokens(flat).split([len(part) for part in words])), []
        for text_CW, layout, before, own in zip(self.read(text, layouts), layouts, pasts, said, strict=True):
            start = len(before)
            first, seen_N = start + self.first_place(layout), layout.seen_C
            places = [torch.arange(start), start + layout.places_C, first + torch.arange(len(own))]
            if seen_N is not None:
                seen_N = nn.functional.pad(seen_N, (start, len(own)), value=True)
            inputs_NW = torch.cat([next(parts), text_CW, next(parts)])
            rows.append(Row(inputs_NW, torch.cat(places), first + len(own), seen_N))
        return rows

    @torch.inference_mode()
    def line(self, text_NH: torch.Tensor, layout: TextLayout, past: list[int] | None = None) -> Line:
        """Return the greedy way of one text (N, H) through a batch, after unit words of its `past`; it ends as in `generate`."""
        limit, config = self.limit(layout), self.config
        row = self._rows([text_NH], [layout], [self.framed([], whole=False)], [past or []])[0]
        stops, by_median = {config.eos_token_id}, self._ends_by_median
        return Line(row, stops, lambda said: self.is_over(said, limit), ends_by_median=by_median)

    @torch.inference_mode()
    def generate(
        self,
        text: list[torch.Tensor],
        layouts: list[TextLayout],
        limit: int | None = None,
        states: bool = False,
        past: Sequence[list[int]] = (),
    ) -> list[Generated]:
        """Return greedy unit words for every row, without EOS and a BOS that was given, and if asked the `states` behind them.

        They are at most `limit`, by default three times the words that the text's characters suggest. A row that says one run
        `loops` times over ends there. `past` are the unit words said just before each.
        """
        limits = [limit or self.limit(layout) for layout in layouts]
        begun = [self.framed([], whole=False) for _ in text]
        stops, rows = {self.config.eos_token_id}, self._rows(text, layouts, begun, past)
        by_median = self._ends_by_median
        steps = decode(self, rows, stops, lambda row, words: self.is_over(words, limits[row]), ends_by_median=by_median)
        return gathered(steps, len(rows), states)

    def framed(self, words: list[int], whole: bool = True) -> list[int]:
        """Return generated unit words as a training row: BOS in front, and EOS at the end of a whole one."""
        bos = [self.config.bos_token_id] * self._given
        return [*bos, *words, *([self.config.eos_token_id] if whole else [])]

    def past_of(self, words: Sequence[int], text: str) -> list[int]:
        """Return what is read before the next text of the unit words said up to here, the last ones for `text`.

        None behind the end of a sentence, and for a decoder that reads no past.
        """
        count = self.config.past_words
        return list(words[-count:]) if count and not ends_sentence(self.said(text)) else []

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
