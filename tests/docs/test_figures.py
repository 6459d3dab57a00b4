"""What README and docs say in figures is what is recorded and declared."""

import re
import sys

import pytest

from tests.docs.blocks import ROOT, TEXTS

sys.path.append(str(ROOT / "docs"))

import figures

MEASURED = re.compile(r"\d+(\.\d+)?( times (as )?(fast|slow)|\s?(ms|images/s)\b)")


def test_the_texts_are_those_of_the_script():
    assert sorted(TEXTS) == sorted(figures.TEXTS)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_made_parts_are_made_from_todays_rows_and_declarations(path):
    text = path.read_text(encoding="utf-8")
    assert figures.made(text) == text, "run: python docs/figures.py"


def test_every_maker_is_used_and_every_mark_is_closed():
    texts = [path.read_text(encoding="utf-8") for path in TEXTS]
    assert {name for text in texts for _, name, _ in figures.MARKED.findall(text)} == set(figures.MAKERS)
    for text in texts:
        assert text.count("<!-- made:") == text.count("<!-- end -->")


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_nothing_outside_the_marks_tells_a_measured_figure(path):
    outside = figures.MARKED.sub("", path.read_text(encoding="utf-8"))
    assert not MEASURED.search(outside), MEASURED.search(outside)


def test_a_figure_that_differs_is_found():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| PAR |"))
    changed = text.replace(row, row.replace("PAR", "RAP"))
    assert figures.made(changed) == text != changed


def test_the_readme_is_a_page():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert all(f"make {target}" in "\n".join(lines) for target in ("sweep", "test", "check", "docs"))
