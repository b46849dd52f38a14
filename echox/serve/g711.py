"""G.711: a telephone's 8 bits a sample, mu-law and A-law (ITU-T G.711), whole arrays at once.

Decoding is a table of 256; encoding finds the nearest lower step of the same table's magnitudes.
"""

from collections.abc import Callable

import numpy as np

MU_BIAS, MU_CLIP = 0x84, 32_635


def _mu_table() -> np.ndarray:
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    size = (((code & 0x0F) << 3) + MU_BIAS) << (code >> 4 & 7)
    return np.where(code & 0x80, MU_BIAS - size, size - MU_BIAS).astype(np.int16)


def _a_table() -> np.ndarray:
    code = np.arange(256, dtype=np.int32) ^ 0x55
    step, part = code >> 4 & 7, (code & 0x0F) << 4
    size = np.where(step == 0, part + 8, (part + 0x108) << np.maximum(step - 1, 0))
    return np.where(code & 0x80, size, -size).astype(np.int16)


MU, A = _mu_table(), _a_table()


def mu_encode(pcm: np.ndarray) -> bytes:
    """Return int16 [S] as mu-law bytes."""
    size = np.minimum(np.abs(pcm.astype(np.int32)), MU_CLIP) + MU_BIAS
    step = np.floor(np.log2(size)).astype(np.int32) - 7
    code = (step << 4) | (size >> (step + 3) & 0x0F) | np.where(pcm < 0, 0x80, 0)
    return (~code & 0xFF).astype(np.uint8).tobytes()


def a_encode(pcm: np.ndarray) -> bytes:
    """Return int16 [S] as A-law bytes."""
    wide = pcm.astype(np.int32)
    size = np.where(wide < 0, ~wide, wide) >> 3  # 12 bits
    step = np.maximum(np.floor(np.log2(np.maximum(size, 1))).astype(np.int32) - 4, 0)
    code = (step << 4) | (size >> np.maximum(step, 1) & 0x0F) | np.where(pcm < 0, 0, 0x80)
    return (code ^ 0x55).astype(np.uint8).tobytes()


ENCODE: dict[str, Callable[[np.ndarray], bytes]] = {"pcmu": mu_encode, "pcma": a_encode}
DECODE: dict[str, Callable[[bytes], np.ndarray]] = {
    "pcmu": lambda data: MU[np.frombuffer(data, np.uint8)],
    "pcma": lambda data: A[np.frombuffer(data, np.uint8)],
}
