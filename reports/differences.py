"""What differs between two rows, with intervals; and which differences may be called so among all printed.

Shared random numbers pair the images of cells of one seed, so quality is compared by the jackknife of the
difference where the worker stored what that needs. Speed is compared as a ratio of the repeats.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from reports import inference
from reports.artifacts import Artifacts
from reports.comparability import Incomparable, quantity, require_comparable
from reports.inference import Contrast, Estimate
from reports.tables import DASH, with_interval
from results.schema import Row

Verdict = Literal["better", "worse", "no difference shown", "differs"]
"""``differs``: a counted quantity, exact in both."""
COUNTS = ("parameters", "forwards", "tokens_processed", "flops_per_image", "weight_bytes", "cache_bytes")
_TIMES = {
    "throughput_images_per_s": ("throughput_interval", "throughput_samples"),
    "latency_s": ("latency_interval_s", "latency_samples_s"),
    "peak_bytes": (None, None),
}
"""Field -> its interval and its repeats."""


@dataclass(frozen=True)
class Difference:
    """One quantity in A and B; ``low`` and ``high`` bound the difference B - A."""

    name: str
    a: str
    b: str
    change: float
    low: float | None
    high: float | None
    ratio: Contrast | None
    """B / A of speed and memory; without bounds for counts, which are exact."""
    p: float | None
    """Of "no difference"; None where nothing bounds it, or where it is exact."""
    paired: bool
    verdict: Verdict


@dataclass(frozen=True)
class Obstacle:
    """Quantities of a pair that can't be compared: ``keys`` differ, ``text`` says how."""

    what: str
    keys: tuple[str, ...]
    text: str


def differences(
    a: Row, b: Row, beside_a: Artifacts, beside_b: Artifacts
) -> tuple[list[Difference], list[Obstacle]]:
    """Every quantity measured in both rows, before verdicts, and what keeps the others from comparison."""
    found: list[Difference] = []
    refused: dict[str, Incomparable] = {}
    names = [name for name in a.quality or {} if name in (b.quality or {})]
    unshared = bool(a.quality and b.quality) and not names
    for name in [*names, *(list(a.quality or {})[:1] if unshared else []), "lossiness_bits", *_TIMES]:
        one = quantity(name)
        try:
            require_comparable((a, b), one.keys, one.kind)
        except Incomparable as error:
            if measured(a, name) is not None and (unshared or measured(b, name) is not None):
                refused[one.kind] = max(error, refused.get(one.kind, error), key=lambda e: len(e.keys))
            continue
        if measured(a, name) is not None and measured(b, name) is not None:
            found.append(_measured(name, a, b, beside_a, beside_b))
    for name in COUNTS:
        one_count, other_count = getattr(a, name), getattr(b, name)
        if one_count is not None and other_count is not None and one_count != other_count:
            found.append(_counted(name, one_count, other_count))
    return found, [Obstacle(kind, error.keys, str(error)) for kind, error in refused.items()]


def judged(found: Sequence[Difference]) -> list[Difference]:
    """The differences with their verdicts: better or worse where the false discovery rate over all holds."""
    shown = inference.discoveries([one.p for one in found])
    return [
        dataclasses.replace(one, verdict=_verdict(one)) if discovered else one
        for one, discovered in zip(found, shown, strict=True)
    ]


def tally(found: Sequence[Difference]) -> str:
    """How many comparisons the verdicts rest on, for the line under a table."""
    tested = [one for one in found if one.p is not None]
    called = sum(one.verdict in ("better", "worse") for one in found)
    rate = 100 * inference.FALSE_DISCOVERY_RATE
    return (
        f"{len(tested)} comparisons, {called} called better or worse; at most {rate:g} % of those are "
        "expected to be false (Benjamini-Hochberg). Intervals are 95 % each, taken alone."
    )


def cells_of(one: Difference) -> list[str]:
    """A, B, B - A, B / A as a table prints them."""
    if one.verdict == "differs":
        ratio = DASH if one.ratio is None else f"{one.ratio.value:.3f}"
        return [one.a, one.b, f"{one.change:+,.0f}", ratio]
    ratio = DASH if one.ratio is None else with_interval(one.ratio.value, one.ratio.low, one.ratio.high)
    return [one.a, one.b, with_interval(one.change, one.low, one.high), ratio]


def replicates_of(row: Row, metric: str) -> np.ndarray | None:
    """A quality metric with one group of images left out at a time [G]; None where the row has none."""
    found = (row.quality_replicates or {}).get(metric)
    return None if found is None else np.array(found)


def estimate_of(row: Row, name: str) -> Estimate:
    """(value, low, high) of a measured quantity of the row; ValueError where it has none."""
    value = measured(row, name)
    if value is None:
        raise ValueError(f"row of cell '{row.cell}' has no {name}")
    if name in _TIMES:
        field = _TIMES[name][0]
        low, high = (getattr(row, field) if field else None) or (None, None)
        return value, low, high
    entry = row.lossiness_bits if name == "lossiness_bits" else (row.quality or {})[name]
    assert entry is not None
    return value, entry["low"], entry["high"]


def measured(row: Row, name: str) -> float | None:
    """The value of a quantity of the row, None where it was not measured."""
    if name in _TIMES:
        found: float | None = getattr(row, name)
        return found
    entry = row.lossiness_bits if name == "lossiness_bits" else (row.quality or {}).get(name)
    return entry["value"] if entry else None


def _measured(name: str, a: Row, b: Row, beside_a: Artifacts, beside_b: Artifacts) -> Difference:
    one, two = estimate_of(a, name), estimate_of(b, name)
    if name in _TIMES:
        plain = inference.independent_contrast(one, two)
        ratio = _ratio(name, a, b, one, two)
        return _difference(name, one, two, plain, ratio)
    return _difference(name, one, two, _contrast(name, a, b, beside_a, beside_b), None)


def _contrast(name: str, a: Row, b: Row, beside_a: Artifacts, beside_b: Artifacts) -> Contrast:
    one, two = estimate_of(a, name), estimate_of(b, name)
    same_noise = a.seed == b.seed and a.tier != "anchor" and b.tier != "anchor"
    if name == "lossiness_bits":
        bits_a, bits_b = beside_a.lossiness_bits, beside_b.lossiness_bits
        if same_noise and bits_a is not None and bits_b is not None and len(bits_a) == len(bits_b) > 1:
            return inference.mean_contrast(bits_a.sum(axis=1), bits_b.sum(axis=1))
        return inference.independent_contrast(one, two)
    without_a, without_b = replicates_of(a, name), replicates_of(b, name)
    if same_noise and without_a is not None and without_b is not None and len(without_a) == len(without_b):
        return inference.jackknife_contrast(one[0], two[0], without_a, without_b)
    return inference.independent_contrast(one, two)


def _ratio(name: str, a: Row, b: Row, one: Estimate, two: Estimate) -> Contrast:
    samples = _TIMES[name][1]
    repeats = [getattr(row, samples) or [] for row in (a, b)] if samples else [[], []]
    if all(len(sample) > 1 and min(sample) > 0 for sample in repeats):
        return inference.repeats_ratio(repeats[0], repeats[1])
    return inference.independent_ratio(one, two)


def _difference(name: str, a: Estimate, b: Estimate, plain: Contrast, ratio: Contrast | None) -> Difference:
    return Difference(
        name=name,
        a=with_interval(*a),
        b=with_interval(*b),
        change=plain.value,
        low=plain.low,
        high=plain.high,
        ratio=ratio,
        p=plain.p if ratio is None else ratio.p,
        paired=plain.paired,
        verdict="no difference shown",
    )


def _counted(name: str, a: float, b: float) -> Difference:
    ratio = Contrast(b / a, None, None, None) if a else None
    return Difference(name, f"{a:,.0f}", f"{b:,.0f}", b - a, None, None, ratio, None, False, "differs")


def _verdict(one: Difference) -> Verdict:
    falls = one.change < 0 if one.ratio is None else one.ratio.value < 1
    return "better" if falls == quantity(one.name).lower_is_better else "worse"
