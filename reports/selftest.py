"""The regression gate's own rates, as ``pardec selftest`` stored them, for the report's front page."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pardec.files import read_text

FILE = "selftest.json"


def beside(results: Path) -> list[str]:
    """Lines about the self-test stored in the results folder or the one above it, if any."""
    for folder in (results, results.resolve().parent):
        path = folder / FILE
        if path.is_file():
            try:
                return lines(json.loads(read_text(path)))
            except (
                OSError,
                ValueError,
                LookupError,
                TypeError,
                AttributeError,
                OverflowError,
                RecursionError,
            ) as error:
                return [f"the self-test '{path.name}' can't be read: {type(error).__name__}: {error}"]
    return []


def lines(found: Mapping[str, Any]) -> list[str]:
    """A line for the machine and one for each rate, with its 95 % interval and whether its target was met."""
    environment = found["environment"]
    head = f"measured {found['started_at']} on {environment['host_cpu']}, {found['threads']} threads"
    return [f"{head}, torch {environment['torch']}", *(_line(rate) for rate in found["rates"])]


def _line(rate: Mapping[str, Any]) -> str:
    text = f"{rate['name']}: {rate['flagged']} of {rate['n']}"
    text += f" ({100 * rate['low']:.1f} to {100 * rate['high']:.1f} %)"
    if rate["most"] is None and rate["least"] is None:
        return text
    target = f"at most {100 * rate['most']:g} %" if rate["most"] is not None else f"{100 * rate['least']:g} %"
    return f"{text}, target {target}: {'met' if rate['met'] else 'missed'}"
