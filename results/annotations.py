"""Whether plain data is of an annotated type, and if not, in words what is due."""

import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal


def fault(value: Any, hint: Any) -> str | None:
    """None where ``value`` is of the annotated type, else the end of "key 'name..." that says what is due."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return None
    if origin in (types.UnionType, typing.Union):
        faults = [fault(value, option) for option in arguments]
        return None if None in faults else next(f for f in faults if f)
    if origin is Literal:
        return None if value in arguments else f"' must be one of {', '.join(arguments)}"
    if origin is tuple and isinstance(value, tuple):
        kinds = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        if len(value) != len(kinds):
            return f"' must have {len(kinds)} entries"
        return next(
            (f"[{i}]{f}" for i, (v, k) in enumerate(zip(value, kinds, strict=True)) if (f := fault(v, k))),
            None,
        )
    if origin is tuple:
        return "' must be a list"
    if origin is list:
        if not isinstance(value, list | tuple):
            return "' must be a list"
        return next((f"[{i}]{f}" for i, v in enumerate(value) if (f := fault(v, arguments[0]))), None)
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            return "' must be an object"
        return next((f".{k}{f}" for k, v in value.items() if (f := fault(v, arguments[1]))), None)
    if typing.is_typeddict(hint):
        return _typed_dict_fault(value, hint)
    if hint is float:
        fits = is_whole(value) or (isinstance(value, float) and math.isfinite(value))
    elif hint is int:
        fits = is_whole(value)
    else:
        fits = isinstance(value, hint)
    return None if fits else f"' must be {_WORDS.get(hint, hint)}"


LARGEST = (1 << 63) - 1
"""Of whole numbers: 64 bits."""


def is_whole(value: Any) -> bool:
    """Whether ``value`` is an int of 64 bits: JSON's may have any number of digits, which no array holds."""
    return isinstance(value, int) and not isinstance(value, bool) and -LARGEST - 1 <= value <= LARGEST


_WORDS = {
    int: "a whole number",
    float: "a finite number",
    str: "text",
    bool: "true or false",
    type(None): "null",
}


def _typed_dict_fault(value: Any, hint: Any) -> str | None:
    fields = typing.get_type_hints(hint)
    if not isinstance(value, dict) or set(value) != set(fields):
        return f"' must have the keys {', '.join(fields)}"
    return next((f".{k}{f}" for k, v in value.items() if (f := fault(v, fields[k]))), None)
