"""Text of others in Markdown, on terminals and in file names: shown as it is, never obeyed.

Strategy names, labels, error texts and file names come from plug-ins, sweep files and rows of other machines.
HTML is escaped by the template's autoescape, pictures take every text literally (``style.RC``).
"""

import re

from rich.text import Text

_SPECIAL = re.compile(
    r"[\\`*|<>~$]"  # code, emphasis, table columns, HTML, strikethrough, formulas
    r"|(?<!\w)_|_(?!\w)"  # emphasis; within a word it is none
    r"|\[(?!-?\d)|\](?=[\[(:])"  # links, but not the intervals [low, high]
    r"|&(?=#?\w+;)"  # entities
    r"|:(?=//)|(?<=www)\."  # addresses that would become links by themselves
)
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def markdown(text: str) -> str:
    """``text`` on one line of GitHub Markdown, in a paragraph or table, without effect on what is around."""
    return _SPECIAL.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), " ".join(text.split()))


def terminal(text: str, style: str = "") -> Text:
    """``text`` for rich, which would take ``[red]`` in a bare one for its markup."""
    return Text(text, style=style)


def file_stem(text: str) -> str:
    """``text`` as part of a file's name: no folders, no more than 80 characters."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in text)[:80]
