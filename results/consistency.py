"""What values of a row must be together, each of its annotated type: what arithmetic on rows relies on."""

from collections.abc import Iterator, Mapping
from typing import Any

from results.fields import Field, Measure

_LEAST, _MOST = 1e-60, 1e60


def contradiction(values: Mapping[str, Any], fields: Mapping[str, Field]) -> str | None:
    """What is wrong with field values of the right types, or None."""
    for key, one in fields.items():
        found = SHAPES[one.shape](values[key]) if isinstance(one, Measure) and one.shape else None
        if found:
            return f"key '{key}' {found}"
    return _turns(values["turns"])


def implausible(values: Mapping[str, Any], fields: Mapping[str, Field]) -> str | None:
    """A number of a row that nothing can have measured, and on which tables and pictures would founder."""
    for key, one in fields.items():
        for number in _numbers(values[key]):
            if one.least is not None and number < one.least:
                return f"key '{key}' must be at least {one.least:g}, not {number!r}"
    for key, value in values.items():
        for number in _numbers(value):
            if number and not _LEAST <= abs(number) <= _MOST:
                return f"key '{key}' holds {number!r}: expected 0 or {_LEAST:g} to {_MOST:g} in size"
    return None


def _interval(bounds: Any) -> str | None:
    if bounds is not None and (len(bounds) != 2 or bounds[0] > bounds[1]):
        return f"must be [low, high], not {bounds!r:.80}"
    return None


def _by_batch(values: Any) -> str | None:
    for batch in values or {}:
        if not (batch.isascii() and batch.isdecimal() and 0 < len(batch) < 10 and int(batch) > 0):
            return f"has batch sizes as keys, not {batch!r:.80}"
    return None


SHAPES = {"interval": _interval, "by batch": _by_batch}


def _numbers(value: Any) -> Iterator[float]:
    """All numbers of a value, however deep."""
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _numbers(one)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def _turns(turns: Mapping[str, Any] | None) -> str | None:
    if turns is None:
        return None
    own, other = turns["seconds"], turns["reference_seconds"]
    if not own or len(own) != len(other) or min(*own, *other) <= 0:
        return "key 'turns' must have as many seconds as reference_seconds, all above 0"
    return None
