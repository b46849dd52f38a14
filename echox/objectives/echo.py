"""Stage III: L = L_Echo + lambda L_Denoising + L_S2T (spec section 4.1, Eqs. 1 to 4); it knows no data format.

Legend: B batch, H LLM width, N text positions, U unit words.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from pydantic import NonNegativeFloat
from torch import nn

from echox.config.load import Rate, Settings
from echox.models.echo import EchoDecoder
from echox.models.s2t import S2TInputs
from echox.models.t2c import T2CBatch
from echox.objectives.loss import Loss, token_loss
from echox.objectives.s2t import Answered, AnswerPass, S2TObjective


class EchoWeights(Settings):
    """The weightings of spec sections 4.1 and 4.2.

    `denoising_cap`: the denoising loss counts at most this share of the echo loss (the released code: 0.2); none takes the
    constant `denoising` instead (the paper's lambda, its value not published). `s2t_rule` "released" is the released switch:
    0.2 L_S2T + 2 (L_Echo + w L_Den) once L_S2T < 1; "sum" adds `s2t` times L_S2T (Eq. 4: 1), where there is one.
    """

    denoising: NonNegativeFloat = 1.0
    denoising_cap: NonNegativeFloat | None = 0.2
    s2t: NonNegativeFloat = 1.0
    s2t_rule: Literal["sum", "released"] = "sum"
    smoothing: Rate = 0.0


@dataclass
class EchoBatch:
    """Echo pairs: hidden states with the pseudo units of what they say; and, when the LLM learns too, its own batches.

    `batch.text` holds the states (N, H) that predict X', `embeddings` the LLM's embeddings of X' (N, H), `goals` the rows of its
    head, which denoised states should be like (the same where they are tied). `speech` are the questions with their gold answers;
    `again` with X' as the answer, of which pair n takes the states `spans`[n]: row, first, end.
    """

    batch: T2CBatch
    embeddings: list[torch.Tensor]
    goals: list[torch.Tensor]
    speech: S2TInputs | None = None
    again: S2TInputs | None = None
    spans: list[tuple[int, int, int]] = field(default_factory=list)


def denoising_loss(denoised: list[torch.Tensor], goals: list[torch.Tensor]) -> torch.Tensor:
    """Return the mean of 1 - cos(Adapter(H_i), Emb(X'_i)) over all positions (Eq. 2, as a mean)."""
    denoised_NH = torch.cat(denoised).float()
    goals_NH = torch.cat(goals).to(denoised_NH)
    cosine = nn.functional.cosine_similarity(denoised_NH, goals_NH, dim=-1)
    return (1 - cosine).mean()


@dataclass
class Echoed:
    """What the echo decoder makes of a batch, and what the LLM makes of its own."""

    logits_BUV: torch.Tensor
    targets_BU: torch.Tensor
    mask_BU: torch.Tensor
    denoised: list[torch.Tensor]
    goals: list[torch.Tensor]
    answered: Answered | None


class EchoPass(nn.Module):
    """The forward pass of the stage; with `s2t`, the LLM answers its own batch beside it while it trains."""

    def __init__(self, echo: EchoDecoder, s2t: AnswerPass | None = None) -> None:
        super().__init__()
        self.echo, self.s2t = echo, s2t

    def forward(self, batch: EchoBatch) -> Echoed:
        """Return logits and targets, and what the decoder read."""
        pairs, answered, s2t = batch.batch, None, self.s2t if self.training else None
        if s2t is not None and batch.again is not None:
            hidden_BLH = s2t.model(batch.again).hidden_BLH
            pairs = replace(pairs, text=[hidden_BLH[row, first:end].float() for row, first, end in batch.spans])
        logits, targets, mask, denoised = self.echo(pairs, batch.embeddings)
        if s2t is not None and batch.speech is not None:
            answered = s2t(batch.speech)
        return Echoed(logits, targets, mask, denoised, batch.goals, answered)


class EchoObjective:
    """Pseudo units under the echo decoder, denoised states near the embeddings, and the answer under the LLM."""

    def __init__(self, weights: EchoWeights, s2t: S2TObjective | None = None) -> None:
        self.weights, self.s2t = weights, s2t

    def __call__(self, found: Echoed, step: int = 0) -> Loss:
        """Return the loss of one batch; unit words are its tokens."""
        weights = self.weights
        said = token_loss(found.logits_BUV[found.mask_BU], found.targets_BU[found.mask_BU], weights.smoothing)
        echo = said.total
        noise = denoising_loss(found.denoised, found.goals)
        share = weights.denoising
        if weights.denoising_cap is not None:
            cap = weights.denoising_cap * float(echo.detach())
            share = min(1.0, cap / max(float(noise.detach()), 1e-8))
        spoken = echo + share * noise
        parts = {"echo": echo.detach(), "denoising": noise.detach()} | said.parts
        over = {"denoising": sum(map(len, found.goals))}
        if self.s2t is None or found.answered is None:
            return Loss(spoken, parts, said.tokens, over=over)
        heard = self.s2t(found.answered, step)
        parts |= {f"s2t/{name}": value for name, value in heard.parts.items()}
        over |= {f"s2t/{name}": heard.over.get(name, heard.tokens) for name in heard.parts}
        if weights.s2t_rule == "released" and float(heard.total.detach()) < 1.0:
            return Loss(0.2 * heard.total + 2.0 * spoken, parts, said.tokens, over=over)
        weight = 1.0 if weights.s2t_rule == "released" else weights.s2t
        return Loss(spoken + weight * heard.total, parts, said.tokens, over=over)
