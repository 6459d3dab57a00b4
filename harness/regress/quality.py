"""The gate's rules of quality: paired differences against stated margins."""

import dataclasses
from typing import Any

from harness.quality.intervals import jackknife_interval
from harness.regress.findings import IF_MEANT, NOT_ANY_MORE, Finding, Verdict, gone
from reports.comparability import Incomparable, lower_is_better, quantity, require_comparable
from reports.inference import independent_contrast
from reports.naming import display_name
from results.metrics import UNSTATED, kind_of
from results.schema import Row

QUALITY_LEVEL = 0.99


def quality(old: Row, new: Row, comparisons: int) -> list[Finding]:
    """Paired differences of the metrics that the old row has. comparisons: how many there are in all."""
    return [_metric(name, old, _renamed(new, old), comparisons) for name in _measured(old)]


def compared(old: Row, new: Row) -> int:
    """How many metrics both rows have."""
    return len(set(_measured(old)) & set(_measured(new)))


def _measured(row: Row) -> list[str]:
    return [name for name, metric in (row.quality or {}).items() if metric["value"] is not None]


def _renamed(new: Row, old: Row) -> Row:
    """``new`` with the old row's names for references of the same content."""
    changes: dict[str, Any] = {}
    for field in ("reference", "clean_reference"):
        before, now = getattr(old, field), getattr(new, field)
        if before and now and before["sha256"] == now["sha256"]:
            changes[field] = now | {"name": before["name"]}
    return dataclasses.replace(new, **changes)


def _metric(name: str, old: Row, new: Row, comparisons: int) -> Finding:
    assert old.quality is not None
    before, entry = old.quality[name], (new.quality or {}).get(name)
    value, now = before["value"], None if entry is None else entry["value"]
    assert value is not None

    def finding(verdict: Verdict, text: str) -> Finding:
        shown = "none" if now is None else f"{now:.4g}"
        return Finding(display_name(new), "quality", name, f"{value:.4g}", shown, verdict, text)

    if entry is None or now is None:
        return finding("fail", gone(new, f"quality.{name}", new.unmeasured.get("quality", "absent")))
    try:
        require_comparable((old, new), quantity(name).keys, name)
    except Incomparable as error:
        return finding("fail", f"{error}: {IF_MEANT}")
    worse, allowed = (now - value if lower_is_better(name) else value - now), margin(name, value)
    text = f"difference {now - value:+.3g}, margin {allowed:.3g}"
    lost = _uncertainty(name, old) - _uncertainty(name, new)
    if lost:
        return finding("fail", f"{text}; its {' and '.join(sorted(lost))}: {NOT_ANY_MORE}")
    before_groups, groups = (len((row.quality_replicates or {}).get(name, ())) for row in (old, new))
    if before_groups != groups:
        text += (
            f", not paired: {before_groups} and {groups} groups of images, so a change may hide: {IF_MEANT}"
        )
        return finding("warn", text)
    low, high = difference(name, old, new, 1 - (1 - QUALITY_LEVEL) / comparisons)
    if low is None or high is None:
        return finding("warn" if worse > allowed else "pass", f"{text}, no interval")
    verdict: Verdict = "pass"
    if not low <= 0 <= high and worse > 0:
        verdict = "fail" if worse > allowed and kind_of(name).margin else "warn"
    return finding(verdict, f"{text}, interval [{low:.3g}, {high:.3g}]")


def _uncertainty(name: str, row: Row) -> set[str]:
    """What tells how sure a metric of the row is."""
    metric, drawn = (row.quality or {})[name], name in (row.quality_replicates or {})
    bounded = metric["low"] is not None and metric["high"] is not None
    return {part for part, known in (("interval", bounded), ("replicates", drawn)) if known}


def difference(name: str, old: Row, new: Row, level: float) -> tuple[float | None, float | None]:
    """Bounds of new - old: by the replicates of both, which share their random numbers, else by MOVER."""
    assert old.quality is not None
    assert new.quality is not None
    a, b = old.quality[name], new.quality[name]
    before, now = ((row.quality_replicates or {}).get(name, []) for row in (old, new))
    if a["value"] is None or b["value"] is None:
        return None, None
    if not before or len(before) != len(now):
        apart = independent_contrast((a["value"], a["low"], a["high"]), (b["value"], b["low"], b["high"]))
        return apart.low, apart.high
    replicates = [y - x for x, y in zip(before, now, strict=True)]
    found = jackknife_interval(b["value"] - a["value"], replicates, b["n"], level)
    return found.low, found.high


def margin(name: str, value: float) -> float:
    """How much worse a metric may become before a sure difference fails; where none is stated, it warns."""
    relative, absolute = kind_of(name).margin or UNSTATED
    return max(relative * abs(value), absolute)
