"""The report as Markdown."""

from collections.abc import Iterable, Sequence

from reports import predicted, published, relation_tables, tables
from reports.answer import Sentence
from reports.escape import markdown
from reports.frame import hardware_notes
from reports.relation_verdicts import Held
from reports.sections import Section
from reports.words import GATE, TRAPS, summary
from results.schema import Row


def markdown_page(
    rows: Sequence[Row], sections: Sequence[Section], gate: Sequence[str], held: Sequence[Held]
) -> str:
    """All of the report but the pictures themselves, which lie in ``figures``."""
    lines = ["# pardec report", "", summary(rows), ""]
    if gate:
        lines += [f"{GATE}:", "", *_listed(gate), ""]
    for section in sections:
        lines += [f"## {markdown(section.facet.caption)}", ""]
        lines += [f"{at}. {_said(one)}" for at, one in enumerate(section.sentences, start=1)]
        lines += [""]
        for contest in section.contests():
            lines += [f"### {markdown(contest.title)}", ""]
            lines += [
                tables.markdown_of(contest.headings, contest.lines),
                "",
                markdown(contest.note),
                "",
            ]
        for table in section.tables:
            lines += [f"### {markdown(table.title)}", "", tables.to_markdown(table), ""]
        lines += _listed(f"failed: {line}" for line in section.failures)
        lines += _listed(f"not shown: {line}" for line in section.missing)
        lines += [""] * bool(section.failures or section.missing)
        for picture in section.pictures:
            title, caption = markdown(picture.title), markdown(picture.caption)
            if picture.png is not None:
                lines += [f"![{title}](figures/{picture.name}.png)", "", f"*{caption}*", ""]
            lines += [part for one in picture.said for part in (markdown(one), "")]
            if picture.lacking is not None:
                lines += [markdown(f"{picture.title}: {' '.join(picture.lacking)}"), ""]
    if held:
        lines += [f"## {relation_tables.TITLE}", "", relation_tables.to_markdown(held)]
    figures = published.beside(rows)
    if figures:
        lines += ["## In the papers", "", published.NOTE, ""]
        lines += [tables.markdown_of(published.HEADINGS, [figure.cells for figure in figures]), ""]
        lines += ["## Predicted for the papers' devices", "", predicted.PUBLISHED_NOTE, ""]
        found = [cells for _, cells in predicted.published_predictions()]
        lines += [tables.markdown_of(predicted.PUBLISHED_HEADINGS, found), ""]
    lines += [tables.EXACT_NOTE, "", "## How to read this", "", *(f"- {trap}" for trap in TRAPS), ""]
    lines += ["## Environment", "", *_listed(hardware_notes(rows)), ""]
    return "\n".join(lines)


def _listed(lines: Iterable[str]) -> list[str]:
    return [f"- {markdown(line)}" for line in lines]


def _said(sentence: Sentence) -> str:
    return markdown(sentence.text + (f" {sentence.command}" if sentence.command else ""))
