"""Ragged pieces to padded batches and back: the one place that does it; it knows no model.

Legend: B batch, D width, N longest length, T frames.
"""

from collections.abc import Sequence

import torch

from echox.errors import InputError


def pad_left(pieces: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (B, N, D) right-aligned pieces and their mask (B, N), for generation."""
    return _pad(pieces, left=True)


def pad_right(pieces: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (B, N, D) left-aligned pieces and their mask (B, N), for training."""
    return _pad(pieces, left=False)


def _pad(pieces: list[torch.Tensor], left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Copy all pieces at once: a few kernels a batch instead of two a row (twin: `pad_by_rows` in the tests)."""
    lengths_B = torch.tensor([len(piece) for piece in pieces])
    longest = int(lengths_B.max())
    place_N = torch.arange(longest)
    mask = place_N >= longest - lengths_B[:, None] if left else place_N < lengths_B[:, None]
    mask = mask.to(pieces[0].device)
    batch = pieces[0].new_zeros(len(pieces), longest, *pieces[0].shape[1:])
    batch[mask] = torch.cat(pieces)
    return batch, mask


def within(lengths_B: torch.Tensor, longest: int) -> torch.Tensor:
    """Return the mask (B, longest) of what lies within each length."""
    return torch.arange(longest, device=lengths_B.device) < lengths_B[:, None]


def first_of_runs(tokens_BT: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
    """Return the mask (B, T) of frames whose token differs from the one before, within each length."""
    changes = torch.ones_like(tokens_BT, dtype=torch.bool)
    changes[:, 1:] = tokens_BT[:, 1:] != tokens_BT[:, :-1]
    return changes & within(lengths_B, tokens_BT.shape[1])


def units_tensor(unit_ids: Sequence[int], units: int, device: torch.device) -> torch.Tensor:
    """Return ids as a (1, U) tensor; InputError when one is not of a vocoder's 0 to `units` - 1."""
    units_BU = torch.as_tensor([int(unit) for unit in unit_ids], dtype=torch.long, device=device)[None]
    wrong = units_BU[(units_BU < 0) | (units_BU >= units)]
    if len(wrong):
        raise InputError(f"unit {int(wrong[0])} is unknown: this vocoder has units 0 to {units - 1}.")
    return units_BU


def unpad(batch: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
    """Return each row's valid entries, in order: the inverse of padding on either side."""
    mask = mask.bool()
    return list(batch[mask].split(mask.sum(1).tolist()))
