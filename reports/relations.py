"""What each strategy's paper claims against its own baseline (``results/relations.toml``), and whose rows."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

from reports import style
from results.same_setting import value_of
from results.schema import Row

EQUAL = 0.1
"""Share of the baseline's distance by which "equal" may be worse: evaluators of one published network differ
by 7 to 15 % (VAR-d16 to d24 in ``results/published.csv``)."""
FILE = "relations.toml"


@dataclass(frozen=True)
class Side:
    """Which rows are meant; ``steps`` None where content decides, ``settings``: the options they may have."""

    strategy: str
    steps: int | None = None
    settings: tuple[Mapping[str, Any], ...] = ({},)

    def rows(self, rows: Iterable[Row]) -> list[Row]:
        """Those of the side, of the networks of the first training seed and the most images."""
        found = [
            row
            for row in rows
            if (row.strategy, row.status, row.tier) == (self.strategy, "ok", "controlled")
            and row.acceptance is None
            and dict(row.options) in self.settings
            and (self.steps is None or value_of(row, "steps") == self.steps)
        ]
        best = min(map(_training, found), default=None)
        return [row for row in found if _training(row) == best]

    @property
    def words(self) -> str:
        told = ", ".join(f"{name} {value}" for name, value in self.settings[-1].items())
        steps = "" if self.steps is None else f", {self.steps} steps"
        return style.title(self.strategy) + (f" ({told})" if told else "") + steps


def _training(row: Row) -> tuple[int, int]:
    return row.training_seed or 0, -(row.training_images or 0)


@dataclass(frozen=True)
class Relation:
    """One claim; ratios as printed, empty where none is claimed. ``worse_by``: a share of the baseline's."""

    own: Side
    baseline: Side
    quality: Literal["better", "equal", "worse"]
    claim: str
    source: str
    worse_by: float = 0.0
    lossless: bool = False
    """Whether both sides draw from one distribution by their rules, which no sample can show as sharply."""
    beyond_reconstruction: bool = False
    """Whether the two decode codes of different tokenizers, and what each adds to its anchor counts."""
    fewer_steps: str = ""
    faster: str = ""
    on: str = ""

    @property
    def limit(self) -> float:
        """By which share of the baseline's distance the strategy may be worse."""
        return {"better": 0.0, "equal": EQUAL, "worse": self.worse_by}[self.quality]


@lru_cache(maxsize=1)
def relations() -> tuple[Relation, ...]:
    """The claims of ``results/relations.toml``."""
    content = tomllib.loads((resources.files("results") / FILE).read_text(encoding="utf-8"))
    found = []
    for table in content["relation"]:
        own = _side({name: table.pop(name) for name in ("strategy", "steps", "settings") if name in table})
        found.append(Relation(own, _side(table.pop("baseline")), **table))
    return tuple(found)


def _side(values: Mapping[str, Any]) -> Side:
    return Side(values["strategy"], values.get("steps"), tuple(values.get("settings", ({},))))


def steps_of(strategy: str) -> int | None:
    """The paper's steps on 16x16 tokens, as the claims have them; None where no claim does."""
    sides = [side for one in relations() for side in (one.own, one.baseline) if side.strategy == strategy]
    return next((side.steps for side in sides if side.steps is not None), None)
