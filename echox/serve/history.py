"""Earlier turns as a model is given them: (role, text), the oldest dropped whole when they are too long."""

from collections.abc import Sequence

Turns = tuple[tuple[str, str], ...]  # (user or assistant, text), oldest first


def fitting(turns: Sequence[tuple[str, str]], most: int) -> tuple[Turns, int]:
    """Return the newest turns that hold at most `most` characters together, and how many older ones were dropped.

    What is kept begins with a user's turn: an answer without its question is dropped with it.
    """
    kept, left = len(turns), most
    while kept > 0 and len(turns[kept - 1][1]) <= left:
        kept -= 1
        left -= len(turns[kept][1])
    while kept < len(turns) and turns[kept][0] != "user":
        kept += 1
    return tuple(turns[kept:]), kept
