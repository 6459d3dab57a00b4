"""The report: an offline HTML page, the same in Markdown, a CSV of all numbers, the pictures as files."""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from pardec.errors import UserError
from pardec.files import write_whole
from reports import methods, pictures, plots, predicted, selftest, style, tables
from reports.answer import answer
from reports.artifacts import Artifacts, load_artifacts, load_cost, load_edits, load_method
from reports.contests import against_first, iso_within
from reports.drawings import Drawing, drawings
from reports.escape import file_stem
from reports.frame import Facet, facets
from reports.images import Shown
from reports.learning import Stored
from reports.markdown_page import markdown_page
from reports.naming import steps_text
from reports.page import html_page
from reports.relation_verdicts import held
from reports.sections import Part, Picture, Section
from reports.training_noise import TrainingNoise
from results.environments import result_key
from results.schema import Row
from results.store import load_rows, results_folder

Progress = Callable[[int, int, str], None]
"""Called with pictures done, pictures in all, and the name of the next."""


def write_report(
    results_path: str | os.PathLike[str],
    out_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Writes report.html, report.md, results.csv and figures/ and returns the path of report.html.

    ``results_path``: folder or file of rows; ``out_dir``: by default the folder ``report`` beside the rows.
    UserError where there are no rows or the report can't be written.
    """
    rows = load_rows(results_path)
    source = results_folder(results_path)
    out = Path(out_dir) if out_dir is not None else source / "report"
    stored = {result_key(row): card for row in rows if (card := load_method(row, source)) is not None}
    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
        told = progress or (lambda done, total, name: None)
        sections = _sections(rows, source, out / "figures", told, stored)
        gate = selftest.beside(source)
        relations = held(rows, TrainingNoise.known(rows))
        _write(out / "results.csv", tables.to_csv(rows))
        _write(out / "report.md", markdown_page(rows, sections, gate, relations))
        page = out / "report.html"
        _write(page, html_page(rows, sections, gate, stored, relations))
    except OSError as error:
        raise UserError(f"report '{out}' can't be written: {error.strerror or error}") from None
    return page


def _write(path: Path, text: str) -> None:
    write_whole(path, lambda file: file.write(text.encode()))


def _sections(
    rows: Sequence[Row], source: Path, figures: Path, progress: Progress, stored: Stored
) -> list[Section]:
    artifacts = {result_key(row): load_artifacts(row, source) for row in rows}
    costs = {result_key(row): cost for row in rows if (cost := load_cost(row, source)) is not None}
    noise = TrainingNoise.known(rows)
    split = facets(rows)
    planned = [list(drawings(facet, artifacts, costs, stored)) for facet in split]
    lossless = methods.lossless(stored)
    total, done = sum(map(len, planned)), 0
    sections = []
    for number, (facet, drawing) in enumerate(zip(split, planned, strict=True), start=1):
        section = _section(facet, artifacts, costs, noise, lossless)
        prefix = f"{number}-" if len(split) > 1 else ""
        for one in drawing:
            progress(done, total, one.title)
            _draw(one, prefix, section, figures)
            done += 1
        sections.append(section)
    sections[0].pictures += _edited(source, figures)
    progress(total, total, "done")
    return sections


def _section(
    facet: Facet,
    artifacts: Mapping[str, Artifacts],
    costs: predicted.Costs,
    noise: TrainingNoise,
    lossless: Collection[str],
) -> Section:
    parts = list(_parts(facet, artifacts, noise))
    largest = max(parts, key=lambda part: len(part.cells))
    cost_tables = (predicted.prediction_table(facet, costs), predicted.waterfall_table(facet, costs))
    return Section(
        facet,
        parts,
        answer(facet, largest.cells, largest.iso, largest.against, lossless),
        [*tables.tables(facet), *(table for table in cost_tables if table is not None)],
        tables.failures(facet.rows),
        _missing(facet, artifacts),
        artifacts,
        noise,
    )


def _parts(facet: Facet, artifacts: Mapping[str, Artifacts], noise: TrainingNoise) -> Iterator[Part]:
    """The facet's ok cells by batch size, each against the others."""
    split = facet.by_batch()
    for one in split:
        cells = [row for row in one.cells if row.status == "ok"]
        name = f", batch {cells[0].batch}" if len(split) > 1 and cells else ""
        yield Part(one, name, cells, iso_within(cells), against_first(cells, artifacts, noise))


def _draw(one: Drawing, prefix: str, section: Section, figures: Path) -> None:
    figure, stem = one.draw(), prefix + one.name
    if figure is None and one.lacking is None:
        section.missing.append(f"{one.title}: nothing was measured for it")
        return
    png = None if figure is None else plots.save_figure(figure, figures, stem)
    shown = _shown(one.draw) if one.on_page and figure is not None else None
    caption = section.facet.caption
    picture = Picture(stem, one.title, png, caption, one.about, shown, one.on_page, one.said, one.lacking)
    section.pictures.append(picture)


def _shown(draw: Callable[[], Figure | None]) -> Shown | None:
    """What ``draw`` draws as the page shows it: on light paper and on dark."""
    forms = []
    for scheme in (style.PAGE, style.NIGHT):
        with style.drawn_for(scheme):
            figure = draw()
            if figure is None:
                return None
            forms.append(plots.png_of(figure))
    return Shown.of(forms[0], forms[1], style.RC["savefig.dpi"])


def _edited(source: Path, figures: Path) -> list[Picture]:
    """Pictures of what was drawn around given tokens, where a demonstration was stored with the results."""
    found = []
    for edits in load_edits(source):
        stem = f"editing-{file_stem(edits.strategy)}"
        draw = partial(pictures.edit_grid, edits)
        png = plots.save_figure(draw(), figures, stem)
        title = f"Around given tokens: {edits.strategy}"
        about = "Real images of which a part was given; the grey part was drawn anew."
        found.append(Picture(stem, title, png, edits.caption, about, _shown(draw)))
    return found


def _missing(facet: Facet, artifacts: Mapping[str, Artifacts]) -> list[str]:
    """What the pictures can't show, and why."""
    return [
        f"{row.label}{f', {steps_text(row)}' if row.steps else ''}: {'; '.join(problems)}"
        for row in facet.rows
        if row.status == "ok" and (problems := artifacts[result_key(row)].problems)
    ]
