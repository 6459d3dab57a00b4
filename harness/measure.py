"""What one cell measures: speed, latency and memory around the images that its quality is judged by."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from backbones.transformer import parameter_count
from harness.generate import PHASES, Batch, Gallery, Subject, run_batch
from harness.memory import PeakMemory
from harness.prepare import predict
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
    latency_s: float = 1.0
    batch_s: float = 0.6
    least: int = 5
    least_by_batch: int = 3
    patience_s: float = 120.0
    """Past this even the least number of repeats is given up, but never the first."""
    steady: float = 0.05
    """Warm-up ends when the last three repeats lie within this share of their median."""
    warmups: int = 10


@dataclass
class Measurements:
    """Fields of the row, the images and the artifacts of one cell."""

    row: dict[str, Any]
    gallery: Gallery
    unmeasured: dict[str, str] = field(default_factory=dict)


def measure(subject: Subject, report: Report, budget: Budget = Budget()) -> Measurements:
    """Run the cell: count, warm up, time, and generate its images."""
    cell = subject.prepared.cell
    report(0.0, "warm-up")
    run_batch(subject, [0], check=True)
    flops = count_flops(subject)
    # What the libraries hold will never be garbage; without it a collection takes less than a millisecond.
    gc.collect()
    gc.freeze()
    memory = PeakMemory(subject.device)
    memory.settle()
    gallery, sizes = Gallery(), sorted({*BATCHES, cell.batch})
    speeds: dict[str, float | None] = {}
    peaks: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    row: dict[str, Any] = {}
    # Ascending, so that memory kept by a smaller batch is never counted for a larger one.
    for size in sizes:
        report(0.0, f"batch {size}")
        memory.reset()
        run_batch(subject, range(size))
        peaks[str(size)], why = memory.over_loaded()
        if why is not None:
            reasons[f"peak_bytes_by_batch.{size}"] = why
        if size == cell.batch:
            totals, found = _generate(subject, gallery, report, budget)
            row |= found
        else:
            totals = list(_repeats(subject, size, budget))
        if size == 1:
            row |= _latency(totals)
        speeds[str(size)] = size / statistics.median(totals)
    best = max(speeds, key=lambda size: speeds[size] or 0.0)
    prediction = predict(subject.prepared)
    row |= {
        "parameters": parameter_count(subject.network),
        "flops_per_image": float(flops),
        "throughput_by_batch": speeds,
        "throughput_best_images_per_s": speeds[best],
        "throughput_best_batch": int(best),
        "weight_bytes": sum(p.nbytes for p in subject.network.parameters()),
        "cache_bytes": prediction.cache_bytes,
        "peak_bytes": peaks[str(cell.batch)],
        "peak_bytes_by_batch": peaks,
    }
    if peaks[str(cell.batch)] is None:
        reasons["peak_bytes"] = reasons[f"peak_bytes_by_batch.{cell.batch}"]
    return Measurements(row, gallery, reasons)


def _generate(
    subject: Subject, gallery: Gallery, report: Report, budget: Budget
) -> tuple[list[float], dict[str, Any]]:
    """All images of the cell, timed batch by batch; seconds of the full batches and fields of the row."""
    cell = subject.prepared.cell
    warm_up(subject, cell.batch, budget)
    batches: list[Batch] = []
    for start in range(0, cell.images, cell.batch):
        batch = run_batch(subject, range(start, min(start + cell.batch, cell.images)))
        gallery.add(subject, batch)
        report(min(1.0, (start + cell.batch) / cell.images), "images")
        if len(batch.images) == cell.batch:
            batches.append(batch)
        if start == 0:
            counted = batch.decoded
    started = time.monotonic()
    while len(batches) < budget.least and (not batches or time.monotonic() - started < budget.patience_s):
        batches.append(run_batch(subject, range(cell.batch)))
    totals = [batch.seconds["total"] for batch in batches]
    samples = [cell.batch / total for total in totals]
    median = median_interval(samples)
    return totals, {
        "steps": counted.steps,
        "forwards": counted.forwards,
        "tokens_processed": counted.tokens_processed,
        "throughput_images_per_s": median.value,
        "throughput_interval": [median.low, median.high],
        "throughput_repeats": len(samples),
        "throughput_samples": samples,
        "phases_s": {name: statistics.median(b.seconds[name] for b in batches) for name in PHASES},
    }


def _latency(totals: list[float]) -> dict[str, Any]:
    median = median_interval(totals)
    return {
        "latency_s": median.value,
        "latency_interval_s": [median.low, median.high],
        "latency_samples_s": totals,
    }


def _repeats(subject: Subject, size: int, budget: Budget) -> Iterator[float]:
    """Seconds of whole batches after one to warm up."""
    least, lasting = (
        (budget.least, budget.latency_s) if size == 1 else (budget.least_by_batch, budget.batch_s)
    )
    run_batch(subject, range(size))
    started, done = time.monotonic(), 0
    while True:
        yield run_batch(subject, range(size)).seconds["total"]
        done += 1
        spent = time.monotonic() - started
        if (done >= least and spent > lasting) or spent > budget.patience_s:
            return


def warm_up(subject: Subject, size: int, budget: Budget) -> list[float]:
    """Run batches until three in a row agree, at least 2, at most ``budget.warmups``; their seconds."""
    totals: list[float] = []
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
    on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={on_cpu: _attention_flops}) as counter:
        decode(
            subject.network,
            prepared.strategy,
            prepared.plan([0]),
            subject.labels([0]),
            StreamSampler(prepared.streams([0]), cell.temperature, cell.top_k, cell.top_p),
            prepared.guidance,
        )
    return int(counter.get_total_flops())


def _attention_flops(
    query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **named: Any
) -> int:
    """Attention on the CPU, which torch's own table leaves out."""
    return int(sdpa_flop_count(query, key, value))
