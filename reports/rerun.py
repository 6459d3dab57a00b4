"""The command that measures a row again: a sweep of its one cell, with every setting that is no default."""

import dataclasses
import shlex
from typing import Any

from results.schema import Row
from results.settings import Settings

_BESIDES = ("pins", "options", "plugin", "checkpoints", "zoo", "size", "label")
"""Settings that are no KEY=VALUE: hashes, options with keys of their own, what has a flag or a mere name."""


def command(row: Row) -> str | None:
    """A line for a shell; None for a row of an older schema, which doesn't hold its settings, and for
    tables and texts with both kinds of quotes, which take a sweep file."""
    stored = row.settings
    if "strategy" not in stored:
        return None
    told = {
        name: stored[name]
        for name, default in _defaults().items()
        if name in stored and name not in _BESIDES and stored[name] != default
    }
    if told.get("network") in ("none", f"zoo/{stored['strategy']}"):
        del told["network"]
    told |= dict(stored.get("options") or {})
    parts = [_part(name, value) for name, value in told.items()]
    if None in parts:
        return None
    words = ["pardec", "sweep", ",".join(part for part in parts if part)]
    for flag in ("checkpoints", "zoo"):
        words += [f"--{flag}", str(stored[flag])] if stored.get(flag) else []
    for file in stored.get("plugin") or ():
        words += ["--plugin", str(file)]
    return shlex.join(words)


def _defaults() -> dict[str, Any]:
    return {
        one.name: one.default if one.default_factory is dataclasses.MISSING else one.default_factory()
        for one in dataclasses.fields(Settings)
    }


def _part(name: str, value: Any) -> str | None:
    if isinstance(value, bool):
        return f"{name}={str(value).lower()}"
    if isinstance(value, dict | list):
        return None  # a table takes a sweep file
    if not isinstance(value, str):
        return f"{name}={value}"
    if not set(value) & set(",|\"'<>= "):
        return f"{name}={value}"
    quote = next((mark for mark in "\"'" if mark not in value), None)
    return None if quote is None else f"{name}={quote}{value}{quote}"
