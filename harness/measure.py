"""What one cell measures: speed, latency and memory around the images that its quality is judged by."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from backbones.products import weight_bytes
from backbones.transformer import parameter_count
from harness.generate import PHASES, Batch, Gallery, Subject, run_batch
from harness.memory import PeakMemory
from harness.prepare import on_meta, predict
from harness.statistics import median_interval
from strategies.decoding.decode import decode
from strategies.decoding.sampling import StreamSampler

BATCHES = (1, 16, 64)
"""Batch sizes whose throughput and peak memory every cell measures, besides its own."""
Report = Callable[[float, str], None]


@dataclass(frozen=True)
class Budget:
    """How long is measured. Repeats go on to ``least`` and then while the time lasts."""

    warmup_s: float = 1.0
    latency_s: float = 0.5
    batch_s: float = 0.4
    least: int = 5
    least_by_batch: int = 3
    patience_s: float = 120.0
    """Past this even the least number of repeats is given up, but never the first."""
    steady: float = 0.05
    """Warm-up ends when the last three repeats lie within this share of their median."""
    warmups: int = 10


@dataclass
class Measurements:
    """Fields of the row, why some are null, and the images and artifacts of one cell."""

    row: dict[str, Any] = field(default_factory=dict)
    unmeasured: dict[str, str] = field(default_factory=dict)
    gallery: Gallery = field(default_factory=Gallery)
    speeds: dict[str, float | None] = field(default_factory=dict)
    """Batch size -> median images/s."""
    peaks: dict[str, float | None] = field(default_factory=dict)
    """Batch size -> peak bytes over the loaded state."""

    def skip(self, size: int, reason: str) -> None:
        self.speeds[str(size)] = self.peaks[str(size)] = None
        for name in ("throughput_by_batch", "peak_bytes_by_batch"):
            self.unmeasured[f"{name}.{size}"] = reason


def measure(subject: Subject, report: Report, budget: Budget = Budget()) -> Measurements:
    """Run the cell: count, warm up, time, and generate its images."""
    cell, found = subject.prepared.cell, Measurements()
    report(0.0, "warm-up")
    run_batch(subject, [0])
    flops = count_flops(subject)
    # What the libraries hold will never be garbage; without it a collection takes less than a millisecond.
    gc.collect()
    gc.freeze()
    memory = PeakMemory(subject.device)
    memory.settle()
    per_image_s = 0.0
    # Ascending, so that memory kept by a smaller batch is never counted for a larger one.
    for size in sorted({*BATCHES, cell.batch}):
        report(0.0, f"batch {size}")
        needed_s = per_image_s * size * (2 + budget.least_by_batch)
        if size not in (1, cell.batch) and needed_s > budget.patience_s:
            found.skip(size, f"would take up to {needed_s:.0f} s")
            continue
        try:
            per_image_s = _measure_batch(subject, size, memory, found, report, budget)
        except torch.OutOfMemoryError:
            if size in (1, cell.batch):
                raise
            found.skip(size, "out of memory")
    best = max(found.speeds, key=lambda size: found.speeds[size] or 0.0)
    found.row |= {
        "parameters": parameter_count(on_meta(subject.prepared.strategy, subject.prepared.config)),
        "flops_per_image": float(flops),
        "throughput_by_batch": found.speeds,
        "throughput_best_images_per_s": found.speeds[best],
        "throughput_best_batch": int(best),
        "weight_bytes": weight_bytes(subject.network),
        "cache_bytes": predict(subject.prepared).cache_bytes,
        "peak_bytes": found.peaks[str(cell.batch)],
        "peak_bytes_by_batch": found.peaks,
    }
    if found.row["peak_bytes"] is None:
        found.unmeasured["peak_bytes"] = found.unmeasured[f"peak_bytes_by_batch.{cell.batch}"]
    return found


def _measure_batch(
    subject: Subject, size: int, memory: PeakMemory, found: Measurements, report: Report, budget: Budget
) -> float:
    """Peak memory, speed and, at batch 1, latency of one batch size; seconds per image."""
    memory.reset()
    first_s = run_batch(subject, range(size)).seconds["total"]
    found.peaks[str(size)], unknown = memory.over_loaded()
    if unknown is not None:
        found.unmeasured[f"peak_bytes_by_batch.{size}"] = unknown
    if size == subject.prepared.cell.batch:
        warm_up(subject, size, budget, first_s)
        totals = _generate(subject, found, report, budget)
    else:
        totals = list(_repeats(subject, size, budget))
    if size == 1:
        median = median_interval(totals)
        found.row |= {
            "latency_s": median.value,
            "latency_interval_s": [median.low, median.high],
            "latency_samples_s": totals,
        }
    middle = statistics.median(totals)
    found.speeds[str(size)] = size / middle
    return middle / size


def _generate(subject: Subject, found: Measurements, report: Report, budget: Budget) -> list[float]:
    """All images of the cell, timed batch by batch; seconds of the full batches."""
    cell = subject.prepared.cell
    batches: list[Batch] = []
    for start in range(0, cell.images, cell.batch):
        batch = run_batch(subject, range(start, min(start + cell.batch, cell.images)))
        found.gallery.add(subject, batch)
        report(min(1.0, (start + cell.batch) / cell.images), "images")
        if len(batch.images) == cell.batch:
            batches.append(batch)
    counted = batch.decoded
    started = time.monotonic()
    while len(batches) < budget.least and (not batches or time.monotonic() - started < budget.patience_s):
        batches.append(run_batch(subject, range(cell.batch)))
    totals = [batch.seconds["total"] for batch in batches]
    samples = [cell.batch / total for total in totals]
    median = median_interval(samples)
    phases: dict[str, float | None] = {
        name: statistics.median(b.seconds[name] for b in batches) for name in PHASES
    }
    if subject.tokenizer is None:
        phases["detokenize"] = None
        found.unmeasured["phases_s.detokenize"] = "no tokenizer_checkpoint: tokens stay tokens"
    found.row |= {
        "steps": counted.steps,
        "forwards": counted.forwards,
        "tokens_processed": counted.tokens_processed,
        "throughput_images_per_s": median.value,
        "throughput_interval": [median.low, median.high],
        "throughput_repeats": len(samples),
        "throughput_samples": samples,
        "phases_s": phases,
    }
    return totals


def _repeats(subject: Subject, size: int, budget: Budget) -> Iterator[float]:
    """Seconds of whole batches; one has run already."""
    least, lasting = (
        (budget.least, budget.latency_s) if size == 1 else (budget.least_by_batch, budget.batch_s)
    )
    started, done = time.monotonic(), 0
    while True:
        yield run_batch(subject, range(size)).seconds["total"]
        done += 1
        spent = time.monotonic() - started
        if (done >= least and spent > lasting) or spent > budget.patience_s:
            return


def warm_up(subject: Subject, size: int, budget: Budget, first_s: float | None = None) -> list[float]:
    """Run batches until three in a row agree, at least 2, at most ``budget.warmups``; their seconds.

    first_s: seconds of a batch of this size that has run already and counts as one of them.
    """
    totals = [] if first_s is None else [first_s]
    started = time.monotonic()
    while len(totals) < budget.warmups:
        totals.append(run_batch(subject, range(size)).seconds["total"])
        if len(totals) >= 3 and is_steady(totals[-3:], budget.steady):
            break
        if len(totals) >= 2 and time.monotonic() - started > budget.warmup_s:
            break
    return totals


def is_steady(seconds: list[float], tolerance: float) -> bool:
    """Whether all lie within ``tolerance`` of their median."""
    middle = statistics.median(seconds)
    return all(abs(value - middle) <= tolerance * middle for value in seconds)


def count_flops(subject: Subject) -> int:
    """Floating-point operations of the products and attentions behind one image, both halves of guidance.

    Counted by torch while one image is decoded; a multiply-add is two. The tokenizer is not part of it.
    """
    prepared, cell = subject.prepared, subject.prepared.cell
    with flop_counter() as counter:
        decode(
            subject.network,
            prepared.strategy,
            prepared.plan([0]),
            subject.labels([0]),
            StreamSampler(prepared.streams([0]), cell.temperature, cell.top_k, cell.top_p),
            prepared.guidance,
        )
    return int(counter.get_total_flops())


def flop_counter() -> FlopCounterMode:
    """Torch's counter, taught the products and attentions of the CPU that it leaves out."""
    formulas = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
        torch.ops.mkldnn._linear_pointwise: _packed_flops,
    }
    return FlopCounterMode(display=False, custom_mapping=formulas)


def _attention_flops(
    query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **named: Any
) -> int:
    """Attention on the CPU, which torch's own table leaves out."""
    return int(sdpa_flop_count(query, key, value))


def _packed_flops(rows: Any, weight: Any, *rest: Any, out_shape: Any = None, **named: Any) -> int:
    """A packed linear product of shapes [.., in] and [out, in]."""
    return 2 * math.prod(rows) * int(weight[0])
