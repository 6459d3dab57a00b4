"""Each strategy's relation to its paper: what it claims against its own baseline, and what our rows measure.

Rows are of the controlled tier, at the paper's steps. Quality is the difference of the first distance with
its 95 % interval, paired where the rows allow it, widened on both sides by how far another training seed
moves it where the two decode different networks. Of networks on different tokenizers it is that of their
distances beyond their tokenizers' reconstructions. Speed is that of rows of the same settings that were
timed in turn, else of the same rows. Each relation is judged alone, and its limit stood before any row was
measured.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from reports import beyond_reconstruction, style
from reports.artifacts import Artifacts
from reports.beyond_reconstruction import OF_THE_TOKENIZER
from reports.claims import rounding
from reports.comparability import SPEED_KEYS, Incomparable, quantity, require_comparable, row_keys
from reports.differences import Difference, differences, rounds_of
from reports.frame import metrics
from reports.measured import THROUGHPUT, best_of, estimate_of
from reports.relations import Relation, relations
from reports.training_noise import TrainingNoise
from results.same_setting import setting_key
from results.schema import Row

Verdict = Literal["holds", "does not hold", "cannot be said"]
VERDICTS: tuple[Verdict, ...] = ("holds", "does not hold", "cannot be said")
_NONE = Artifacts()


@dataclass(frozen=True)
class Held:
    """A claim against rows: what was measured, the verdict and its reasons."""

    relation: Relation
    verdict: Verdict
    why: tuple[str, ...]
    own: Row | None = None
    baseline: Row | None = None
    fewer_steps: float | None = None
    quality: Difference | None = None
    """Of the strategy less the baseline."""
    speed: Difference | None = None


def held(rows: Sequence[Row], noise: TrainingNoise) -> list[Held]:
    """Every claim against the rows, in the order of the strategies; none without a row of the tier."""
    if not any(row.tier == "controlled" for row in rows):
        return []
    found = [_held(one, rows, noise) for one in relations()]
    return sorted(found, key=lambda one: style.rank(one.relation.own.strategy))


def _held(relation: Relation, rows: Sequence[Row], noise: TrainingNoise) -> Held:
    own, baseline = relation.own.rows(rows), relation.baseline.rows(rows)
    missing = [
        side.words for side, found in ((relation.own, own), (relation.baseline, baseline)) if not found
    ]
    if missing:
        return Held(relation, "cannot be said", tuple(f"no row of {side}" for side in missing))
    pair = _pair(own, baseline, relation.beyond_reconstruction)
    if isinstance(pair, str):
        return Held(relation, "cannot be said", (pair,))
    measured = _Measured(relation, *pair, _timed_pairs(pair[:2], own, baseline))
    measured.judge(noise, rows)
    return measured.held()


def _pair(own: Sequence[Row], baseline: Sequence[Row], two_tokenizers: bool) -> tuple[Row, Row, str] | str:
    """The rows to compare and their metric: of all guidance scales each side's best, of one machine and noise
    where there is such a pair; else why there is none."""
    metric = _shared_metric(own, baseline)
    if metric is None:
        return "no quality metric in common"
    scored = [[row for row in rows if (row.quality or {}).get(metric)] for rows in (own, baseline)]
    keys = tuple(key for key in quantity(metric).keys if not (two_tokenizers and key in OF_THE_TOKENIZER))
    for wanted in ((*keys, *SPEED_KEYS), keys):
        groups: dict[tuple[Any, ...], tuple[list[Row], list[Row]]] = {}
        for side, rows in enumerate(scored):
            for row in rows:
                known = row_keys(row)
                noise = row.seed if wanted != keys else None
                key = (noise, *(known[name] for name in wanted))
                groups.setdefault(key, ([], []))[side].append(row)
        whole = [group for group in groups.values() if all(group)]
        if whole:
            ours, theirs = max(whole, key=lambda group: group[0][0].images or 0)
            return best_of(ours, metric), best_of(theirs, metric), metric
    try:
        require_comparable((scored[0][0], scored[1][0]), keys)
    except Incomparable as error:
        return str(error)
    return "no two rows of the two can be compared"


def _shared_metric(own: Sequence[Row], baseline: Sequence[Row]) -> str | None:
    """The first kind of metric that both have, at the most images that both have it."""
    shared = [name for name in metrics(own) if name in metrics(baseline)]
    alike = [name for name in shared if name.partition("@")[0] == shared[0].partition("@")[0]]
    return max(alike, key=lambda name: int(name.partition("@")[2]), default=None)


def _timed_pairs(pair: tuple[Row, Row], own: Sequence[Row], baseline: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Pairs of the same settings, seed and batch aside, since images that quality is judged by need not be
    those that were timed: what was timed in turn first, then the pair itself."""

    def alike(row: Row, others: Sequence[Row]) -> list[Row]:
        key = setting_key(row, ("batch", "seed"))
        return [other for other in others if setting_key(other, ("batch", "seed")) == key]

    found = [pair, *itertools.product(alike(pair[0], own), alike(pair[1], baseline))]
    return sorted(found, key=lambda two: rounds_of(*two) is None)


def _speed(pairs: Iterable[tuple[Row, Row]], noise: TrainingNoise) -> Difference | None:
    """Of the first pair that was timed alike."""
    for own, baseline in pairs:
        found, _ = differences(baseline, own, _NONE, _NONE, noise)
        speed = next((one for one in found if one.name == THROUGHPUT), None)
        if speed is not None:
            return speed
    return None


@dataclass
class _Measured:
    """A pair of rows on its way to a verdict."""

    relation: Relation
    own: Row
    baseline: Row
    metric: str
    timed: Sequence[tuple[Row, Row]]
    failed: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    fewer_steps: float | None = None
    quality: Difference | None = None
    speed: Difference | None = None

    def judge(self, noise: TrainingNoise, rows: Sequence[Row]) -> None:
        """rows: all that there are, anchors among them."""
        found, _ = differences(self.baseline, self.own, _NONE, _NONE, noise)
        named = {one.name: one for one in found}
        self.quality, self.speed = named.get(self.metric), _speed(self.timed, noise)
        if self.relation.beyond_reconstruction:
            self._compare_beyond(rows, noise)
        if self.own.steps and self.baseline.steps:
            self.fewer_steps = self.baseline.steps / self.own.steps
        if self.relation.fewer_steps:
            self._judge_steps()
        elif self.relation.faster:
            self._judge_speed()
        self._judge_quality()

    def _compare_beyond(self, rows: Sequence[Row], noise: TrainingNoise) -> None:
        found = beyond_reconstruction.difference(self.baseline, self.own, self.metric, rows, noise)
        if isinstance(found, str):
            self.quality = None
            self.unknown.append(found)
        else:
            self.quality = found
            self.remarks.append("each beyond its tokenizer's reconstructions")

    def _judge_steps(self) -> None:
        claimed = self.relation.fewer_steps
        if self.fewer_steps is None:
            self.unknown.append("steps were not counted")
        elif self.fewer_steps < float(claimed) - rounding(claimed) - 1e-9:
            self.failed.append(f"{self.fewer_steps:.3g} times fewer steps, claimed {claimed}")

    def _judge_speed(self) -> None:
        """Where no steps are saved, speed is the claim, and counts on the paper's own device alone."""
        claimed, on = self.relation.faster, self.relation.on
        device = "cpu" if self.own.device == "cpu" else str((self.own.environment or {}).get("gpu"))
        if not on or on not in device:
            self.unknown.append(f"its speed is claimed on {on or 'other devices'}, measured on {device}")
            return
        ratio = None if self.speed is None else self.speed.ratio
        if ratio is None or ratio.low is None or ratio.high is None:
            self.unknown.append("its speed has no interval")
            return
        least = float(claimed) - rounding(claimed)
        if ratio.high < least:
            self.failed.append(f"{ratio.value:.3g} times as fast, claimed {claimed}")
        elif ratio.low < least:
            self.unknown.append(f"the interval of its speed reaches below {claimed}")

    def _judge_quality(self) -> None:
        change = self.quality
        if change is None or change.low is None or change.high is None:
            self.unknown.append("quality has no interval")
            return
        same = self.own.checkpoint is not None and self.own.checkpoint == self.baseline.checkpoint
        if not same and change.training is None:
            self.unknown.append("how far another training seed moves quality is not known")
            return
        sign = 1.0 if quantity(self.metric).lower_is_better else -1.0
        around = 0.0 if same else change.training or 0.0
        whole = abs(estimate_of(self.baseline, self.metric)[0])
        if not whole:
            self.unknown.append(f"the baseline's {self.metric} is 0, of which nothing is a share")
            return
        low, high = sorted((sign * change.low, sign * change.high))
        low, high = (low - around) / whole, (high + around) / whole
        limit = self.relation.limit
        span = f"{100 * low:+.0f} to {100 * high:+.0f} % of the baseline's {self.metric}"
        allowed = f"allowed {100 * limit:+.0f} %" if limit else "it has to be better"
        if low > limit or (limit == 0.0 and low == 0.0):
            self.failed.append(f"{span}, {allowed}")
        elif self.relation.lossless and self._draws_alike():
            self.remarks.append(f"lossless, to which exact checks hold it; {span}")
        elif high > limit or (limit == 0.0 and high == 0.0):
            self.unknown.append(f"{span}, {allowed}")
        else:
            self.remarks.append(f"{span}, {allowed}")

    def _draws_alike(self) -> bool:
        """Whether both decode one network at the same settings, those of the strategies aside."""
        aside = ("strategy", "options", "steps", "network")
        return self.own.checkpoint == self.baseline.checkpoint is not None and (
            setting_key(self.own, aside) == setting_key(self.baseline, aside)
        )

    def held(self) -> Held:
        verdict: Verdict = "holds"
        if self.failed or self.unknown:
            verdict = "does not hold" if self.failed else "cannot be said"
        images = self.own.training_images, self.baseline.training_images
        if images[0] != images[1]:
            self.remarks.append(f"networks of {_images(images[0])} and {_images(images[1])}")
        return Held(
            self.relation,
            verdict,
            (*self.failed, *self.unknown, *self.remarks),
            self.own,
            self.baseline,
            self.fewer_steps,
            self.quality,
            self.speed,
        )


def _images(count: int | None) -> str:
    return "unknown training" if count is None else f"{count:,} training images"


def counts(found: Iterable[Held]) -> dict[Verdict, int]:
    """Relations of every verdict."""
    verdicts = [one.verdict for one in found]
    return {verdict: verdicts.count(verdict) for verdict in VERDICTS}
