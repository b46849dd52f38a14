"""What is needed of an ONNX file without the `onnx` package: its weights, and one more of its tensors among the outputs.

ONNX is a protobuf message; its wire format is a sequence of (field number, kind, value). The field numbers used here are those
of onnx.proto: a model's graph is field 7; a graph's nodes, initializers and outputs are fields 1, 5 and 12.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from echox.errors import InputError

Value = int | memoryview
GRAPH, NODE, INITIALIZER, OUTPUT = 7, 1, 5, 12
DIMS, DATA_TYPE, FLOATS, INTS, NAME, RAW = 1, 2, 4, 5, 8, 9  # of a tensor
DTYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64}


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Return every initializer by its name; InputError when the file is no ONNX model."""
    try:
        model = memoryview(path.read_bytes())
        graph = next(value for number, value in _fields(model) if number == GRAPH and not isinstance(value, int))
        tensors = [v for number, v in _fields(graph) if number == INITIALIZER and not isinstance(v, int)]
        return dict(map(_tensor, tensors))
    except (OSError, StopIteration, IndexError, ValueError, KeyError) as error:
        raise InputError(f"{path} cannot be read as an ONNX model ({error!r}): install its package again.") from error


def with_output(model: bytes, name: str) -> bytes:
    """Return `model` with the tensor `name` as one more output of its graph."""
    out, view, at = bytearray(), memoryview(model), 0
    for number, value, start, at in _spans(view):
        if number == GRAPH and not isinstance(value, int):
            info = b"\x0a" + _varint(len(name)) + name.encode()
            graph = bytes(value) + _varint(OUTPUT << 3 | 2) + _varint(len(info)) + info
            out += _varint(GRAPH << 3 | 2) + _varint(len(graph)) + graph
        else:
            out += view[start:at]
    return bytes(out)


def _tensor(message: memoryview) -> tuple[str, np.ndarray]:
    dims: list[int] = []
    kind, name, values = 1, "", np.zeros(0)
    for number, value in _fields(message):
        if number == DIMS:
            dims += [value] if isinstance(value, int) else _packed(value)
        elif isinstance(value, int):
            kind = value if number == DATA_TYPE else kind
        elif number == NAME:
            name = bytes(value).decode()
        elif number == RAW:
            values = np.frombuffer(value, DTYPES[kind])
        elif number == FLOATS:
            values = np.frombuffer(value, np.float32)
        elif number == INTS:  # negative numbers are stored as their two's complement in 64 bits
            values = np.array([number - (number >> 63 << 64) for number in _packed(value)], DTYPES[kind])
    return name, values.reshape(dims)


def _fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    for number, value, _, _ in _spans(message):
        yield number, value


def _spans(message: memoryview) -> Iterator[tuple[int, Value, int, int]]:
    """Yield (field number, value, where the field starts, where it ends)."""
    at = 0
    while at < len(message):
        start = at
        key, at = _read_varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _read_varint(message, at)
        else:
            size = {1: 8, 5: 4}.get(kind)
            if size is None:
                size, at = _read_varint(message, at)
            value, at = message[at : at + size], at + size
        yield key >> 3, value, start, at


def _packed(message: memoryview) -> list[int]:
    values, at = [], 0
    while at < len(message):
        value, at = _read_varint(message, at)
        values.append(value)
    return values


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
