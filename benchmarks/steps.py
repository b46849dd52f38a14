"""Steps of mini's parts a second, in plain and in packed numbers, against what the memory of this machine can deliver.

    python benchmarks/steps.py                  # 1, 4 and 16 rows, on as many threads as torch takes
    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/steps.py    # as if it had no AVX-512

A step reads every weight of a part once. The floor is that many bytes at the rate at which this process reads a large array, taken
in the same run; parts that fit into the processor's own memory may pass it. Where the rest goes is overhead: Python, allocation,
attention, norms. Nothing else should be running.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from typing import Any

import torch

from echox import SpeechAssistant
from echox.models.packed import PackedLinear, Rows, Table, most_rows
from echox.models.slots import Row, prefill, step

PAST = 40  # positions that are there already
SECONDS = 0.6  # for each number; the best of three
SETTINGS = {"float32": "float32", "bfloat16": "bfloat16", "packed": None}


def best(function: Callable[[], Any]) -> float:
    """Return the seconds of one call, the least of three means."""
    function()
    found = []
    for _ in range(3):
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < SECONDS / 3:
            function()
            count += 1
        found.append((time.perf_counter() - began) / count)
    return min(found)


def bandwidth() -> float:
    """Return the bytes a second that are read of an array too large for any cache."""
    big = torch.ones(128 * 1024 * 1024)
    return 4 * big.numel() / best(lambda: big.sum())


def bytes_of(*modules: Any) -> int:
    """Return the bytes that a step of some modules reads: packed ones where there are any, tables only where they are heads."""
    ways: dict[int, Any] = {}
    for module in (one for part in modules for one in part.modules()):
        if isinstance(module, PackedLinear) or (isinstance(module, Table) and module.multiply is not None):
            way = module.multiply.whole if isinstance(module.multiply, Rows) else module.multiply
            ways[id(way)] = tensor_bytes(way)
        elif isinstance(module, torch.nn.Linear | Table):
            ways[id(module)] = module.weight.nbytes
    return sum(ways.values())


def tensor_bytes(way: Any) -> int:
    """Return the bytes of every tensor of a dataclass and of those in it."""
    values = [getattr(way, field.name) for field in fields(way)]
    return sum(one.nbytes if isinstance(one, torch.Tensor) else tensor_bytes(one) for one in values)


@torch.inference_mode()
def decoder_step(model: Any, rows: int) -> Callable[[], None]:
    """Return one step of so many rows: the body, and the scores of the next token."""
    some_W = model.embed_tokens(torch.tensor([7]))
    slots = prefill(model.body, [Row(some_W.expand(PAST, -1)) for _ in range(rows)])[0]
    now = [slots.keep(range(rows))]

    def once() -> None:
        with torch.inference_mode():
            begins = now[0].seen_BN.shape[1] > 2 * PAST  # far enough: from the beginning again
            now[0], state_BW = step(model.body, slots.keep(range(rows)) if begins else now[0], some_W.expand(rows, -1))
            model.token_logits(state_BW)

    return once


def listener_step(listener: Any, rows: int) -> Callable[[], None]:
    """Return one step of so many rows that hear three seconds."""
    with torch.inference_mode():
        states = torch.zeros(rows, 150, listener.config.width)
        state = listener.start(states, torch.full((rows,), 150))
        listener(torch.full((rows, PAST), 7), state)

    def once() -> None:
        with torch.inference_mode():
            listener.logits(listener(torch.full((rows, 1), 7), state))
            state.forget(1)

    return once


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16])
    options = parser.parse_args()
    floor = bandwidth()
    if not most_rows():
        SETTINGS.pop("packed")
    where = f"{torch.backends.cpu.get_cpu_capability()}, threads: {torch.get_num_threads()}"
    print(f"{where}, memory {floor / 1e9:.0f} GB/s\n")
    print(
        "| part | numbers | MB a step | "
        + " | ".join(f"ms, {n} rows" for n in options.rows)
        + " | of the floor, 1 row |"
    )
    print("|---" * (4 + len(options.rows)) + "|")
    for numbers, dtype in SETTINGS.items():
        for part, size, make in parts_of(SpeechAssistant.load("mini", dtype=dtype).parts):
            each = [best(make(rows)) for rows in options.rows]
            cells = " | ".join(f"{1e3 * seconds:.2f}" for seconds in each)
            print(
                f"| {part} | {numbers} | {size / 1e6:.0f} | {cells} | {100 * size / floor / each[0]:.0f} % |",
                flush=True,
            )


def parts_of(parts: Any) -> Iterator[tuple[str, int, Callable[[int], Callable[[], None]]]]:
    """Yield each part's name, the bytes that a step of it reads, and what makes a step of so many rows."""
    s2t, t2c, listener = parts.s2t, parts.t2c, parts.ear.listener
    yield "LLM", bytes_of(s2t.body, s2t.llm.get_output_embeddings()), partial(decoder_step, s2t)
    yield "T2C", bytes_of(t2c.body, t2c.head), partial(decoder_step, t2c)
    read_once = [part for layer in listener.layers for part in (layer.encoder_attn.k_proj, layer.encoder_attn.v_proj)]
    yield "listener", bytes_of(listener) - bytes_of(*read_once), partial(listener_step, listener)


if __name__ == "__main__":
    main()
