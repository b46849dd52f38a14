"""Stage I: L = CE(answer) + 0.3 CTC(transcript) (spec section 2.3); it knows no data format.

Legend: B batch, C CTC classes (blank last), L answer tokens, T frames.
"""

import torch
from torch import nn

from echox.errors import ConfigError
from echox.models.s2t import S2TInputs, SpeechToText
from echox.objectives.loss import Loss


def ctc_loss(log_probs_BTC: torch.Tensor, frames_B: torch.Tensor, targets: list[list[int]]) -> torch.Tensor:
    """Return the mean CTC loss a target token; the blank is the last class, impossible rows count nothing."""
    device = log_probs_BTC.device
    lengths_B = torch.tensor([len(row) for row in targets], device=device)
    flat = torch.tensor([token for row in targets for token in row], device=device)
    return nn.functional.ctc_loss(
        log_probs_BTC.float().transpose(0, 1), flat, frames_B, lengths_B, blank=log_probs_BTC.shape[-1] - 1,
        reduction="mean", zero_infinity=True,
    )  # fmt: skip


class AlignObjective:
    """CTC alone, over the batch's own tokens and sampled others: the adapter learns where tokens are said.

    `negatives` classes are drawn at every step from all CTC tokens; 0 takes them all.
    """

    def __init__(self, model: SpeechToText, negatives: int = 0, mask_frames: int = 10, masks: int = 2) -> None:
        self.model, self.negatives, self.mask_frames, self.masks = model, negatives, mask_frames, masks
        self.class_of = {token: number for number, token in enumerate(model.ctc_tokens.tolist())}

    def classes(self, targets: list[list[int]]) -> torch.Tensor:
        """Return the sorted class numbers that this step tells apart."""
        total = len(self.class_of)
        if not self.negatives or self.negatives >= total:
            return torch.arange(total)
        own = torch.tensor([number for row in targets for number in row])
        return torch.cat([own, torch.randint(total, (self.negatives,))]).unique()

    def __call__(self, batch: S2TInputs, step: int) -> Loss:
        """Return the CTC loss of one batch."""
        unknown = {token for row in batch.transcripts or [] for token in row} - self.class_of.keys()
        if unknown:
            raise ConfigError(
                f"token {min(unknown)} is no CTC class: align with its text in extra_tokens, or classes: all."
            )
        targets = [[self.class_of[token] for token in row] for row in batch.transcripts or []]
        classes = self.classes(targets)
        position = {number: index for index, number in enumerate(classes.tolist())}
        tokens = self.model.ctc_tokens[classes].long()
        frames_BTD = hide_spans(batch.frames_BTD, batch.lengths_B, self.masks, self.mask_frames)
        adapter = self.model.adapter
        states_BTH, frames_B = adapter.encode(frames_BTD, batch.lengths_B)
        log_probs_BTC = adapter.ctc_log_probs(states_BTH, self.model.embeddings_VH[tokens])
        loss = ctc_loss(log_probs_BTC, frames_B, [[position[number] for number in row] for row in targets])
        return Loss(loss, {"ctc": loss.detach()})


class S2TObjective:
    """Cross-entropy of the answer plus `ctc_weight` times CTC (spec section 2.3: 0.3)."""

    def __init__(self, model: SpeechToText, ctc_weight: float = 0.3, negatives: int = 0) -> None:
        self.model, self.ctc_weight = model, ctc_weight
        self.align = AlignObjective(model, negatives)

    def __call__(self, batch: S2TInputs, step: int) -> Loss:
        """Return the loss of one batch."""
        output = self.model(batch)
        hidden = output.hidden_BLH[output.mask_BL]
        logits, targets = self.model.logits(hidden).float(), output.answers_BL[output.mask_BL]
        ce = nn.functional.cross_entropy(logits, targets)
        accuracy = (logits.argmax(-1) == targets).float().mean()
        parts = {"ce": ce.detach(), "accuracy": accuracy}
        if not self.ctc_weight or batch.transcripts is None:
            return Loss(ce, parts)
        spoken = [row for row in range(len(batch.answers)) if not (batch.typed and batch.typed[row])]
        if not spoken:
            return Loss(ce, parts)
        heard = S2TInputs(
            batch.frames_BTD[spoken], batch.lengths_B[spoken], (), (), [], [batch.transcripts[row] for row in spoken]
        )
        ctc = self.align(heard, step).total
        return Loss(ce + self.ctc_weight * ctc, parts | {"ctc": ctc.detach()})


def hide_spans(frames_BTD: torch.Tensor, lengths_B: torch.Tensor, spans: int, longest: int) -> torch.Tensor:
    """Return frames with `spans` random stretches of up to `longest` frames set to zero in every row."""
    if not spans:
        return frames_BTD
    frames_BTD = frames_BTD.clone()
    for row, length in enumerate(lengths_B.tolist()):
        for _ in range(spans):
            width = int(torch.randint(1, longest + 1, ()))
            start = int(torch.randint(max(1, length - width), ()))
            frames_BTD[row, start : start + width] = 0
    return frames_BTD
