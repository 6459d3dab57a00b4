"""Iso-quality as a matrix: how many times faster the strategy of a line is than that of a column."""

import math
from dataclasses import dataclass

from reports.contests import Iso
from reports.inference import Contrast
from reports.isoquality import Advantage
from reports.tables import with_interval

_DARKEST = 3.0
"""Doublings at which the shade is full."""


@dataclass(frozen=True)
class Field:
    """One field: its text, its shade from -1 (slower) to 1 (faster), None where undefined, and its words."""

    text: str
    shade: float | None
    why: str
    certain: bool = False
    """Whether it is called a difference at the false discovery rate of all pairs."""


@dataclass(frozen=True)
class Matrix:
    """Square: ``fields[line][column]``, None on the diagonal; ``strategies`` lend their colours."""

    metric: str
    names: tuple[str, ...]
    strategies: tuple[str, ...]
    fields: tuple[tuple[Field | None, ...], ...]

    @property
    def defined(self) -> int:
        """Pairs with a figure."""
        return sum(one is not None and one.shade is not None for line in self.fields for one in line) // 2


def matrix(iso: Iso) -> Matrix:
    """Every pair both ways round."""
    curves = {one.label: one.strategy for pair in iso.pairs for one in (pair.a, pair.b)}
    found: dict[tuple[str, str], Field] = {}
    for pair, (shown, _) in zip(iso.pairs, iso.shown, strict=True):
        found[pair.b.label, pair.a.label] = _field(pair, pair.faster, shown, pair.b.label, pair.a.label)
        found[pair.a.label, pair.b.label] = _field(
            pair, _inverse(pair.faster), shown, pair.a.label, pair.b.label
        )
    names = tuple(curves)
    fields = tuple(tuple(found.get((line, column)) for column in names) for line in names)
    return Matrix(iso.metric, names, tuple(curves.values()), fields)


def _field(pair: Advantage, one: Contrast | None, shown: bool, line: str, column: str) -> Field:
    if one is None or pair.qualities is None:
        return Field("", None, f"{line} against {column}: undefined; {pair.why}{_sides(pair)}")
    interval = with_interval(one.value, one.low, one.high).replace("(n=1)", "(no interval)")
    verdict = "a difference" if shown else "no difference shown"
    over = " to ".join(f"{bound:.3g}" for bound in dict.fromkeys(pair.qualities))
    words = f"{line} takes {interval} times {column}'s speed at equal {pair.metric}, {over}: {verdict}."
    limits = [one for one in pair.why.split("; ") if one.startswith("no interval at equal quality")]
    shade = max(-1.0, min(1.0, math.log2(one.value) / _DARKEST))
    return Field(f"{one.value:.2f}", shade, " ".join([words, *limits]), shown)


def _sides(pair: Advantage) -> str:
    return f" (A: {pair.a.label}, B: {pair.b.label})"


def _inverse(one: Contrast | None) -> Contrast | None:
    if one is None:
        return None
    low, high = (None if bound is None else 1 / bound for bound in (one.high, one.low))
    return Contrast(1 / one.value, low, high, one.p)
