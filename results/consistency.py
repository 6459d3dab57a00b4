"""What values of a row must be together, each of its annotated type: what arithmetic on rows relies on."""

from collections.abc import Iterator, Mapping
from typing import Any

_INTERVALS = ("throughput_interval", "latency_interval_s")
_BY_BATCH = ("throughput_by_batch", "peak_bytes_by_batch")
_NOT_NEGATIVE = (
    "batch",
    "images",
    "steps",
    "parameters",
    "flops_per_image",
    "throughput_images_per_s",
    "throughput_best_images_per_s",
    "latency_s",
    "calibration_s",
    "phases_s",
    "weight_bytes",
    "cache_bytes",
    "peak_bytes",
)
_LEAST, _MOST = 1e-60, 1e60


def contradiction(values: Mapping[str, Any]) -> str | None:
    """What is wrong with field values of the right types, or None."""
    for key in _INTERVALS:
        bounds = values[key]
        if bounds is not None and (len(bounds) != 2 or bounds[0] > bounds[1]):
            return f"key '{key}' must be [low, high], not {bounds!r:.80}"
    for key in _BY_BATCH:
        for batch in values[key] or {}:
            if not (batch.isascii() and batch.isdecimal() and 0 < len(batch) < 10 and int(batch) > 0):
                return f"key '{key}' has batch sizes as keys, not {batch!r:.80}"
    return _paired(values["paired"])


def implausible(values: Mapping[str, Any]) -> str | None:
    """A number of a row that nothing can have measured, and on which tables and pictures would founder."""
    for key in _NOT_NEGATIVE:
        for number in _numbers(values[key]):
            if number < 0:
                return f"key '{key}' must be at least 0, not {number!r}"
    for key, value in values.items():
        for number in _numbers(value):
            if number and not _LEAST <= abs(number) <= _MOST:
                return f"key '{key}' holds {number!r}: expected 0 or {_LEAST:g} to {_MOST:g} in size"
    return None


def _numbers(value: Any) -> Iterator[float]:
    """All numbers of a value, however deep."""
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _numbers(one)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def _paired(paired: Mapping[str, Any] | None) -> str | None:
    if paired is None:
        return None
    own, other = paired["seconds"], paired["reference_seconds"]
    if not own or len(own) != len(other) or min(*own, *other) <= 0:
        return "key 'paired' must have as many seconds as reference_seconds, all above 0"
    return None
