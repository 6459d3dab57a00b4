"""Rows as they may be shown: what a terminal would obey, or no file could hold, stands as escapes."""

import dataclasses
from typing import Any

from pardec.errors import visible
from results.schema import Row

LONGEST_NAME = 120
"""Characters; tables and pictures grow with their longest name."""
_NAMES = ("label", "strategy", "network", "tokenizer", "options")


def legible(row: Row) -> Row:
    """``row`` with control characters and lone surrogates in its texts as ``\\x1b`` and ``\\ud800``, and with
    names of at most ``LONGEST_NAME``.

    Reasons come from programs that colour their output, and rows from machines of others.
    """
    texts = {field.name: _legible(getattr(row, field.name)) for field in dataclasses.fields(row)}
    return Row(**texts | {name: shortened(texts[name]) for name in _NAMES})


def shortened(value: Any) -> Any:
    """Texts of at most ``LONGEST_NAME``, in mappings too."""
    if isinstance(value, str):
        return value if len(value) <= LONGEST_NAME else value[: LONGEST_NAME - 1] + "…"
    if isinstance(value, dict):
        return {shortened(key): shortened(one) for key, one in value.items()}
    return value


def _legible(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, list):
        return [_legible(one) for one in value]
    if isinstance(value, dict):
        return {_legible(key): _legible(one) for key, one in value.items()}
    return value
