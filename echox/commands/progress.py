"""A progress bar on standard error while a command works through a list; nothing where nobody sees it."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def shown(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield `items` behind a bar called `what`, `total` of them (None: unknown), on a terminal; behind nothing elsewhere."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(items, what, total=total, console=console, disable=not console.is_terminal, transient=True)
