"""From encoder frames to positions that a language model can read (spec section 2.1); it knows no encoder and no LLM.

    frames 50/s --stack x2--> 25/s --linear--> transformer --norm--> states
                                                                       |-- CTC head over LLM tokens --> which frames to keep
                                                                       '-- kept runs --> look-back --> readout --> LLM inputs

The CTC head is the LLM's own embedding table (never stored here) and a blank of its own. The readout mixes, for every kept
run, the embeddings that CTC believes in: what was heard clearly reaches the LLM as the token it would have read.

The released model's quirks are settings, off by default: `attend_over="turns"` (attention along the turn axis, section 2.1
step 3), `look_back="kept"` (dropped frames are ignored, step 6), `keep_blanks=True` (a run of blanks is kept, step 5).

Legend: B batch, C CTC classes (blank last), D encoder width, H LLM width, N kept positions, T stacked frames.
"""

from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import nn

from echox.models.bounds import Flag, Heads, Layers, Positive, Share, Wide, Width, check_heads
from echox.models.ragged import pad_right


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
    look_back: Literal["all", "kept", "none"] = "all"  # kept: spec 2.1 step 6
    readout: Literal["mix", "states"] = (
        "mix"  # mix: expected embedding plus gated states | states: the states alone, scaled
    )

    def to_dict(self) -> dict:
        """Return the settings as plain values."""
        return asdict(self)


@dataclass
class AdapterOutput:
    """What the adapter heard: states, CTC log-probabilities and the positions for the LLM."""

    states_BTH: torch.Tensor
    log_probs_BTC: torch.Tensor
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
        over_time = config.attend_over == "time"
        layer = nn.TransformerEncoderLayer(
            H, config.heads, config.ffn, config.dropout, batch_first=over_time, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(H)
        self.blank = nn.Parameter(torch.randn(H) * 0.02)
        self.ctc_bias = nn.Parameter(torch.zeros(()))  # of the blank
        self.ctc_scale = nn.Parameter(torch.tensor(0.2))
        if config.look_back != "none":
            self.look_back = nn.MultiheadAttention(H, config.heads, config.dropout, batch_first=True)
            self.look_back_norm = nn.LayerNorm(H)
        self.scale = nn.Parameter(torch.tensor(0.1))  # between norm and embeddings
        self.gate = nn.Parameter(torch.zeros(()))  # of the states in a mixed readout

    def encode(self, frames_BSD: torch.Tensor, lengths_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return states (B, T, H) and their lengths (B,) from encoder frames at 50 a second; zeros beyond the length."""
        frames_BSD = frames_BSD.to(self.linear.weight.device)
        B, S, D = frames_BSD.shape
        n = self.config.stack
        frames_BSD = nn.functional.pad(frames_BSD, (0, 0, 0, -S % n))
        stacked = frames_BSD.reshape(B, -1, n * D)
        frames_B = (lengths_B.to(stacked.device) + n - 1) // n
        padding_BT = torch.arange(stacked.shape[1], device=stacked.device) >= frames_B[:, None]
        hidden = self.linear(stacked)
        if self.config.attend_over == "time":
            hidden = self.transformer(hidden, src_key_padding_mask=padding_BT)
        else:
            hidden = self.transformer(hidden)
        return self.norm(hidden) * ~padding_BT[..., None], frames_B

    def ctc_log_probs(self, states_BTH: torch.Tensor, embeddings_CH: torch.Tensor) -> torch.Tensor:
        """Return float32 log-probabilities (B, T, C + 1) over the given token embeddings, blank last."""
        blank = (states_BTH @ self.blank + self.ctc_bias)[..., None]
        logits = torch.cat([states_BTH @ embeddings_CH.t().to(states_BTH.dtype), blank], dim=-1)
        return (logits.float() * self.ctc_scale).log_softmax(-1)

    def forward(self, frames_BSD: torch.Tensor, lengths_B: torch.Tensor, embeddings_CH: torch.Tensor) -> AdapterOutput:
        """Return what was heard; `embeddings_CH` are rows of the LLM's embedding table, the CTC classes."""
        states_BTH, frames_B = self.encode(frames_BSD, lengths_B)
        log_probs_BTC = self.ctc_log_probs(states_BTH, embeddings_CH)
        kept, classes = [], []
        for states_TH, log_probs_TC, frames in zip(states_BTH, log_probs_BTC, frames_B.tolist(), strict=True):
            positions_NH, owners = self._shrink(states_TH[:frames], log_probs_TC[:frames], embeddings_CH)
            kept.append(positions_NH)
            classes.append(owners)
        kept_BNH, mask_BN = pad_right(kept)
        return AdapterOutput(states_BTH, log_probs_BTC, frames_B, kept_BNH, mask_BN, classes)

    def _shrink(
        self, states_TH: torch.Tensor, log_probs_TC: torch.Tensor, embeddings_CH: torch.Tensor
    ) -> tuple[torch.Tensor, list[int]]:
        """Return one utterance's LLM positions (N, H), one a run, and the class of each."""
        runs = ctc_runs(log_probs_TC, self.config.keep_blanks)
        first = torch.tensor([start for start, _, _ in runs], device=states_TH.device)
        kept_NH = states_TH[first]
        if self.config.look_back != "none":
            keys = states_TH if self.config.look_back == "all" else kept_NH
            looked = self.look_back(kept_NH[None], keys[None], keys[None], need_weights=False)[0][0]
            kept_NH = self.look_back_norm(looked + kept_NH)
        if self.config.readout == "mix":
            probs_TC = log_probs_TC.exp()
            pooled = torch.stack([probs_TC[start:end, :-1].mean(0) for start, end, _ in runs])
            pooled = (pooled / pooled.sum(-1, keepdim=True).clamp(min=1e-6)).to(embeddings_CH.dtype)
            kept_NH = pooled @ embeddings_CH + self.gate * self.scale * kept_NH
        else:
            kept_NH = self.scale * kept_NH
        return kept_NH, [label for _, _, label in runs]


def ctc_runs(log_probs_TC: torch.Tensor, keep_blanks: bool = False) -> list[tuple[int, int, int]]:
    """Return (first frame, end frame, class) of every run of equal best classes (spec section 2.1 step 5).

    Blank runs are left out unless `keep_blanks`; when nothing else was heard, the frame least sure of blank stays.
    """
    blank = log_probs_TC.shape[1] - 1
    best = log_probs_TC.argmax(-1).tolist()
    runs, start = [], 0
    for t in range(1, len(best) + 1):
        if t == len(best) or best[t] != best[start]:
            if keep_blanks or best[start] != blank:
                runs.append((start, t, best[start]))
            start = t
    if not runs:
        t = int(log_probs_TC[:, -1].argmin())
        runs = [(t, t + 1, int(log_probs_TC[t, :-1].argmax()))]
    return runs
