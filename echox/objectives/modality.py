"""Aligning the spaces of speech and text: two players (spec B2.3), pointwise alignment (H-Align), and the schedule as data.

    discriminator   min BCE(D(f), y)     y = 0 speech, 1 text, or how text-like a mixed sequence is; features detached
    encoders        min BCE(D(f), 1/2)   for both; D's parameters held still
    reversal        min -BCE(D(f), y)    what a gradient reversal layer does to the encoders

A term is a mean over what it is weighed by, so that its strength does not hang on batch size; it is added to the other losses
before their one backward pass, so that no precision's loss scaling changes the balance (spec B2.6).

Legend: B batch, G groups that the discriminator judges, N positions, W width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize

from echox.config.load import Settings, Share
from echox.models.discriminators import Level, ModalityDiscriminator
from echox.models.speech_translator import Positioned

Target = Literal["half", "reversed", "none"]


class AlignmentSettings(Settings):
    """What is done to bring speech and text together; the defaults do nothing."""

    target: Target = "none"  # of the encoders, against the discriminator
    weight: NonNegativeFloat = 0.5  # of the encoders' term, in units of the mean loss a token
    discriminator_weight: NonNegativeFloat = 1.5
    level: Level = "sentence"
    window: PositiveInt = 8
    stride: PositiveInt = 5
    place: Literal["top", "bottom"] = "top"  # encoder output, or what enters the shared layers
    by_length: bool = True  # long sentences count more
    learns: bool = True  # False: a random discriminator that stays as it is (control)
    shuffled: bool = False  # speech is held against other sentences' transcripts (control)
    mixing: Share = 0.0  # share of batches mixed with embeddings (spec B2.4: 0.3)
    noise: Share = 0.0  # share of transcripts with blanks put in (spec B2.4: 0.2)
    noise_most: Share = 0.3  # blanks a word, at most
    contrast: Literal["none", "sentence", "token", "both"] = "none"  # H-Align
    contrast_weight: NonNegativeFloat = 1.0
    temperature: PositiveFloat = 0.1

    @property
    def asked(self) -> bool:
        """Whether speech is held against its transcripts at all."""
        return self.target != "none" or self.contrast != "none"


class Schedule(Settings):
    """From which step what runs (spec B2.7); `end` none: for ever."""

    encoders_from: NonNegativeInt = 1_000  # the encoders' side of the adversarial game
    shrink_from: NonNegativeInt = 3_000
    translate_from: NonNegativeInt = 3_000  # speech translation and the CTC of its rows
    mixing_from: NonNegativeInt = 3_000
    recognise_until: NonNegativeInt | None = 15_000  # CTC of all speech
    fall: tuple[int, int] = (25_000, 45_000)  # the adversarial weight falls in a line to zero

    @model_validator(mode="after")
    def _check(self) -> "Schedule":
        if self.fall[0] >= self.fall[1]:
            raise ValueError("fall begins before it ends")
        return self

    def adversarial(self, step: int) -> float:
        """Return the share of the adversarial weight at `step`."""
        first, end = self.fall
        return min(1.0, max(0.0, (end - step) / (end - first)))

    def recognises(self, step: int) -> bool:
        """Say whether CTC is learnt from all speech at `step`."""
        return self.recognise_until is None or step < self.recognise_until


@dataclass
class Side:
    """States of one modality and how text-like each row is (B,): 0 speech, 1 text."""

    states: Positioned
    label_B: torch.Tensor

    def detached(self) -> "Side":
        """Return the same numbers, through which no gradient flows."""
        still = Positioned(self.states.states_BNW.detach(), self.states.mask_BN, self.states.tokens_BN)
        return Side(still, self.label_B)


def discriminator_loss(
    discriminator: ModalityDiscriminator, sides: Sequence[Side], by_length: bool = True
) -> torch.Tensor:
    """Return the discriminator's loss of what it is told; nothing flows into the encoders."""
    return _judged(discriminator, [side.detached() for side in sides], None, by_length)


def encoder_loss(
    discriminator: ModalityDiscriminator, sides: Sequence[Side], target: Target, by_length: bool = True
) -> torch.Tensor:
    """Return the encoders' loss against the discriminator, which must be held still by the caller (train/loop.py does)."""
    if target == "half":
        return _judged(discriminator, sides, 0.5, by_length)
    return -_judged(discriminator, sides, None, by_length)


def _judged(
    discriminator: ModalityDiscriminator, sides: Sequence[Side], label: float | None, by_length: bool
) -> torch.Tensor:
    """Return the weighted mean of BCE over all judged groups of all sides."""
    total, weight = torch.zeros(()), torch.zeros(())
    for side in sides:
        logits_BG, counts_BG = discriminator(side.states)
        labels_B = side.label_B if label is None else torch.full_like(side.label_B, label)
        losses_BG = binary_cross_entropy_with_logits(
            logits_BG, labels_B[:, None].expand_as(logits_BG).float(), reduction="none"
        )
        weights_BG = counts_BG if by_length else (counts_BG > 0).float()
        total = total + (losses_BG * weights_BG).sum()
        weight = weight + weights_BG.sum()
    return total / weight.clamp(min=1)


def sentence_contrast(speech: Positioned, text: Positioned, temperature: float) -> torch.Tensor:
    """Return InfoNCE over mean states: each utterance is to find its own transcript among the batch's (H-Align)."""
    similarity_BB = normalize(mean_state(speech), dim=-1) @ normalize(mean_state(text), dim=-1).t()
    return cross_entropy(similarity_BB.float() / temperature, torch.arange(len(similarity_BB)).to(similarity_BB.device))


def token_contrast(
    runs: Positioned, embeddings_VW: torch.Tensor, temperature: float, blank: int, shift: int = 0
) -> torch.Tensor:
    """Return InfoNCE of every run that is no blank: it is to find the embedding of its CTC token among the batch's tokens.

    `shift` moves the right answers by so many tokens: the shuffled control.
    """
    assert runs.tokens_BN is not None  # noqa: S101  runs have tokens
    spoken = runs.mask_BN & (runs.tokens_BN != blank)
    if not spoken.any():
        return runs.states_BNW.sum() * 0.0
    kinds, which = runs.tokens_BN[spoken].unique(return_inverse=True)
    similarity = normalize(runs.states_BNW[spoken], dim=-1) @ normalize(embeddings_VW[kinds], dim=-1).t()
    return cross_entropy(similarity.float() / temperature, (which + shift) % len(kinds))


def mean_state(states: Positioned) -> torch.Tensor:
    """Return the mean over real positions, shape (B, W)."""
    mask_BN1 = states.mask_BN[..., None].to(states.states_BNW.dtype)
    return (states.states_BNW * mask_BN1).sum(1) / mask_BN1.sum(1).clamp(min=1)


def mix(runs: Positioned, embedded_BNW: torch.Tensor) -> tuple[Positioned, torch.Tensor]:
    """Return runs of which a share is replaced by their tokens' embeddings, and that share of every row, drawn from U(0, 1)."""
    share_B = torch.rand(len(runs.states_BNW), device=runs.states_BNW.device)
    swap_BN = torch.rand(runs.mask_BN.shape, device=share_B.device) < share_B[:, None]
    mixed = torch.where(swap_BN[..., None], embedded_BNW.to(runs.states_BNW.dtype), runs.states_BNW)
    return Positioned(mixed, runs.mask_BN, runs.tokens_BN), share_B


def with_blanks(
    tokens: list[int], starts_word: Sequence[bool], blank: int, share: float, most: float
) -> tuple[list[int], float]:
    """Return tokens with blanks before some words, as CTC would hear pauses, and how text-like they are: 1 - blanks a word."""
    if float(torch.rand(())) >= share:
        return list(tokens), 1.0
    ratio = float(torch.rand(())) * most
    found: list[int] = []
    for token in tokens:
        if starts_word[token] and float(torch.rand(())) < ratio:
            found.append(blank)
        found.append(token)
    return found, 1.0 - ratio
