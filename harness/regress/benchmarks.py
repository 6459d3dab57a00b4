"""Results of pytest-benchmark, read from the file that ``--benchmark-json`` writes."""

import json
import math
from pathlib import Path
from typing import Any

from pardec.errors import UserError
from pardec.files import read_text

Benchmarks = dict[str, list[float]]
"""Full name of a benchmark -> seconds of its rounds."""


def read_benchmark_json(path: Path) -> Benchmarks:
    """The rounds of a pytest-benchmark file; UserError where it is none."""
    content = _json(path)
    try:
        found = {one["fullname"]: _seconds(one["stats"]["data"]) for one in content["benchmarks"]}
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UserError(
            f"'{path}' is no file of pytest-benchmark: expected benchmarks with fullname and stats.data "
            "(pytest --benchmark-json FILE)"
        ) from None
    return found


def read_recorded(path: Path) -> Benchmarks:
    """The benchmarks of a baseline; none where it has none."""
    if not path.exists():
        return {}
    content = _json(path)
    try:
        return {str(name): _seconds(data) for name, data in content.items()}
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise UserError(f"'{path}' is no record of benchmarks: expected name -> seconds") from None


def beside(baseline: Path) -> Path:
    """Where the benchmarks of a baseline are kept."""
    return baseline.with_name(f"{baseline.stem}-benchmarks.json")


def _seconds(data: Any) -> list[float]:
    seconds = [float(value) for value in data]
    if not seconds or not all(0 < value < math.inf for value in seconds):
        raise ValueError("no seconds")
    return seconds


def _json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"'{path}' can't be read: {error}") from None
