"""What the gate finds, and the words that its rules share."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from results.schema import Row

Verdict = Literal["pass", "notice", "warn", "fail"]
NOT_ANY_MORE = "measured in the baseline and not any more"
IF_MEANT = "record a new baseline if the change is meant"


@dataclass(frozen=True)
class Finding:
    """One comparison. ``kind``: cell, exact, tokens, quality, time, absent or benchmark."""

    setting: str
    kind: str
    quantity: str
    baseline: str
    now: str
    verdict: Verdict
    text: str


def gone(new: Row, name: str, otherwise: str = "absent") -> str:
    return f"{NOT_ANY_MORE}: {new.unmeasured.get(name, otherwise)}"


def worst(findings: Iterable[Finding]) -> Verdict:
    """The verdict of all together."""
    order: tuple[Verdict, ...] = ("pass", "notice", "warn", "fail")
    return max((finding.verdict for finding in findings), key=order.index, default="pass")
