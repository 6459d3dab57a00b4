"""One result row: what one cell of a sweep measured, with the environment it was measured in.

A row is plain data, written as one JSON line. Units stand in the field names. Numbers are unrounded; a number
that could not be measured is null and ``unmeasured`` says why, under the field's name, or under a dotted name
(``phases_s.plan``, ``quality.kid_fashion@1000``) where the null is an entry of a mapping.
"""

import dataclasses
import json
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from pardec.errors import UserError
from results.annotations import fault
from results.consistency import contradiction
from results.fields import Field, Measure, annotation, declared, measured, of_cell
from results.parts import (
    Attempt,
    Lossiness,
    Metric,
    NetworkUse,
    Numbers,
    Protocol,
    Reference,
    Status,
    Tier,
    Turns,
)
from results.settings import wrong_setting
from results.upgrades import upgraded

RANDOM_WEIGHTS = "random"
"""Stands in ``Row.checkpoint`` for the hash of weights that were never trained."""

_NO_DRAFTS = "the strategy drafts no tokens"
_NO_TESTS = "the strategy tests no drafts"
_NOT_RECORDED = "passes are not recorded"


@dataclass(frozen=True)
class Row:
    """The result of one cell; ``anchor`` rows (real images, reconstructions) decode nothing.

    Settings that stand beside the measured numbers are those of ``settings`` as they apply: null where the
    cell decodes nothing or has no guidance. Their declarations are those of ``results.settings``.
    """

    cell: str = annotation(column=True)
    """Content key of the cell: 16 hexadecimal digits."""
    status: Status = annotation(column=True)
    tier: Tier = annotation(column=True)
    strategy: str = of_cell()
    """Registered name, or ``real`` / ``reconstruction`` for anchors."""
    label: str = of_cell()
    """Short display name, e.g. "LPD random order"."""
    network: str = of_cell()
    """Preset or zoo name, e.g. "zoo/lpd"."""
    tokenizer: str = annotation(column=True)
    batch: int | None = of_cell(least=0, reasoned=True)
    """Images per batch while the cell's images were generated."""
    images: int | None = measured(dataclasses.MISSING, column=True, least=0)
    """Images generated, the N of every quality metric of the row."""
    dtype: str = of_cell()
    device: str = of_cell()
    seed: int = of_cell()
    started_at: str = annotation(column=True)
    """ISO 8601, UTC, of the latest attempt."""
    size: str = of_cell("", since=2, before="")
    """Size class of the network (B, L, XL)."""
    reason: str | None = annotation(None, column=True)
    """Cause of a status other than ok."""
    attempts: list[Attempt] = annotation(factory=list)
    """Every try of the cell, oldest first."""
    settings: dict[str, Any] = annotation(factory=dict, since=5, before={})
    """Every field of the cell: what ``explain KEY`` rebuilds it from. Empty in rows of older schemas."""
    options: dict[str, Any] = of_cell(factory=dict)
    """Strategy options that differ from the strategy's defaults."""
    chosen_options: dict[str, dict[str, int]] = annotation(factory=dict, since=6, before={})
    """Options that the cell left to measurement: name -> batch size (as text) -> the fastest value."""
    checkpoint: str | None = annotation(None, column=True)
    """SHA-256 of the weights, or ``RANDOM_WEIGHTS``."""
    weights_taken: str | None = annotation(None, since=5)
    """Which of several state dicts in the checkpoint's file, e.g. "ema"; null where it holds one."""
    training_seed: int | None = annotation(None, since=4)
    """Seed that the network of a zoo was trained with; null where its card doesn't say, or without one."""
    training_images: int | None = annotation(None, since=7, column=True)
    """Images that the network of a zoo had learned from; null where its card doesn't say, or without one."""
    parameters: int | None = measured(column=True, counted=True, least=0)
    """Parameters of the network, counted; of all networks where there are several."""
    networks: list[NetworkUse] | None = annotation(None, since=5)
    """Each network of a decode that has several; their hashes are part of the cell's key."""
    steps: float | None = measured(column=True, counted=True, drawn=True, least=0)
    """Steps of an image: the mean over images, who may go at their own pace."""
    steps_least: int | None = measured(since=5, counted=True, drawn=True, least=0)
    """Fewest steps of an image."""
    steps_most: int | None = measured(since=5, counted=True, drawn=True, least=0)
    """Most steps of an image."""
    steps_bound: int | None = annotation(None, since=5)
    """The most steps that an image can take, where the strategy decides while decoding; null for a plan that
    is fixed before."""
    acceptance: float | None = of_cell(None, since=5)
    """Declared share of accepted drafts behind every count, where random weights give no honest one; null
    where drafts are accepted by their content, or there are none."""
    forwards: float | None = measured(column=True, counted=True, drawn=True, least=0)
    """Forward calls of the networks per image batch, the mean; the two halves of guidance are one."""
    tokens_processed: float | None = measured(column=True, counted=True, drawn=True, least=0)
    """Tokens through the networks per image; the two halves of guidance are not doubled."""
    draft_tokens: float | None = measured(since=5, counted=True, drawn=True, least=0, absent=_NO_DRAFTS)
    """Tokens drafted per image, accepted ones included."""
    drafts_tested: float | None = measured(since=6, counted=True, drawn=True, least=0, absent=_NO_TESTS)
    """Tests of drafts per image."""
    accepted_share: float | None = measured(
        since=6, counted=True, drawn=True, better="higher", least=0, absent=_NO_TESTS
    )
    """Share of the tests that a draft passed."""
    wasted_flops: float | None = measured(
        since=5, unit="FLOPs", counted=True, drawn=True, better="lower", least=0, absent=_NO_DRAFTS
    )
    """FLOPs per image behind drawn tokens that were not kept."""
    flops_per_image: float | None = measured(
        column=True, unit="FLOPs", counted=True, drawn=True, better="lower", least=0
    )
    """Of products and attention, both halves of guidance, without the tokenizer; a multiply-add is two."""
    guidance: float | None = of_cell(None)
    """Guidance scale; null without guidance."""
    guidance_schedule: str | None = of_cell(None)
    guidance_power: float | None = of_cell(None, since=2)
    """Of the power-cosine schedule."""
    temperature: float | None = of_cell(None)
    top_k: int | None = of_cell(None)
    top_p: float | None = of_cell(None)
    threads: int | None = of_cell(None, reasoned=True)
    compile: bool = of_cell(False)
    cuda_graphs: bool = of_cell(False, since=3, before=False)
    """Passes recorded once and replayed."""
    one_graph: bool = of_cell(False, since=9, before=False)
    """The whole decode recorded as one."""
    products: str = of_cell("plain")
    """``packed``: weights in the layout of the CPU's product kernel."""
    throughput_images_per_s: float | None = measured(
        column=True,
        unit="images/s",
        gated="anywhere",
        compared="throughput",
        better="higher",
        interval="throughput_interval",
        samples="throughput_samples",
        least=0,
    )
    """Median over repeats after warm-up, at ``batch``."""
    throughput_interval: list[float] | None = measured(unit="images/s", shape="interval")
    """[low, high]: 95 % interval of the median, images/s."""
    throughput_repeats: int | None = measured(column=True)
    """Timed batches behind the median."""
    throughput_samples: list[float] | None = measured(unit="images/s")
    """Images/s of every repeat."""
    throughput_best_images_per_s: float | None = measured(
        column=True, unit="images/s", better="higher", least=0
    )
    """The best median over batch sizes, reached at ``throughput_best_batch``."""
    throughput_best_batch: int | None = measured(column=True)
    """Batch size of the best median."""
    throughput_by_batch: Numbers | None = measured(unit="images/s", shape="by batch")
    """Batch size (as text) -> median images/s."""
    peak_bytes_by_batch: Numbers | None = measured(unit="bytes", shape="by batch")
    """Batch size (as text) -> peak bytes over the loaded state."""
    latency_s: float | None = measured(
        column=True,
        unit="s",
        gated="anywhere",
        compared="latency",
        better="lower",
        interval="latency_interval_s",
        samples="latency_samples_s",
        least=0,
    )
    """Median seconds for one image, at batch 1 whatever the row's ``batch``."""
    latency_interval_s: list[float] | None = measured(unit="s", shape="interval")
    """[low, high]: 95 % interval of the median."""
    latency_samples_s: list[float] | None = measured(unit="s")
    """Seconds of every repeat; where a strategy decides its steps, each is of another image."""
    latency_percentiles_s: Numbers | None = measured(unit="s", since=2)
    """p50, p90, p95, p99 of the latency, each where the number of samples bounds it with 99 % confidence."""
    warmup_s: list[float] | None = measured(unit="s", since=2)
    """Seconds of every warm-up batch at ``batch``, in order; none of them is a repeat."""
    steady: bool | None = measured(since=2)
    """Whether warm-up ended because its last three batches agreed; else its budget was spent."""
    stopped_by: Literal["interval", "budget"] | None = measured(since=2)
    """Why no more repeats were made: the interval of the median was narrow enough, or the time was spent."""
    turns: Turns | None = measured(unit="s", since=2)
    """Seconds of batches timed in turn beside the reference cell's, by round; null without ``in_turn``."""
    compile_s: float | None = measured(unit="s", since=2, gated="anywhere")
    """Seconds spent compiling and recording graphs, outside of every other time of the row."""
    graphs: int | None = measured(since=2, counted=True)
    """Graphs compiled and passes recorded for the cell; 0 in eager mode."""
    graph_bytes: int | None = measured(since=8, unit="bytes", better="lower", least=0, absent=_NOT_RECORDED)
    """Device memory that recording took, beside the passes' own; in no other field of the row."""
    cache_parts: int | None = measured(since=8, absent=_NOT_RECORDED)
    """Parts in which recorded passes read a cache up to the filled one: a graph each, chosen by time."""
    energy_per_image_j: float | None = measured(unit="J", since=2, gated="on one device", better="lower")
    """Joules of the device for one image, where its counter is readable."""
    calibration_s: Numbers | None = measured(unit="s", since=2, gated="anywhere", least=0)
    """matmul, python: seconds of two fixed workloads beside the cell, to tell machine from code."""
    phases_s: Numbers | None = measured(unit="s", gated="anywhere", least=0)
    """plan, prefill, decode, detokenize, total: median seconds per batch, each measured on its own."""
    weight_bytes: int | None = measured(column=True, unit="bytes", counted=True, better="lower", least=0)
    """Of all networks, in the cell's dtype."""
    cache_bytes: int | None = measured(column=True, unit="bytes", counted=True, better="lower", least=0)
    """Key/value caches at ``batch``, both halves of guidance."""
    peak_bytes: int | None = measured(
        column=True, unit="bytes", gated="anywhere", compared="throughput", better="lower", least=0
    )
    """Peak bytes during decode over the loaded state, at ``batch``."""
    quality: dict[str, Metric] | None = measured()
    """Metric name with its N, e.g. "fd_fashion@1000" -> value and interval."""
    lossiness_bits: Lossiness | None = measured(
        unit="bits", since=2, gated="anywhere", compared="lossiness", better="lower"
    )
    """Bits per image that decoding in groups loses, judged by the network's one-at-a-time conditionals."""
    quality_replicates: dict[str, list[float]] | None = annotation(None, since=2)
    """Metric -> its values [G] with one group of images left out each: what paired differences need."""
    tokens_sha256: str | None = annotation(None, since=2)
    """Hash of the tokens of all images, [images, N] int64 little-endian in raster order."""
    reference: Reference | None = annotation(None)
    protocol: Protocol | None = annotation(None)
    clean_reference: Reference | None = annotation(None, since=4)
    clean_protocol: Protocol | None = annotation(None, since=4)
    """The same of clean-fid's own protocol, behind ``fid_clean@N`` alone."""
    environment: dict[str, Any] | None = annotation(None, kind="environment")
    """host_cpu, cores, gpu, torch, numpy, python, platform, git_commit, git_dirty, pardec."""
    wall_s: float | None = measured(column=True, unit="s")
    """Seconds the latest attempt took."""
    unmeasured: dict[str, str] = annotation(factory=dict)
    """Field -> why its number is null."""
    artifacts: dict[str, str] = annotation(factory=dict)
    """``trace``, ``samples``, ``lossiness``, ``acceptance``: npz files, relative to the folder of the rows;
    ``cost``, ``method``: JSON."""
    schema: int = annotation(factory=lambda: SCHEMA)

    def __post_init__(self) -> None:
        problem = _problem(dataclasses.asdict(self))
        if problem:
            raise ValueError(f"row of cell {self.cell!r}: {problem}")


FIELDS = declared(Row, Field)
"""Field of a row -> its declaration."""
SCHEMA: int = max(one.since for one in FIELDS.values())
"""The version this code writes: that of the newest field."""
MEASURED = tuple(name for name, one in FIELDS.items() if one.reasoned)
"""Fields that should hold numbers: a null among them, or inside them, needs a reason in ``unmeasured``."""

_HINTS = typing.get_type_hints(Row)


def may_be_null(name: str) -> bool:
    """Whether a field of a row may be null."""
    return fault(None, _HINTS[name]) is None


def reasons(values: Mapping[str, Any], reason: str) -> dict[str, str]:
    """The ``unmeasured`` of a row with these field values: ``reason`` wherever a number is null.

    Fields that are absent count as null; reasons already in ``values["unmeasured"]`` stay. Of an ok cell that
    decodes, a number that declares why it may be absent gets that reason.
    """
    found = dict.fromkeys(_nulls(values), reason)
    if values.get("status") == "ok" and values.get("tier") != "anchor":
        own = {name: one.absent for name, one in FIELDS.items() if isinstance(one, Measure) and one.absent}
        found |= {name: why for name, why in own.items() if name in found}
    return found | dict(values.get("unmeasured") or {})


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
    return upgraded(values, FIELDS, SCHEMA)


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
    wrong = wrong_setting(values["settings"])
    if wrong:
        return f"key 'settings.{wrong}"
    found = contradiction(values, FIELDS)
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
