"""Networks of full size at work, with random weights: memory and time against prediction and roofline."""

import copy
import dataclasses
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from backbones.cache import KVCache
from backbones.graphs import Repeats
from harness.cell.cell import RANDOM, Cell
from harness.cost.calibrate import QUICK, Sizes, calibrate
from harness.cost.model import decode_seconds, precision_of
from harness.cost.work import DecodeWork, decode_work
from harness.gpu_check.check import Bench, Figures, Finding, NotHere
from harness.machine.cards import DeviceCard, card_of
from harness.machine.environment import cpu_name
from harness.machine.memory import PeakMemory
from harness.measure.repeats import Budget, repeat
from harness.subject.compiled import compile_trunks, record_decodes, record_passes
from harness.subject.prediction import predict
from harness.subject.prepare import Prepared, prepare
from harness.subject.subject import Subject, load, run_batch
from reports.relations import steps_of
from strategies.decoding import presets
from strategies.decoding.meter import by_role

Mode = Literal["eager", "recorded", "one graph", "compiled"]
PREDICTED_WITHIN = 0.15
"""Of the measured time of an eager decode."""
PEAK_WITHIN = 0.2
TIMES_ROOFLINE = {
    "llamagen-l-256": 1.3,
    "rar-l": 1.3,
    "arpg-l": 1.6,
    "par-l-4x-256": 1.6,
    "lpd-l-256": 1.6,
}
"""Most that a decode of one image, recorded as one, may take in times of its roofline."""
PUBLISHED = (*TIMES_ROOFLINE, "randar-l", "nar-l", "var-d16", "maskgit-l-384", "ctf-l")
"""A network of each family, of size L or the nearest."""
RECORDED = ("recorded", "one graph")
REPEATS = Budget(seconds=2.0, least=2, most=20, patience_s=15.0)
GUIDANCE = 2.0


def cell_of(network: str, device: torch.device, batch: int) -> Cell:
    """A published network at its authors' setting, in bfloat16; or a strategy's small one at its paper's
    steps, in float32."""
    shared: dict[str, Any] = {
        "checkpoint": RANDOM,
        "guidance": GUIDANCE,
        "device": str(device),
        "batch": batch,
    }
    if network not in presets.preset_names():
        return Cell(strategy=network, steps=steps_of(network), **shared)
    info = presets.preset_info(network)
    run = info.runs[0] if info.runs else None
    return Cell(
        strategy=(run and run.strategy) or info.strategy,
        network=network,
        steps=None if run is None else run.steps,
        options={} if run is None else dict(run.options),
        dtype="bfloat16",
        **shared,
    )


@dataclass
class Workbench:
    """Networks that were loaded, and the card that was measured; kept from check to check."""

    quick: bool = False
    """Whether the card is measured by tiny sizes."""
    measured: DeviceCard | None = None
    loaded: dict[str, Subject] = field(default_factory=dict)
    works: dict[tuple[str, int], DecodeWork] = field(default_factory=dict)

    def subject(self, network: str, bench: Bench, batch: int) -> Subject:
        prepared = prepare(cell_of(network, bench.device, batch))
        if network not in self.loaded:
            self.loaded[network] = load(prepared)
        return dataclasses.replace(self.loaded[network], prepared=prepared)

    def work(self, prepared: Prepared) -> DecodeWork:
        """Counted once for a network and batch: it takes the host seconds."""
        key = prepared.cell.network, prepared.cell.batch
        if key not in self.works:
            self.works[key] = decode_work(prepared)
        return self.works[key]

    def sheet(self, bench: Bench) -> DeviceCard | None:
        """The card of the device's data sheet, else what was measured."""
        if bench.device.type == "cuda":
            return card_of(torch.cuda.get_device_name(bench.device), None) or self.measured
        return card_of(cpu_name(), torch.get_num_threads()) or self.measured

    def rates(self, bench: Bench) -> Finding:
        """Streaming, products and launches of this very device, by which times are predicted."""
        sizes = QUICK if self.quick else Sizes()
        threads = torch.get_num_threads() if bench.device.type == "cpu" else 0
        self.measured = card = calibrate(bench.device, threads, sizes)
        figures: dict[str, float] = {"GB/s": card.bandwidth_bytes_per_s / 1e9}
        for precision, rates in card.product_flops_per_s.items():
            figures[f"{precision} TFLOP/s"] = max(rates.values()) / 1e12
        figures["launch us"] = max(card.launch_s.values()) * 1e6
        return Finding(True, figures)

    def memory(self, bench: Bench, networks: tuple[str, ...], batch: int) -> Finding:
        """Cache bytes as predicted, exactly; on CUDA the peak over the weights, nearly."""
        figures: dict[str, float | int] = {}
        wrong = []
        for name in networks:
            subject = self.subject(name, bench, batch)
            run_batch(subject, [0])  # libraries take their memory
            memory = PeakMemory(bench.device)
            memory.settle()
            memory.reset()
            with caches_counted(subject) as made:
                run_batch(subject, range(batch))
            expected = predict(subject.prepared).cache_bytes
            figures[f"{name} cache bytes"] = found = sum(made)
            if found != expected:
                wrong.append(f"{name}: {found} bytes of cache, {expected} predicted")
            peak, _ = memory.over_loaded()
            if bench.device.type == "cuda" and peak:
                work = self.work(subject.prepared)
                foreseen = work.cache_bytes + work.activation_bytes
                figures[f"{name} peak / predicted"] = peak / foreseen
                if abs(peak / foreseen - 1) > PEAK_WITHIN:
                    wrong.append(f"{name}: {peak} bytes at the peak, {foreseen} predicted")
        return Finding(not wrong, figures, "; ".join(wrong))

    def speed(self, bench: Bench, network: str, mode: Mode, batch: int) -> Finding:
        """Images/s and seconds of a batch, against the roofline and the prediction."""
        if mode in RECORDED and bench.recorder is Repeats:
            raise NotHere(f"graphs are recorded on CUDA devices, not on '{bench.device}'")
        subject = self.subject(network, bench, batch)
        if mode == "one graph" and subject.prepared.plan([0]).opened:
            raise NotHere("the strategy decides while decoding")
        subject = in_mode(subject, mode, bench)
        first_s = run_batch(subject, range(batch)).seconds["total"]  # compiles and records
        totals = repeat(lambda: run_batch(subject, range(batch)).seconds["total"], REPEATS).seconds
        batch_s = statistics.median(totals)
        figures: dict[str, Any] = {
            "images/s": batch / batch_s,
            "batch s": batch_s,
            "repeats": len(totals),
            "first s": first_s,
        }
        if mode in RECORDED:
            figures["graphs"] = subject.recorded.passes
            figures["graph bytes"] = subject.recorded.nbytes
            figures["cache parts"] = subject.recorded.cache_parts
        return self.held(figures, batch_s, subject.prepared, bench, mode)

    def held(
        self, figures: dict[str, Any], batch_s: float, prepared: Prepared, bench: Bench, mode: Mode
    ) -> Finding:
        """A measured time beside what limits it and what was predicted of it."""
        sheet = self.sheet(bench)
        if sheet is None:
            return Finding(True, figures, "no device card: the time is held against nothing")
        work, precision = self.work(prepared), prepared.cell.dtype
        limit = decode_seconds(work, sheet, precision)
        roofline_s = limit.total - limit.launch
        figures |= {"roofline s": roofline_s, "times roofline": batch_s / roofline_s}
        wrong = []
        cell = prepared.cell
        most = TIMES_ROOFLINE.get(cell.network) if mode == "one graph" and cell.batch == 1 else None
        if most is not None and batch_s > most * roofline_s:
            wrong.append(f"{batch_s / roofline_s:.2f} times the roofline, at most {most} aimed at")
        if mode == "eager" and self.measured is not None:
            predicted_s = decode_seconds(work, self.measured, precision_of(prepared, self.measured)).total
            figures |= {"predicted s": predicted_s, "predicted / measured": predicted_s / batch_s}
            if bench.device.type == "cuda" and abs(predicted_s / batch_s - 1) > PREDICTED_WITHIN:
                wrong.append(f"predicted {predicted_s:.3g} s are not within {PREDICTED_WITHIN:.0%}")
        return Finding(not wrong, figures, "; ".join(wrong))


def in_mode(subject: Subject, mode: Mode, bench: Bench) -> Subject:
    """The subject as it is, recording whole decodes, or a copy whose passes are recorded or compiled."""
    if mode == "eager":
        return subject
    if mode == "one graph":
        return dataclasses.replace(subject, recorded=record_decodes(bench.recorder()))
    network = copy.deepcopy(subject.network)
    if mode == "compiled":
        compile_trunks(network, bench.backend)
        return dataclasses.replace(subject, network=network)
    return dataclasses.replace(subject, network=network, recorded=record_passes(network, bench.recorder()))


@contextmanager
def caches_counted(subject: Subject) -> Iterator[list[int]]:
    """Bytes of every cache that the networks make inside."""
    made: list[int] = []
    networks = list(by_role(subject.network).values())

    def counting(network: Any) -> Any:
        make = type(network).cache

        def cache(*shape: int) -> KVCache:
            found: KVCache = make(network, *shape)
            made.append(found.nbytes)
            return found

        return cache

    for network in networks:
        network.cache = counting(network)  # type: ignore[method-assign]
    try:
        yield made
    finally:
        for network in networks:
            del network.cache


def peak_rate(card: DeviceCard | None, precision: str) -> float | None:
    """FLOP/s of the largest products; None where no card says."""
    rates = {} if card is None else card.product_flops_per_s.get(precision, {})
    return max(rates.values()) if rates else None


def figures_per_s(images_per_s: float, flops_per_image: float, peak: float | None) -> Figures:
    """Of training: images/s, and the share of the peak (MFU; Chowdhery et al., arXiv 2204.02311)."""
    flops_per_s = images_per_s * flops_per_image
    return {
        "images/s": images_per_s,
        "TFLOP/s": flops_per_s / 1e12,
        "MFU": None if peak is None else flops_per_s / peak,
    }
