"""The gate measured by itself: comparisons of equal code, and of code with a planted change.

Exact counters, tokens and quality are measured in this process. Times are measured in fresh processes,
several measurements in each, and compared across processes only, as the gate does. Comparisons that share a
process are not independent, so the intervals of their rates are somewhat too narrow.
"""

import dataclasses
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from backbones.products import weight_bytes
from backbones.transformer import parameter_count
from harness.cell.cell import Cell, normalised
from harness.machine.environment import environment
from harness.measure.measure import count_flops
from harness.measure.repeats import Budget, in_turn
from harness.measure.timed import timed_batches
from harness.measure.turns import load_all
from harness.quality.assess.controlled import Assessor
from harness.quality.intervals import wilson_interval
from harness.regress import judge, plants
from harness.regress.findings import Verdict, worst
from harness.regress.quality import quality
from harness.subject import compiled
from harness.subject.pins import finished
from harness.subject.prediction import predict
from harness.subject.prepare import prepare
from harness.subject.subject import Gallery, Subject, load, run_batch
from harness.sweep.process import Outcome, joined
from harness.sweep.row import make_row
from results.schema import Row, Turns

CELLS = (
    Cell("lpd", steps=10, guidance=2.0, batch=4, images=4),
    Cell("arpg", steps=16, guidance=2.0, batch=4, images=4),
    Cell("par", steps=19, guidance=2.0, batch=4, images=4),
)
TIMED = (Cell("raster", steps=64, guidance=2.0, batch=16), Cell("lpd", steps=10, guidance=2.0, batch=16))
QUALITY = Cell("lpd", steps=10, guidance=2.0, batch=64, images=256)
QUALITY_COMPARISONS = 35
"""Of the gate: five cells with seven metrics."""
WORSE_TEMPERATURE = 1.2
ROUNDS = 8
"""In turn in each process, as in the gate."""
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """How many comparisons are made."""

    exact: int = 200
    plants: int = 30
    processes: int = 12
    """Of equal code: at least three times ``together``."""
    planted_processes: int = 6
    """Of each slow-down: at least twice ``together``."""
    together: int = 3
    """Processes whose rounds are judged as one measurement, as in the gate."""
    per_process: int = 4
    quality: int = 5


@dataclass(frozen=True)
class Rate:
    """How often the gate spoke up. ``most`` and ``least`` are the targets, as shares of n, or None."""

    name: str
    flagged: int
    n: int
    most: float | None = None
    least: float | None = None

    @property
    def met(self) -> bool:
        share = self.flagged / self.n
        return share <= (1.0 if self.most is None else self.most) and share >= (self.least or 0.0)

    def row(self) -> dict[str, Any]:
        found = wilson_interval(self.flagged, self.n)
        bounds = {"low": found.low, "high": found.high}
        return dataclasses.asdict(self) | bounds | {"met": self.met}


def selftest(size: Size, folder: Path, say: Progress, **settings: Any) -> dict[str, Any]:
    """All rates as plain data. folder: for the reference's features. settings: the cells' threads and zoo."""
    started = time.monotonic()
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    whole = [normalised(dataclasses.replace(cell, **settings)) for cell in (*CELLS, *TIMED, QUALITY)]
    with_settings = [finished(cell) for cell in whole]
    torch.set_num_threads(with_settings[0].threads)
    rates = []
    for find in (
        exact_rates(with_settings[:3], size),
        time_rates(with_settings[3:5], size),
        quality_rates(with_settings[5], size, folder),
    ):
        for rate in find:
            rates.append(rate)
            say(f"{rate.name}: {rate.flagged} of {rate.n}")
    return {
        "started_at": started_at,
        "wall_s": time.monotonic() - started,
        "environment": environment(),
        "threads": with_settings[0].threads,
        "rates": [rate.row() for rate in rates],
    }


# Exact ----------------------------------------------------------------------------------------------------


def exact_rates(cells: Sequence[Cell], size: Size) -> Iterator[Rate]:
    subjects = [load(prepare(cell)) for cell in cells]
    before = [exact_row(subject) for subject in subjects]
    alarms = sum(
        is_exact_alarm(before[i % len(cells)], exact_row(subjects[i % len(cells)])) for i in range(size.exact)
    )
    yield Rate("A/A, exact counters and tokens", alarms, size.exact, most=0.0)
    for name, planted in (("one extra forward", _extra_forward), ("one changed token", _changed_token)):
        found = 0
        for i in range(size.plants):
            subject = subjects[i % len(cells)]
            found += is_exact_alarm(before[i % len(cells)], exact_row(planted(subject)))
        yield Rate(name, found, size.plants, least=1.0)


def exact_row(subject: Subject) -> Row:
    """A row of what is counted over one batch, and of its tokens."""
    cell, gallery = subject.prepared.cell, Gallery()
    batch = run_batch(subject, range(cell.batch))
    gallery.add(dataclasses.replace(subject, tokenizer=None), batch)
    return _row(
        cell,
        steps=batch.decoded.steps,
        forwards=batch.decoded.forwards,
        tokens_processed=batch.decoded.tokens_processed,
        flops_per_image=float(count_flops(subject)),
        parameters=parameter_count(subject.network),
        weight_bytes=weight_bytes(subject.network),
        cache_bytes=predict(subject.prepared).cache_bytes,
        graphs=compiled.graphs(),
        tokens_sha256=gallery.tokens_sha256,
    )


def is_exact_alarm(before: Row, now: Row) -> bool:
    """Whether the gate fails on a counter or the tokens."""
    return worst([*judge.exact(before, now), judge.tokens(before, now)]) == "fail"


def _with_decode(subject: Subject, decode: plants.Decode) -> Subject:
    prepared = subject.prepared
    planted = dataclasses.replace(prepared, strategy=plants.plant(prepared.strategy, decode))
    return dataclasses.replace(subject, prepared=planted)


def _extra_forward(subject: Subject) -> Subject:
    return _with_decode(subject, plants.one_extra_forward)


def _changed_token(subject: Subject) -> Subject:
    plan = subject.prepared.plan(range(subject.prepared.cell.batch))
    tokens = run_batch(subject, range(subject.prepared.cell.batch)).decoded.trace[-1].tokens
    assert plan.places > 0
    return _with_decode(subject, plants.one_changed_token(int(tokens[0, -1])))


def _row(cell: Cell, **measured: Any) -> Row:
    outcome = Outcome("ok", None, {"environment": environment(cell.device)} | measured, 0.0)
    return make_row(cell, outcome, datetime.now(UTC).isoformat())


# Time -----------------------------------------------------------------------------------------------------


def time_rates(cells: Sequence[Cell], size: Size) -> Iterator[Rate]:
    """Rates of the failing verdict; the +10 % plant is judged by the warning that is meant for it."""
    equal = [in_fresh_process(cells, 0.0, size.per_process) for _ in range(size.processes)]
    fails = [timing_verdict(cells, *trio) == "fail" for trio in across(equal, equal, size.together)]
    yield Rate("A/A, time", sum(fails), len(fails), most=0.02)
    for share in (0.1, 0.3):
        slow = [in_fresh_process(cells, share, size.per_process) for _ in range(size.planted_processes)]
        verdicts = [timing_verdict(cells, *trio) for trio in across(equal, slow, size.together)]
        if share == 0.1:
            yield Rate("+10 % time, warned of", sum(one != "pass" for one in verdicts), len(verdicts))
        else:
            found = sum(one == "fail" for one in verdicts)
            yield Rate("+30 % time", found, len(verdicts), least=1.0)


def across(
    before: Sequence[Sequence[Turns]], now: Sequence[Sequence[Turns]], together: int
) -> Iterator[tuple[Turns, Turns, Turns]]:
    """(baseline, first round, second round), each of ``together`` processes and no process in two of them."""
    for start in range(len(now)):
        measured = _pooled(now, start, together)
        second = _pooled(now, start + together, together)
        first = _pooled(before, start + 2 * together, together)
        yield from zip(first, measured, second, strict=True)


def _pooled(processes: Sequence[Sequence[Turns]], start: int, together: int) -> list[Turns]:
    """Measurement by measurement the rounds of so many processes from ``start`` on."""
    chosen = [processes[(start + i) % len(processes)] for i in range(together)]
    return [joined(pairs) for pairs in zip(*chosen, strict=True)]


def timing_verdict(cells: Sequence[Cell], before: Turns, now: Turns, again: Turns) -> Verdict:
    old, new = (_row(cells[1], turns=turns) for turns in (before, now))
    return judge.timing(old, new, again).verdict


def in_fresh_process(cells: Sequence[Cell], share: float, measurements: int) -> list[Turns]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure_times, cells, share, measurements).result()


def measure_times(cells: Sequence[Cell], share: float, measurements: int) -> list[Turns]:
    """Times of the second cell, slowed by ``share``, beside the first."""
    torch.set_num_threads(cells[0].threads)
    reference, own = (timed_batches(one, one.prepared.cell.batch) for one in load_all(map(prepare, cells)))
    runs = [reference, plants.slower(own, share) if share else own]
    for run in runs:
        run()
    found = []
    for _ in range(measurements):
        seconds = in_turn(runs, Budget(seconds=0.0, least=ROUNDS, patience_s=1e9))
        found.append(
            Turns(
                reference=cells[0].key, batch=cells[1].batch, seconds=seconds[1], reference_seconds=seconds[0]
            )
        )
    return found


# Quality --------------------------------------------------------------------------------------------------


def quality_rates(cell: Cell, size: Size, folder: Path) -> Iterator[Rate]:
    """Equal code gives equal images here, so the false alarms are those of other seeds' images."""
    assessor = Assessor.of(cell, folder)
    rows = [quality_row(_seeded(cell, seed), cell, assessor) for seed in range(size.quality + 1)]
    alarms = sum(is_quality_alarm(one, other) for one, other in pairwise(rows))
    yield Rate("other random numbers, quality", alarms, size.quality)
    found = 0
    for seed in range(size.quality):
        worse = dataclasses.replace(_seeded(cell, seed), temperature=WORSE_TEMPERATURE)
        found += is_quality_alarm(rows[seed], quality_row(worse, cell, assessor))
    yield Rate(f"worse quality (temperature {WORSE_TEMPERATURE:g})", found, size.quality)


def quality_row(drawn: Cell, cell: Cell, assessor: Assessor) -> Row:
    """A row of ``cell`` with the quality of the images that ``drawn`` generates."""
    subject, pixels = load(prepare(drawn)), []
    for start in range(0, cell.images, cell.batch):
        made = run_batch(subject, range(start, min(start + cell.batch, cell.images))).pixels
        assert made is not None
        pixels.append(made)
    fields, _ = assessor.fields(torch.cat(pixels), subject.labels(range(cell.images)).cpu())
    return _row(cell, **fields)


def is_quality_alarm(before: Row, now: Row) -> bool:
    return worst(quality(before, now, QUALITY_COMPARISONS)) == "fail"


def _seeded(cell: Cell, seed: int) -> Cell:
    return dataclasses.replace(cell, seed=seed)
