"""Rows as a table of numbers with intervals, split into facets whose cells may stand in one figure.

A facet holds cells that agree in every one of ``FACET_KEYS``. Nothing in this room sets numbers of different
facets side by side: quality depends on N, reference and protocol, speed on the machine and its settings.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports import style
from reports.comparability import FACET_KEYS, REFERENCE_KEYS, UNKNOWN, facet_keys, row_keys
from reports.naming import natural
from results.fields import Measure
from results.metrics import position
from results.same_setting import joining, value_of
from results.schema import FIELDS, RANDOM_WEIGHTS, Row

_KNOWN_EARLY = (*(key for key in FACET_KEYS if key not in REFERENCE_KEYS), "n")
"""What a cell knows of itself before it meets a reference."""
_ENDS = {"": "value", "_low": "low", "_high": "high"}


@dataclass(frozen=True)
class Facet:
    """Cells that may be compared, and the anchors that belong to them."""

    keys: dict[str, str]
    """``FACET_KEYS`` -> shared value."""
    rows: tuple[Row, ...]
    """Anchors first, then by strategy, label and falling steps."""

    @property
    def frame(self) -> pd.DataFrame:
        """The facet's rows as ``frame`` makes them."""
        return frame(self.rows)

    @property
    def cells(self) -> tuple[Row, ...]:
        """The rows that are no anchors."""
        return tuple(row for row in self.rows if row.tier != "anchor")

    @property
    def anchors(self) -> tuple[Row, ...]:
        """Real images and reconstructions."""
        return tuple(row for row in self.rows if row.tier == "anchor")

    def by_batch(self) -> list["Facet"]:
        """The facet once for each batch size of its cells, anchors in each: speed figures never mix them."""
        split: dict[str, list[Row]] = {}
        for row in self.cells:
            split.setdefault(row_keys(row)["batch"], []).append(row)
        return [Facet(self.keys, (*self.anchors, *cells)) for cells in split.values()] or [self]

    @property
    def caption(self) -> str:
        """Device, dtype, batch, N and reference, as every figure states them, and random weights."""
        cells = self.cells or self.rows
        untrained = dict.fromkeys(row.label for row in cells if row.checkpoint == RANDOM_WEIGHTS)
        trained = any(row.checkpoint != RANDOM_WEIGHTS for row in cells)
        batches = sorted({row.batch for row in cells if row.batch is not None})
        host = "" if self.keys["device"] == "cpu" else f" on {self.keys['host']}"
        parts = [
            f"device {self.keys['device']} ({self.keys['hardware']}{host}; threads: {self.keys['threads']}; "
            f"torch {self.keys['torch']})",
            f"dtype {self.keys['dtype']}"
            + (", packed products" if self.keys["products"] == "packed" else "")
            + ("" if self.keys["compile"] == "eager" else f", {self.keys['compile']}"),
            f"batch {', '.join(map(str, batches)) if batches else 'unknown'}",
            f"N = {self.keys['n']}",
            f"reference {self.keys['reference']}",
        ]
        if untrained:
            parts.insert(0, "random weights" + (f" ({', '.join(untrained)})" if trained else ""))
        return ", ".join(parts)


def facets(rows: Sequence[Row]) -> list[Facet]:
    """``rows`` split by ``FACET_KEYS``, in order of appearance.

    Anchors run on no strategy's settings: they join every facet with their reference, N and protocol, and
    reconstructions with their tokenizer; of several of one kind the one whose machine is most like the
    facet's. A cell that failed before it met a reference joins the facets that agree with it in what it
    knows.
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    floating: list[Row] = []
    for row in rows:
        if row.tier == "anchor" or (row.status != "ok" and row.reference is None):
            floating.append(row)
        else:
            groups.setdefault(tuple(facet_keys(row).values()), []).append(row)
    homeless: dict[tuple[str, ...], list[Row]] = {}
    joining: dict[tuple[str, ...], list[Row]] = {}
    for row in floating:
        homes = [key for key in groups if _joins(row, dict(zip(FACET_KEYS, key, strict=True)))]
        for key in homes:
            joining.setdefault(key, []).append(row)
        if not homes:
            homeless.setdefault(tuple(facet_keys(row).values()), []).append(row)
    for key, rows_of_key in joining.items():
        groups[key] += _nearest_anchors(rows_of_key, key)
    return [
        Facet(dict(zip(FACET_KEYS, key, strict=True)), tuple(sorted(group, key=_position)))
        for key, group in [*groups.items(), *homeless.items()]
    ]


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """One line per row: settings, numbers, and ``NAME_low`` / ``NAME_high`` for what has an interval."""
    records = [_record(row) for row in sorted(rows, key=_position)]
    return pd.DataFrame.from_records(records)


def metrics(rows: Iterable[Row]) -> list[str]:
    """The quality metrics of the rows, with their N: distances first, rates last."""
    names = {name for row in rows for name in row.quality or {}}
    return sorted(names, key=position)


def hardware_notes(rows: Iterable[Row]) -> list[str]:
    """One line per environment the rows were measured in."""
    notes: dict[str, None] = {}
    for row in rows:
        environment = row.environment or {}
        names = ("host_cpu", "cores", "gpu", "torch", "numpy", "python", "platform", "pardec", "git_commit")
        parts = [f"{name} {environment[name]}" for name in names if environment.get(name) is not None]
        if environment.get("git_dirty"):
            parts.append("with uncommitted changes")
        notes[", ".join(parts) or "environment not recorded"] = None
    return list(notes)


def _joins(row: Row, keys: dict[str, str]) -> bool:
    mine = facet_keys(row)
    if row.tier == "anchor":
        of_the_cells = row.strategy == "real" or mine["tokenizer"] == keys["tokenizer"]
        return of_the_cells and all(mine[key] == keys[key] for key in REFERENCE_KEYS)
    return all(mine[key] in (keys[key], UNKNOWN) for key in _KNOWN_EARLY)


def _nearest_anchors(rows: Sequence[Row], key: tuple[str, ...]) -> list[Row]:
    """``rows`` with one anchor of each kind: that which has most in common with the facet ``key``."""

    def likeness(row: Row) -> int:
        return sum(mine == its for mine, its in zip(facet_keys(row).values(), key, strict=True))

    nearest: dict[tuple[str, str], Row] = {}
    for row in rows:
        if row.tier == "anchor":
            kind = (row.strategy, row.tokenizer)
            nearest[kind] = max(nearest.get(kind, row), row, key=likeness)
    return [*nearest.values(), *(row for row in rows if row.tier != "anchor")]


def _position(row: Row) -> tuple[Any, ...]:
    return (
        style.rank(row.strategy),
        natural(row.label),
        -(row.steps or 0),
        row.guidance or 0.0,
        row.batch or 0,
        row.cell,
    )


def _record(row: Row) -> dict[str, Any]:
    record: dict[str, Any] = {name: getattr(row, name) for name, one in FIELDS.items() if one.column}
    record |= {name: value_of(row, name) for name in joining() if name not in record}
    record["options"] = json.dumps(row.options, sort_keys=True) if row.options else ""
    record |= {f"facet_{key}": value for key, value in facet_keys(row).items()}
    for name, one in FIELDS.items():
        if isinstance(one, Measure) and one.interval:
            record[f"{name}_low"], record[f"{name}_high"] = getattr(row, one.interval) or (None, None)
    for name, seconds in (row.phases_s or {}).items():
        record[f"phase_{name}_s"] = seconds
    lost = row.lossiness_bits or {"value": None, "low": None, "high": None}
    record |= {f"lossiness_bits{end}": lost[key] for end, key in _ENDS.items()}  # type: ignore[literal-required]
    for name, metric in (row.quality or {}).items():
        record |= {name: metric["value"], f"{name}_low": metric["low"], f"{name}_high": metric["high"]}
    return record
