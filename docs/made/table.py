"""Markdown of tables."""

from collections.abc import Iterable, Sequence


def table(headings: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    cells = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
    rule = ["---"] * len(headings)
    return "".join(f"| {' | '.join(line)} |\n" for line in [list(headings), rule, *cells])


def one_line(text: str) -> str:
    return " ".join(text.split())
