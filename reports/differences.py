"""What differs between two rows, with intervals; and which differences may be called so among all printed.

Shared random numbers pair the images of cells of one seed, so quality is compared by the jackknife of the
difference where the worker stored what that needs. Speed is compared as a ratio of the repeats, or of the
rounds in which both cells were timed in turn, where there are such.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reports import inference
from reports.artifacts import Artifacts
from reports.comparability import Incomparable, quantity, require_comparable
from reports.inference import Contrast, Estimate
from reports.measured import (
    THROUGHPUT,
    TIMES,
    counts_of,
    estimate_of,
    follows_tokens,
    measured,
    replicates_of,
)
from reports.naming import counted_text
from reports.tables import DASH, with_interval
from reports.training_noise import TrainingNoise
from results.schema import Row

Verdict = Literal["better", "worse", "no difference shown", "differs"]
"""``differs``: a counted quantity, exact in both."""
ONE_NETWORK = "one network"
"""Beside a difference that no training seed comes into."""


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
    training: float | None = None
    """How far another training seed moves the quantity (``TrainingNoise``); None where that is not known."""
    one_network: bool = False
    """Whether both rows decode the same weights, so that no training seed comes into it."""

    @property
    def training_text(self) -> str:
        """As a table prints it beside the difference."""
        if self.one_network:
            return ONE_NETWORK
        return DASH if self.training is None else f"± {self.training:.3g}"

    @property
    def _bounded(self) -> bool:
        low = self.low if self.ratio is None else self.ratio.low
        return low is not None

    @property
    def words(self) -> str:
        """The verdict, and what limits it; of what nothing bounds there is none."""
        if self.verdict == "no difference shown" and not self._bounded:
            return "no verdict without an interval"
        within = self.training is not None and not self.one_network and abs(self.change) <= self.training
        limits = [
            name for name, holds in (("paired", self.paired), ("within training noise", within)) if holds
        ]
        return f"{self.verdict} ({', '.join(limits)})" if limits else self.verdict


@dataclass(frozen=True)
class Obstacle:
    """Quantities of a pair that can't be compared: ``keys`` differ, ``text`` says how."""

    what: str
    keys: tuple[str, ...]
    text: str


def differences(
    a: Row, b: Row, beside_a: Artifacts, beside_b: Artifacts, noise: TrainingNoise
) -> tuple[list[Difference], list[Obstacle]]:
    """Every quantity measured in both rows, before verdicts, and what keeps the others from comparison."""
    same = a.checkpoint is not None and a.checkpoint == b.checkpoint
    found: list[Difference] = []
    refused: dict[str, Incomparable] = {}
    names = [name for name in a.quality or {} if name in (b.quality or {})]
    unshared = bool(a.quality and b.quality) and not names
    for name in [*names, *(list(a.quality or {})[:1] if unshared else []), "lossiness_bits", *TIMES]:
        one = quantity(name)
        try:
            require_comparable((a, b), one.keys, one.kind)
        except Incomparable as error:
            if measured(a, name) is not None and (unshared or measured(b, name) is not None):
                refused[one.kind] = max(error, refused.get(one.kind, error), key=lambda e: len(e.keys))
            continue
        if measured(a, name) is not None and measured(b, name) is not None:
            size = noise.size(name, (a, b))
            plain = _measured(name, a, b, beside_a, beside_b)
            found.append(dataclasses.replace(plain, training=size, one_network=same and size is not None))
    counts, untold = _count_differences(a, b)
    obstacles = [Obstacle(kind, error.keys, str(error)) for kind, error in refused.items()]
    return found + counts, obstacles + untold


def _count_differences(a: Row, b: Row) -> tuple[list[Difference], list[Obstacle]]:
    """Counts that differ; those that rest on a declared acceptance are no finding and never compared."""
    found, declared = [], []
    counts = counts_of(b)
    for name, one in counts_of(a).items():
        other = counts.get(name)
        if one is None or other is None or one == other:
            continue
        if follows_tokens(name) and not (a.acceptance is None and b.acceptance is None):
            declared.append(name)
        else:
            found.append(_counted(name, one, other))
    text = f"{', '.join(declared)}: not compared, they follow from a declared acceptance"
    return found, [Obstacle("counts", ("acceptance",), text)] if declared else []


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
        return [one.a, one.b, counted_text(one.change, "+"), ratio]
    ratio = DASH if one.ratio is None else with_interval(one.ratio.value, one.ratio.low, one.ratio.high)
    return [one.a, one.b, with_interval(one.change, one.low, one.high), ratio]


def _measured(name: str, a: Row, b: Row, beside_a: Artifacts, beside_b: Artifacts) -> Difference:
    one, two = estimate_of(a, name), estimate_of(b, name)
    if name in TIMES:
        plain = inference.independent_contrast(one, two)
        ratio = _ratio(name, a, b, one, two)
        return difference_of(name, one, two, plain, ratio)
    return difference_of(name, one, two, _contrast(name, a, b, beside_a, beside_b), None)


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
    rounds = rounds_of(a, b) if name == THROUGHPUT else None
    if rounds is not None:
        seconds_a, seconds_b = rounds
        return inference.rounds_ratio(seconds_b, seconds_a)  # of images a second, not of seconds
    samples = TIMES[name][1]
    repeats = [getattr(row, samples) or [] for row in (a, b)] if samples else [[], []]
    if all(len(sample) > 1 and min(sample) > 0 for sample in repeats):
        return inference.repeats_ratio(repeats[0], repeats[1])
    return inference.independent_ratio(one, two)


def rounds_of(a: Row, b: Row) -> tuple[list[float], list[float]] | None:
    """Seconds of both in the rounds in which they were timed in turn; None where there are none."""
    if a.turns is None or b.turns is None:
        return None
    if any(a.turns[key] != b.turns[key] for key in ("reference", "batch", "reference_seconds")):
        return None
    return a.turns["seconds"], b.turns["seconds"]


def difference_of(name: str, a: Estimate, b: Estimate, plain: Contrast, ratio: Contrast | None) -> Difference:
    """Two estimates with ``plain``, B - A, and ``ratio``, B / A, where that counts; before verdicts."""
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
    return Difference(
        name, counted_text(a), counted_text(b), b - a, None, None, ratio, None, False, "differs"
    )


def _verdict(one: Difference) -> Verdict:
    falls = one.change < 0 if one.ratio is None else one.ratio.value < 1
    return "better" if falls == quantity(one.name).lower_is_better else "worse"
