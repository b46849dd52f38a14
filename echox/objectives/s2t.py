"""Stage I: L = CE(answer) + 0.3 CTC(transcript) (spec section 2.3); it knows no data format.

Legend: B batch, C CTC classes (blank last), L answer tokens, T frames.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from echox.errors import ConfigError
from echox.models.s2t import S2TInputs, SpeechToText
from echox.objectives.loss import Loss, token_loss

# stretches of every utterance, and the longest of them, that CTC does not hear: here and by default in stage translate
HIDDEN_SPANS, HIDDEN_FRAMES = 2, 10


def ctc_loss(
    log_probs_BTC: torch.Tensor, frames_B: torch.Tensor, targets: list[list[int]], blank: int | None = None
) -> torch.Tensor:
    """Return the mean CTC loss a target token; the blank is the last class by default, impossible rows count nothing."""
    blank = log_probs_BTC.shape[-1] - 1 if blank is None else blank
    device = log_probs_BTC.device
    lengths_B = torch.tensor([len(row) for row in targets], device=device)
    flat = torch.tensor([token for row in targets for token in row], dtype=torch.long, device=device)
    return nn.functional.ctc_loss(
        log_probs_BTC.float().transpose(0, 1),
        flat,
        frames_B,
        lengths_B,
        blank=blank,
        reduction="mean",
        zero_infinity=True,
    )


@dataclass
class CtcOutput:
    """What CTC hears of a batch: log-probabilities over the classes that its rows say, all others as one, and the blank.

    `targets` are rows of those classes; where it is measured, `best` are the classes of all CTC tokens that are heard, `said` those
    that should be.
    """

    log_probs_BTC: torch.Tensor
    frames_B: torch.Tensor
    targets: list[list[int]]
    said: list[list[int]]
    best: list[list[int]] = field(default_factory=list)


class AlignPass(nn.Module):
    """Hearing alone, over the batch's own tokens and sampled others: the adapter learns where tokens are said.

    `negatives` classes are drawn at every step from all CTC tokens; 0 takes them all. When measured, no frames are hidden and all
    classes are told apart.
    """

    def __init__(self, model: SpeechToText, negatives: int = 0) -> None:
        super().__init__()
        self.model, self.negatives = model, negatives
        self.class_of = {token: number for number, token in enumerate(model.ctc_tokens.tolist())}

    def classes(self, own_S: torch.Tensor) -> torch.Tensor:
        """Return the sorted class numbers that this step tells apart, those of its own rows among them."""
        total = len(self.class_of)
        if not self.training or not self.negatives or self.negatives >= total:
            return torch.arange(total)
        return torch.cat([own_S, torch.randint(total, (self.negatives,))]).unique()

    def forward(self, batch: S2TInputs) -> CtcOutput:
        """Return what is heard of frames of which some are hidden."""
        unknown = {token for row in batch.transcripts or [] for token in row} - self.class_of.keys()
        if unknown:
            raise ConfigError(f"token {min(unknown)} is no CTC class: align with its text, or with classes: all.")
        said = [[self.class_of[token] for token in row] for row in batch.transcripts or []]
        own_S = torch.tensor(sorted({number for row in said for number in row}), dtype=torch.long)
        classes = self.classes(own_S)
        spans = HIDDEN_SPANS if self.training else 0
        frames_BTD = hide_spans(batch.frames_BTD, batch.lengths_B, spans, HIDDEN_FRAMES)
        adapter = self.model.adapter
        states_BTH, frames_B = adapter.encode(frames_BTD, batch.lengths_B)
        rows_CH = adapter.ctc_rows(self.model.embeddings_VH, self.model.ctc_tokens[classes].long())
        own = torch.searchsorted(classes, own_S).to(rows_CH.device)
        position = {number: index for index, number in enumerate(own_S.tolist())}
        heard = CtcOutput(
            adapter.said_log_probs(states_BTH, rows_CH, own),
            frames_B,
            [[position[n] for n in row] for row in said],
            said,
        )
        if not self.training:
            runs = adapter.runs(states_BTH, frames_B, rows_CH)
            heard.best = [[label for _, _, label in row if label < len(rows_CH)] for row in runs]
        return heard


def align_loss(heard: CtcOutput, step: int = 0) -> Loss:
    """Return the CTC loss of one batch; its mean is over utterances."""
    loss = ctc_loss(heard.log_probs_BTC, heard.frames_B, heard.targets)
    return Loss(loss, {"ctc": loss.detach()}, tokens=sum(map(len, heard.targets)), weight=len(heard.targets))


@dataclass
class Answered:
    """Logits of the answer tokens of all rows, the tokens, and what CTC heard of the spoken rows, if it is asked."""

    logits_NV: torch.Tensor
    answers_N: torch.Tensor
    heard: CtcOutput | None


class AnswerPass(nn.Module):
    """Questions in, answer tokens out; with `align`, its CTC path hears the spoken rows once more while it trains."""

    def __init__(self, model: SpeechToText, align: AlignPass | None = None) -> None:
        super().__init__()
        self.model, self.align = model, align

    def forward(self, batch: S2TInputs) -> Answered:
        """Return logits and answers, padding left out."""
        output = self.model(batch)
        logits = self.model.token_logits(output.hidden_BLH[output.mask_BL]).float()
        spoken = [row for row in range(len(batch.answers)) if not (batch.typed and batch.typed[row])]
        heard = None
        if self.training and self.align is not None and batch.transcripts is not None and spoken:
            transcripts = [batch.transcripts[row] for row in spoken]
            heard = self.align(S2TInputs(batch.frames_BTD[spoken], batch.lengths_B[spoken], (), (), [], transcripts))
        return Answered(logits, output.answers_BL[output.mask_BL], heard)


class S2TObjective:
    """Cross-entropy of the answer plus `ctc_weight` times CTC (spec section 2.3: 0.3)."""

    def __init__(self, ctc_weight: float = 0.3) -> None:
        self.ctc_weight = ctc_weight

    def __call__(self, found: Answered, step: int = 0) -> Loss:
        """Return the loss of one batch; answer tokens are its tokens."""
        answer = token_loss(found.logits_NV, found.answers_N)
        parts = {"ce": answer.total.detach()} | answer.parts
        if not self.ctc_weight or found.heard is None:
            return Loss(answer.total, parts, answer.tokens)
        ctc = align_loss(found.heard).total
        parts["ctc"] = ctc.detach()
        return Loss(answer.total + self.ctc_weight * ctc, parts, answer.tokens, over={"ctc": len(found.heard.targets)})


def hide_spans(frames_BTD: torch.Tensor, lengths_B: torch.Tensor, spans: int, longest: int) -> torch.Tensor:
    """Return frames with `spans` random stretches of up to `longest` frames set to zero in every row."""
    if not spans:
        return frames_BTD
    heard = np.ones(frames_BTD.shape[:2], bool)
    for row, length in enumerate(lengths_B.tolist()):
        for _ in range(spans):
            width = int(torch.randint(1, longest + 1, ()))
            start = int(torch.randint(max(1, length - width + 1), ()))
            heard[row, start : start + width] = False
    return frames_BTD * torch.from_numpy(heard).to(frames_BTD.device)[..., None]
