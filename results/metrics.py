"""What the suite knows of each kind of quality metric: one declaration each, in the order of tables."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MetricKind:
    """Of the metrics whose name starts so: ``fd`` of "fd_fashion_inf@1000"."""

    better: Literal["lower", "higher"]
    needs: Literal["reference", "clean reference", "features", "images"] = "reference"
    """What two values need in common besides the images' own protocol."""
    margin: tuple[float, float] | None = None
    """(share of the baseline's value, absolute): how much worse it may become before a sure difference fails
    the gate, the larger of the two. Where none is stated, 5 % warn."""
    last: bool = False
    """Whether it stands behind metrics that nothing declares."""


KINDS = {
    "fd": MetricKind("lower", margin=(0.05, 0.0)),
    "sfd": MetricKind("lower", margin=(0.05, 0.0)),
    "fid": MetricKind("lower", margin=(0.05, 0.0)),
    "fid_clean": MetricKind("lower", "clean reference", margin=(0.05, 0.0)),
    "kid": MetricKind("lower", margin=(0.05, 0.0005)),
    "is": MetricKind("higher", "features", margin=(0.02, 0.0)),
    "cmmd": MetricKind("lower"),
    "mind": MetricKind("lower"),
    "precision": MetricKind("higher", margin=(0.0, 0.01), last=True),
    "recall": MetricKind("higher", margin=(0.0, 0.01), last=True),
    "accuracy": MetricKind("higher", "images", margin=(0.0, 0.01), last=True),
}
UNSTATED = (0.05, 0.0)
_UNKNOWN = MetricKind("higher")
_EXTRACTORS = ("fashion", "mnist", "inception")


def kind_of(metric: str) -> MetricKind:
    """The kind of a metric by its name, with or without its N: that of the longest declared beginning."""
    return KINDS.get(_stem(metric), _UNKNOWN)


def position(metric: str) -> tuple[int, int, bool, str]:
    """Where a metric stands in tables: distances first, shares last, own features before the published."""
    base, stems = metric.partition("@")[0], list(KINDS)
    firsts = sum(not kind.last for kind in KINDS.values())
    stem = _stem(metric)
    place = firsts if stem not in KINDS else stems.index(stem) + KINDS[stem].last
    known = [place for place, name in enumerate(_EXTRACTORS) if name in base]
    return place, known[0] if known else len(_EXTRACTORS), base.endswith("_clean"), metric


def _stem(metric: str) -> str:
    parts = metric.partition("@")[0].split("_")
    beginnings = ("_".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((stem for stem in beginnings if stem in KINDS), "")
