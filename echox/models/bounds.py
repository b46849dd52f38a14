"""What the settings of a config.json may be: types and bounds, so that a hostile one ends in a sentence, not in memory.

A config class names these types in its annotations; `check_values` holds a file against them before anything is built. The
bounds lie well beyond every model there is and well below what a machine cannot hold.
"""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model

from echox.errors import ModelError


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("a kernel has an odd length")
    return value


Layers = Annotated[int, Field(strict=True, ge=0, le=128)]
Heads = Annotated[int, Field(strict=True, ge=1, le=256)]
Width = Annotated[int, Field(strict=True, ge=1, le=16_384)]
SideWidth = Annotated[int, Field(strict=True, ge=0, le=16_384)]  # 0: nothing is read beside the main input
Wide = Annotated[int, Field(strict=True, ge=1, le=65_536)]  # inner width of a feed-forward block
Classes = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]  # unit words, CTC classes, tokens
TokenId = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]
Positions = Annotated[int, Field(strict=True, ge=1, le=8192)]
Tokens = Annotated[int, Field(strict=True, ge=1, le=4096)]
Rank = Annotated[int, Field(strict=True, ge=0, le=1024)]  # 0: none
Small = Annotated[int, Field(strict=True, ge=0, le=64)]  # kernels, ratios, lengths of runs
Positive = Annotated[int, Field(strict=True, ge=1, le=64)]
Odd = Annotated[int, Field(strict=True, ge=1, le=63), AfterValidator(_odd)]
Samples = Annotated[int, Field(strict=True, ge=1, le=8192)]  # hops and windows
Rate = Annotated[int, Field(strict=True, ge=8_000, le=48_000)]  # samples per second
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Factor = Annotated[float, Field(strict=True, ge=0, le=1000, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True, max_length=10_000)]
Few = Field(max_length=16)  # items of a list


@cache
def _model(kind: type) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("echox."):
            fields |= {name: (hint, None) for name, hint in base.__dict__.get("__annotations__", {}).items()}
    return create_model(kind.__name__, __config__=ConfigDict(extra="forbid", protected_namespaces=()), **fields)


def check_values(kind: type, values: Mapping[str, Any], source: object) -> None:
    """Raise ModelError that names `source` unless every value is an annotated setting of `kind` within its bounds."""
    try:
        _model(kind).model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name, value = ".".join(str(part) for part in first["loc"]), str(first["input"])[:60]
        if first["type"] == "extra_forbidden":
            raise ModelError(f"{source} has an unknown setting {name!r}: it is of another version of echox.") from error
        raise ModelError(f"{source} has {name} {value}, which cannot be: {first['msg'].lower()}.") from error
    except TypeError as error:  # keys that are no names
        raise ModelError(f"{source} does not hold settings: fetch the model again.") from error


def check_heads(width: int, heads: int, kv_heads: int, source: str) -> None:
    """Raise ModelError unless attention heads divide the width, and groups of keys the heads."""
    if width % heads or heads % kv_heads:
        raise ModelError(f"{source}: {heads} heads ({kv_heads} of keys) do not divide the width {width}.")
