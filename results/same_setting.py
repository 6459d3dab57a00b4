"""Which rows are of one setting: equal in every setting that joins rows, as the settings declare."""

import json
from collections.abc import Callable, Collection, Iterable
from pathlib import PurePath
from typing import Any

from results.fields import Applies
from results.legible import shortened
from results.schema import FIELDS, RANDOM_WEIGHTS, Row
from results.settings import DECLARED

_APPLIES: dict[Applies, Callable[[Row], bool]] = {
    "always": lambda row: True,
    "decoding": lambda row: row.tier != "anchor",
    "guidance": lambda row: row.guidance is not None,
    "power-cosine": lambda row: row.guidance is not None and row.guidance_schedule == "power-cosine",
    "random weights": lambda row: row.tier != "anchor",  # null in rows of trained ones
}
OF_GUIDANCE = tuple(name for name, one in DECLARED.items() if one.applies in ("guidance", "power-cosine"))
"""Settings of guided cells alone."""


def joining(drawing: bool = False) -> list[str]:
    """The settings that join rows; drawing: those alone that decide which tokens are drawn."""
    return [name for name, one in DECLARED.items() if one.joins and (one.draws or not drawing)]


def value_of(row: Row, name: str) -> Any:
    """A setting of the row's cell, None where it doesn't apply.

    Rows of older schemas that don't tell it had the default. Steps are those counted, but where a strategy
    decides while decoding: there they are those asked for.
    """
    one = DECLARED[name]
    if not _APPLIES[one.applies](row):
        return None
    if name == "steps":
        value: Any = row.steps if row.steps_bound is None else row.settings.get(name)
    elif name in FIELDS and FIELDS[name].kind == "setting":
        value = getattr(row, name)
    else:
        value = row.settings.get(name, one.before)
    if name == "roles" and row.tier == "published":
        value = {role: PurePath(path).name for role, path in value.items()}  # wherever the files lie
    return int(value) if isinstance(value, float) and value.is_integer() else value


def setting_key(row: Row, but_for: Collection[str] = ()) -> str:
    """Equal for rows of one setting, ``but_for`` some. Of anchors, which decode nothing, the kind counts."""
    if row.tier == "anchor":
        return json.dumps([row.tier, row.strategy])
    values = [value_of(row, name) for name in joining() if name not in but_for]
    return json.dumps([row.tier, *values], sort_keys=True)


def is_without(row: Row, varied: Row) -> bool:
    """Whether a row decodes the network of ``varied``, or one of its networks, without its options, all else
    equal."""
    weights = {varied.checkpoint, *(use["sha256"] for use in varied.networks or ())} - {None}
    keys = [setting_key(one, ("strategy", "options", "steps", "network", "roles")) for one in (row, varied)]
    same = row.checkpoint in weights and (row.checkpoint != RANDOM_WEIGHTS or row.network == varied.network)
    return not row.options and same and keys[0] == keys[1]


def told_apart(row: Row, differing: Collection[str]) -> list[str]:
    """The row's settings of these names in words, as far as they apply, and those that every label states."""
    if row.tier == "anchor":
        return []
    return [
        one.shown(name, shortened(value_of(row, name)))
        for name, one in DECLARED.items()
        if one.joins
        and _APPLIES[one.applies](row)
        and (name in differing or (one.caveat and value_of(row, name) is not None))
    ]


def differing(rows: Iterable[Row], at_equal: Collection[str] = ()) -> list[str]:
    """The settings that join rows in which some of these rows differ, ``at_equal`` others."""
    found = []
    decoding = [row for row in rows if row.tier != "anchor"]
    for name in joining():
        known = [row for row in decoding if _APPLIES[DECLARED[name].applies](row)]
        fixed = [tuple(_hashable(value_of(row, other)) for other in at_equal) for row in known]
        values = [_hashable(value_of(row, name)) for row in known]
        if name not in at_equal and len(set(zip(fixed, values, strict=True))) > len(set(fixed)):
            found.append(name)
    return found


def _hashable(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else value
