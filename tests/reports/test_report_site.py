"""The report as a whole: offline, complete, honest about what is missing; and reports import no torch."""

import csv
import dataclasses
import html
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from synthetic_rows import anchor_rows, failed_row, sweep_rows

from pardec.errors import UserError
from reports import plots, site, style
from reports.artifacts import Edits, edits_path
from reports.page import html_page
from reports.published import HEADINGS, beside
from reports.site import write_report
from results.store import ResultStore, load_rows

ROOT = Path(__file__).parents[2]


class Page(HTMLParser):
    """Collects what a browser would fetch, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


CALLS: list[tuple[int, int, str]] = []


@pytest.fixture(scope="module")
def report(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    every, names = site.drawings, ("memory-against-batch", "fd_fashion-1000-against-steps", "learning")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(style.RC, "savefig.dpi", 100)
        patch.setattr(site, "drawings", lambda *given: (one for one in every(*given) if one.name in names))
        return write_report(sweep, tmp_path_factory.mktemp("report"), lambda *call: CALLS.append(call))


def ours(text: str) -> str:
    """The page without the libraries that it inlines."""
    for name in ("d3.min.js", "plot.min.js"):
        library = (ROOT / "reports" / "templates" / "vendor" / name).read_text(encoding="utf-8")
        assert library in text
        text = text.replace(library, "")
    return text


def test_the_page_needs_no_other_file(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    links = [link for link in Page(text).links if not link.startswith("#")]
    assert links
    assert all(link.startswith("data:image/png;base64,") for link in links)
    assert not re.search(r"@import|url\(|https?://", ours(text))
    assert len(text) < 6_000_000


def test_every_link_within_the_page_has_its_place(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    names = re.findall(r'\bid="([^"]+)"', text)
    assert len(set(names)) == len(names)
    links = [link[1:] for link in Page(text).links if link.startswith("#")]
    assert len(links) > 8
    assert set(links) <= set(names)


def test_every_picture_has_one_explanation_and_its_settings_in_its_alternative_text(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("img") == 1
    assert page.tags.count("figcaption") == 2  # one tab only says what is missing
    captions = re.findall(r'<figcaption class="about">(.*?)</figcaption>', text)
    assert len(set(captions)) == len(captions) == 2
    assert all(page.text.count(html.unescape(caption)) == 1 for caption in captions)
    for alternative in re.findall(r'<img [^>]*alt="([^"]*)"', text):
        for part in ("device cpu", "float32", "batch 64", "N = 1000", "fashion-train"):
            assert part in alternative
    names = {path.name for path in (report.parent / "figures").iterdir()}
    stems = ("memory-against-batch", "fd_fashion-1000-against-steps")
    assert names == {f"{stem}.{form}" for stem in stems for form in plots.FORMATS}


def test_causes_are_shown_and_escaped(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert "&lt;at step 4&gt;" in text
    assert "<at step" not in text
    assert "CPU out of memory" in (report.parent / "report.md").read_text()


def test_iso_quality_and_paired_differences_head_the_page(report: Path) -> None:
    page = Page(report.read_text(encoding="utf-8"))
    assert page.text.index("The answer") < page.text.index("Times faster at equal fd_fashion@1000")
    assert page.text.index("Times faster") < page.text.index("Against Raster, 64 steps")
    assert "(Benjamini-Hochberg)" in page.text
    assert "undefined" in page.text
    assert "(paired)" in page.text
    markdown = (report.parent / "report.md").read_text()
    assert (
        markdown.index("### Iso-quality")
        < markdown.index("### Against Raster")
        < markdown.index("### Quality")
    )
    assert "bits lost" in markdown
    assert "0 ± 0.0001" in markdown


def test_markdown_pictures_exist_and_csv_has_every_row(report: Path, sweep: Path) -> None:
    pictures = re.findall(r"\]\((figures/.*?)\)", (report.parent / "report.md").read_text())
    assert len(pictures) == 2
    assert all((report.parent / picture).is_file() for picture in pictures)
    with (report.parent / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(load_rows(sweep))


@pytest.mark.usefixtures("quick_figures")
def test_missing_artifacts_are_named(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    row = sweep_rows()[6]
    unmeasured = row.unmeasured | {"quality": "not asked for"}
    artifacts = {"trace": "artifacts/gone.npz"}
    store.append(dataclasses.replace(row, artifacts=artifacts, quality=None, unmeasured=unmeasured))
    page = Page(write_report(store.path).read_text())
    assert "LPD, 10 steps: artifacts/gone.npz is missing" in page.text
    assert "Samples: nothing was measured for it" in page.text
    assert (tmp_path / "report" / "report.html").is_file()


@pytest.mark.usefixtures("quick_figures")
def test_failures_alone_still_make_a_report(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    for row in (*anchor_rows(), dataclasses.replace(failed_row(), quality=None)):
        store.append(row)
    page = Page(write_report(tmp_path).read_text())
    assert "CPU out of memory" in page.text
    assert "1 cells and 2 anchor rows, 1 of them not ok." in page.text


def test_progress_counts_to_its_total(report: Path) -> None:
    assert [done for done, _, _ in CALLS] == list(range(4))
    assert {total for _, total, _ in CALLS} == {3}


def test_figures_of_the_papers_stand_beside_the_published_tier_only() -> None:
    assert beside(sweep_rows()) == []
    rows = [
        dataclasses.replace(row, tier="published", network="llamagen-l-256")
        for row in sweep_rows()
        if row.strategy in ("raster", "lpd")
    ]
    figures = beside(rows)
    assert {figure.strategy for figure in figures} == {"raster", "lpd"}
    assert {"LlamaGen-B", "LlamaGen-L"} <= {figure.cells[0] for figure in figures}
    assert all(len(figure.cells) == len(HEADINGS) and figure.cells[-1] for figure in figures)
    page = html_page(rows, [], [], {}, [])
    assert "In the papers" in page
    assert "LlamaGen paper tables 6 8-10" in page


def test_mistakes_are_one_line(sweep: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no results at"):
        write_report(tmp_path / "nowhere")
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="can't be written"):
        write_report(sweep, blocked)


def test_no_torch_is_imported() -> None:
    """One module after the other in one process, so that torch names the one that brought it."""
    modules = ["results.schema", "results.store", "reports.tables", "reports.compare", "reports.site"]
    code = (
        f"import importlib, sys\nfor name in {modules}:\n    importlib.import_module(name)\n"
        "    print([m for m in sys.modules if m.split('.')[0] in ('torch', 'backbones')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines() == ["[]"] * len(modules)


@pytest.mark.usefixtures("quick_figures")
def test_the_report_shows_a_stored_demonstration(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    for row in anchor_rows():
        store.append(row)
    images = np.random.default_rng(0).integers(256, size=(2, 3, 8, 8, 3), dtype=np.uint8)
    edits = Edits(
        "arpg", "ARPG, 16 steps; real digits", ("3, lower half anew", "4"), ("image", "", ""), images
    )
    edits_path(tmp_path, "arpg").parent.mkdir(exist_ok=True)
    np.savez(edits_path(tmp_path, "arpg"), **edits.arrays())
    page = write_report(tmp_path)
    assert "Around given tokens: arpg" in Page(page.read_text()).text
    assert "ARPG, 16 steps; real digits" in page.read_text()
    assert (page.parent / "figures" / "editing-arpg.png").is_file()
    assert "(figures/editing-arpg.png)" in (page.parent / "report.md").read_text()
