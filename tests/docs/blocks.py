"""What README and docs show: code blocks by language, commands, links."""

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCED = re.compile(r'^( *)```(\w*)(?: title="([^"]+)")?\n(.*?)^\1```$', re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`(pardec [a-z][^`]*)`")


@dataclass(frozen=True)
class Block:
    """A fenced block; title: the name of the file that it is."""

    page: str
    language: str
    title: str | None
    text: str


def blocks() -> list[Block]:
    return [
        Block(path.name, language, title or None, textwrap.dedent(text))
        for path in TEXTS
        for _, language, title, text in _FENCED.findall(path.read_text(encoding="utf-8"))
    ]


def files() -> dict[str, str]:
    """Files that the texts tell a reader to write: name -> content."""
    return {one.title: one.text for one in blocks() if one.title and one.title != "pyproject.toml"}


def commands() -> list[tuple[str, list[str]]]:
    """Page and words of every shell command in a block."""
    lines = [
        (one.page, shlex.split(line, comments=True))
        for one in blocks()
        if one.language == "sh"
        for line in one.text.splitlines()
    ]
    return [(page, words) for page, words in lines if words]


def mentions() -> list[tuple[str, list[str]]]:
    """Page and words of every ``pardec`` command within a line; its arguments may be left out."""
    return [
        (path.name, shlex.split(" ".join(text.split())))
        for path in TEXTS
        for text in _INLINE.findall(_FENCED.sub("", path.read_text(encoding="utf-8")))
    ]
