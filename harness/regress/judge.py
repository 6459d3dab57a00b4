"""The rules of the regression gate: two sets of rows in, findings out. Without torch, and without measuring.

* What the baseline measured and the new run did not fails, whatever the reason.
* Counted quantities are exact: any change fails. What follows from a declared acceptance is not compared.
* Tokens are compared by hash where nothing but the code can change them: CPU, float32, and the baseline's
  processor, torch, threads and weights. Elsewhere a notice; so are counts that depend on the tokens.
* Quality fails where the paired difference is worse by more than a stated margin and its interval excludes
  zero, at 99 % over all comparisons together (Bonferroni).
* Time is the ratio to the reference cell timed in turn. More than 10 % slower warns. More than 25 % slower
  fails if a rank test (Mann and Whitney, one-sided, p < 0.002) agrees, here and in a second, independent
  round. On another processor, torch or number of threads than the baseline's ratios move by themselves, so
  there it warns at most. The reference itself is held against the fixed workloads timed beside it, which
  warns at most.
"""

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scipy.stats import mannwhitneyu

from harness.regress.findings import IF_MEANT, NOT_ANY_MORE, Finding, Verdict, gone
from harness.regress.quality import compared, quality
from reports.measured import counts_of, follows_tokens
from reports.naming import counted_text, display_name
from results.environments import environment_keys
from results.fields import Measure
from results.same_setting import setting_key
from results.schema import FIELDS, Row, Turns

WARN_ABOVE, FAIL_ABOVE = 0.10, 0.25
P_BELOW = 0.002


def judge(
    baseline: Sequence[Row], rows: Sequence[Row], again: Mapping[str, Turns] | None = None
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
    comparisons = sum(compared(old, new) for old, new in pairs)
    for old, new in pairs:
        of_pair = [*exact(old, new), tokens(old, new), *quality(old, new, comparisons)]
        asked = again is not None and new.cell not in again
        of_pair += [timing(old, new, (again or {}).get(new.cell), asked), *absent(old, new)]
        name = display_name(new, [*baseline, *rows])
        findings += [dataclasses.replace(one, setting=name) for one in of_pair]
    return findings


def partners(baseline: Sequence[Row], rows: Sequence[Row]) -> dict[str, Row]:
    """Baseline cell -> the row of the same setting.

    Steps are counted, so where they changed the setting is the same but for them.
    """
    found: dict[str, Row] = {}
    left = list(rows)
    for but_for in ((), ("steps",)):
        for old in baseline:
            wanted = setting_key(old, but_for)
            new = next((row for row in left if setting_key(row, but_for) == wanted), None)
            if old.cell not in found and new is not None:
                found[old.cell] = new
                left.remove(new)
    return found


def suspects(baseline: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """The rows whose first round is slow enough, and surely enough, to be timed again."""
    matched = partners(baseline, rows)
    pairs = [(old, matched[old.cell]) for old in baseline if old.cell in matched]
    return [new for old, new in pairs if _is_slow(old.turns, new.turns) and not _elsewhere(old, new)]


def _cell(row: Row, old: str, new: str, verdict: Verdict, text: str) -> Finding:
    return Finding(display_name(row), "cell", "status", old, new, verdict, " ".join(text.split()))


# Exact ----------------------------------------------------------------------------------------------------


def exact(old: Row, new: Row) -> list[Finding]:
    """Counted quantities: equal or failed."""
    found = []
    counted, counts = counts_of(old), counts_of(new)
    for name in {**counted, **counts}:
        before, now = counted.get(name), counts.get(name)
        if before is None and now is None:
            continue
        verdict: Verdict = "pass" if before == now else "fail"
        text = "" if before == now else f"counted exactly: {IF_MEANT}"
        if before is None:
            verdict, text = "notice", f"baseline: {old.unmeasured.get(name, 'not counted')}"
        elif now is None:
            text = gone(new, name)
        elif before != now and (why := _why_not_exact(name, old, new)):
            verdict, text = "notice", why
        found.append(Finding(display_name(new), "exact", name, _count(before), _count(now), verdict, text))
    return found


def _why_not_exact(name: str, old: Row, new: Row) -> str:
    """Why a counter may differ although the code is the same; empty where it may not."""
    if not follows_tokens(name):
        return ""
    if old.acceptance is not None or new.acceptance is not None:
        return "not compared: it follows from a declared acceptance"
    obstacles = _token_obstacles(old, new) if new.steps_bound is not None else []
    return f"depends on the tokens, not compared: {', '.join(obstacles)}" if obstacles else ""


def _count(value: float | None) -> str:
    return "none" if value is None else counted_text(value)


def tokens(old: Row, new: Row) -> Finding:
    """The hash of all tokens, where code alone can change it."""
    before, now = (row.tokens_sha256 or "" for row in (old, new))
    verdict: Verdict = "pass" if before == now else "fail"
    text = "" if before == now else "tokens differ on the baseline's machine and settings"
    obstacles = _token_obstacles(old, new)
    if before and not now:
        text = f"{NOT_ANY_MORE}: the row has no hash"
    elif obstacles:
        verdict, text = "notice", f"not compared: {', '.join(obstacles)}"
    return Finding(
        display_name(new), "tokens", "tokens_sha256", before[:12] or "none", now[:12] or "none", verdict, text
    )


def absent(old: Row, new: Row) -> list[Finding]:
    """What else the baseline measured and the new row did not."""
    found = []
    one_device = environment_keys(old)["hardware"] == environment_keys(new)["hardware"]
    for name, one in FIELDS.items():
        if not (isinstance(one, Measure) and one.gated):
            continue
        verdict: Verdict = "fail" if one.gated == "anywhere" or one_device else "notice"
        before, now = numbers_of(name, getattr(old, name)), numbers_of(name, getattr(new, name))
        for entry, value in before.items():
            if value is not None and now.get(entry) is None:
                why = gone(new, entry, new.unmeasured.get(name, "absent"))
                had = f"{value:.4g} {one.unit}"
                found.append(Finding(display_name(new), "absent", entry, had, "none", verdict, why))
    return found


def numbers_of(name: str, value: Any) -> dict[str, float | None]:
    """A number by its name, the numbers of a mapping by dotted ones, a metric by its value."""
    if not isinstance(value, dict):
        return {name: value}
    if "value" in value:
        return {name: value["value"]}
    return {f"{name}.{key}": one for key, one in value.items()}


def _token_obstacles(old: Row, new: Row) -> list[str]:
    found = []
    if (new.device, new.dtype) != ("cpu", "float32"):
        found.append(f"{new.device} {new.dtype} rounds by machine")
    found += _elsewhere(old, new)
    found += [f"{key} differs" for key in ("checkpoint", "images") if getattr(old, key) != getattr(new, key)]
    if old.tokens_sha256 is None:
        found.append("the baseline has no hash")
    return found


def _elsewhere(old: Row, new: Row) -> list[str]:
    """In what the machines of two rows differ."""
    before, now = (
        {"device": row.device, "threads": row.threads}
        | {name: (row.environment or {}).get(name) for name in ("host_cpu", "gpu", "torch")}
        for row in (old, new)
    )
    return [f"{name} differs" for name in before if before[name] != now[name]]


# Time -----------------------------------------------------------------------------------------------------


def timing(old: Row, new: Row, again: Turns | None = None, asked: bool = False) -> Finding:
    """The ratio to the reference cell: soft, and failed by two rounds only.

    asked: whether a second round, which ``again`` lacks, was tried.
    """
    name, ratio = display_name(new), "time / reference"
    if old.turns is None:
        why = old.unmeasured.get("turns", "not timed in turn")
        return Finding(name, "time", ratio, "none", "none", "notice", f"baseline: {why}")
    if new.turns is None:
        why = gone(new, "turns", "not timed in turn")
        return Finding(name, "time", ratio, "timed", "none", "fail", why)
    if _is_reference(old.turns) != _is_reference(new.turns):
        why = f"timed beside another reference than in the baseline: {IF_MEANT}"
        return Finding(name, "time", ratio, "timed", "timed", "fail", why)
    if _is_reference(new.turns):
        return _reference_timing(old, new)
    before, now = statistics.median(ratios(old.turns)), statistics.median(ratios(new.turns))
    change = now / before - 1
    verdict: Verdict = "warn" if change > WARN_ABOVE else "pass"
    text = f"{100 * change:+.1f} % (n={len(old.turns['seconds'])}, {len(new.turns['seconds'])})"
    if _is_slow(old.turns, new.turns):
        if elsewhere := _elsewhere(old, new):
            text += f", not held against it: {', '.join(elsewhere)}"
        elif again is None:
            verdict = "fail" if asked else "warn"
            text += ", not timed a second time" + (": the second round failed" if asked else "")
        else:
            second = statistics.median(ratios(again)) / before - 1
            confirmed = _is_slow(old.turns, again)
            verdict = "fail" if confirmed else "warn"
            text += f", second round {100 * second:+.1f} %, {'confirmed' if confirmed else 'not confirmed'}"
    return Finding(name, "time", ratio, f"{before:.4f}", f"{now:.4f}", verdict, text)


def _reference_timing(old: Row, new: Row) -> Finding:
    """The reference against the fixed workloads beside it: what slows every strategy alike shows only here.

    Workloads and decode are bound by different parts of a machine, so this warns at most.
    """
    name, ratio = display_name(new), "time / workloads"
    before, now = _over_workloads(old), _over_workloads(new)
    if before is None or now is None:
        why = "baseline: no workloads beside it" if before is None else f"{NOT_ANY_MORE}: the workloads"
        return Finding(name, "time", ratio, "none", "none", "notice" if before is None else "fail", why)
    change = now / before - 1
    verdict: Verdict = "warn" if change > FAIL_ABOVE else "pass"
    text = f"{100 * change:+.1f} %, the reference of all ratios"
    return Finding(name, "time", ratio, f"{before:.4g}", f"{now:.4g}", verdict, text)


def _over_workloads(row: Row) -> float | None:
    """Median seconds of a batch over the geometric mean of the two workloads."""
    seconds = [value for value in (row.calibration_s or {}).values() if value]
    if row.turns is None or not seconds:
        return None
    return statistics.median(row.turns["seconds"]) / statistics.geometric_mean(seconds)


def _is_reference(turns: Turns) -> bool:
    return turns["seconds"] == turns["reference_seconds"]


def ratios(turns: Turns) -> list[float]:
    """Seconds over those of the reference, by round."""
    return [own / other for own, other in zip(turns["seconds"], turns["reference_seconds"], strict=True)]


def _is_slow(old: Turns | None, new: Turns | None) -> bool:
    if old is None or new is None or _is_reference(new):
        return False
    before, now = ratios(old), ratios(new)
    if statistics.median(now) / statistics.median(before) - 1 <= FAIL_ABOVE:
        return False
    return bool(mannwhitneyu(now, before, alternative="greater").pvalue < P_BELOW)


def benchmarks(old: Mapping[str, Sequence[float]], new: Mapping[str, Sequence[float]]) -> Iterable[Finding]:
    """pytest-benchmark results by name: they have no reference in their process, so slow ones warn."""
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
            yield Finding(name, "benchmark", "seconds", "recorded", "none", "fail", "not run any more")
