"""Where a model runs and in what numbers, from the names that users give."""

import torch

from echox.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str) -> torch.device:
    """Return the device called cpu, cuda, mps or auto; ConfigError when it is not there."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if available[kind]))
    kind = name.partition(":")[0]
    if kind not in available:
        raise ConfigError(f"unknown device {name!r}: choose cpu, cuda, mps or auto.")
    if not available[kind]:
        raise ConfigError(f"device {name} is not available here: choose cpu or auto.")
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:  # cuda:7 of four
        raise ConfigError(f"device {name} is not available here: choose cpu or auto.") from error
    return torch.device(name)


def pick_dtype(name: str | None, device: torch.device, usual: torch.dtype | None = None) -> torch.dtype:
    """Return the LLM's dtype: the named one, the `usual` one, or bfloat16 where the hardware multiplies it, else float32."""
    if name is not None:
        if name not in DTYPES:
            raise ConfigError(f"unknown dtype {name!r}: choose {', '.join(DTYPES)}.")
        return DTYPES[name]
    if usual is not None:
        return usual
    if device.type == "cpu":
        fast = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if device.type == "cuda" else torch.float32
