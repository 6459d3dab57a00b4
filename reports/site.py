"""The report: an offline HTML page, the same in Markdown, a CSV of all numbers, the pictures as files."""

import base64
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from pardec.errors import UserError
from pardec.files import write_whole
from reports import (
    lossiness,
    pictures,
    plots,
    predicted,
    published,
    selftest,
    style,
    tables,
    waterfall,
    windows,
)
from reports.artifacts import Artifacts, load_artifacts, load_cost, load_edits
from reports.contests import TextTable, contests
from reports.escape import file_stem, markdown
from reports.frame import Facet, facets, hardware_notes, metrics
from reports.naming import steps_text
from reports.training_noise import TrainingNoise
from results.environments import result_key
from results.schema import Row
from results.store import load_rows, results_folder

Progress = Callable[[int, int, str], None]
"""Called with pictures done, pictures in all, and the name of the next."""


@dataclass(frozen=True)
class Picture:
    """A figure of the report, on disk."""

    name: str
    title: str
    png: Path
    caption: str

    @property
    def data_uri(self) -> str:
        """The picture itself, so that the page needs no other file."""
        return "data:image/png;base64," + base64.b64encode(self.png.read_bytes()).decode()


@dataclass
class Section:
    """One facet of the report."""

    facet: Facet
    tables: list[tables.ReportTable]
    contests: list[TextTable]
    failures: list[str]
    missing: list[str]
    pictures: list[Picture] = field(default_factory=list)


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
    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
        sections = _sections(rows, source, out / "figures", progress or (lambda done, total, name: None))
        gate = selftest.beside(source)
        _write(out / "results.csv", tables.to_csv(rows))
        _write(out / "report.md", _markdown(rows, sections, gate))
        page = out / "report.html"
        _write(page, _html(rows, sections, gate))
    except OSError as error:
        raise UserError(f"report '{out}' can't be written: {error.strerror or error}") from None
    return page


def _write(path: Path, text: str) -> None:
    write_whole(path, lambda file: file.write(text.encode()))


def _sections(rows: Sequence[Row], source: Path, figures: Path, progress: Progress) -> list[Section]:
    artifacts = {result_key(row): load_artifacts(row, source) for row in rows}
    costs = {result_key(row): cost for row in rows if (cost := load_cost(row, source)) is not None}
    sections, noise = [], TrainingNoise.known(rows)
    split = facets(rows)
    drawings = [list(_drawings(facet, artifacts, costs)) for facet in split]
    total, done = sum(map(len, drawings)), 0
    for number, (facet, drawing) in enumerate(zip(split, drawings, strict=True), start=1):
        section = Section(
            facet,
            tables.tables(facet),
            contests(facet, artifacts, noise),
            tables.failures(facet.rows),
            _missing(facet, artifacts),
        )
        cost_tables = (predicted.prediction_table(facet, costs), predicted.waterfall_table(facet, costs))
        section.tables += [table for table in cost_tables if table is not None]
        for name, title, draw in drawing:
            progress(done, total, title)
            figure = draw()
            if figure is None:
                section.missing.append(f"{title}: nothing was measured for it")
            else:
                stem = name if len(split) == 1 else f"{number}-{name}"
                png, _ = plots.save_figure(figure, figures, stem)
                section.pictures.append(Picture(stem, title, png, facet.caption))
            done += 1
        sections.append(section)
    sections[0].pictures += _edited(source, figures)
    progress(total, total, "done")
    return sections


def _edited(source: Path, figures: Path) -> list[Picture]:
    """Pictures of what was drawn around given tokens, where a demonstration was stored with the results."""
    found = []
    for edits in load_edits(source):
        stem = f"editing-{file_stem(edits.strategy)}"
        png, _ = plots.save_figure(pictures.edit_grid(edits), figures, stem)
        found.append(Picture(stem, f"Around given tokens: {edits.strategy}", png, edits.caption))
    return found


Drawing = tuple[str, str, Callable[[], Figure | None]]


def _drawings(facet: Facet, artifacts: dict[str, Artifacts], costs: predicted.Costs) -> Iterator[Drawing]:
    """(file name, title, function that draws) of each picture of a facet."""
    over_throughput, over_steps = plots.quality_against_throughput, plots.quality_against_steps
    names = metrics(facet.cells)
    for metric in names[:1] + [name for name in names[1:] if name.startswith("accuracy")]:
        stem = file_stem(metric)
        against = f"{metric} against"
        for part in (parts := facet.by_batch()):
            end, where = (f"-batch-{part.cells[0].batch}", f", batch {part.cells[0].batch}")
            end, where = (end, where) if len(parts) > 1 else ("", "")
            title = f"{against} throughput{where}"
            yield f"{stem}-against-throughput{end}", title, partial(over_throughput, part, metric)
        yield f"{stem}-against-steps", f"{against} steps", partial(over_steps, facet, metric)
    yield "memory-against-batch", "Memory against batch", partial(plots.memory_against_batch, facet)
    yield "lossiness-against-steps", "Bits lost", partial(lossiness.curves, facet, artifacts)
    if predicted.checked_predictions(facet.cells, costs):
        draw_prediction, draw_waterfall = predicted.predicted_against_measured, predicted.waterfall_figure
        yield (
            "predicted-against-measured",
            "Predicted against measured",
            partial(draw_prediction, facet, costs),
        )
        yield "speed-up", "From ideal to real speed-up", partial(draw_waterfall, facet, costs)
    yield "samples", "Samples", partial(pictures.sample_grid, facet, artifacts)
    yield "order", "Order of generation", partial(pictures.order_maps, facet, artifacts)
    if windows.families(facet):
        yield "windows", "Against the window of drafts", partial(windows.against_window, facet)
    if windows.maps_of(facet, artifacts):
        yield "acceptance", "Where drafts are accepted", partial(windows.acceptance_maps, facet, artifacts)
    yield "film", "One image appearing", partial(pictures.film_strip, facet, artifacts)


def _missing(facet: Facet, artifacts: dict[str, Artifacts]) -> list[str]:
    """What the pictures can't show, and why."""
    return [
        f"{row.label}{f', {steps_text(row)}' if row.steps else ''}: {'; '.join(problems)}"
        for row in facet.rows
        if row.status == "ok" and (problems := artifacts[result_key(row)].problems)
    ]


def _html(rows: Sequence[Row], sections: Sequence[Section], gate: Sequence[str]) -> str:
    environment = Environment(
        loader=PackageLoader("reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html.j2").render(
        summary=_summary(rows),
        gate=gate,
        gate_title=_GATE,
        sections=sections,
        note=tables.EXACT_NOTE,
        traps=_TRAPS,
        published=published.beside(rows),
        published_headings=published.HEADINGS,
        published_note=published.NOTE,
        predictions=predicted.published_predictions(),
        prediction_headings=predicted.PUBLISHED_HEADINGS,
        prediction_note=predicted.PUBLISHED_NOTE,
        environments=hardware_notes(rows),
        colour=style.colour,
    )


def _markdown(rows: Sequence[Row], sections: Sequence[Section], gate: Sequence[str]) -> str:
    lines = ["# pardec report", "", _summary(rows), ""]
    if gate:
        lines += [f"{_GATE}:", "", *_listed(gate), ""]
    for section in sections:
        lines += [f"## {markdown(section.facet.caption)}", ""]
        for contest in section.contests:
            lines += [f"### {markdown(contest.title)}", ""]
            lines += [tables.markdown_of(contest.headings, contest.lines), "", markdown(contest.note), ""]
        for table in section.tables:
            lines += [f"### {markdown(table.title)}", "", tables.to_markdown(table), ""]
        lines += _listed(f"failed: {line}" for line in section.failures)
        lines += _listed(f"not shown: {line}" for line in section.missing)
        lines += [""] * bool(section.failures or section.missing)
        for picture in section.pictures:
            title, caption = markdown(picture.title), markdown(picture.caption)
            lines += [f"![{title}](figures/{picture.name}.png)", "", f"*{caption}*", ""]
    figures = published.beside(rows)
    if figures:
        lines += ["## In the papers", "", published.NOTE, ""]
        lines += [tables.markdown_of(published.HEADINGS, [figure.cells for figure in figures]), ""]
        lines += ["## Predicted for the papers' devices", "", predicted.PUBLISHED_NOTE, ""]
        found = [cells for _, cells in predicted.published_predictions()]
        lines += [tables.markdown_of(predicted.PUBLISHED_HEADINGS, found), ""]
    lines += [tables.EXACT_NOTE, "", "## How to read this", "", *(f"- {trap}" for trap in _TRAPS), ""]
    lines += ["## Environment", "", *_listed(hardware_notes(rows)), ""]
    return "\n".join(lines)


def _listed(lines: Iterable[str]) -> list[str]:
    return [f"- {markdown(line)}" for line in lines]


def _summary(rows: Sequence[Row]) -> str:
    failed = sum(row.status != "ok" for row in rows)
    cells = [row for row in rows if row.tier != "anchor"]
    anchors = len(rows) - len(cells)
    ending = "all of them ok" if not failed else f"{failed} of them not ok"
    several = len(cells) - len({row.cell for row in cells})
    where = f" ({several} of them once more, in another environment)" if several else ""
    return f"{len(cells)} cells{where} and {anchors} anchor rows, {ending}."


_GATE = "How far the regression gate can be trusted (pardec selftest)"
_TRAPS = (
    "Fréchet distances shrink as N grows, by an amount that depends on the model: compare at the same N, "
    "never a distance at small N with a published one at 50,000.",
    "fd_mnist is the Fréchet distance of a small classifier's features; it is no FID.",
    "Bits lost are judged by the cell's own network, one token at a time in the same order: figures of "
    "different networks do not compare, and where one token at a time is unlike training (LPD's tightly "
    "packed contexts), part of the figure is that strangeness.",
    "Intervals cover sampling noise, not what another training seed would change: the largest move of a "
    "metric that was seen between two seeds stands beside its differences.",
    "Real images and reconstructions bound what decoding can reach: no strategy can be expected below the "
    "reconstructions of its tokenizer.",
    "The order of strategies can change with guidance: compare each at its own best scale.",
    waterfall.NOTE,
    "Images/s depend on the batch, latency is for one image; a CPU's ranking need not be a GPU's, where "
    "few large steps pay more.",
)
