"""The pages of docs/, built strictly and offline."""

import importlib
import os
import re
import subprocess
import sys

import pytest

import pardec
from tests.docs.blocks import ROOT

LOADED = re.compile(r'<(?:script|img|iframe)[^>]*\ssrc="(https?:[^"]+)"|<link[^>]*\shref="(https?:[^"]+)"')


@pytest.mark.slow
def test_pages_build_and_load_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs", reason="pip install 'pardec[docs]'")
    pytest.importorskip("mkdocstrings", reason="pip install 'pardec[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.glob("*.html")}
    assert len(pages) > 15
    assert {url for text in pages.values() for pair in LOADED.findall(text) for url in pair if url} == set()
    assert "any_order" in pages["api.html"]
    assert "figures.py" not in {path.name for path in tmp_path.iterdir()}


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"^ +- ([\w-]+\.md)$", text, re.MULTILINE))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")}


def test_the_api_page_has_every_name_of_the_public_face():
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    shown = set()
    for place, members in re.findall(
        r"^::: ([\w.]+)(?:\n    options:\n      members: \[(.*)\])?", text, re.M
    ):
        if members:
            shown |= set(members.split(", "))
        elif (ROOT / f"{place.replace('.', '/')}.py").is_file():
            shown |= set(vars(importlib.import_module(place)))
        else:
            shown.add(place.rpartition(".")[2])
    assert set(pardec.__all__) <= shown


@pytest.mark.parametrize("name", sorted(set(pardec.__all__) - {"EVERYWHERE"}))
def test_every_public_name_has_a_docstring(name):
    text = getattr(pardec, name).__doc__
    assert text
    assert not text.startswith(f"{name}("), "a dataclass without a docstring"
