"""Rows as a table of numbers with intervals, split into facets whose cells may stand in one figure.

A facet holds cells that agree in every one of ``FACET_KEYS``. Nothing in this room sets numbers of different
facets side by side: quality depends on N, reference and protocol, speed on the machine and its settings.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports import style
from results.errors import UserError
from results.schema import Row

QUALITY_KEYS = ("tokenizer", "reference", "n", "protocol")
"""Quality compares only where these agree."""
SPEED_KEYS = ("device", "hardware", "threads", "dtype", "products")
"""Speed and memory compare only where these agree."""
FACET_KEYS = SPEED_KEYS + QUALITY_KEYS

_UNKNOWN = "unknown"
_ANCHOR_KEYS = ("reference", "n", "protocol")
_METRICS = ("fd_mnist", "fd_mnist_clean", "fid", "fid_clean", "kid_mnist", "kid", "is_mnist", "is")
_LAST_METRICS = ("precision", "recall", "accuracy")
_COPIED = (
    "cell",
    "status",
    "reason",
    "tier",
    "strategy",
    "label",
    "network",
    "checkpoint",
    "tokenizer",
    "parameters",
    "steps",
    "forwards",
    "tokens_processed",
    "flops_per_image",
    "guidance",
    "guidance_schedule",
    "temperature",
    "top_k",
    "top_p",
    "batch",
    "device",
    "dtype",
    "seed",
    "threads",
    "compile",
    "products",
    "throughput_images_per_s",
    "throughput_repeats",
    "throughput_best_images_per_s",
    "throughput_best_batch",
    "latency_s",
    "weight_bytes",
    "cache_bytes",
    "peak_bytes",
    "started_at",
    "wall_s",
)


class Incomparable(UserError):
    """Numbers that must not be set side by side; ``keys`` names what differs."""

    def __init__(self, what: str, differing: dict[str, list[str]]) -> None:
        self.keys = tuple(differing)
        details = "; ".join(f"{key} differs ({', '.join(values)})" for key, values in differing.items())
        super().__init__(f"{what} can't be compared: {details}")


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

    @property
    def caption(self) -> str:
        """Device, dtype, batch, N and reference, as every figure states them."""
        cells = self.cells or self.rows
        batches = sorted({row.batch for row in cells if row.batch is not None})
        parts = [
            f"device {self.keys['device']} ({self.keys['hardware']}; threads: {self.keys['threads']})",
            f"dtype {self.keys['dtype']}"
            + (", packed products" if self.keys["products"] == "packed" else ""),
            f"batch {', '.join(map(str, batches)) if batches else 'unknown'}",
            f"N = {self.keys['n']}",
            f"reference {self.keys['reference']}",
        ]
        return ", ".join(parts)


def facet_keys(row: Row) -> dict[str, str]:
    """The row's value of every facet key, as text that a reader can tell apart."""
    environment = row.environment or {}
    gpu = environment.get("gpu")
    hardware = gpu if gpu and row.device != "cpu" else environment.get("host_cpu")
    reference = row.reference
    return {
        "device": row.device,
        "hardware": str(hardware or _UNKNOWN),
        "threads": str(row.threads) if row.threads is not None else _UNKNOWN,
        "dtype": row.dtype,
        "products": row.products,
        "tokenizer": row.tokenizer,
        "reference": (
            f"{reference['name']} (sha256 {reference['sha256'][:8]}, n = {reference['n']})"
            if reference
            else "none"
        ),
        "n": str(row.images) if row.images is not None else _UNKNOWN,
        "protocol": _protocol(row),
    }


def require_comparable(rows: Iterable[Row], keys: Sequence[str], what: str = "quality") -> None:
    """Raises ``Incomparable``, naming the keys, unless all rows agree in ``keys``."""
    found = [facet_keys(row) for row in rows]
    values = {key: list(dict.fromkeys(row[key] for row in found)) for key in keys}
    differing = {key: seen for key, seen in values.items() if len(seen) > 1}
    if differing:
        raise Incomparable(what, differing)


def facets(rows: Sequence[Row]) -> list[Facet]:
    """``rows`` split by ``FACET_KEYS``, in order of appearance.

    Anchors run on no strategy's settings: they join every facet with their reference, N and protocol. A cell
    that failed before it met a reference joins the facets that agree with it in what it knows.
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    floating: list[Row] = []
    for row in rows:
        if row.tier == "anchor" or (row.status != "ok" and row.reference is None):
            floating.append(row)
        else:
            groups.setdefault(tuple(facet_keys(row).values()), []).append(row)
    homeless: dict[tuple[str, ...], list[Row]] = {}
    for row in floating:
        homes = [key for key in groups if _joins(row, dict(zip(FACET_KEYS, key, strict=True)))]
        for key in homes:
            groups[key].append(row)
        if not homes:
            homeless.setdefault(tuple(facet_keys(row).values()), []).append(row)
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
    return sorted(names, key=_metric_position)


def lower_is_better(metric: str) -> bool:
    """Whether a metric is a distance; everything else is a score."""
    return metric.startswith(("fd", "fid", "kid", "cmmd", "mind"))


def series_label(row: Row, rows: Sequence[Row]) -> str:
    """The row's label, told apart from other series of the same label by what differs."""
    rivals = [other for other in rows if other.label == row.label and other.tier != "anchor"]
    differing = []
    for name in (
        "network",
        "guidance",
        "guidance_schedule",
        "temperature",
        "top_k",
        "top_p",
        "batch",
        "seed",
    ):
        by_steps = {(other.steps, getattr(other, name)) for other in rivals}
        if len(by_steps) > len({steps for steps, _ in by_steps}):
            differing.append(f"{name.replace('_', '-')} {getattr(row, name)}")
    return row.label + (f" ({', '.join(differing)})" if differing else "")


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


def _protocol(row: Row) -> str:
    if row.protocol is None:
        return "none"
    digest = hashlib.sha256(json.dumps(row.protocol, sort_keys=True).encode()).hexdigest()
    return f"{row.protocol['extractor']} ({digest[:8]})"


def _joins(row: Row, keys: dict[str, str]) -> bool:
    mine = facet_keys(row)
    if row.tier == "anchor":
        return all(mine[key] == keys[key] for key in _ANCHOR_KEYS)
    return all(mine[key] in (keys[key], _UNKNOWN) for key in (*SPEED_KEYS, "tokenizer", "n"))


def _position(row: Row) -> tuple[Any, ...]:
    return (
        style.rank(row.strategy),
        row.label,
        -(row.steps or 0),
        row.guidance or 0.0,
        row.batch or 0,
        row.cell,
    )


def _metric_position(metric: str) -> tuple[int, str]:
    base = metric.split("@")[0]
    if base in _METRICS:
        return _METRICS.index(base), metric
    if base in _LAST_METRICS:
        return 100 + _LAST_METRICS.index(base), metric
    return 50, metric


def _record(row: Row) -> dict[str, Any]:
    record: dict[str, Any] = {name: getattr(row, name) for name in _COPIED}
    record["options"] = json.dumps(row.options, sort_keys=True) if row.options else ""
    record |= {f"facet_{key}": value for key, value in facet_keys(row).items()}
    for name, bounds in (
        ("throughput_images_per_s", row.throughput_interval),
        ("latency_s", row.latency_interval_s),
    ):
        record[f"{name}_low"], record[f"{name}_high"] = bounds or (None, None)
    for name, seconds in (row.phases_s or {}).items():
        record[f"phase_{name}_s"] = seconds
    for name, metric in (row.quality or {}).items():
        record |= {name: metric["value"], f"{name}_low": metric["low"], f"{name}_high": metric["high"]}
    return record
