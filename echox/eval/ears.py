"""Whose ear judges: a judge must not listen with the model's own encoder, which would forgive what only that one hears."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from echox.eval.judges import read_config

SIZES = {(384, 4): "tiny", (512, 6): "base", (768, 12): "small", (1024, 24): "medium", (1280, 32): "large"}
"""Whisper's encoders by width and layers; the English-only ones have the same."""
_NAMED = re.compile(r"whisper.*?(tiny|base|small|medium|large)", re.IGNORECASE)


def whisper_size(folder: Path) -> str:
    """Return which of Whisper's encoders a model or judge folder listens with (`tiny` to `large`), "" for others.

    Read from the sizes in `encoder/config.json` or `config.json`, else from the names that they or the folder bear.
    """
    configs = [read_config(place) for place in (folder / "encoder", folder)]
    for config in configs:
        size = SIZES.get((_number(config, "d_model"), _number(config, "encoder_layers")))
        if size:
            return size
    names = [value for config in configs for value in config.values() if isinstance(value, str)]
    for name in (*names, *reversed(folder.resolve().parts[-4:])):
        found = _NAMED.search(name)
        if found:
            return found.group(1).lower()
    return ""


def warn_if_own_ear(model: Path | None, judge: Path | None, tell: Callable[[str], None]) -> None:
    """Tell when the judge folder has the encoder that the model folder listens with; None means unknown or not used."""
    own = "" if model is None else whisper_size(model)
    if judge is not None and own and own == whisper_size(judge):
        tell(
            f"the judge {judge.name} listens with whisper-{own}'s encoder, as the model itself does: choose another judge "
            "for numbers you publish"
        )


def _number(config: dict[str, Any], name: str) -> int:
    value = config.get(name, 0)
    return value if isinstance(value, int) else 0
