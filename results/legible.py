"""Rows as they may be shown: what a terminal would obey, or no file could hold, stands as escapes."""

import dataclasses
from typing import Any

from results.errors import visible
from results.schema import Row


def legible(row: Row) -> Row:
    """``row`` with control characters and lone surrogates in its texts as ``\\x1b`` and ``\\ud800``.

    Reasons come from programs that colour their output, and rows from machines of others.
    """
    return Row(**{field.name: _legible(getattr(row, field.name)) for field in dataclasses.fields(row)})


def _legible(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, list):
        return [_legible(one) for one in value]
    if isinstance(value, dict):
        return {_legible(key): _legible(one) for key, one in value.items()}
    return value
