"""Strict recipes: YAML plus dotted overrides become one typed object; it knows no stage's settings.

A misspelt key is an error that lists what exists. A recipe names its stage; the stage's own module holds the settings class,
next to the code that reads it (see echox/train/stages.py).
"""

import os
from pathlib import Path
from typing import Annotated, Any, Self, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from echox.errors import ConfigError, clipped, reason_of
from echox.files import read_text

RECIPE_BYTES = 100_000
MOST_BRACKETS = 1000  # the time that YAML takes grows with the square of their depth
MOST_VALUES = 100_000  # in one recipe, aliases followed
WANTED = dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "a group of settings") | {
    "list_type": "a list",
    "tuple_type": "a list",
    "path_type": "a path",
}  # what pydantic calls by Python's names


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if not pair[0] <= pair[1]:
        raise ValueError(f"a range begins with its lower end: {pair[0]:g} is not below {pair[1]:g}")
    return pair


Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]  # of dropout, of label smoothing
Seed = Annotated[int, Field(ge=0, lt=2**63)]  # what torch and numpy both take
Ordered = AfterValidator(_ordered)
Range = Annotated[tuple[float, float], Ordered]


class Settings(BaseModel):
    """Base of all settings: unknown keys are refused and values cannot change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def parse(cls, values: dict[str, Any], source: str) -> Self:
        """Return validated settings; ConfigError names `source`, the key and the keys that exist."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{source}: {_explain(error, cls, values)}") from error
        except ConfigError as error:  # of a validator that others call too
            raise ConfigError(f"{source}: {error}") from error


def known(*kinds: type) -> AfterValidator:
    """Return a check for a plain mapping of settings: its keys must be annotated fields of one of `kinds`."""
    classes = [base for kind in kinds for base in kind.__mro__ if base.__module__ == kind.__module__]
    names = {name for kind in classes for name in getattr(kind, "__annotations__", {})}

    def check(values: dict[str, Any]) -> dict[str, Any]:
        for name in values:
            if name not in names:
                raise ValueError(f"unknown key {name!r}: choose from {', '.join(sorted(names))}")
        return values

    return AfterValidator(check)


def _explain(error: ValidationError, root: type[BaseModel], values: dict[str, Any]) -> str:
    """Turn pydantic's first complaint about `values` into one sentence: a misspelt key before what lacks for it."""
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    kind, name = first["type"], _name_of(first["loc"], values)
    given = clipped(repr(first["input"]), 60)
    if kind == "missing":
        return f"{'.'.join(filter(None, (name, str(first['loc'][-1]))))} is missing: give it a value."
    if kind in WANTED:
        return f"{name} is {given}, and should be {WANTED[kind]}."
    if kind != "extra_forbidden":
        message = first["msg"].removeprefix("Value error, ")
        message = (
            message.replace("Input", given, 1) if message.startswith("Input") else message[0].lower() + message[1:]
        )
        return f"{name or 'the recipe'}: {message}."
    model: type[BaseModel] = root
    for part in first["loc"][:-1]:
        field = model.model_fields.get(str(part))
        kinds = (field.annotation, *get_args(field.annotation)) if field else ()
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
    return f"unknown key {name!r}: choose from {', '.join(sorted(model.model_fields))}."


def _name_of(place: tuple[str | int, ...], values: Any) -> str:
    """Return the dotted name of a place as far as `values` hold it: pydantic tells the kinds of value that it tried, too."""
    names = []
    for part in place:
        held: Any = dict(enumerate(values)) if isinstance(values, list) else values
        if isinstance(held, dict) and part in held:
            names.append(str(part))
            values = held[part]
    return ".".join(names)


def read_yaml(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a YAML mapping with `a.b=value` overrides applied; ConfigError names the file.

    A `recipes/...` that is not there is taken from the installed package.
    """
    source, shipped = Path(path), Path(__file__).parent.parent / path
    if os.path.exists(shipped) and not os.path.exists(source):
        source = shipped
    values = _plain(read_text(source, RECIPE_BYTES, ConfigError), str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is not a recipe: expected keys and values at the top.")
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name:
            raise ConfigError(f"override {override!r} is not key=value: write for example train.steps=10.")
        node = values
        *parents, last = name.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"{path}: override {override!r}: {parent} is a value, not a group of settings.")
        node[last] = _plain(text, f"override {override!r}")
    return values


def _plain(text: str, source: str) -> Any:
    """Return the plain values of YAML `text`; ConfigError names `source`."""
    if text.count("[") + text.count("{") > MOST_BRACKETS:
        raise ConfigError(f"{source} holds more than {MOST_BRACKETS} brackets: a recipe has some dozens.")
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:  # ValueError: 2020-99-99
        raise ConfigError(f"{source} is not YAML: {reason_of(error)}.") from error
    waiting, seen = [values], 0
    while waiting:  # ten lines of aliases to aliases can stand for more than a memory holds
        value = waiting.pop()
        inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
        seen += len(inner)
        if seen > MOST_VALUES:
            raise ConfigError(f"{source} stands for more than {MOST_VALUES} values: a recipe has some dozens.")
        waiting += inner
    return values
