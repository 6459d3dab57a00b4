"""Verdicts on the published figures for the terminal, Markdown and CSV."""

import csv
import io
from collections.abc import Sequence

from rich.console import Console

from reports import style
from reports.claims import Claim, Verdict, counts
from reports.escape import markdown, terminal
from reports.fitting import DASH, print_fitting
from reports.tables import markdown_of

NOTE = (
    "reproduced: the printed figure, to its last digit, meets the 95 % interval of a row made in the same "
    "way; contradicted: it does not. Of several such rows the one of the narrowest interval speaks."
)
HEADINGS = ("model", "steps", "figure", "published", "verdict", "evidence", "source")


def cells_of(claim: Claim) -> tuple[str, ...]:
    """What a table shows of a figure, under ``HEADINGS``."""
    line = claim.line
    said = f"{claim.printed} {claim.unit}".strip()
    why = f"{claim.verdict} because {', '.join(claim.keys)}" if claim.keys else claim.verdict
    return (line["model"], line["steps"], claim.figure, said, why, claim.evidence, line["source"])


def print_claims(found: Sequence[Claim], console: Console | None = None) -> None:
    """Every figure that some row speaks to, and how many there are of each verdict."""
    console = console or Console()
    told = [claim for claim in found if claim.verdict != "untested" or claim.cell is not None]
    if told:
        print_fitting(
            console,
            HEADINGS[:-1],
            [[cell or DASH for cell in cells_of(claim)[:-1]] for claim in told],
            right=("steps", "published"),
            title=terminal("Published figures"),
            styles=[COLOURS[claim.verdict] for claim in told],
        )
    for text in (summary(found), NOTE):
        console.print(text, soft_wrap=True, highlight=False, markup=False)


COLOURS: dict[Verdict, str] = {
    "reproduced": "green",
    "contradicted": "red",
    "not comparable": style.MUTED,
    "untested": style.MUTED,
}


def summary(found: Sequence[Claim]) -> str:
    """One line: how many figures of each verdict."""
    parts = ", ".join(f"{count} {verdict}" for verdict, count in counts(found).items())
    return f"{len(found)} published figures: {parts}."


def to_markdown(found: Sequence[Claim]) -> str:
    """All figures as GitHub Markdown."""
    cells = [[cell or DASH for cell in cells_of(claim)] for claim in found]
    return "\n".join([markdown(summary(found)), "", NOTE, "", markdown_of(HEADINGS, cells), ""])


def to_csv(found: Sequence[Claim]) -> str:
    """All figures, a line each."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = ("system", "model", "network", "steps", "figure", "published", "unit", "verdict")
    writer.writerow([*names, "differing_keys", "cell", "evidence", "source"])
    for claim in found:
        line = claim.line
        known = (line["system"], line["model"], line["network"], line["steps"], claim.figure, claim.printed)
        rest = (claim.unit, claim.verdict, " ".join(claim.keys), claim.cell or "", claim.evidence)
        writer.writerow([*known, *rest, line["source"]])
    return out.getvalue()
