"""How far a number moves between networks of one strategy that differ in the seed of their training alone.

Intervals of quality cover the draw of the images, with the network held fixed. Another training seed gives
another network, and what that changes is a noise of its own: no interval contains it, so its size stands
beside every difference. It is the largest difference seen between two seeds of one setting, in these results
or in the recorded ones (``results/baselines/training-seeds.jsonl``: `pardec sweep seeds`). With two seeds of
a few strategies it is an order of magnitude, and no interval is claimed for it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from itertools import combinations

from reports.comparability import Incomparable, quantity, require_comparable
from reports.measured import estimate_of, measured
from reports.naming import steps_text
from results.same_setting import joining, setting_key
from results.schema import Row, row_from_json

RECORDED = "baselines/training-seeds.jsonl"
_NOT_DRAWING = frozenset(joining()) - frozenset(joining(drawing=True))
"""Rows that tell of the training seed may differ in the network and in what changes only how fast it runs."""


@dataclass(frozen=True)
class SeedPair:
    """One setting decoded by two networks of different training seeds."""

    a: Row
    b: Row

    @property
    def name(self) -> str:
        """The setting."""
        return f"{self.a.strategy}, {steps_text(self.a)}"

    def moved(self, name: str) -> float | None:
        """|B - A| of a quantity, None where it is missing or must not be compared."""
        if measured(self.a, name) is None or measured(self.b, name) is None:
            return None
        try:
            require_comparable((self.a, self.b), _keys(name))
        except Incomparable:
            return None
        return abs(estimate_of(self.b, name)[0] - estimate_of(self.a, name)[0])


@dataclass(frozen=True)
class TrainingNoise:
    """The pairs of seeds that are known."""

    pairs: tuple[SeedPair, ...] = ()

    @classmethod
    def known(cls, rows: Iterable[Row]) -> "TrainingNoise":
        """From these rows and the recorded ones."""
        return cls(tuple(seed_pairs([*rows, *recorded()])))

    def moved(self, name: str, beside: Sequence[Row]) -> dict[str, float]:
        """Setting -> how far the quantity moved, of the pairs that may stand beside these rows."""
        found: dict[str, float] = {}
        for pair in self.pairs:
            change = pair.moved(name)
            try:
                require_comparable((pair.a, *beside), _keys(name))
            except Incomparable:
                continue
            if change is not None:
                found[pair.name] = max(change, found.get(pair.name, 0.0))
        return found

    def size(self, name: str, beside: Sequence[Row]) -> float | None:
        """The largest such move; None where none is known, and for times, which no training changes."""
        if quantity(name).kind == "speed and memory":
            return None
        return max(self.moved(name, beside).values(), default=None)


def seed_pairs(rows: Sequence[Row]) -> list[SeedPair]:
    """Every two rows of one setting whose networks learned from as many images, by another training seed."""
    settings: dict[str, list[Row]] = {}
    for row in rows:
        if row.status == "ok" and row.training_seed is not None:
            settings.setdefault(setting_key(row, but_for=_NOT_DRAWING), []).append(row)
    return [
        SeedPair(a, b)
        for several in settings.values()
        for a, b in combinations(several, 2)
        if a.training_seed != b.training_seed and a.training_images == b.training_images
    ]


@lru_cache(maxsize=1)
def recorded() -> tuple[Row, ...]:
    """The rows that come with pardec."""
    file = resources.files("results") / RECORDED
    if not file.is_file():
        return ()
    lines = file.read_text(encoding="utf-8").splitlines()
    return tuple(row_from_json(line, f"{RECORDED} line {number}") for number, line in enumerate(lines, 1))


def _keys(name: str) -> tuple[str, ...]:
    """What must match for a size to carry over: bits lost are judged by each network itself."""
    return tuple(key for key in quantity(name).keys if key != "judge")
