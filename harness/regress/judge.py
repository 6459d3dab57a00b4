"""The rules of the regression gate: two sets of rows in, findings out. Without torch, and without measuring.

* Counted quantities are exact: any change fails.
* Tokens are compared by hash where nothing but the code can change them: CPU, float32, and the baseline's
  processor, torch, threads and weights. Elsewhere a notice.
* Quality fails where the paired difference is worse by more than a stated margin and its interval excludes
  zero, at 99 % over all comparisons together (Bonferroni).
* Time is the ratio to the reference cell timed in turn. More than 10 % slower warns. More than 25 % slower
  fails if a rank test (Mann and Whitney, one-sided, p < 0.002) agrees, here and in a second, independent
  round. The reference itself is held against the fixed workloads timed beside it, which warns at most.
"""

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.stats import mannwhitneyu

from harness.quality.intervals import jackknife_interval
from reports.comparability import CLEAN_KEYS, QUALITY_KEYS, Incomparable, lower_is_better, require_comparable
from reports.compare import display_name, setting_key
from reports.inference import independent_contrast
from results.schema import Paired, Row

Verdict = Literal["pass", "notice", "warn", "fail"]
EXACT = (
    "steps",
    "forwards",
    "tokens_processed",
    "flops_per_image",
    "parameters",
    "weight_bytes",
    "cache_bytes",
    "graphs",
)
WARN_ABOVE, FAIL_ABOVE = 0.10, 0.25
P_BELOW = 0.002
QUALITY_LEVEL = 0.99
MARGINS = {
    "fd": (0.05, 0.0),
    "kid": (0.05, 0.0005),
    "is": (0.02, 0.0),
    "precision": (0.0, 0.01),
    "recall": (0.0, 0.01),
    "accuracy": (0.0, 0.01),
}
"""Stem of a metric -> (share of the baseline's value, absolute): the larger one is the margin."""


@dataclass(frozen=True)
class Finding:
    """One comparison. ``kind``: cell, exact, tokens, quality, time or benchmark."""

    setting: str
    kind: str
    quantity: str
    baseline: str
    now: str
    verdict: Verdict
    text: str


def judge(
    baseline: Sequence[Row], rows: Sequence[Row], again: Mapping[str, Paired] | None = None
) -> list[Finding]:
    """Every finding of ``rows`` against ``baseline``. again: cell -> its times of the second round."""
    pairs: list[tuple[Row, Row]] = []
    findings: list[Finding] = []
    matched = partners(baseline, rows)
    for old in baseline:
        new = matched.get(old.cell)
        if new is None:
            findings.append(_cell(old, old.status, "missing", "fail", "the baseline's cell was not run"))
        elif new.status != "ok":
            findings.append(_cell(new, old.status, new.status, "fail", new.reason or ""))
        elif old.status != "ok":
            findings.append(_cell(new, old.status, "ok", "notice", "the baseline has no result"))
        else:
            pairs.append((old, new))
    known = {row.cell for row in matched.values()}
    fresh = [row for row in rows if row.cell not in known]
    findings += [_cell(new, "none", new.status, "notice", "not in the baseline") for new in fresh]
    comparisons = sum(len(set(old.quality or {}) & set(new.quality or {})) for old, new in pairs)
    for old, new in pairs:
        findings += [*exact(old, new), tokens(old, new), *quality(old, new, comparisons)]
        findings.append(timing(old, new, (again or {}).get(new.cell)))
    return findings


def partners(baseline: Sequence[Row], rows: Sequence[Row]) -> dict[str, Row]:
    """Baseline cell -> the row of the same setting.

    Steps are counted, so where they changed the setting is the same but for them.
    """
    found: dict[str, Row] = {}
    left = list(rows)
    for but_for_steps in (False, True):
        for old in baseline:
            wanted = _join_key(old, but_for_steps)
            new = next((row for row in left if _join_key(row, but_for_steps) == wanted), None)
            if old.cell not in found and new is not None:
                found[old.cell] = new
                left.remove(new)
    return found


def _join_key(row: Row, but_for_steps: bool) -> str:
    return setting_key(dataclasses.replace(row, steps=0) if but_for_steps else row)


def suspects(baseline: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """The rows whose first round is slow enough, and surely enough, to be timed again."""
    matched = partners(baseline, rows)
    pairs = [(old, matched[old.cell]) for old in baseline if old.cell in matched]
    return [new for old, new in pairs if _is_slow(old.paired, new.paired)]


def _cell(row: Row, old: str, new: str, verdict: Verdict, text: str) -> Finding:
    return Finding(display_name(row), "cell", "status", old, new, verdict, " ".join(text.split()))


# Exact ----------------------------------------------------------------------------------------------------


def exact(old: Row, new: Row) -> list[Finding]:
    """Counted quantities: equal or failed."""
    found = []
    for name in EXACT:
        before, now = getattr(old, name), getattr(new, name)
        verdict: Verdict = "pass" if before == now else "fail"
        text = "" if before == now else "counted exactly: record a new baseline if the change is meant"
        if before is None and now is not None:
            verdict, text = "notice", f"baseline: {old.unmeasured.get(name, 'not counted')}"
        found.append(Finding(display_name(new), "exact", name, _count(before), _count(now), verdict, text))
    return found


def _count(value: float | None) -> str:
    return "none" if value is None else f"{value:,.0f}"


def tokens(old: Row, new: Row) -> Finding:
    """The hash of all tokens, where code alone can change it."""
    before, now = (row.tokens_sha256 or "" for row in (old, new))
    verdict: Verdict = "pass" if before == now else "fail"
    text = "" if before == now else "tokens differ on the baseline's machine and settings"
    obstacles = _token_obstacles(old, new)
    if obstacles:
        verdict, text = "notice", f"not compared: {', '.join(obstacles)}"
    return Finding(
        display_name(new), "tokens", "tokens_sha256", before[:12] or "none", now[:12] or "none", verdict, text
    )


def _token_obstacles(old: Row, new: Row) -> list[str]:
    found = []
    if (new.device, new.dtype) != ("cpu", "float32"):
        found.append(f"{new.device} {new.dtype} rounds by machine")
    environments = [row.environment or {} for row in (old, new)]
    found += [
        f"{key} differs"
        for key in ("host_cpu", "torch")
        if environments[0].get(key) != environments[1].get(key)
    ]
    found += [
        f"{key} differs"
        for key in ("threads", "checkpoint", "images")
        if getattr(old, key) != getattr(new, key)
    ]
    if old.tokens_sha256 is None:
        found.append("the baseline has no hash")
    return found


# Quality --------------------------------------------------------------------------------------------------


def quality(old: Row, new: Row, comparisons: int) -> list[Finding]:
    """Paired differences of the metrics that the old row has. comparisons: how many there are in all."""
    try:
        require_comparable((old, new), (*QUALITY_KEYS, *CLEAN_KEYS))
    except Incomparable as error:
        return [Finding(display_name(new), "quality", "quality", "", "", "notice", str(error))]
    measured = [name for name, metric in (old.quality or {}).items() if metric["value"] is not None]
    return [_metric(name, old, new, comparisons) for name in measured]


def _metric(name: str, old: Row, new: Row, comparisons: int) -> Finding:
    assert old.quality is not None
    before, entry = old.quality[name]["value"], (new.quality or {}).get(name)
    now = None if entry is None else entry["value"]
    assert before is not None
    if now is None:
        why = f"no longer measured: {new.unmeasured.get(f'quality.{name}', 'absent')}"
        return Finding(display_name(new), "quality", name, f"{before:.4g}", "", "notice", why)
    low, high = difference(name, old, new, 1 - (1 - QUALITY_LEVEL) / comparisons)
    worse, allowed = (now - before if lower_is_better(name) else before - now), margin(name, before)
    if allowed is None:
        text = f"difference {now - before:+.3g}, no margin is stated for this metric"
        return Finding(display_name(new), "quality", name, f"{before:.4g}", f"{now:.4g}", "notice", text)
    verdict: Verdict = "pass"
    text = f"difference {now - before:+.3g}, margin {allowed:.3g}"
    if low is None or high is None:
        text += ", no interval"
    else:
        text += f", interval [{low:.3g}, {high:.3g}]"
        if not low <= 0 <= high and worse > 0:
            verdict = "fail" if worse > allowed else "warn"
    return Finding(display_name(new), "quality", name, f"{before:.4g}", f"{now:.4g}", verdict, text)


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


def margin(name: str, value: float) -> float | None:
    """How much worse a metric may become before a sure difference fails; None where none is stated."""
    stated = MARGINS.get(name.partition("@")[0].partition("_")[0])
    if stated is None:
        return None
    relative, absolute = stated
    return max(relative * abs(value), absolute)


# Time -----------------------------------------------------------------------------------------------------


def timing(old: Row, new: Row, again: Paired | None = None) -> Finding:
    """The ratio to the reference cell: soft, and failed by two rounds only."""
    name, quantity = display_name(new), "time / reference"
    if old.paired is None or new.paired is None:
        why = (old if old.paired is None else new).unmeasured.get("paired", "not timed in turn")
        return Finding(name, "time", quantity, "none", "none", "notice", why)
    if _is_reference(new.paired):
        return _reference_timing(old, new)
    before, now = statistics.median(ratios(old.paired)), statistics.median(ratios(new.paired))
    change = now / before - 1
    verdict: Verdict = "warn" if change > WARN_ABOVE else "pass"
    text = f"{100 * change:+.1f} % (n={len(old.paired['seconds'])}, {len(new.paired['seconds'])})"
    if _is_slow(old.paired, new.paired):
        if again is None:
            text += ", not timed a second time"
        else:
            second = statistics.median(ratios(again)) / before - 1
            confirmed = _is_slow(old.paired, again)
            verdict = "fail" if confirmed else "warn"
            text += f", second round {100 * second:+.1f} %, {'confirmed' if confirmed else 'not confirmed'}"
    return Finding(name, "time", quantity, f"{before:.4f}", f"{now:.4f}", verdict, text)


def _reference_timing(old: Row, new: Row) -> Finding:
    """The reference against the fixed workloads beside it: what slows every strategy alike shows only here.

    Workloads and decode are bound by different parts of a machine, so this warns at most.
    """
    name, quantity = display_name(new), "time / workloads"
    before, now = _over_workloads(old), _over_workloads(new)
    if before is None or now is None:
        return Finding(name, "time", quantity, "none", "none", "notice", "no workloads beside it")
    change = now / before - 1
    verdict: Verdict = "warn" if change > FAIL_ABOVE else "pass"
    text = f"{100 * change:+.1f} %, the reference of all ratios"
    return Finding(name, "time", quantity, f"{before:.4g}", f"{now:.4g}", verdict, text)


def _over_workloads(row: Row) -> float | None:
    """Median seconds of a batch over the geometric mean of the two workloads."""
    seconds = [value for value in (row.calibration_s or {}).values() if value]
    if row.paired is None or not seconds:
        return None
    return statistics.median(row.paired["seconds"]) / statistics.geometric_mean(seconds)


def _is_reference(paired: Paired) -> bool:
    return paired["seconds"] == paired["reference_seconds"]


def ratios(paired: Paired) -> list[float]:
    """Seconds over those of the reference, by round."""
    return [own / other for own, other in zip(paired["seconds"], paired["reference_seconds"], strict=True)]


def _is_slow(old: Paired | None, new: Paired | None) -> bool:
    if old is None or new is None or _is_reference(new):
        return False
    before, now = ratios(old), ratios(new)
    if statistics.median(now) / statistics.median(before) - 1 <= FAIL_ABOVE:
        return False
    return bool(mannwhitneyu(now, before, alternative="greater").pvalue < P_BELOW)


def benchmarks(old: Mapping[str, Sequence[float]], new: Mapping[str, Sequence[float]]) -> Iterable[Finding]:
    """pytest-benchmark results by name: they have no reference in their process, so they warn at most."""
    for name, seconds in new.items():
        now = statistics.median(seconds)
        if name not in old:
            yield Finding(name, "benchmark", "seconds", "none", f"{now:.4g}", "notice", "not in the baseline")
            continue
        before = statistics.median(old[name])
        change = now / before - 1
        verdict: Verdict = "warn" if change > WARN_ABOVE else "pass"
        text = f"{100 * change:+.1f} % (n={len(old[name])}, {len(seconds)}), no reference in its process"
        yield Finding(name, "benchmark", "seconds", f"{before:.4g}", f"{now:.4g}", verdict, text)
    for name in old:
        if name not in new:
            yield Finding(name, "benchmark", "seconds", "recorded", "none", "notice", "not run")


def worst(findings: Iterable[Finding]) -> Verdict:
    """The verdict of all together."""
    order: tuple[Verdict, ...] = ("pass", "notice", "warn", "fail")
    return max((finding.verdict for finding in findings), key=order.index, default="pass")
