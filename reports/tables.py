"""Result tables for the terminal, Markdown and CSV, from one list of columns.

Every measured number carries its 95 % interval (``812 ± 14``, or ``0.31 [0.28, 0.40]`` where it is lopsided)
or ``(n=1)`` where it was taken once. Counts are exact and stand bare; ``EXACT_NOTE`` says so below.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from reports import style
from reports.escape import markdown, terminal
from reports.fitting import DASH, print_fitting, told_columns
from reports.frame import Facet, frame, metrics
from reports.naming import counted_text, series_label, steps_text
from results.schema import Row

ROUNDING_BITS = 1e-4
"""Bits that rounding of float32 explains."""
EXACT_NOTE = (
    "± and [low, high]: 95 % intervals; (n=1): measured once. Steps, forwards, tokens, parameters, FLOPs, "
    "weight and cache bytes are counted, hence exact. MB = 10^6 bytes."
)


@dataclass(frozen=True)
class Entry:
    """One table cell: what is printed, and the number it sorts by."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class Column:
    """A table column: its heading and how a row fills it."""

    heading: str
    entry: Callable[[Row], Entry]
    numeric: bool = True


@dataclass(frozen=True)
class ReportTable:
    """A filled table of one facet; ``entries[i]`` belongs to ``rows[i]``."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    entries: tuple[tuple[Entry, ...], ...]


def with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """``value`` rounded to what its interval supports: two digits of the half width."""
    if value is None:
        return DASH
    if low is None or high is None:
        return f"{_significant(value, 4)} (n=1)"
    below, above = value - low, high - value
    half = max(abs(below), abs(above))
    if half == 0:
        return f"{_significant(value, 4)} ± 0"
    decimals = max(0, 1 - math.floor(math.log10(half)))
    if below > 0 and above > 0 and max(below, above) <= 1.25 * min(below, above):
        return f"{value:z.{decimals}f} ± {half:.{decimals}f}"
    return f"{value:z.{decimals}f} [{low:z.{decimals}f}, {high:z.{decimals}f}]"


def quality_table(facet: Facet) -> ReportTable:
    """Every quality metric of the facet."""
    columns = [_strategy(facet.rows), _count("steps", lambda row: row.steps), _GUIDANCE]
    columns += [_metric(name) for name in metrics(facet.rows)]
    columns += [_LOST] * any(row.lossiness_bits for row in facet.rows)
    columns += [_THROUGHPUT, *_status_where_told(facet.rows)]
    return _filled("Quality", columns, facet.rows)


def cost_table(facet: Facet) -> ReportTable:
    """What the facet's cells cost: counts, speed and memory."""
    columns = [
        _strategy(facet.rows),
        _count("steps", lambda row: row.steps),
        _count("forwards", lambda row: row.forwards),
        _count("tokens", lambda row: row.tokens_processed),
        Column("parameters", lambda row: _scaled(row.parameters, 1e6, "M")),
        Column("GFLOPs/image", lambda row: _scaled(row.flops_per_image, 1e9)),
        _THROUGHPUT,
        *[Column("best images/s", _best)] * any(map(_faster_elsewhere, facet.rows)),
        Column("latency ms", _latency),
        Column("weights MB", lambda row: _scaled(row.weight_bytes, 1e6)),
        Column("cache MB", lambda row: _scaled(row.cache_bytes, 1e6)),
        Column("peak MB", lambda row: _once(row.peak_bytes, 1e6)),
        *_status_where_told(facet.rows),
    ]
    return _filled("Cost", columns, facet.rows)


def tables(facet: Facet) -> list[ReportTable]:
    """The tables of a facet, anchors in each."""
    return [quality_table(facet), cost_table(facet)]


def print_tables(facets: Sequence[Facet], console: Console | None = None) -> None:
    """The facets' tables on the terminal, cut into blocks of columns that fit it; off a terminal, uncut."""
    console = console or Console()
    for facet in facets:
        _print_line(console, f"\n{facet.caption}", "bold")
        for table in tables(facet):
            _print(table, console)
        for line in failures(facet.rows):
            _print_line(console, line, "red")
    _print_line(console, EXACT_NOTE, "dim")


def print_plain(
    headings: Sequence[str], lines: Sequence[Sequence[str]], console: Console | None = None
) -> None:
    """A table of text on the terminal, in blocks of columns that fit it; off a terminal, uncut."""
    print_fitting(console or Console(), headings, lines)


def _print(table: ReportTable, console: Console) -> None:
    """The table in blocks that repeat strategy and steps; strategies in their colours, anchors dim."""
    lines: list[list[str | Text]] = [
        [
            terminal(entries[0].text.split(":")[0], style.colour(row.strategy)),
            *(entry.text.split(":")[0] for entry in entries[1:]),
        ]
        for row, entries in zip(table.rows, table.entries, strict=True)
    ]
    print_fitting(
        console,
        [column.heading for column in table.columns],
        lines,
        keys=2,
        right=[column.heading for column in table.columns if column.numeric],
        title=terminal(table.title, "bold"),
        styles=["dim" if row.tier == "anchor" else None for row in table.rows],
    )


def _print_line(console: Console, text: str, look: str) -> None:
    console.print(text, style=look, soft_wrap=True, highlight=False, markup=False)


def to_markdown(table: ReportTable) -> str:
    """The table as GitHub Markdown."""
    lines = [
        "| " + " | ".join(markdown(column.heading) for column in table.columns) + " |",
        "|" + "|".join("---:" if column.numeric else ":---" for column in table.columns) + "|",
    ]
    lines += [
        "| " + " | ".join(markdown(entry.text) for entry in entries) + " |" for entries in table.entries
    ]
    return "\n".join(lines)


def markdown_of(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table of finished text as GitHub Markdown, in the columns that say something."""
    headings, lines = told_columns(headings, lines) if lines else (headings, lines)
    texts = [[markdown(text) for text in line] for line in (headings, *lines)]
    rows = ["| " + " | ".join(row) + " |" for row in texts]
    return "\n".join([rows[0], "|" + "---|" * len(headings), *rows[1:]])


def to_csv(rows: Sequence[Row]) -> str:
    """Every row with unrounded numbers and their bounds, for other tools."""
    return str(frame(rows).to_csv(index=False, lineterminator="\n"))


def failures(rows: Sequence[Row]) -> list[str]:
    """One line per cell that is not ok: its setting, status and cause."""
    lines = []
    for row in rows:
        if row.status != "ok":
            steps = "" if row.steps is None else f", {steps_text(row)}"
            tries = f"{len(row.attempts)} attempt{'' if len(row.attempts) == 1 else 's'}"
            lines.append(
                f"{series_label(row, rows)}{steps}: {row.status} after {tries}: {_one_line(row.reason)}"
            )
    return lines


def _filled(title: str, columns: Sequence[Column], rows: Sequence[Row]) -> ReportTable:
    """The table without columns in which no row has anything."""
    entries = [[column.entry(row) for column in columns] for row in rows]
    kept = [at for at in range(len(columns)) if any(line[at].text != DASH for line in entries)]
    shown = tuple(tuple(line[at] for at in kept) for line in entries)
    return ReportTable(title, tuple(columns[at] for at in kept), tuple(rows), shown)


def _strategy(rows: Sequence[Row]) -> Column:
    return Column("strategy", lambda row: Entry(series_label(row, rows)), numeric=False)


def _count(heading: str, read: Callable[[Row], float | None]) -> Column:
    def entry(row: Row) -> Entry:
        value = read(row)
        return Entry(DASH) if value is None else Entry(counted_text(value), value)

    return Column(heading, entry)


def _metric(name: str) -> Column:
    def entry(row: Row) -> Entry:
        metric = (row.quality or {}).get(name)
        if metric is None:
            return Entry(DASH)
        return Entry(with_interval(metric["value"], metric["low"], metric["high"]), metric["value"])

    return Column(name, entry)


def _lost(row: Row) -> Entry:
    lost = row.lossiness_bits
    if lost is None or lost["value"] is None:
        return Entry(DASH)
    return Entry(printed_bits(lost["value"], lost["low"], lost["high"]), lost["value"])


def printed_bits(value: float, low: float | None, high: float | None) -> str:
    """Bits lost with their interval, or the bound of float32's rounding where that is all there is."""
    bounds = [abs(bound) for bound in (value, low, high) if bound is not None]
    return f"0 ± {ROUNDING_BITS:g}" if max(bounds) <= ROUNDING_BITS else with_interval(value, low, high)


def _guidance(row: Row) -> Entry:
    if row.guidance is None:
        return Entry(DASH)
    schedule = f" {row.guidance_schedule}" if row.guidance_schedule not in (None, "constant") else ""
    return Entry(f"{row.guidance:g}{schedule}", row.guidance)


def _throughput(row: Row) -> Entry:
    low, high = row.throughput_interval or (None, None)
    return Entry(with_interval(row.throughput_images_per_s, low, high), row.throughput_images_per_s)


def _best(row: Row) -> Entry:
    value, batch = row.throughput_best_images_per_s, row.throughput_best_batch
    if value is None:
        return Entry(DASH)
    at_own_batch = batch == row.batch and value == row.throughput_images_per_s
    text = _throughput(row).text if at_own_batch else with_interval(value, None, None)
    return Entry(f"{text} @ batch {batch}", value)


def _faster_elsewhere(row: Row) -> bool:
    """Whether another batch than the row's own is its best."""
    return row.throughput_best_batch not in (None, row.batch)


def _status_where_told(rows: Sequence[Row]) -> list[Column]:
    """The status of every row where one is not ok: the same word in every line tells nothing."""
    return [_STATUS] * any(row.status != "ok" for row in rows)


def _latency(row: Row) -> Entry:
    if row.latency_s is None:
        return Entry(DASH)
    low, high = row.latency_interval_s or (None, None)
    text = with_interval(*(None if s is None else 1000 * s for s in (row.latency_s, low, high)))
    return Entry(text, 1000 * row.latency_s)


def _scaled(value: float | None, unit: float, suffix: str = "") -> Entry:
    if value is None:
        return Entry(DASH)
    return Entry(f"{_significant(value / unit, 4)}{' ' if suffix else ''}{suffix}", value / unit)


def _once(value: float | None, unit: float) -> Entry:
    return Entry(DASH) if value is None else Entry(with_interval(value / unit, None, None), value / unit)


def _status(row: Row) -> Entry:
    if row.status == "ok":
        return Entry("ok")
    reason = _one_line(row.reason)
    return Entry(f"{row.status}: {reason if len(reason) <= 48 else reason[:47] + '…'}")


_LOST = Column("bits lost", _lost)
_GUIDANCE = Column("guidance", _guidance)
_THROUGHPUT = Column("images/s", _throughput)
_STATUS = Column("status", _status, numeric=False)


def _significant(value: float, digits: int) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def _one_line(text: str | None) -> str:
    return " ".join((text or "no cause recorded").split())
