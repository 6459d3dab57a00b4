"""Two sets of results set side by side, cell by cell, where that is meaningful.

Cells are joined by their setting. Where a quantity's declared keys differ (``comparability``) the comparison
says which, instead of a number.
"""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.text import Text

from pardec.errors import UserError
from reports import style
from reports.artifacts import load_artifacts
from reports.comparability import row_keys
from reports.contests import TextTable, contests, iso_table_between
from reports.differences import Difference, Obstacle, cells_of, differences, judged, tally
from reports.escape import terminal
from reports.fitting import print_fitting, told_columns
from reports.frame import facets
from reports.naming import namer, natural
from reports.tables import DASH, print_plain
from reports.training_noise import TrainingNoise
from results.environments import result_key
from results.same_setting import setting_key
from results.schema import Row
from results.store import load_rows, results_folder


@dataclass(frozen=True)
class Pair:
    """One setting in both results."""

    a: Row
    b: Row
    differences: tuple[Difference, ...]
    obstacles: tuple[Obstacle, ...]
    notes: tuple[str, ...]
    """Failures, and differing weights."""


@dataclass(frozen=True)
class Comparison:
    """All settings of two results."""

    name_a: str
    name_b: str
    pairs: tuple[Pair, ...]
    only_a: tuple[Row, ...]
    only_b: tuple[Row, ...]
    tables: tuple[TextTable, ...] = ()
    """Iso-quality of B against A."""


def compare(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> Comparison:
    """Compares two result folders or files; UserError where one is missing or they share no setting."""
    rows_a, rows_b = (sorted(load_rows(path), key=_position) for path in (a, b))
    partners = _partners(rows_a, rows_b)
    noise = TrainingNoise.known([*rows_a, *rows_b])
    pairs = [
        _pair(row, partners[at], results_folder(a), results_folder(b), noise)
        for at, row in enumerate(rows_a)
        if at in partners
    ]
    only_a = [row for at, row in enumerate(rows_a) if at not in partners]
    only_b = [row for row in rows_b if all(row is not taken for taken in partners.values())]
    tables = iso_table_between(rows_a, rows_b, noise)
    if not pairs:
        ours, theirs = _settings(rows_a), _settings(rows_b)
        raise UserError(f"'{a}' and '{b}' share no setting: the first has {ours}; the second has {theirs}")
    return Comparison(str(a), str(b), tuple(_judged(pairs)), tuple(only_a), tuple(only_b), tuple(tables))


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """The comparison on the terminal."""
    console = console or Console()
    title = terminal(f"A = {comparison.name_a}   B = {comparison.name_b}")
    named = namer([pair.a for pair in comparison.pairs])
    lines: list[list[str | Text]] = []
    ends = []
    for pair in comparison.pairs:
        for index, cells in enumerate(_lines(pair, named(pair.a))):
            name = terminal(cells[0] if index == 0 else "", style.colour(pair.a.strategy))
            lines.append([name, *cells[1:]])
        ends.append(len(lines) - 1)
    numbers = [heading for heading in _HEADINGS if heading not in ("setting", "quantity", "verdict")]
    print_fitting(console, _HEADINGS, lines, keys=2, right=numbers, title=title, ends=ends)
    print_text_tables(comparison.tables, console)
    for line in _remarks(comparison):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def compare_within(path: str | os.PathLike[str]) -> list[TextTable]:
    """The strategies of one result folder or file against each other, facet by facet.

    UserError where nothing is there, or no two cells can be compared.
    """
    rows = load_rows(path)
    beside = {result_key(row): load_artifacts(row, results_folder(path)) for row in rows}
    noise, found = TrainingNoise.known(rows), []
    for facet in facets(rows):
        found += [
            dataclasses.replace(table, title=f"{table.title} ({facet.caption})")
            for table in contests(facet, beside, noise)
        ]
    if not found:
        raise UserError(f"'{path}' holds no two cells that can be compared")
    return found


def print_text_tables(tables: Sequence[TextTable], console: Console | None = None) -> None:
    """Tables of finished text on the terminal, each with its title and note."""
    console = console or Console()
    for table in tables:
        console.print(f"\n{table.title}", style="bold", soft_wrap=True, highlight=False, markup=False)
        print_plain(*told_columns(table.headings, table.lines), console)
        console.print(table.note, soft_wrap=True, highlight=False, markup=False)


PAIRED_NOTE = (
    "paired: both cells drew the same images with the same random numbers. Times cover the noise within a "
    "run, not drift between runs; of cells timed in turn the ratio is that of their rounds, without drift. "
    "No interval covers what another training seed would change: the largest such change that is known "
    "stands beside each difference."
)
_HEADINGS = ("setting", "quantity", "A", "B", "B - A", "B / A", "training seeds", "verdict")


def _pair(a: Row, b: Row, folder_a: Path, folder_b: Path, noise: TrainingNoise) -> Pair:
    failed = [
        f"{side}: {row.status}: {' '.join((row.reason or '').split())}"
        for side, row in (("A", a), ("B", b))
        if row.status != "ok"
    ]
    if failed:
        return Pair(a, b, (), (), tuple(failed))
    found, obstacles = differences(a, b, load_artifacts(a, folder_a), load_artifacts(b, folder_b), noise)
    notes = ("the weights differ (checkpoint)",) if a.checkpoint != b.checkpoint else ()
    return Pair(a, b, tuple(found), tuple(obstacles), notes)


def _judged(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs with verdicts that hold over all of them together."""
    verdicts = iter(judged([one for pair in pairs for one in pair.differences]))
    return [
        dataclasses.replace(pair, differences=tuple(islice(verdicts, len(pair.differences))))
        for pair in pairs
    ]


def _lines(pair: Pair, name: str) -> list[list[str]]:
    """Table lines of a pair: one per difference, one per obstacle."""
    lines = [[name, one.name, *cells_of(one), one.training_text, one.words] for one in pair.differences]
    lines += [
        [name, one.what, *[DASH] * 5, f"not comparable: {', '.join(one.keys)}"] for one in pair.obstacles
    ]
    return lines or [[name, "nothing", *[DASH] * 5, "failed" if pair.notes else "not measured"]]


def _remarks(comparison: Comparison) -> list[str]:
    name = namer([pair.a for pair in comparison.pairs])
    lines = [tally([one for pair in comparison.pairs for one in pair.differences]), PAIRED_NOTE]
    for pair in comparison.pairs:
        details = [*(one.text for one in pair.obstacles), *pair.notes]
        lines += [f"{name(pair.a)}: {detail}" for detail in details]
    for side, rows in (("A", comparison.only_a), ("B", comparison.only_b)):
        lines += [f"only in {side}: {namer(rows)(row)}" for row in rows]
    return lines


def _settings(rows: Sequence[Row]) -> str:
    named = namer(rows)
    names = list(dict.fromkeys(named(row) for row in sorted(rows, key=_position)))
    return "; ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _partners(rows_a: Sequence[Row], rows_b: Sequence[Row]) -> dict[int, Row]:
    """Place in A -> the row of B of the same setting; of several, likest first."""
    of_setting: dict[str, list[int]] = {}
    for at, row in enumerate(rows_b):
        of_setting.setdefault(setting_key(row), []).append(at)
    fits = sorted(
        (_mismatches(row, rows_b[other]), at, other)
        for at, row in enumerate(rows_a)
        for other in of_setting.get(setting_key(row), ())
    )
    found: dict[int, Row] = {}
    taken: set[int] = set()
    for _, at, other in fits:
        if at not in found and other not in taken:
            found[at] = rows_b[other]
            taken.add(other)
    return found


def _mismatches(a: Row, b: Row) -> int:
    one, two = row_keys(a), row_keys(b)
    return sum(one[key] != two[key] for key in one)


def _position(row: Row) -> tuple[tuple[int, str], tuple[str | int, ...], float, int]:
    return style.rank(row.strategy), natural(row.label), -(row.steps or 0), row.seed
