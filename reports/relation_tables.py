"""Relations of strategies to their papers for the terminal, the page, Markdown and CSV."""

import csv
import io
from collections.abc import Sequence

from rich.console import Console

from reports import style
from reports.differences import Difference
from reports.escape import markdown, terminal
from reports.fitting import DASH, print_fitting
from reports.relation_verdicts import Held, Verdict, counts
from reports.relations import EQUAL
from reports.tables import markdown_of, with_interval

TITLE = "Each strategy against what its paper claims"
NOTE = (
    "Rows of the controlled tier at the paper's steps, each at the guidance that suits it best. The "
    "difference is of the first distance to the reference; its verdict adds how far another training seed "
    "moves it, where two networks are compared. Of networks on two tokenizers it is that of distances beyond "
    f'their reconstructions. "Equal" may be worse by {100 * EQUAL:g} % of the '
    'baseline\'s distance, "worse" by as much as the paper prints. Every relation is judged alone.'
)
HEADINGS = (
    "strategy",
    "verdict",
    "against",
    "times fewer steps",
    "distance, difference",
    "training seeds",
    "times as fast",
    "because",
    "its paper",
    "source",
)
_ON_TERMINAL = HEADINGS[:-2]
"""The rest is in the files and the report."""


def cells_of(one: Held) -> tuple[str, ...]:
    """What a table shows of a relation, under ``HEADINGS``."""
    relation, quality = one.relation, one.quality
    return (
        relation.own.words,
        one.verdict,
        relation.baseline.words,
        _beside("" if one.fewer_steps is None else f"{one.fewer_steps:.3g}", relation.fewer_steps),
        interval_text(quality),
        "" if quality is None else quality.training_text,
        _beside(interval_text(one.speed), relation.faster, relation.on),
        "; ".join(one.why),
        relation.claim,
        relation.source,
    )


def _beside(measured: str, claimed: str, on: str = "") -> str:
    """What was measured, and what is claimed."""
    where = f" on {on}" if on else ""
    return " ".join(part for part in (measured, f"(claimed {claimed}{where})" if claimed else "") if part)


def interval_text(one: Difference | None) -> str:
    """The difference as tables print it, or the ratio of a speed; empty where it was not measured."""
    if one is None:
        return ""
    if one.ratio is not None:
        return with_interval(one.ratio.value, one.ratio.low, one.ratio.high)
    sign = "+" if one.change > 0 else ""
    return sign + with_interval(one.change, one.low, one.high)


COLOURS: dict[Verdict, str] = {"holds": "green", "does not hold": "red", "cannot be said": style.MUTED}


def summary(found: Sequence[Held]) -> str:
    """One line: how many relations of each verdict."""
    told = counts(found)
    return (
        f"Of {len(found)} relations {told['holds']} hold, {told['does not hold']} do not, and of "
        f"{told['cannot be said']} nothing can be said."
    )


def filled(found: Sequence[Held]) -> list[list[str]]:
    """The lines of a table."""
    return [[cell or DASH for cell in cells_of(one)] for one in found]


def print_relations(found: Sequence[Held], console: Console | None = None) -> None:
    """Every relation that rows speak to, and whose rows are missing; nothing without rows of the tier."""
    if not found:
        return
    console = console or Console()
    told = [one for one in found if one.own is not None]
    if told:
        print_fitting(
            console,
            _ON_TERMINAL,
            [line[: len(_ON_TERMINAL)] for line in filled(told)],
            title=terminal(TITLE),
            styles=[COLOURS[one.verdict] for one in told],
        )
    untold = [f"{one.relation.own.words}: {'; '.join(one.why)}" for one in found if one.own is None]
    for text in (summary(found), *untold, NOTE):
        console.print(text, soft_wrap=True, highlight=False, markup=False)


def to_markdown(found: Sequence[Held]) -> str:
    """All relations as GitHub Markdown, without a heading."""
    table = markdown_of(HEADINGS, filled(found))
    return "\n".join([markdown(summary(found)), "", table, "", markdown(NOTE), ""])


def to_csv(found: Sequence[Held]) -> str:
    """All relations, a line each."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = (
        "strategy",
        "steps",
        "baseline",
        "baseline_steps",
        "quality_claimed",
        "limit",
        "fewer_steps_claimed",
    )
    measured = ("fewer_steps", "difference", "low", "high", "training", "times_as_fast")
    writer.writerow([*names, *measured, "verdict", "why", "cell", "baseline_cell", "claim", "source"])
    for one in found:
        relation, quality, speed = one.relation, one.quality, one.speed
        ratio = None if speed is None else speed.ratio
        writer.writerow(
            [
                *(relation.own.strategy, relation.own.steps, relation.baseline.strategy),
                *(relation.baseline.steps, relation.quality, relation.limit, relation.fewer_steps),
                one.fewer_steps,
                *(
                    (None,) * 4
                    if quality is None
                    else (quality.change, quality.low, quality.high, quality.training)
                ),
                None if ratio is None else ratio.value,
                *(one.verdict, "; ".join(one.why)),
                *(None if row is None else row.cell for row in (one.own, one.baseline)),
                *(relation.claim, relation.source),
            ]
        )
    return out.getvalue()
