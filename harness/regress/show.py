"""Findings as a terminal table, Markdown for a pull request, and JSON."""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from harness.regress.findings import Finding, Verdict, worst
from reports.escape import terminal
from reports.fitting import print_fitting
from reports.tables import markdown_of

_HEADINGS = ("verdict", "setting", "quantity", "baseline", "now", "why")
_STYLES: dict[Verdict, str] = {"fail": "bold red", "warn": "yellow", "notice": "cyan", "pass": "green"}


def notable(findings: Sequence[Finding]) -> list[Finding]:
    """All but what passed, and every time, worst first."""
    order = list(_STYLES)
    kept = [finding for finding in findings if finding.verdict != "pass" or finding.kind == "time"]
    return sorted(kept, key=lambda finding: order.index(finding.verdict))


def summary(findings: Sequence[Finding]) -> str:
    """One line: the verdict and how many comparisons it rests on."""
    counts = Counter(finding.verdict for finding in findings)
    parts = [f"{counts[name]} {name}" for name in _STYLES if counts[name]]
    return (
        f"{'FAIL' if worst(findings) == 'fail' else 'pass'}: {len(findings)} comparisons, {', '.join(parts)}"
    )


def print_findings(findings: Sequence[Finding], console: Console | None = None) -> None:
    console = console or Console()
    lines: list[list[str | Text]] = []
    for finding in notable(findings):
        verdict, *rest = _entries(finding)
        lines.append([terminal(verdict, _STYLES[finding.verdict]), *rest])
    title = terminal("Against the baseline")
    print_fitting(console, _HEADINGS, lines, keys=3, right=("baseline", "now"), title=title)
    console.print(summary(findings), highlight=False)


def to_markdown(findings: Sequence[Finding]) -> str:
    """For a comment on a pull request."""
    lines = ["## pardec regress", "", summary(findings), ""]
    return "\n".join([*lines, markdown_of(_HEADINGS, list(map(_entries, notable(findings)))), ""])


def to_json(findings: Sequence[Finding]) -> str:
    """Every finding, those that passed included."""
    content = {"verdict": worst(findings), "findings": [dataclasses.asdict(one) for one in findings]}
    return json.dumps(content, indent=1) + "\n"


def _entries(finding: Finding) -> list[str]:
    return [
        finding.verdict,
        finding.setting,
        finding.quantity,
        finding.baseline,
        finding.now,
        finding.text,
    ]
