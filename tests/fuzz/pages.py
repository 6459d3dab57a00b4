"""Targets of what is written about others' names and numbers: report pages, terminal tables, pictures."""

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

from matplotlib import pyplot as plt

from reports.page import SCRIPTS
from reports.site import write_report
from results.schema import Row, row_to_json
from tests.fuzz.target import target, write
from tests.fuzz.texts import JSON_WORDS, ROOT, show_rows
from tests.reports.synthetic_rows import sweep_rows

CANARY = "canary"
HOSTILE = (
    f"<script>{CANARY}()</script>",
    f"</title></style><img src=x onerror={CANARY}()>",
    f'"><a href="javascript:{CANARY}()">x</a>',
    f"a|b\n\n# {CANARY}\n\n- [{CANARY}](http://{CANARY})",
    f"![{CANARY}](http://{CANARY}) `x` *y* ~~z~~ $\\frac{{1$",
    f"http://{CANARY}.example www.{CANARY}.example &lt;b&gt; <http://{CANARY}>",
    f"[red]{CANARY}[/red] [/nothing] [link=http://{CANARY}]x[/link]",
    f"\x1b]0;{CANARY}\x07\x1b[2J\x9b31m\u202e{CANARY}",
    "$unclosed $x_{$ \\$ $$ 100 % # & ^ ~ {",
    "../../" * 4 + CANARY,
    "\ud800\x00 lone",
    "x" * 3000,
)
"""Texts that some page, table or terminal would obey if it took them for its own."""


def hostile_rows(text: str) -> list[Row]:
    """A small sweep in which every free text is ``text``."""
    changed = []
    for row in sweep_rows()[::3] + sweep_rows()[-1:]:
        quality = {f"{text} {name}"[:400]: metric for name, metric in (row.quality or {}).items()}
        changed.append(
            dataclasses.replace(
                row,
                label=text,
                strategy=row.strategy if row.tier == "anchor" else text,
                network=text,
                tokenizer=text,
                reason=text if row.status != "ok" else None,
                options={text: text},
                quality=quality if row.quality else None,
                quality_replicates=None,
                unmeasured={**row.unmeasured, "quality_replicates": text, "quality": text},
                artifacts={"samples": text, "cost": text},
                environment={"host_cpu": text, "torch": text},
            )
        )
    return changed


INERT = re.compile(r"data:image/(png|webp);base64,|--(shade: [\d.]+|wide: \d+px)$|#[\w-]+$")


class _Page(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self) -> None:
        super().__init__()
        self.acting: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attributes:
            is_link = name in ("href", "src", "srcset", "style", "action")
            if name.startswith("on") or (is_link and not INERT.match(value or "")):
                self.acting.append(f"<{tag} {name}={value}>")


def check_html(text: str) -> None:
    """No script but ours and the data, no link out of the page, and no attribute that acts."""
    page = _Page()
    page.feed(text)
    assert page.scripts == len(SCRIPTS) + 1, "a script that is not the page's"
    assert not page.acting, page.acting


def check_markdown(text: str) -> None:
    """No HTML, no link but to our pictures, no heading or code that a text of a row made."""
    bare = re.sub(r"\\[\\`*_\[\](){}<>|~$:.&#+!-]", "", text)  # what a backslash takes the meaning from
    assert not re.search(r"<[a-zA-Z/!?]", bare), "HTML"
    links = re.findall(r"\]\(([^)]*)\)", bare)
    assert all(re.fullmatch(r"figures/[\w-]+\.png", link) for link in links), links
    assert not re.search(r"https?://" + CANARY, bare), "an address"
    assert not re.search(rf"^#+ {CANARY}", bare, re.MULTILINE), "a heading"
    assert "`" not in bare, "code"


def check_terminal(text: str) -> None:
    """No control sequence but the colours of rich."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    odd = {character for character in plain if not character.isprintable()} - {"\n"}
    assert not odd, f"{odd} on the terminal"


def _rows(folder: Path) -> list[bytes]:
    new = (ROOT / "results/baselines/gate.jsonl").read_bytes()
    return [new, _lines(sweep_rows()), _lines(sweep_rows()[1::4])]


def _lines(rows: list[Row]) -> bytes:
    return "".join(row_to_json(row) + "\n" for row in rows).encode()


@target("report", _rows, JSON_WORDS)
def report(data: bytes, folder: Path) -> None:
    path = write(folder, "rows.jsonl", data)
    try:
        page = write_report(path)
    finally:
        plt.close("all")
    check_html(page.read_text(encoding="utf-8"))
    check_markdown(page.with_suffix(".md").read_text(encoding="utf-8"))


def check_everything(rows: list[Row], folder: Path) -> None:
    """All that is made of rows, held against what their texts might do to it."""
    data = _lines(rows)
    check_terminal(show_rows(write(folder, "rows.jsonl", data)))
    report(data, folder)
