"""Where text stands in a text-to-codec decoder, and how it is spelt; it knows no tokenizer and no decoder.

A language model's token says which word it is, hardly how it sounds: a name that T2C never heard is one vector that it never
saw. With `spelling` every token takes one position for each byte of its own text instead of one, so that a new name is read
letter by letter, next to the vector that says how such words are meant:

    token         |  The  |  answer   | ...          owner   0 0 0 1 1 1 1 1 1 1 ...
    position      | T h e |   a n s w e r | ...      letter  T h e _ a n s w e r ...

Legend: B batch, N text tokens, C text positions (N, or bytes with spelling), W decoder width, K convolution width.
"""

from dataclasses import dataclass

import torch
from torch import nn

from echox.models.ragged import pad_right, unpad


@dataclass
class TextLayout:
    """The decoder's positions of one text: rotary places (C,), the token behind each (C,), and its byte (C,) if it spells.

    `before` and `after` are the tokens among them that stand around the text; those of `unseen` are not attended to.
    """

    places_C: torch.Tensor
    owners_C: torch.Tensor
    letters_C: torch.Tensor | None = None
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    unseen: tuple[int, ...] = ()

    @property
    def seen_C(self) -> torch.Tensor | None:
        """Which positions may be attended to (C,), or None: all of them."""
        if not set(self.unseen) & {*self.before, *self.after}:
            return None
        text = len(self) - len(self.before) - len(self.after)
        around = [token not in self.unseen for token in (*self.before, *self.after)]
        return torch.tensor([*around[: len(self.before)], *[True] * text, *around[len(self.before) :]])

    def __len__(self) -> int:
        return len(self.places_C)


def lay_out(pieces: list[str], spelling: bool, places_per_letter: float | None) -> TextLayout:
    """Return the layout of tokens given their own texts, parts of characters as surrogate escapes.

    `places_per_letter` puts every position where its sound should be (`aligned_positions`); None counts 0, 1, 2 ... A token
    without text (a special token) spells as one zero byte.
    """
    spelt = [piece.encode(errors="surrogateescape") or b"\0" for piece in pieces]
    counts = torch.tensor([len(letters) if spelling else 1 for letters in spelt], dtype=torch.long)
    owners_C = torch.arange(len(pieces)).repeat_interleave(counts)
    if places_per_letter is None:
        places_C = torch.arange(len(owners_C))
    else:
        widths = torch.ones(int(counts.sum())) if spelling else torch.tensor([float(len(piece)) for piece in pieces])
        places_C = ((widths.cumsum(0) - widths) * places_per_letter).round().long()
    letters_C = torch.tensor(list(b"".join(spelt)), dtype=torch.long) if spelling else None
    return TextLayout(places_C, owners_C, letters_C)


class Speller(nn.Module):
    """Adds letters and their neighbours to text positions: a byte embedding, then narrow residual convolutions.

    The decoder reads text from left to right; the convolutions let a letter know what follows it in its segment
    ("c" in "cello" and in "car").
    """

    def __init__(self, width: int, narrow: int, layers: int, kernel: int = 5) -> None:
        super().__init__()
        self.letters = nn.Embedding(256, width)
        nn.init.normal_(self.letters.weight, std=0.2)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.into = nn.ModuleList(nn.Linear(width, narrow) for _ in range(layers))
        self.mix = nn.ModuleList(nn.Conv1d(narrow, narrow, kernel, padding=kernel // 2) for _ in range(layers))
        self.out = nn.ModuleList(nn.Linear(narrow, width) for _ in range(layers))

    def forward(self, texts: list[torch.Tensor], letters: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the positions (C, W) of every text with their letters (C,) added; no text sees another."""
        every = torch.cat(texts)
        every = every + self.letters(torch.cat(letters).to(every.device))
        x_BCW, mask_BC = pad_right(list(every.split([len(text) for text in texts])))
        for norm, into, mix, out in zip(self.norms, self.into, self.mix, self.out, strict=True):
            y_BCK = into(norm(x_BCW)) * mask_BC[..., None]
            y_BCK = mix(y_BCK.mT.contiguous()).mT
            x_BCW = x_BCW + out(nn.functional.gelu(y_BCK))
        return unpad(x_BCW, mask_BC)
