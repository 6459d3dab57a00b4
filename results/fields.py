"""One declaration per field of a cell or a row: all that the rest of the suite has to know of it.

A declaration stands in the metadata of its dataclass field, beside name, type and default. Key, rules, rows,
upgrades, comparison, gate, labels and tables read it here, so a new setting or number is declared once.
"""

import dataclasses
from dataclasses import MISSING, dataclass, field
from typing import Any, Literal, TypeVar

from results.rules import Rule

_METADATA = "declared"
Applies = Literal["always", "decoding", "guidance", "power-cosine", "random weights"]
"""Where a setting can matter: for every cell, where something is decoded, with guidance, by that schedule,
without trained weights."""


@dataclass(frozen=True)
class Field:
    """Of any field; by itself an annotation or a part of the environment, which nothing compares."""

    kind: Literal["setting", "measured", "environment", "annotation"] = "annotation"
    unit: str = ""
    since: int = 1
    """The schema of rows that has it first."""
    before: Any = None
    """Its value in rows of older schemas."""
    column: bool = False
    """Whether it is a column of the CSV under its own name."""
    reasoned: bool = False
    """Whether ``unmeasured`` has to say why it is null."""
    least: float | None = None
    """What a plausible value isn't below."""


@dataclass(frozen=True)
class Setting(Field):
    """Of a setting of a cell."""

    kind: Literal["setting"] = "setting"
    rule: Rule | None = None
    """What a sweep file may set it to; None where it may not."""
    in_key: bool = True
    """Whether the result depends on it."""
    late: bool = False
    """Whether it came after results were recorded: the key leaves it out at its default."""
    applies: Applies = "always"
    joins: bool = False
    """Whether rows that differ in it are of different settings; else every quantity says what must match."""
    draws: bool = False
    """Whether it decides which tokens are drawn."""
    shared: Literal["", "machine", "network"] = ""
    """Cells timed in turn by one process have it in common: all of them, or those of one network."""
    pin: str = ""
    """Role of the hash of the file that it names."""
    scores: bool = False
    """Whether it only judges images."""
    caveat: bool = False
    """Whether every label states it where it is set, and not only where others differ."""
    label: str = ""
    """How a label shows a value that is no switch, e.g. ``{} steps``; empty for name and value."""

    def shown(self, name: str, value: Any) -> str:
        """The value as a label shows it: "guidance 2", "no guidance", "compile on"."""
        name = name.replace("_", "-")
        if value is None:
            return f"no {name}"
        if isinstance(value, bool):
            return f"{name} {'on' if value else 'off'}"
        if isinstance(value, dict):
            return ", ".join(f"{key} {one}" for key, one in sorted(value.items())) or f"default {name}"
        text = f"{value:g}" if isinstance(value, float) else str(value)
        return self.label.format(text) if self.label else f"{name} {text}"


@dataclass(frozen=True)
class Measure(Field):
    """Of a measured or counted number. Where it is null, ``unmeasured`` says why."""

    kind: Literal["measured"] = "measured"
    reasoned: bool = True
    counted: bool = False
    """Whether it is exact, so that any change fails the gate."""
    drawn: bool = False
    """Whether it depends on the tokens where a strategy decides while decoding."""
    gated: Literal["", "anywhere", "on one device"] = ""
    """Where its absence fails the gate if the baseline has it; some counters only some devices have."""
    compared: Literal["", "throughput", "latency", "lossiness"] = ""
    """The keys that have to be equal where it is compared (``reports.comparability``); counts need none."""
    better: Literal["", "lower", "higher"] = ""
    interval: str = ""
    """The field with its 95 % interval."""
    samples: str = ""
    """The field with its repeats."""
    shape: Literal["", "interval", "by batch"] = ""
    absent: str = ""
    """Why it is null where nothing else says so."""


F = TypeVar("F", bound=Field)


def setting(default: Any = MISSING, *, factory: Any = MISSING, **known: Any) -> Any:
    """A field that declares a ``Setting``; rows that don't tell it had the default, unless ``before`` says
    otherwise."""
    if "before" not in known and default is not MISSING:
        known["before"] = default
    return _field(Setting(**known), default, factory)


def of_cell(default: Any = MISSING, *, factory: Any = MISSING, **known: Any) -> Any:
    """A field of a row that repeats the cell's setting of that name, which declares everything else."""
    return _field(Field("setting", **{"column": True, **known}), default, factory)


def measured(default: Any = None, **known: Any) -> Any:
    """A field that declares a ``Measure``."""
    return _field(Measure(**known), default)


def annotation(default: Any = MISSING, *, factory: Any = MISSING, **known: Any) -> Any:
    """A field that declares what is no setting and no measured number."""
    return _field(Field(**known), default, factory)


def _field(known: Field, default: Any, factory: Any = MISSING) -> Any:
    return field(default=default, default_factory=factory, metadata={_METADATA: known})


def declared(of: type, kind: type[F]) -> dict[str, F]:
    """The declarations of one kind of a dataclass, by field; TypeError for a field without any."""
    found = {}
    for one in dataclasses.fields(of):
        if _METADATA not in one.metadata:
            raise TypeError(f"field '{one.name}' of {of.__name__} declares nothing: see results.fields")
        if isinstance(one.metadata[_METADATA], kind):
            found[one.name] = one.metadata[_METADATA]
    return found
