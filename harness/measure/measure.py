"""What one cell measures: speed, latency and memory around the images that its quality is judged by."""

import dataclasses
import gc
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from backbones.networks import Networks
from backbones.products import weight_bytes
from backbones.transformer import parameter_count
from harness.cell.cell import NETWORK_PIN, RANDOM, network_pin
from harness.cost.work import Unforeseeable, decode_work
from harness.machine.energy import EnergyMeter
from harness.machine.failures import is_out_of_memory
from harness.machine.memory import PeakMemory
from harness.measure.choose import Choice
from harness.measure.counts import OF_IMAGES, Counts, counters_of
from harness.measure.repeats import Budget, percentiles, repeat, warm_up
from harness.measure.timed import Batches, Timed, timed_batches
from harness.measure.workloads import Workloads
from harness.quality.intervals import median_interval
from harness.subject import compiled
from harness.subject.prediction import predict
from harness.subject.subject import PHASES, Batch, Gallery, Subject, run_batch
from harness.weights.empty import on_meta
from results.parts import NetworkUse
from strategies.decoding.decode import decode
from strategies.decoding.meter import by_role

BATCHES = (1, 16, 64)
"""Batch sizes whose throughput and peak memory a cell measures besides its own; at the first, latency."""
_IMAGES, _LATENCY, _BY_BATCH = Budget(seconds=2.0), Budget(seconds=0.6), Budget(seconds=0.4, least=3)
LEAST_OF_IMAGES = 9
"""Repeats of a decode that decides its steps, each of other images."""
ONCE = "the images are generated once, and every time is taken once"
Report = Callable[[float, str], None]


@dataclass(frozen=True)
class Budgets:
    """How long each kind of timing may go on; the rules are those of ``harness.measure.repeats``."""

    warmup_s: float = 1.0
    images: Budget = _IMAGES
    """At the cell's batch; the batches of its images are the warm-up and the first repeats."""
    latency: Budget = _LATENCY
    by_batch: Budget = _BY_BATCH
    memory_patience_s: float = 10.0
    """Of images that are generated once: a batch that takes longer is not run again for its memory."""


@dataclass
class Measurements:
    """Fields of the row, why some are null, and the images and artifacts of one cell."""

    row: dict[str, Any] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    unmeasured: dict[str, str] = field(default_factory=dict)
    gallery: Gallery = field(default_factory=Gallery)
    speeds: dict[str, float | None] = field(default_factory=dict)
    """Batch size -> median images/s."""
    peaks: dict[str, float | None] = field(default_factory=dict)
    """Batch size -> peak bytes over the loaded state."""
    choice: Choice | None = None
    """Of options that are left to measurement."""

    def at(self, subject: Subject, size: int) -> Subject:
        return subject if self.choice is None else self.choice.at(size)

    def skip(self, size: int, reason: str) -> None:
        self.speeds[str(size)] = self.peaks[str(size)] = None
        for name in ("throughput_by_batch", "peak_bytes_by_batch"):
            self.unmeasured[f"{name}.{size}"] = reason

    def note(self, name: str, value: Any, reason: str) -> None:
        """A field of the row that is null for this reason, if it is."""
        self.row[name] = value
        if value is None:
            self.unmeasured[name] = reason


def measure(
    subject: Subject, report: Report, budgets: Budgets = Budgets(), gallery: Gallery | None = None
) -> Measurements:
    """Run the cell: count, warm up, time, and generate its images."""
    found = Measurements(gallery=gallery or Gallery())
    cell = subject.prepared.cell
    if subject.prepared.undecided:
        report(0.0, "choosing")
        store = found.gallery.store
        found.choice = Choice(subject, None if store is None else store.shards.folder)
        subject = found.choice.at(cell.batch)
    once = cell.once
    if once or cell.compile or cell.cuda_graphs:  # torch's counter doesn't see into graphs
        found.note("flops_per_image", *_traced_flops(subject))
    else:
        report(0.0, "warm-up")
        run_batch(subject, [0])
        found.row["flops_per_image"] = count_flops(subject)
    if once and (cell.compile or cell.cuda_graphs):
        report(0.0, "compile")
        run_batch(subject, range(min(cell.batch, cell.images)))
    workloads = Workloads(subject.device, subject.clock)
    workloads.sample()
    # What the libraries hold will never be garbage; without it a collection takes less than a millisecond.
    gc.collect()
    gc.freeze()
    (_measure_once if once else _measure_batches)(subject, found, report, budgets)
    workloads.sample()
    best = max(found.speeds, key=lambda size: found.speeds[size] or 0.0)
    found.row |= {
        "parameters": parameter_count(on_meta(subject.prepared.strategy, subject.prepared.config)),
        "throughput_by_batch": found.speeds,
        "throughput_best_images_per_s": found.speeds[best],
        "throughput_best_batch": int(best),
        "weight_bytes": weight_bytes(subject.network),
        "cache_bytes": predict(subject.prepared).cache_bytes,
        "networks": network_uses(subject, found.counts),
        "peak_bytes_by_batch": found.peaks,
        "calibration_s": workloads.medians(),
        "graphs": compiled.graphs(subject.recorded),
        "tokens_sha256": found.gallery.tokens_sha256,
    }
    if found.choice is not None:
        found.row["chosen_options"] = found.choice.row
    own = str(cell.batch)
    found.note("peak_bytes", found.peaks[own], found.unmeasured.get(f"peak_bytes_by_batch.{own}", ""))
    found.note("graph_bytes", subject.recorded.nbytes, "passes are not recorded")
    found.note("cache_parts", subject.recorded.cache_parts, "no cache is read by recorded passes")
    found.note("compile_s", compiled.compile_s(subject.recorded), "eager mode: nothing is compiled")
    return found


def network_uses(subject: Subject, counts: Counts) -> list[NetworkUse] | None:
    """Each network of a decode that has several, by its role."""
    if not isinstance(subject.network, Networks):
        return None
    prepared, cell = subject.prepared, subject.prepared.cell
    pins = {} if cell.checkpoint == RANDOM else cell.pins
    caches = predict(prepared).cache_by_role
    empty = by_role(on_meta(prepared.strategy, prepared.config))
    return [
        NetworkUse(
            role=role,
            parameters=parameter_count(empty[role]),
            sha256=pins.get(network_pin(role), pins.get(NETWORK_PIN)),
            weight_bytes=weight_bytes(network),
            cache_bytes=caches[role],
            forwards=counts.of_role(role, "forwards"),
            tokens_processed=counts.of_role(role, "tokens_processed"),
        )
        for role, network in subject.network.roles.items()
    ]


def _measure_once(subject: Subject, found: Measurements, report: Report, budgets: Budgets) -> None:
    """One timed pass over the images: every time is taken once, the first use of all code included, but for
    graphs, whose time is apart.

    The memory is that of one more batch, whose heap is tidied after each step; beyond the budget's patience
    it is that of the timed pass, holes in the heap included.
    """
    cell = subject.prepared.cell
    own = cell.batch
    memory = PeakMemory(subject.device)
    memory.settle()
    memory.reset()
    batches = Batches(subject, _generate(subject, found, report))
    totals = _note_throughput(subject, found, batches, Budget(seconds=0.0, least=1))
    if max(totals) <= budgets.memory_patience_s:
        report(1.0, "memory")
        memory.reset()
        run_batch(subject, range(min(own, cell.images)), after_step=memory.release)
    found.peaks[str(own)], unknown = memory.over_loaded()
    if unknown is not None:
        found.unmeasured[f"peak_bytes_by_batch.{own}"] = unknown
    found.speeds[str(own)] = own / statistics.median(totals)
    found.row |= {"warmup_s": [], "steady": False}
    if len(totals) == 1:
        found.row["throughput_interval"] = None
        found.unmeasured["throughput_interval"] = ONCE
    for name in ("latency_s", "latency_interval_s", "latency_samples_s", "latency_percentiles_s"):
        found.note(name, None, ONCE)


def _measure_batches(subject: Subject, found: Measurements, report: Report, budgets: Budgets) -> None:
    """Every batch size, ascending, so that memory kept by a smaller one is never counted for a larger one.

    A size past the cell's own that runs out of memory is skipped, and so are all larger ones.
    """
    own = subject.prepared.cell.batch
    memory = PeakMemory(subject.device)
    memory.settle()
    per_image_s, short_of_memory = 0.0, ""
    for size in sorted({*(BATCHES if subject.prepared.cell.by_batch else BATCHES[:1]), own}):
        report(0.0, f"batch {size}")
        needed_s = per_image_s * size * (2 + budgets.by_batch.least)
        if short_of_memory:
            found.skip(size, short_of_memory)
        elif size not in (1, own) and needed_s > budgets.by_batch.patience_s:
            found.skip(size, f"would take up to {needed_s:.0f} s")
        else:
            try:
                here = found.at(subject, size)
                per_image_s = _measure_batch(here, size, memory, found, report, budgets)
            except (MemoryError, RuntimeError) as error:
                if size <= own or not is_out_of_memory(error):
                    raise
                found.skip(size, "out of memory")
                short_of_memory = f"batch {size} ran out of memory"


def _measure_batch(
    subject: Subject, size: int, memory: PeakMemory, found: Measurements, report: Report, budgets: Budgets
) -> float:
    """Peak memory, speed and, at batch 1, latency of one batch size; seconds per image."""
    if subject.recorded.parts:
        memory.settle()  # the caches and recordings that smaller batches keep are not this one's
    memory.reset()
    first = run_batch(subject, range(size), after_step=memory.release)
    found.peaks[str(size)], unknown = memory.over_loaded()
    if unknown is not None:
        found.unmeasured[f"peak_bytes_by_batch.{size}"] = unknown
    if size == subject.prepared.cell.batch:
        totals = _measure_own_batch(subject, first, found, report, budgets)
        meter = EnergyMeter.of(subject.device)
        found.note("energy_per_image_j", meter.per_image_j(timed_batches(subject, size), size), meter.reason)
    else:
        budget = budgets.latency if size == 1 else budgets.by_batch
        if subject.prepared.strategy.decides_steps:
            budget = dataclasses.replace(budget, least=max(budget.least, LEAST_OF_IMAGES))
        totals = repeat(timed_batches(subject, size), budget).seconds
    if size == 1:
        _note_latency(found, totals)
    middle = statistics.median(totals)
    found.speeds[str(size)] = size / middle
    return middle / size


def _measure_own_batch(
    subject: Subject, first: Batch, found: Measurements, report: Report, budgets: Budgets
) -> list[float]:
    """Warm-up, images and repeats at the cell's batch; seconds of the repeats.

    The images' first batches are the warm-up, judged by their seconds a step, since images may differ in
    steps.
    """
    batches = Batches(subject, _generate(subject, found, report))
    first_s = first.seconds["total"]
    warm = warm_up(partial(batches.scaled_to, first.decoded.steps), budgets.warmup_s, first_s)
    found.row |= {"warmup_s": [first_s, *batches.totals()], "steady": warm.steady}
    return _note_throughput(subject, found, batches, budgets.images)


def _note_latency(found: Measurements, totals: list[float]) -> None:
    median = median_interval(totals)
    values, reasons = percentiles(totals)
    found.row |= {
        "latency_s": median.value,
        "latency_interval_s": [median.low, median.high],
        "latency_samples_s": totals,
        "latency_percentiles_s": values,
    }
    found.unmeasured |= {f"latency_percentiles_s.{name}": why for name, why in reasons.items()}


def _generate(subject: Subject, found: Measurements, report: Report) -> list[Timed]:
    """All images of the cell, timed batch by batch; the full ones."""
    cell = subject.prepared.cell
    timed: list[Timed] = []
    counts = found.counts
    for images in found.gallery.batches(cell):
        batch = run_batch(subject, images, keep_drafts=found.gallery.race.wants(images))
        counters = counters_of(batch.decoded)
        counts.add(batch.plan, counters)
        found.gallery.add(subject, batch, counters)
        report(images.stop / cell.images, "images")
        if len(images) == cell.batch:
            timed.append((batch.seconds, batch.decoded.steps))
    if found.gallery.store is not None:  # also those of images that another process made
        counts.parts = list(found.gallery.store.shards.counters(OF_IMAGES))
    found.gallery.by_position = counts.by_position
    found.row |= counts.fields()
    wasted = counts.wasted_share
    if wasted is not None:
        flops = found.row["flops_per_image"]
        found.note("wasted_flops", None if flops is None else wasted * flops, "FLOPs are not counted")
    return timed


def _note_throughput(subject: Subject, found: Measurements, batches: Batches, budget: Budget) -> list[float]:
    """Repeats at the cell's batch, as far as ``batches`` is not spent yet; seconds of each."""
    cell, before = subject.prepared.cell, len(batches.taken)
    repeats = repeat(batches, budget, [batches() for _ in range(len(batches.waiting))])
    seconds = [one for one, _ in batches.taken[before:]]
    samples = [cell.batch / total for total in repeats.seconds]
    median = median_interval(samples)
    phases: dict[str, float | None] = {
        name: statistics.median(one[name] for one in seconds) for name in PHASES
    }
    if cell.one_graph:
        middle = statistics.median(one["prefill"] + one["decode"] for one in seconds)
        phases |= {"prefill": None, "decode": middle}
        found.unmeasured["phases_s.prefill"] = "the decode is one recording: its first step has no end"
    if subject.tokenizer is None:
        phases["detokenize"] = None
        found.unmeasured["phases_s.detokenize"] = "no tokenizer_checkpoint: tokens stay tokens"
    found.row |= {
        "throughput_images_per_s": median.value,
        "throughput_interval": [median.low, median.high],
        "throughput_repeats": len(samples),
        "throughput_samples": samples,
        "stopped_by": repeats.stopped_by,
        "phases_s": phases,
    }
    return repeats.seconds


def _traced_flops(subject: Subject) -> tuple[float | None, str]:
    """What ``count_flops`` counts, from a decode without data; None and why where a strategy needs data."""
    try:
        return float(decode_work(subject.prepared, 1).flops), ""
    except Unforeseeable as error:
        return None, f"counting would take another decode: {error}"


def count_flops(subject: Subject) -> float:
    """Floating-point operations of the products and attentions behind one image, both halves of guidance.

    Counted by torch while one image is decoded, or a batch where they depend on the image; a multiply-add is
    two. The tokenizer is not part of it.
    """
    prepared, cell = subject.prepared, subject.prepared.cell
    images = range(min(cell.batch, cell.images) if prepared.strategy.decides_steps else 1)
    with flop_counter() as counter:
        decode(
            subject.network,
            prepared.strategy,
            prepared.plan(images),
            subject.labels(images),
            prepared.sampler(images),
            prepared.guidance,
        )
    return counter.get_total_flops() / len(images)


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
