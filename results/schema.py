"""One result row: what one cell of a sweep measured, with the environment it was measured in.

A row is plain data, written as one JSON line. Units stand in the field names. Numbers are unrounded; a number
that could not be measured is null and ``unmeasured`` says why, under the field's name, or under a dotted name
(``phases_s.plan``, ``quality.kid_mnist@1000``) where the null is an entry of a mapping.
"""

import dataclasses
import json
import math
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal, TypedDict

from pardec.errors import UserError
from results.annotations import fault
from results.consistency import contradiction
from results.upgrades import UPGRADES

SCHEMA = 4
"""The version this code writes. Raise it with every change of a field, and add the step to ``upgrades``."""

RANDOM_WEIGHTS = "random"
"""Stands in ``Row.checkpoint`` for the hash of weights that were never trained."""

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


class Paired(TypedDict):
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


Numbers = dict[str, float | None]


@dataclass(frozen=True)
class Row:
    """The result of one cell; ``anchor`` rows (real images, reconstructions) decode nothing."""

    cell: str
    """Content key of the cell: 16 hexadecimal digits."""
    status: Status
    tier: Tier
    strategy: str
    """Registered name, or ``real`` / ``reconstruction`` for anchors."""
    label: str
    """Short display name, e.g. "LPD random order"."""
    network: str
    """Preset or zoo name, e.g. "zoo/lpd"."""
    tokenizer: str
    batch: int | None
    """Images per batch while the cell's images were generated."""
    images: int | None
    """Images generated, the N of every quality metric of the row."""
    dtype: str
    device: str
    seed: int
    started_at: str
    """ISO 8601, UTC, of the latest attempt."""
    size: str = ""
    """Size class of the network (B, L, XL)."""
    reason: str | None = None
    """Cause of a status other than ok."""
    attempts: list[Attempt] = field(default_factory=list)
    """Every try of the cell, oldest first."""
    options: dict[str, Any] = field(default_factory=dict)
    """Strategy options that differ from the strategy's defaults."""
    checkpoint: str | None = None
    """SHA-256 of the weights, or ``RANDOM_WEIGHTS``."""
    training_seed: int | None = None
    """Seed that the network of a zoo was trained with; null where its card doesn't say, or without one."""
    parameters: int | None = None
    """Parameters of the network, counted."""
    steps: int | None = None
    forwards: int | None = None
    """Forward calls of the network per image batch; the two halves of guidance are one."""
    tokens_processed: int | None = None
    """Tokens through the network per image; the two halves of guidance are not doubled."""
    flops_per_image: float | None = None
    guidance: float | None = None
    """Guidance scale; null without guidance."""
    guidance_schedule: str | None = None
    guidance_power: float | None = None
    """Of the power-cosine schedule."""
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    threads: int | None = None
    compile: bool = False
    cuda_graphs: bool = False
    """Passes recorded once and replayed."""
    products: str = "plain"
    """``packed``: weights in the layout of the CPU's product kernel."""
    throughput_images_per_s: float | None = None
    """Median over repeats after warm-up, at ``batch``."""
    throughput_interval: list[float] | None = None
    """[low, high]: 95 % interval of the median, images/s."""
    throughput_repeats: int | None = None
    throughput_samples: list[float] | None = None
    """Images/s of every repeat."""
    throughput_best_images_per_s: float | None = None
    """The best median over batch sizes, reached at ``throughput_best_batch``."""
    throughput_best_batch: int | None = None
    throughput_by_batch: Numbers | None = None
    """Batch size (as text) -> median images/s."""
    peak_bytes_by_batch: Numbers | None = None
    """Batch size (as text) -> peak bytes over the loaded state."""
    latency_s: float | None = None
    """Median seconds for one image, at batch 1 whatever the row's ``batch``."""
    latency_interval_s: list[float] | None = None
    latency_samples_s: list[float] | None = None
    latency_percentiles_s: Numbers | None = None
    """p50, p90, p95, p99 of the latency, each where the number of samples bounds it with 99 % confidence."""
    warmup_s: list[float] | None = None
    """Seconds of every warm-up batch at ``batch``, in order; none of them is a repeat."""
    steady: bool | None = None
    """Whether warm-up ended because its last three batches agreed; else its budget was spent."""
    stopped_by: Literal["interval", "budget"] | None = None
    """Why no more repeats were made: the interval of the median was narrow enough, or the time was spent."""
    paired: Paired | None = None
    compile_s: float | None = None
    """Seconds spent compiling and recording graphs, outside of every other time of the row."""
    graphs: int | None = None
    """Graphs compiled and passes recorded for the cell; 0 in eager mode."""
    energy_per_image_j: float | None = None
    """Joules of the device for one image, where its counter is readable."""
    calibration_s: Numbers | None = None
    """matmul, python: seconds of two fixed workloads beside the cell, to tell machine from code."""
    phases_s: Numbers | None = None
    """plan, prefill, decode, detokenize, total: median seconds per batch, each measured on its own."""
    weight_bytes: int | None = None
    cache_bytes: int | None = None
    """Key/value cache at ``batch``, both halves of guidance."""
    peak_bytes: int | None = None
    """Peak bytes during decode over the loaded state, at ``batch``."""
    quality: dict[str, Metric] | None = None
    """Metric name with its N, e.g. "fd_mnist@1000" -> value and interval."""
    lossiness_bits: Lossiness | None = None
    """Bits per image that decoding in groups loses, judged by the network's one-at-a-time conditionals."""
    quality_replicates: dict[str, list[float]] | None = None
    """Metric -> its values [G] with one group of images left out each: what paired differences need."""
    tokens_sha256: str | None = None
    """Hash of the tokens of all images, [images, N] int64 little-endian in raster order."""
    reference: Reference | None = None
    protocol: Protocol | None = None
    clean_reference: Reference | None = None
    clean_protocol: Protocol | None = None
    """The same of clean-fid's own protocol, behind ``fid_clean@N`` alone."""
    environment: dict[str, Any] | None = None
    """host_cpu, cores, gpu, torch, numpy, python, platform, git_commit, git_dirty, pardec."""
    wall_s: float | None = None
    """Seconds the latest attempt took."""
    unmeasured: dict[str, str] = field(default_factory=dict)
    """Field -> why its number is null."""
    artifacts: dict[str, str] = field(default_factory=dict)
    """``trace``, ``samples``, ``lossiness``: npz files, relative to the folder of the rows."""
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        problem = _problem(dataclasses.asdict(self))
        if problem:
            raise ValueError(f"row of cell {self.cell!r}: {problem}")


MEASURED = (
    "parameters",
    "steps",
    "forwards",
    "tokens_processed",
    "flops_per_image",
    "batch",
    "images",
    "threads",
    "throughput_images_per_s",
    "throughput_interval",
    "throughput_repeats",
    "throughput_samples",
    "throughput_best_images_per_s",
    "throughput_best_batch",
    "throughput_by_batch",
    "peak_bytes_by_batch",
    "latency_s",
    "latency_interval_s",
    "latency_samples_s",
    "latency_percentiles_s",
    "warmup_s",
    "steady",
    "stopped_by",
    "paired",
    "compile_s",
    "graphs",
    "energy_per_image_j",
    "calibration_s",
    "phases_s",
    "weight_bytes",
    "cache_bytes",
    "peak_bytes",
    "quality",
    "lossiness_bits",
    "wall_s",
)
"""Fields that should hold numbers: a null among them, or inside them, needs a reason in ``unmeasured``."""

_HINTS = typing.get_type_hints(Row)


def finite_or_none(value: float | None) -> float | None:
    """``value``, or None where it is NaN or infinite (JSON has neither)."""
    return None if value is None or not math.isfinite(value) else float(value)


def with_reasons(row: Row, reason: str) -> Row:
    """``row`` with ``reason`` noted for every null number that has none yet."""
    return dataclasses.replace(row, unmeasured=reasons(dataclasses.asdict(row), reason))


def reasons(values: Mapping[str, Any], reason: str) -> dict[str, str]:
    """The ``unmeasured`` of a row with these field values: ``reason`` wherever a number is null.

    Fields that are absent count as null; reasons already in ``values["unmeasured"]`` stay.
    """
    return dict.fromkeys(_nulls(values), reason) | dict(values.get("unmeasured") or {})


def row_to_json(row: Row) -> str:
    """The row as one line of JSON without its newline; NaN and infinities raise ValueError."""
    values = dataclasses.asdict(row)
    return json.dumps({"schema": values.pop("schema")} | values, allow_nan=False, ensure_ascii=True)


def row_from_json(line: str, where: str = "row") -> Row:
    """The row of one line; ``where`` (file and line) opens the UserError of a line that is no valid row."""
    try:
        values = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not a JSON row ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f"{where}: a row is a JSON object, not {type(values).__name__}")
    values = _upgraded(values, where)
    for key in values:
        if key not in _HINTS:
            close = get_close_matches(key, _HINTS, n=1)
            raise UserError(
                f"{where}: unknown key '{key}'" + (f", did you mean '{close[0]}'?" if close else "")
            )
    missing = [key for key in _HINTS if key not in values]
    if missing:
        raise UserError(f"{where}: missing key '{missing[0]}'" + _and_more(missing))
    problem = _problem(values)
    if problem:
        raise UserError(f"{where}: {problem}")
    return Row(**values)


def _upgraded(values: dict[str, Any], where: str) -> dict[str, Any]:
    version = values.get("schema")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise UserError(f"{where}: key 'schema' must be a version from 1 to {SCHEMA}, not {version!r}")
    if version > SCHEMA:
        raise UserError(
            f"{where}: schema {version} is newer than this pardec reads (up to {SCHEMA}); update pardec"
        )
    while version < SCHEMA:
        values = UPGRADES[version](values) | {"schema": version + 1}
        version += 1
    return values


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _and_more(missing: list[str]) -> str:
    return f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""


def _problem(values: Mapping[str, Any]) -> str | None:
    """What is wrong with complete field values, or None."""
    for key, hint in _HINTS.items():
        found = fault(values[key], hint)
        if found:
            return f"key '{key}{found}, not {values[key]!r:.80}"
    if not re.fullmatch(r"[0-9a-f]{16}", values["cell"]):
        return f"key 'cell' must be 16 hexadecimal digits, not {values['cell']!r}"
    if values["status"] != "ok" and not values["reason"]:
        return f"key 'reason' must say why the status is {values['status']}"
    found = contradiction(values)
    if found:
        return found
    silent = [name for name in _nulls(values) if not values["unmeasured"].get(name)]
    if silent:
        return f"key '{silent[0]}' is null without a reason in 'unmeasured'" + _and_more(silent)
    return None


def _nulls(values: Mapping[str, Any]) -> Iterator[str]:
    """Names of the null numbers: fields of ``MEASURED`` and, dotted, entries of the mappings among them."""
    for key in MEASURED:
        value = values.get(key)
        if value is None:
            yield key
        elif isinstance(value, dict):
            for name, entry in value.items():
                numbers = [entry[k] for k in ("value", "low", "high")] if isinstance(entry, dict) else [entry]
                if any(number is None for number in numbers):
                    yield f"{key}.{name}"
