"""What is needed of an ONNX file: its weights, and one more of its tensors among the outputs."""

from pathlib import Path
from typing import Any

import numpy as np

from echox.errors import InputError, require


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Return every initializer by its name; InputError when the file is no ONNX model, MissingDependency without `onnx`."""
    to_array = require("onnx.numpy_helper", extra="prepare").to_array
    try:
        graph = _model(path.read_bytes()).graph
        if not graph.initializer:
            raise ValueError("it holds no weights")
        return {tensor.name: np.array(to_array(tensor)) for tensor in graph.initializer}
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read as an ONNX model ({error!r}): install its package again.") from error


def with_output(model: bytes, name: str) -> bytes:
    """Return `model` with the tensor `name` as one more output of its graph."""
    found = _model(model)
    found.graph.output.add(name=name)
    return found.SerializeToString()


def _model(content: bytes) -> Any:
    """Return a parsed model; ValueError when it is none."""
    onnx, message = require("onnx", extra="prepare"), require("google.protobuf.message", extra="prepare")
    try:
        return onnx.ModelProto.FromString(content)
    except message.DecodeError as error:
        raise ValueError(error) from error
