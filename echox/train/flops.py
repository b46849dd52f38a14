"""Model FLOPs utilisation: the operations of one batch are counted, and later batches are assumed to cost as much per token.

The count is torch's own, forward and backward: matrix products, convolutions, attention.
"""

import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

# dense bfloat16, in 1e12 operations a second, by a part of the device's name
PEAK = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L40S": 362.0, "L40": 181.0, "L4": 121.0, "4090": 165.0}


def peak_of(device: torch.device) -> float | None:
    """Return what a known GPU can do in bfloat16, in 1e12 operations a second; None for any other device."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for known, peak in PEAK.items() if known in name), None)


def bfloat16_costs() -> float:
    """Return the time of a matrix product in bfloat16 over that in float32 on this CPU, each the fastest of six."""

    def seconds(dtype: torch.dtype) -> float:
        rows, weights, taken = torch.ones(512, 512, dtype=dtype), torch.ones(1024, 512, dtype=dtype), []
        for _ in range(6):
            started = time.perf_counter()
            torch.nn.functional.linear(rows, weights)
            taken.append(time.perf_counter() - started)
        return min(taken)

    return seconds(torch.bfloat16) / seconds(torch.float32)


def flops_per_token(call: Callable[[], float]) -> float:
    """Return the operations of `call` per token; it returns the number of tokens."""
    with FlopCounterMode(display=False) as counter:  # chooses other kernels for attention: nothing made here is used
        tokens = call()
    return counter.get_total_flops() / max(tokens, 1.0)


def rates(tokens: float, seconds: float, per_token: float, peak: float | None) -> dict[str, float]:
    """Return tokens a second, 1e12 operations a second (`tflops`) and, where `peak` is known, their ratio to it (`mfu`)."""
    found = {"tokens_per_second": tokens / seconds}
    if per_token:
        found["tflops"] = per_token * tokens / seconds / 1e12
        found |= {"mfu": found["tflops"] / peak} if peak else {}
    return found
