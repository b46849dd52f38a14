"""Which share of a work one process does: every n-th piece from the i-th, written `i/n` or [i, n]; it knows no work."""

from typing import Annotated, Any

from pydantic import BeforeValidator

from echox.errors import ConfigError


def shard_of(given: Any) -> tuple[int, int]:
    """Return (i, n) with 0 <= i < n; ConfigError for anything else."""
    parts = given.split("/") if isinstance(given, str) else given
    try:
        index, count = (int(str(part)) for part in parts)  # int alone would take 0.7
    except (TypeError, ValueError):
        index, count = 0, 0
    if not 0 <= index < count:
        raise ConfigError(f"shard {given!r} is not I/N with 0 <= I < N: give for example 0/2.")
    return index, count


Shard = Annotated[tuple[int, int], BeforeValidator(shard_of)]
