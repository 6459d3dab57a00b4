"""The parts of a row: objects of its JSON line."""

from typing import Literal, TypedDict

Status = Literal["ok", "oom", "timeout", "error", "skipped", "invalid"]
Tier = Literal["controlled", "published", "anchor"]


class Attempt(TypedDict):
    """One try of a cell."""

    started_at: str
    wall_s: float
    status: Status
    reason: str | None


class Metric(TypedDict):
    """A quality metric at its stated number of images; ``low`` and ``high`` bound its 95 % interval."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    reference: str | None


class Lossiness(TypedDict):
    """Mean of ``n`` images with its 95 % interval over images."""

    value: float | None
    low: float | None
    high: float | None
    n: int


class Reference(TypedDict):
    """The images or statistics that quality is measured against."""

    name: str
    sha256: str
    n: int | None
    """Images behind its statistics; null where a published file doesn't say."""


class Protocol(TypedDict):
    """How images become features: colour rounding, label rule, feature network and its weights."""

    colour: str
    labels: str
    extractor: str
    extractor_sha256: str


class Turns(TypedDict):
    """Seconds of a batch beside those of a reference cell, timed in turn by one process after the other.

    Every round runs each cell once, forwards in even rounds and backwards in odd ones (ABBA), so a machine
    that slows down or speeds up does so for both: the ratio of a round is free of it.
    """

    reference: str
    """Key of the reference cell; its own row has equal lists."""
    batch: int
    seconds: list[float]
    """Of this cell, by round."""
    reference_seconds: list[float]


class NetworkUse(TypedDict):
    """One of several networks of a decode."""

    role: str
    """What it does there: drafter, refiner, ..."""
    parameters: int
    sha256: str | None
    """Of the file of its weights; null for random ones."""
    weight_bytes: int
    cache_bytes: int
    forwards: float
    """As ``Row.forwards``, of this network alone."""
    tokens_processed: float


Numbers = dict[str, float | None]
