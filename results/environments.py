"""Which rows are tries of one thing: those of one cell in one environment.

An environment is the machine as far as it decides a cell's numbers: kind of device, its hardware, the host's
processor, and torch. Host names, cores and commits are not part of it, so alike machines make one row, and so
does a cell that failed before the code was mended. Threads, dtype and products are part of the cell.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pardec.hashing import text_key
from results.schema import Attempt, Row, row_to_json

ENVIRONMENT_KEYS = ("device", "hardware", "host", "torch")
UNKNOWN = "unknown"
_OWN = 8
"""Hexadecimal digits that tell the environments of a cell apart."""


def environment_keys(row: Row) -> dict[str, str]:
    """The row's value of every one of ``ENVIRONMENT_KEYS``; ``unknown`` where it wasn't recorded.

    hardware: the GPU's name, or that of the processor where the device is ``cpu``. A worker on a GPU that
    ended before torch was imported never learnt the GPU's name.
    """
    return keys_of(row.device, row.environment or {})


def keys_of(device: str, recorded: Mapping[str, Any]) -> dict[str, str]:
    """``environment_keys`` of a row with this device and this ``environment``."""
    host = recorded.get("host_cpu")
    hardware = host if device == "cpu" else recorded.get("gpu")
    # The parent of a worker reads the version off the package, which lacks the build ("+cu130").
    torch = str(recorded.get("torch") or "").partition("+")[0]
    known = {"hardware": hardware, "host": host, "torch": torch}
    return {"device": device} | {key: str(value or UNKNOWN) for key, value in known.items()}


def result_key(row: Row) -> str:
    """Cell and environment as one word: equal for rows that are tries of one thing."""
    text = json.dumps(environment_keys(row))
    return f"{row.cell}-{text_key(text, _OWN)}"


def agree(a: Mapping[str, str], b: Mapping[str, str]) -> bool:
    """Whether two environments may be the same one, as far as both are known."""
    return all(a[key] == b[key] or UNKNOWN in (a[key], b[key]) for key in ENVIRONMENT_KEYS)


def partner(rows: Iterable[Row], row: Row) -> Row | None:
    """Of ``rows`` (one per cell and environment), the one that ``row`` is another try of.

    A failure that didn't come to know its environment, as on a machine that was lost, is a try of
    any row of its cell that may be of the same.
    """
    own = [other for other in rows if other.cell == row.cell]
    key = environment_keys(row)
    maybe = None
    for other in own:
        of_other = environment_keys(other)
        if of_other == key:
            return other
        if maybe is None and (_is_blind(row) or _is_blind(other)) and agree(of_other, key):
            maybe = other
    return maybe


def superseding(earlier: Row, row: Row) -> Row:
    """The row to keep of two tries, in the order in which they came, with the attempts of both.

    A failure never replaces an ok row, nor a failure of unknown environment any other.
    """
    attempts = earlier.attempts + [attempt for attempt in row.attempts if attempt not in earlier.attempts]
    kept = row if _standing(row) >= _standing(earlier) else earlier
    return dataclasses.replace(kept, attempts=attempts)


def latest(a: Row, b: Row) -> Row:
    """The row to keep of two tries whose order is not known, with the attempts of both by time.

    The later start is kept, but for a failure as in ``superseding``; of equal starts, the row that was
    measured further. Neither the order of the two nor taking one twice makes a difference.
    """
    if a == b:
        return a
    kept = superseding(*sorted((a, b), key=_rank))
    return dataclasses.replace(kept, attempts=sorted(kept.attempts, key=_moment))


def one_each(rows: Iterable[Row], keep: Callable[[Row, Row], Row]) -> list[Row]:
    """One row per cell and environment, in order of first appearance; keep: what to make of two tries."""
    found: list[Row] = []
    places: dict[str, list[int]] = {}
    for row in rows:
        own = places.setdefault(row.cell, [])
        other = partner([found[place] for place in own], row)
        if other is None:
            own.append(len(found))
            found.append(row)
        else:
            place = next(place for place in own if found[place] is other)
            found[place] = keep(other, row)
    return found


def _rank(row: Row) -> tuple[bool, bool, str, int, int, str]:
    bare = dataclasses.replace(row, attempts=[])
    return (
        *_standing(row),
        row.started_at,
        -len(row.unmeasured),
        len(row.artifacts),
        row_to_json(bare),
    )


def _moment(attempt: Attempt) -> tuple[str, str]:
    return attempt["started_at"], json.dumps(attempt)


def _standing(row: Row) -> tuple[bool, bool]:
    return row.status == "ok", not _is_blind(row)


def _is_blind(row: Row) -> bool:
    """Whether a failure doesn't know the whole environment that it happened in."""
    return row.status != "ok" and UNKNOWN in environment_keys(row).values()
