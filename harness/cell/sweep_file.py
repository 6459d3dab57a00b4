"""Sweep files: TOML in, cells out. Every mistake is one line that names file, key, value and expectation."""

import dataclasses
import itertools
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cell.cell import ANCHORS, RULES, Cell, cell_of_settings, checked, default_values, normalised
from harness.cell.inline import alternatives, inline_cell, pieces
from pardec.errors import UserError, nearest, unknown
from pardec.files import path_of, read_text
from results.rules import TUNED, Rule
from strategies.decoding import registry

SHIPPED = Path(__file__).parent / "sweeps"
_SECTIONS = ("sweep", "defaults", "grid", "include", "exclude")
ONE_CELL = "cells"
"""Name, and so the folder, of the sweep of a cell that was typed."""
IN_TURN = ("network", "all", "none")
ROUNDS = 6
"""From six rounds the range of the samples covers the median at 95 %."""


MOST_CELLS = 100_000
"""A grid is a product, so a few long lists make more cells than any machine runs."""


def _names_folder(value: Any) -> bool:
    # Results go into a folder of this name, which has to stay below that of all results.
    return isinstance(value, str) and re.fullmatch(r"\w[\w .,+=@-]{0,99}", value) is not None


_HEAD = {
    "name": Rule(
        "a folder's name: at most 100 letters, digits, spaces and . , + = @ _ -, first a letter or digit",
        _names_folder,
    ),
    "title": Rule(
        "printable text", lambda value: isinstance(value, str) and value != "" and value.isprintable()
    ),
    "in_turn": Rule(f"one of {', '.join(IN_TURN)}", lambda value: value in IN_TURN),
    "rounds": Rule(
        "a whole number from 2 to 10000", lambda value: type(value) is int and 2 <= value <= 10_000
    ),
    "processes": Rule("a whole number from 1 to 100", lambda value: type(value) is int and 1 <= value <= 100),
}


@dataclass(frozen=True)
class Sweep:
    """Cells in the order in which they run."""

    name: str
    title: str
    cells: tuple[Cell, ...]
    in_turn: str = "network"
    """Which cells are timed in turn by one process: those that share a network, all, or none."""
    rounds: int = ROUNDS
    """The least number of rounds in turn, in each process."""
    processes: int = 1
    """How many time cells in turn, one after the other: a process keeps what its memory's layout costs, up to
    a few per cent of its times."""


def shipped() -> list[str]:
    """Names of the sweeps that come with the suite."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def find(file_or_name: str) -> Path:
    """The sweep file of a path or of a shipped name."""
    if file_or_name in shipped():
        return SHIPPED / f"{file_or_name}.toml"
    path = path_of(file_or_name)
    if path.is_file():
        return path
    if path.suffix == ".toml" or len(path.parts) > 1:
        raise UserError(f"sweep file '{file_or_name}' does not exist")
    raise unknown("sweep", file_or_name, shipped())


def named(text: str) -> str:
    """A sweep as messages name it."""
    return f"sweep '{text}'" if is_one_cell(text) else f"sweep file '{find(text)}'"


def is_one_cell(text: str) -> bool:
    """Whether a sweep is given as the settings of its one cell, ``strategy=lpd,steps=10``."""
    return "=" in text and not text.endswith(".toml") and not path_of(text).is_file()


def title_of(path: Path) -> str:
    """The title of a sweep file, for lists."""
    return _read(path).get("sweep", {}).get("title", path.stem)


def load(file_or_name: str, overrides: Mapping[str, Any] | None = None, also: Sequence[str] = ()) -> Sweep:
    """The sweep of a file, or of one cell; ``overrides`` (already checked values) replace what it says.

    also: more cells, as one types them, at the settings that the file gives to all of its own.
    """
    if is_one_cell(file_or_name):
        if also:
            raise UserError(
                f"--also '{also[0]}': sweep '{file_or_name}' is one cell; expected a file or name"
            )
        cell = inline_cell(file_or_name, overrides or {}, ANCHORS)
        return Sweep(ONE_CELL, file_or_name, (cell,), in_turn="none")
    path = find(file_or_name)
    content = _read(path)
    if not content:
        raise UserError(f"sweep file '{path}' is empty: expected [grid] or [[include]] tables")
    for section in content:
        if section not in _SECTIONS:
            raise unknown("section", section, _SECTIONS, f"sweep file '{path}'")
    head = _table(content, "sweep", path)
    for key in head:
        if key not in _HEAD:
            raise unknown("key", key, _HEAD, f"sweep file '{path}' [sweep]")
    head = {"name": path.stem, "title": path.stem, **head}
    for key, value in head.items():
        if not _HEAD[key].fits(value):
            expected = _HEAD[key].expectation
            raise UserError(f"sweep file '{path}' [sweep]: {key} = {value!r:.200}: expected {expected}")
    cells = [_cell(values, path, overrides or {}) for values in _combinations(content, path)]
    cells += [inline_cell(text, overrides or {}, ANCHORS, _defaults(content, path)) for text in also]
    unique = _first_of_each(cells)
    if not unique:
        raise UserError(f"sweep file '{path}' describes no cell: expected [grid] or [[include]] tables")
    return Sweep(**head, cells=unique)


def _first_of_each(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """Cells without those that measure the same as an earlier one."""
    found: dict[str, Cell] = {}
    for cell in cells:
        found.setdefault(cell.key, cell)
    return tuple(found.values())


def once(sweep: Sweep, most: int) -> Sweep:
    """The same settings with at most ``most`` images each, generated and timed once."""
    cells = []
    for cell in sweep.cells:
        images = min(cell.images, most)
        cells.append(dataclasses.replace(cell, images=images, batch=min(cell.batch, images), once=True))
    return dataclasses.replace(sweep, cells=_first_of_each(map(normalised, cells)), in_turn="none")


def _read(path: Path) -> dict[str, Any]:
    text = ""
    try:
        text = read_text(path)
        return tomllib.loads(text)
    except RecursionError:
        raise UserError(f"sweep file '{path}' is nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        end = f"at line {text.count(chr(10)) + 1}, column {len(text.rpartition(chr(10))[2]) + 1}"
        reason = str(error).replace("at end of document", end)
        raise UserError(f"sweep file '{path}' is not TOML: {reason}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"sweep file '{path}' can't be read: {error}") from None


def _table(content: Mapping[str, Any], section: str, path: Path) -> dict[str, Any]:
    table = content.get(section, {})
    if not isinstance(table, dict):
        raise UserError(f"sweep file '{path}': '{section}' is {table!r}: expected one table [{section}]")
    return table


def _tables(content: Mapping[str, Any], section: str, path: Path) -> list[dict[str, Any]]:
    tables = content.get(section, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UserError(f"sweep file '{path}': '{section}': expected tables [[{section}]]")
    return tables


def _defaults(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Settings of every cell that doesn't say otherwise."""
    where = f"sweep file '{path}' [defaults]"
    return {key: checked(key, value, where) for key, value in _table(content, "defaults", path).items()}


def _combinations(content: Mapping[str, Any], path: Path) -> Iterator[dict[str, Any]]:
    """Settings of every cell before duplicates collapse: the grid, then the includes, less the excluded."""
    file, defaults = f"sweep file '{path}'", _defaults(content, path)
    excluded = [
        _lists(table, f"{file} [[exclude]] {number}")
        for number, table in enumerate(_tables(content, "exclude", path), start=1)
    ]
    for table in excluded:
        if not table:
            raise UserError(f"{file} [[exclude]]: an empty table would exclude every cell")
        _check_known(table.get("strategy", ()), f"{file} [[exclude]]")
    sources = [(_table(content, "grid", path), f"{file} [grid]")]
    sources += [
        (table, f"{file} [[include]] {number}")
        for number, table in enumerate(_tables(content, "include", path), start=1)
    ]
    for table, where in sources:
        if not table:
            continue
        if "strategy" not in table and "strategy" not in defaults:
            raise UserError(f"{where}: no strategy; valid: {', '.join([*registry.names(), *ANCHORS])}")
        lists = _lists(table, where)
        count = math.prod(map(len, lists.values()))
        if count > MOST_CELLS:
            raise UserError(f"{where}: {count:,} cells; expected at most {MOST_CELLS:,}")
        for values in itertools.product(*lists.values()):
            settings = defaults | dict(zip(lists, values, strict=True))
            if not any(_matches(settings, pattern) for pattern in excluded):
                yield settings


def _lists(table: Mapping[str, Any], where: str) -> dict[str, list[Any]]:
    lists = {}
    for key, value in table.items():
        values = value if isinstance(value, list) else [value]
        if not values:
            raise UserError(f"{where}: {key} = []: expected at least one value")
        lists[key] = [checked(key, one, where) for one in values]
    return lists


def _matches(settings: Mapping[str, Any], pattern: Mapping[str, Sequence[Any]]) -> bool:
    defaults = default_values()
    return all(settings.get(key, defaults.get(key)) in values for key, values in pattern.items())


def _cell(settings: Mapping[str, Any], path: Path, overrides: Mapping[str, Any]) -> Cell:
    _check_known([settings["strategy"]], f"sweep file '{path}'")
    return cell_of_settings({**settings, **overrides})


def _check_known(strategies: Iterable[str], where: str) -> None:
    valid = [*registry.names(), *ANCHORS]
    for name in strategies:
        if name not in valid:
            raise unknown("strategy", name, valid, where)


# Selection ----------------------------------------------------------------------------------------------

_LEFT_OPEN = ("steps", "network", "label")
_CONDITION = re.compile(r"\s*([\w-]+)\s*(<=|>=|!=|==|=|<|>)\s*(.+?)\s*")


def select(cells: Sequence[Cell], expression: str, finished: bool = True) -> list[Cell]:
    """Cells that meet every condition of e.g. ``strategy=lpd|arpg,steps<=8``; ``|`` separates values, and a
    value with commas stands in quotes.

    Keys are those of sweep files and the names of strategy options. Unless the cells are ``finished``, what
    a cell leaves open (steps, network, label) meets every condition on it. Raises UserError for a condition
    that can't be read, an unknown key, or when no cell is left.
    """
    chosen = list(cells)
    keys = {*RULES, *(option for cell in cells for option in cell.options)} - {"options"}
    for text in pieces(expression):
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise UserError(f"-k '{expression}': '{text}' is no condition; expected e.g. steps<=8")
        key, operator, wanted = match.groups()
        if key not in keys:
            raise unknown("key", key, keys, f"-k '{expression}'")
        chosen = [
            cell
            for cell in chosen
            if (not finished and not cell.is_anchor and _is_open(cell, key))
            or _meets(cell, key, operator, wanted, expression)
        ]
    if not chosen:
        raise UserError(f"-k '{expression}' selects none of the {len(cells)} cells{_why(cells, expression)}")
    return chosen


def _why(cells: Sequence[Cell], expression: str) -> str:
    """What to do about a strategy that is in none of the cells, a plug-in's for one."""
    present = sorted({cell.strategy for cell in cells})
    for text in pieces(expression):
        match = _CONDITION.fullmatch(text)
        if match is None or match[1] != "strategy" or match[2] not in ("=", "=="):
            continue
        names = alternatives(match[3])
        if any(name.lower() == one for name in names for one in present):
            continue
        known = [*registry.names(), *ANCHORS]
        if names[0] not in known:
            return f"; {nearest(names[0], known)}"
        return (
            f": none is of '{names[0]}', but of {', '.join(present)}. It gets in with "
            f"--also 'strategy={names[0]},KEY=VALUE', or by a sweep file with [[include]] strategy = "
            f'"{names[0]}"'
        )
    return ""


def _is_open(cell: Cell, key: str) -> bool:
    """Whether the setting is filled in when the cell is finished."""
    return (key in _LEFT_OPEN and not getattr(cell, key)) or (key == "guidance" and cell.guidance == TUNED)


def _meets(cell: Cell, key: str, operator: str, wanted: str, expression: str) -> bool:
    value = getattr(cell, key) if key in RULES else cell.options.get(key)
    if operator in ("=", "==", "!="):
        same = any(_same(value, one) for one in alternatives(wanted))
        return same == (operator != "!=")
    try:
        limit = float(wanted)
    except ValueError:
        raise UserError(f"-k '{expression}': '{wanted}' is no number, as '{operator}' needs") from None
    if value is None:
        return False
    if not isinstance(value, int | float):
        raise UserError(f"-k '{expression}': '{key}' is text; only = and != apply")
    return {
        "<": value < limit,
        "<=": value <= limit,
        ">": value > limit,
        ">=": value >= limit,
    }[operator]


def _same(value: Any, wanted: str) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(wanted) == value
        except ValueError:
            return False
    return str(value).lower() == wanted.lower() or (value is None and wanted.lower() in ("none", "false"))
