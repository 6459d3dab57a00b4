"""The offline HTML page: its data, and the template that shows them.

Charts are drawn by Observable Plot over D3, inlined: 490 kB of the page. Its marks are SVG elements, so that
style sheets give their colours (light, dark, print) and the keyboard reaches every point. Vega takes 830 kB,
Plotly's basic bundle 1.2 MB; uPlot's 50 kB draw on a canvas, which has neither.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from reports import grid, methods, points, predicted, published, race, relation_tables, rerun, style, tables
from reports.claim_tables import HEADINGS as CLAIM_HEADINGS
from reports.claim_tables import NOTE as CLAIM_NOTE
from reports.claim_tables import cells_of
from reports.claim_tables import summary as claim_summary
from reports.claims import claims
from reports.fitting import DASH
from reports.frame import hardware_notes
from reports.images import sprite
from reports.matrix import Matrix, matrix
from reports.naming import namer
from reports.relation_verdicts import Held
from reports.relations import relations
from reports.sections import Part, Section
from reports.words import GATE, TRAPS, summary
from results.environments import result_key
from results.schema import Row

SCRIPTS = (
    "vendor/d3.min.js",
    "vendor/plot.min.js",
    "show.js",
    "tables.js",
    "ticks.js",
    "chart.js",
    "race.js",
    "page.js",
)
"""In the order in which they run; each knows those before it."""


def html_page(
    rows: Sequence[Row],
    sections: Sequence[Section],
    gate: Sequence[str],
    stored: Mapping[str, Mapping[str, Any]],
    held: Sequence[Held],
) -> str:
    """The page; ``stored``: the methods' cards by ``result_key``."""
    owners = _owners(rows)
    environment = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(owner=owners.index, dash=DASH)
    return environment.get_template("report.html.j2").render(
        summary=summary(rows),
        colours=[(style.colour(name), style.dark_colour(name)) for name in owners],
        css=_text("page.css"),
        scripts=[_text(name) for name in SCRIPTS],
        data=_data(sections, owners),
        facets=[_facet(section) for section in sections],
        axes=points.axes(),
        cards=methods.cards(rows, stored),
        cards_stored=bool(stored),
        relations=_relations(held),
        claims=_claims(rows),
        published=_published(rows),
        reruns=_reruns(rows),
        gate=gate,
        gate_title=GATE,
        note=tables.EXACT_NOTE,
        traps=TRAPS,
        environments=hardware_notes(rows),
    )


@lru_cache
def _text(name: str) -> str:
    return (resources.files("reports") / "templates" / name).read_text(encoding="utf-8")


def _owners(rows: Sequence[Row]) -> list[str]:
    """Every strategy that something on the page belongs to; its number names its colour."""
    named = {row.strategy for row in rows} | {one.own.strategy for one in relations()}
    named |= {strategy for strategy, _ in predicted.published_predictions()}
    return sorted(named, key=style.rank)


def _data(sections: Sequence[Section], owners: list[str]) -> str:
    """JSON for a script element, whose end no text can bring about."""
    found = {
        "axes": points.axes(),
        "markers": [style.marker(name) for name in owners],
        "sprites": _sprites(sections),
        "facets": [
            [
                {
                    "name": part.name.removeprefix(", "),
                    "points": points.facet_points(part.facet, section.artifacts, owners),
                    "lanes": race.lanes(part.facet, section.artifacts, owners),
                }
                for part in section.parts
            ]
            for section in sections
        ],
    }
    return json.dumps(found, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _sprites(sections: Sequence[Section]) -> dict[str, str]:
    """Samples by the key of their cell."""
    return {
        row.cell: sprite(found.samples)
        for section in sections
        for row in section.facet.cells
        if (found := section.artifacts[result_key(row)]).samples is not None
    }


def _facet(section: Section) -> dict[str, Any]:
    """What the template shows of a facet."""
    return {
        "caption": section.facet.caption,
        "sentences": section.sentences,
        "parts": [_part(part, section) for part in section.parts],
        "tables": [grid.of_report(table) for table in section.tables],
        "failures": section.failures,
        "missing": section.missing,
        "pictures": [picture for picture in section.pictures if picture.on_page],
        "points": any(row.status == "ok" for row in section.facet.cells),
        "lanes": any(race.lanes_exist(part.facet, section.artifacts) for part in section.parts),
    }


def _part(part: Part, section: Section) -> dict[str, Any]:
    iso, against = part.iso_table(section.noise), part.against_table(section.noise)
    square: Matrix | None = None if part.iso is None else matrix(part.iso)
    pairs = () if part.iso is None else [pair.b.strategy for pair in part.iso.pairs]
    rivals = () if part.against is None else [row.strategy for row, _ in part.against.found]
    return {
        "name": part.name,
        "matrix": square,
        "iso": None if iso is None else grid.of_contest(iso, pairs),
        "against": None if against is None else grid.of_contest(against, rivals),
    }


def _relations(held: Sequence[Held]) -> dict[str, Any] | None:
    """Each strategy against what its paper claims; None without a row of the controlled tier."""
    if not held:
        return None
    owners = [one.relation.own.strategy for one in held]
    table = grid.of_texts(
        relation_tables.TITLE,
        relation_tables.HEADINGS,
        relation_tables.filled(held),
        relation_tables.NOTE,
        owners,
    )
    return {"summary": relation_tables.summary(held), "table": table}


def _claims(rows: Sequence[Row]) -> dict[str, Any]:
    found = claims(rows)
    told = [claim for claim in found if claim.verdict != "untested" or claim.cell is not None]
    lines = [[cell or DASH for cell in cells_of(claim)] for claim in told]
    table = grid.of_texts("Published figures that a row speaks to", CLAIM_HEADINGS, lines, CLAIM_NOTE)
    return {"summary": claim_summary(found), "table": table if told else None}


def _published(rows: Sequence[Row]) -> list[grid.Grid]:
    """What the papers print, and what is predicted for their devices; nothing without the published tier."""
    figures = published.beside(rows)
    if not figures:
        return []
    printed = grid.of_texts(
        "In the papers",
        published.HEADINGS,
        [[cell or DASH for cell in figure.cells] for figure in figures],
        published.NOTE,
        [figure.strategy for figure in figures],
    )
    found = predicted.published_predictions()
    expected = grid.of_texts(
        "Predicted for the papers' devices",
        predicted.PUBLISHED_HEADINGS,
        [cells for _, cells in found],
        predicted.PUBLISHED_NOTE,
        [strategy for strategy, _ in found],
    )
    return [printed, expected]


def _reruns(rows: Sequence[Row]) -> grid.Grid:
    """The command of every row."""
    named = namer(rows)
    untold = "no command line holds its settings"
    lines = [(named(row), row.cell, rerun.command(row) or untold) for row in rows]
    return grid.of_texts(
        "Every row again",
        ("cell", "key", "command"),
        lines,
        "Each command measures one cell, into results/runs/cells.",
        [row.strategy for row in rows],
    )
