"""From encoder frames to positions that a language model can read (spec section 2.1); it knows no encoder and no LLM.

    frames 50/s --stack x2--> 25/s --linear--> transformer --norm--> states
                                                                       |-- CTC head over LLM tokens --> which frames to keep
                                                                       '-- kept runs --> look-back --> readout --> LLM inputs

The CTC head is the LLM's own embedding table (never stored here) and a blank of its own. The readout mixes, for every kept
run, the embeddings that CTC believes in: what was heard clearly reaches the LLM as the token it would have read.

The released model's ways are settings, off by default: `attend_over="turns"` (attention along the turn axis, which one question
has one of, so that a frame sees itself alone: section 2.1 step 3), `look_back="kept"` (dropped frames are ignored, step 6),
`keep_blanks=True` (a run of blanks is kept, step 5), `ctc_head="own"` (a table of its own whose last row is the blank, step 4),
`readout="states"`.

Scores over all CTC classes are never held for more than a few frames at once (`in_parts`): a class is an LLM token, and a
minute of speech over a whole vocabulary would be gigabytes.

Legend: B batch, C CTC classes (blank last), D encoder width, E a class's embedding and its share, F encoder frames, H LLM width,
N kept positions or any number of frames, S classes that are said, T stacked frames, V LLM vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from echox.errors import ModelError
from echox.models.bounds import Classes, Flag, Heads, Layers, Positive, Share, Wide, Width, check_heads
from echox.models.ragged import pad_right, within

SCORES = 2**24  # of frames over CTC classes that are held at once: 64 MiB
Run = tuple[int, int, int]  # first frame, end frame, CTC class


@dataclass
class AdapterConfig:
    """Sizes and settings of the adapter."""

    encoder_width: Width = 384
    width: Width = 576  # of the LLM
    stack: Positive = 2  # encoder frames per position
    layers: Layers = 2
    heads: Heads = 9
    ffn: Wide = 1152
    dropout: Share = 0.1
    attend_over: Literal["time", "turns"] = "time"  # turns: spec 2.1 step 3
    keep_blanks: Flag = False  # True: spec 2.1 step 5
    look_back: Literal["all", "kept"] = "all"  # kept: spec 2.1 step 6
    readout: Literal["mix", "states"] = "mix"  # the expected embedding plus gated states | the states alone, scaled
    ctc_head: Literal["tied", "own"] = "tied"  # own: spec 2.1 step 4
    classes: Classes = 0  # rows of an own head, the blank among them


@dataclass
class AdapterOutput:
    """What the adapter heard: stacked frames and the positions for the LLM."""

    frames_B: torch.Tensor
    kept_BNH: torch.Tensor
    mask_BN: torch.Tensor
    classes: list[list[int]]  # CTC class of every kept position


class SpeechAdapter(nn.Module):
    """Frame stacking, linear, transformer, norm, CTC shrinking by runs, look-back, readout."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.config = config
        check_heads(config.width, config.heads, 1, "the adapter")
        H = config.width
        self.linear = nn.Linear(config.stack * config.encoder_width, H)
        layer = nn.TransformerEncoderLayer(
            H, config.heads, config.ffn, config.dropout, batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(H)
        if config.ctc_head == "own" and config.readout == "mix":
            raise ModelError("the adapter mixes embeddings of its CTC classes, which an own CTC head does not have.")
        if config.ctc_head == "own":
            self.head = nn.Linear(H, config.classes, bias=False)
        else:
            self.blank = nn.Parameter(torch.randn(H) * 0.02)
            self.ctc_bias = nn.Parameter(torch.zeros(()))  # of the blank
            self.ctc_scale = nn.Parameter(torch.tensor(0.2))
        self.look_back = nn.MultiheadAttention(H, config.heads, config.dropout, batch_first=True)
        self.look_back_norm = nn.LayerNorm(H)
        self.scale = nn.Parameter(torch.tensor(0.1))  # between norm and embeddings
        if config.readout == "mix":
            self.gate = nn.Parameter(torch.zeros(()))  # of the states

    def encode(self, frames_BFD: torch.Tensor, lengths_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return states (B, T, H) and their lengths (B,) from encoder frames at 50 a second; zeros beyond the length."""
        frames_BFD = frames_BFD.to(self.linear.weight.device)
        B, F, D = frames_BFD.shape
        n = self.config.stack
        frames_BFD = nn.functional.pad(frames_BFD, (0, 0, 0, -F % n))
        stacked = frames_BFD.reshape(B, -1, n * D)
        frames_B = (lengths_B.to(stacked.device) + n - 1) // n
        padding_BT = ~within(frames_B, stacked.shape[1])
        hidden = self.linear(stacked)
        if self.config.attend_over == "time":
            hidden = self.transformer(hidden, src_key_padding_mask=padding_BT)
        else:
            hidden = self.transformer(hidden.flatten(0, 1)[:, None]).view_as(hidden)
        return self.norm(hidden) * ~padding_BT[..., None], frames_B

    def ctc_log_probs(self, states: torch.Tensor, rows_CH: torch.Tensor) -> torch.Tensor:
        """Return float32 log-probabilities (..., C + 1) over classes with the given rows (see `ctc_rows`), blank last."""
        return self._scores(states, rows_CH).log_softmax(-1)

    def said_log_probs(self, states_BTH: torch.Tensor, rows_CH: torch.Tensor, said_S: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities (B, T, S + 2): of the classes `said_S`, of all others together, of the blank.

        CTC of what was said is the same over these as over `ctc_log_probs`, in value and gradient; without others they are those.
        """
        own_BTS = self._scores(states_BTH, rows_CH[said_S])
        if len(said_S) == len(rows_CH):
            return own_BTS.log_softmax(-1)

        def others(part_NH: torch.Tensor) -> torch.Tensor:
            return self._scores(part_NH, rows_CH)[:, :-1].index_fill(-1, said_S, -torch.inf).logsumexp(-1)

        others_BT = in_parts(others, states_BTH.flatten(0, 1), len(rows_CH)).view_as(own_BTS[..., 0])
        return torch.cat([own_BTS[..., :-1], others_BT[..., None], own_BTS[..., -1:]], -1).log_softmax(-1)

    def ctc_rows(self, embeddings_VH: torch.Tensor, tokens_C: torch.Tensor) -> torch.Tensor:
        """Return the rows (C, H) that score some tokens: the LLM's embeddings of them, or those of an own head."""
        if self.config.ctc_head == "tied":
            every = torch.equal(tokens_C, torch.arange(len(embeddings_VH), device=tokens_C.device))
            return embeddings_VH if every else embeddings_VH[tokens_C]
        every = len(tokens_C) == self.config.classes - 1
        return self.head.weight[:-1] if every else self.head.weight[tokens_C]

    def _scores(self, states: torch.Tensor, rows_CH: torch.Tensor) -> torch.Tensor:
        own = self.config.ctc_head == "own"
        blank = states @ self.head.weight[-1] if own else states @ self.blank + self.ctc_bias
        scores = torch.cat([states @ rows_CH.t().to(states.dtype), blank[..., None]], dim=-1).float()
        return scores if own else scores * self.ctc_scale

    def forward(self, frames_BFD: torch.Tensor, lengths_B: torch.Tensor, rows_CH: torch.Tensor) -> AdapterOutput:
        """Return what was heard; `rows_CH` are those of the CTC classes (see `ctc_rows`)."""
        states_BTH, frames_B = self.encode(frames_BFD, lengths_B)
        runs = self.runs(states_BTH, frames_B, rows_CH)
        kept_BNH, mask_BN = self._shrink(states_BTH, frames_B, runs, rows_CH)
        return AdapterOutput(frames_B, kept_BNH, mask_BN, [[label for _, _, label in row] for row in runs])

    @torch.no_grad()
    def runs(self, states_BTH: torch.Tensor, frames_B: torch.Tensor, rows_CH: torch.Tensor) -> list[list[Run]]:
        """Return (first frame, end frame, class) of every run of equal best classes of every row (spec section 2.1 step 5).

        Runs of the blank, the last class, are left out unless `keep_blanks`; when nothing else was heard, the frame least sure of
        blank stays.
        """
        best_N = in_parts(lambda part: self._scores(part, rows_CH).argmax(-1), states_BTH.flatten(0, 1), len(rows_CH))
        best_BT, without = best_N.view(states_BTH.shape[:2]).tolist(), None if self.config.keep_blanks else len(rows_CH)
        counts = frames_B.tolist()
        found = [equal_runs(best[:n], without) for best, n in zip(best_BT, counts, strict=True)]
        return [runs or self._least_blank(states_BTH[row, : counts[row]], rows_CH) for row, runs in enumerate(found)]

    def _least_blank(self, states_TH: torch.Tensor, rows_CH: torch.Tensor) -> list[Run]:
        blank_T = in_parts(lambda part: self.ctc_log_probs(part, rows_CH)[:, -1], states_TH, len(rows_CH))
        t = int(blank_T.argmin())
        return [(t, t + 1, int(self._scores(states_TH[t], rows_CH)[:-1].argmax()))]

    def _shrink(
        self, states_BTH: torch.Tensor, frames_B: torch.Tensor, runs: list[list[Run]], rows_CH: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return LLM positions (B, N, H), one a run, and their mask, all rows at once (twin: `shrink_row` in the tests)."""
        device, T = states_BTH.device, states_BTH.shape[1]
        first_BN, mask_BN = (x.to(device) for x in pad_right([torch.tensor([a for a, _, _ in row]) for row in runs]))
        kept_BNH = states_BTH.gather(1, first_BN[..., None].expand(-1, -1, states_BTH.shape[2]))
        if self.config.look_back == "all":
            padding_BT = ~within(frames_B, T)
            looked = self.look_back(kept_BNH, states_BTH, states_BTH, padding_BT, need_weights=False)[0]
        else:
            looked = self.look_back(kept_BNH, kept_BNH, kept_BNH, ~mask_BN, need_weights=False)[0]
        kept_BNH = self.look_back_norm(looked + kept_BNH)
        if self.config.readout == "states":
            return self.scale * kept_BNH * mask_BN[..., None], mask_BN
        ends_BN = pad_right([torch.tensor([b for _, b, _ in row]) for row in runs])[0].to(device)
        place_T = torch.arange(T, device=device)
        inside_BNT = (place_T >= first_BN[..., None]) & (place_T < ends_BN[..., None])
        meant_BNH = self._meant(states_BTH, inside_BNT, rows_CH).to(rows_CH.dtype)
        return (meant_BNH + self.gate * self.scale * kept_BNH) * mask_BN[..., None], mask_BN

    def _meant(self, states_BTH: torch.Tensor, inside_BNT: torch.Tensor, rows_CH: torch.Tensor) -> torch.Tensor:
        """Return the expected embedding (B, N, H) of every run, blank left out, from the frames inside runs alone."""

        def expected(part_NH: torch.Tensor) -> torch.Tensor:
            probs_NC = self.ctc_log_probs(part_NH, rows_CH)[:, :-1].exp()
            return torch.cat([(probs_NC.to(rows_CH.dtype) @ rows_CH).float(), probs_NC.sum(-1, keepdim=True)], -1)

        spoken_BT = inside_BNT.any(1)
        expected_BTE = states_BTH.new_zeros(*spoken_BT.shape, rows_CH.shape[1] + 1, dtype=torch.float32)
        expected_BTE[spoken_BT] = in_parts(expected, states_BTH[spoken_BT], len(rows_CH))
        shares_BNT = inside_BNT / inside_BNT.sum(-1, keepdim=True).clamp(min=1)
        with torch.autocast(states_BTH.device.type, enabled=False):  # a mean, in float32 as the probabilities are
            pooled_BNE = shares_BNT @ expected_BTE
        return pooled_BNE[..., :-1] / pooled_BNE[..., -1:].clamp(min=1e-6)


def in_parts(score: Callable[[torch.Tensor], torch.Tensor], states_NH: torch.Tensor, classes: int) -> torch.Tensor:
    """Return `score` of every frame, where scores of all frames over all classes would not fit: a few frames at a time.

    What a part holds is made again for its gradient.
    """
    parts = states_NH.split(max(1, SCORES // classes))
    if len(parts) == 1:
        return score(states_NH)
    return torch.cat([checkpoint(score, part, use_reentrant=False, preserve_rng_state=False) for part in parts])


def equal_runs(best: list[int], without: int | None = None) -> list[Run]:
    """Return (first, end, class) of every run of equal classes, those of class `without` left out."""
    runs, start = [], 0
    for t in range(1, len(best) + 1):
        if t == len(best) or best[t] != best[start]:
            if best[start] != without:
                runs.append((start, t, best[start]))
            start = t
    return runs
