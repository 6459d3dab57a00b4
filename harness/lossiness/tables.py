"""The lossiness tables: every strategy and order on enumerable worlds, and one trained network's orders."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from harness.lossiness.branches import CODES, Sampled
from harness.lossiness.conditionals import Undefined
from harness.lossiness.estimate import LostBits
from harness.lossiness.exact import Loss
from harness.lossiness.worlds import OWN, RULES, World, variants
from pardec.errors import UserError
from reports.inference import mean_contrast, mean_estimate
from reports.tables import DASH, printed_bits, with_interval
from strategies.decoding.base import Strategy
from strategies.decoding.guidance import Guidance
from strategies.decoding.speculation import Speculative

GROUPED = World((1, 3), 16)
"""Where a lossy speculative decoder shows what it loses."""
GROUPED_NETWORKS = 8
"""Of one network the one guess may have no group."""
ROUNDING_BITS = 1e-6
"""KL below which a strategy that claims to be lossless is taken to be so."""
ROUNDING = 1e-4
"""Total variation, likewise: single probabilities differ by float32's rounding of logits."""
MOST_COLUMNS = 12
"""Steps whose bits are told one by one."""
EXACT_HEADINGS = (
    "world",
    "strategy",
    "order",
    "groups",
    "guidance",
    "total variation",
    "KL(q || p) bits",
    "KL(p || q) bits",
    "correlation bits",
    "mismatch bits",
    "KL(q || p) by step",
    "claim",
)
ESTIMATE_HEADINGS = ("order", "groups", "bits lost per image", "against the first", "by step")


@dataclass(frozen=True)
class ExactLine:
    """One strategy, order and guidance in one world, over several random networks and orders."""

    world: World
    label: str
    order: str
    sizes: tuple[int, ...]
    guidance: float | None
    claims_lossless: bool
    losses: tuple[Loss, ...]
    why: str | None
    """Why there is no figure."""
    decides_steps: bool = False

    @property
    def holds(self) -> bool | None:
        """Whether what the strategy claims of itself is true here; what claims nothing breaks nothing.

        None for a claim where there is no figure.
        """
        if not self.claims_lossless:
            return True
        if self.why is not None:
            return None
        return all(
            abs(loss.kl_bits) <= ROUNDING_BITS and loss.total_variation <= ROUNDING for loss in self.losses
        )

    def cells(self) -> list[str]:
        guidance = DASH if self.guidance is None else f"{self.guidance:g}"
        sizes = "every branch" if self.decides_steps else printed_sizes(self.sizes) or DASH
        height, width = self.world.grid
        head = [f"{height}x{width}, {self.world.codes} codes", self.label, self.order, sizes, guidance]
        if self.why is not None:
            untested = "lossless: NOT TESTED, " if self.claims_lossless else ""
            return [*head, *[DASH] * 6, f"{untested}undefined: {self.why}"]
        claim = DASH
        if self.claims_lossless:
            claim = "lossless: holds" if self.holds else "lossless: BROKEN"
        return [
            *head,
            self._mean(lambda loss: loss.total_variation),
            self._mean(lambda loss: loss.kl_bits),
            self._mean(lambda loss: loss.reverse_kl_bits),
            self._mean(lambda loss: sum(step.correlation_bits for step in loss.steps)),
            self._mean(lambda loss: sum(step.mismatch_bits for step in loss.steps)),
            by_step(np.array([[step.kl_bits for step in loss.steps] for loss in self.losses])),
            claim,
        ]

    def _mean(self, read: Callable[[Loss], float]) -> str:
        return printed_bits(*mean_estimate([read(loss) for loss in self.losses]))


@dataclass(frozen=True)
class SampledLine:
    """One strategy whose steps depend on what it draws, in batches, with one random network."""

    world: World
    label: str
    guidance: float | None
    claims_lossless: bool
    found: Sampled

    @property
    def holds(self) -> bool:
        return not self.claims_lossless or self.found.as_expected

    def cells(self) -> list[str]:
        found, (height, width) = self.found, self.world.grid
        claim = DASH
        if self.claims_lossless:
            claim = "lossless: holds" if self.holds else "lossless: BROKEN"
        return [
            f"{height}x{width}, {self.world.codes} codes",
            self.label,
            OWN,
            f"{found.images} images in batches of {found.batch}",
            DASH if self.guidance is None else f"{self.guidance:g}",
            f"{found.total_variation:.3g} (chance {found.chance:.3g})",
            *[DASH] * 5,
            claim,
        ]


def exact_lines(
    worlds: Sequence[World],
    names: Sequence[str],
    orders: Sequence[str] | None,
    guidance: float,
    steps: int | None,
    networks: int,
) -> list[ExactLine | SampledLine]:
    """Every variant and order of the strategies in every world, without guidance and with it.

    orders: rules besides the strategies' own (None: all that a strategy can take). A strategy whose steps
    depend on what it draws is judged at batch 1 by its branches, in a world of few codes, and in batches by
    sampled images. One of more places than the grid has is judged in a world of fewer codes where it must be.
    """
    lines: list[ExactLine | SampledLine] = []
    for world in worlds:
        for name in names:
            for number, (label, strategy) in enumerate(variants(name)):
                if strategy.decides_steps:
                    lines += _deciding(world, label, strategy, (None, guidance), steps, networks)
                    continue
                small = world.small_enough(strategy)
                if small.leaves_open(strategy):
                    if number == 0:
                        lines.append(_line(small, label, strategy, OWN, None, steps, networks))
                    continue
                rules = [OWN]
                if strategy.any_order and number == 0:
                    rules += list(RULES) if orders is None else list(orders)
                lines += [
                    _line(small, label, strategy, rule, scale, steps, networks)
                    for rule in rules
                    for scale in (None, guidance)
                ]
    return lines


def require_figures(lines: Sequence[ExactLine | SampledLine]) -> None:
    """UserError where every line is undefined: nothing was compared, so nothing holds."""
    reasons = [line.why for line in lines if isinstance(line, ExactLine) and line.why is not None]
    if len(reasons) == len(lines):
        raise UserError(f"none of {len(lines)} lines has a figure; the first: {reasons[0]}")


def _deciding(
    world: World,
    label: str,
    strategy: Strategy,
    scales: Sequence[float | None],
    steps: int | None,
    networks: int,
) -> list[ExactLine | SampledLine]:
    small = replace(world, codes=min(world.codes, CODES))
    lines: list[ExactLine | SampledLine] = [
        _line(small, label, strategy, OWN, scale, steps, networks) for scale in scales
    ]
    if not strategy.lossless and isinstance(strategy, Speculative):
        # Groups of like codes need many of them, which few places and certain guesses make up for.
        certain = replace(strategy, init="repeat_horizon")  # type: ignore[call-arg]
        told = f"{label}, guesses repeated, first token given"
        lines += [
            _line(GROUPED, told, certain, OWN, scale, steps, max(networks, GROUPED_NETWORKS))
            for scale in scales
        ]
    if steps is None:
        lines += [
            SampledLine(
                world,
                label,
                scale,
                strategy.lossless,
                world.sampled(strategy, 0, None if scale is None else Guidance(scale)),
            )
            for scale in scales
        ]
    return lines


def _line(
    world: World,
    label: str,
    strategy: Strategy,
    rule: str,
    scale: float | None,
    steps: int | None,
    networks: int,
) -> ExactLine:
    guidance = None if scale is None else Guidance(scale)
    losses: list[Loss] = []
    sizes: tuple[int, ...] = ()
    why = None
    try:
        for seed in range(networks):
            plan, loss = world.loss(strategy, rule, seed, steps, guidance)
            losses.append(loss)
            sizes = () if plan.opened else tuple(at.stop - at.start for at in plan.groups())
    except (UserError, Undefined) as error:
        why = str(error)
    return ExactLine(
        world, label, rule, sizes, scale, strategy.lossless, tuple(losses), why, strategy.decides_steps
    )


def estimate_cells(order: str, found: LostBits, first: LostBits) -> list[str]:
    """A line of a trained network's table; the difference is paired over images."""
    against = DASH
    if found is not first and len(found.bits) > 1:
        contrast = mean_contrast(first.bits.sum(axis=1), found.bits.sum(axis=1))
        against = with_interval(contrast.value, contrast.low, contrast.high)
    return [order, printed_sizes(found.sizes), printed_bits(*found.total), against, by_step(found.bits)]


def printed_sizes(sizes: Sequence[int]) -> str:
    """Group sizes in order, a run of equal ones as "64 x 1" (64 groups of one)."""
    runs = [(size, len(list(run))) for size, run in groupby(sizes)]
    return " + ".join(str(size) if count == 1 else f"{count} x {size}" for size, count in runs)


def by_step(bits: np.ndarray) -> str:
    """Mean bits of every step with the half width of its 95 % interval, from samples [n, K]; of more than a
    dozen steps those of a dozen runs of steps, ``1-6: 0.31±0.02``."""
    steps = bits.shape[1]
    if steps <= MOST_COLUMNS:
        return " ".join(map(_short, bits.T))
    runs = np.array_split(np.arange(steps), MOST_COLUMNS)
    return " ".join(f"{_run(run)}: {_short(bits[:, run].sum(axis=1))}" for run in runs)


def _run(steps: np.ndarray) -> str:
    """Steps counted from one."""
    first, last = int(steps[0]) + 1, int(steps[-1]) + 1
    return str(first) if first == last else f"{first}-{last}"


def _short(samples: np.ndarray) -> str:
    value, low, _ = mean_estimate(samples)
    half = "" if low is None else f"±{value - low:.2f}"
    return f"{value:.2f}{half}".replace("-0.00", "0.00")
