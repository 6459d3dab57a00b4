"""Measures the card of the machine at hand: streaming, matrix products at few and many rows, dispatch."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from backbones.attention import View, attend
from backbones.products import PackedLinear, can_pack
from harness.cost.launching import launch_seconds
from harness.machine.cards import HERE, DeviceCard
from harness.machine.environment import cpu_name, usable_cores
from harness.machine.memory import resident_bytes
from harness.subject.subject import Clock

PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    stream_bytes: int = 512 << 20
    """Buffer that is copied: far beyond any cache."""
    inputs: int = 1024
    outputs: int = 4096
    """Of a weight, as wide as a published L network's."""
    weights_bytes: int = 256 << 20
    """Weights multiplied in turn, so that none is still in a cache when its turn comes."""
    rows: tuple[int, ...] = (1, 4, 16, 64, 256)
    read_bytes: tuple[int, ...] = (1 << 20, 2 << 20, 4 << 20, 8 << 20, 16 << 20)
    """Read before each product of a block, whose host time is taken."""
    passes: int = 300
    kernels: int = 24
    """Shapes of product that are met to see what is kept for one."""
    kernel_rows: tuple[int, ...] = (8, 65, 257)
    repeats: int = 5


QUICK = Sizes(
    stream_bytes=4 << 20,
    inputs=64,
    outputs=128,
    weights_bytes=1 << 18,
    rows=(1, 16),
    passes=8,
    read_bytes=(1 << 16,),
    kernels=2,
    kernel_rows=(8,),
    repeats=3,
)
"""Seconds instead of minutes: to see that it works, not to believe the rates."""


def calibrate(device: torch.device, threads: int = 0, sizes: Sizes = Sizes()) -> DeviceCard:
    """The card of ``device``. threads: CPU threads (0: every core), set for the whole process."""
    on_cpu = device.type == "cpu"
    used = (threads or usable_cores()) if on_cpu else None
    if used is not None:
        torch.set_num_threads(used)
    hardware = cpu_name() if on_cpu else torch.cuda.get_device_name(device)
    clock = Clock.of(device)
    with torch.inference_mode():
        rates, kernels = {}, {}
        for precision in PRECISIONS:
            dtype = getattr(torch, precision)
            if on_cpu and dtype == torch.float16:
                continue  # cells refuse it as well
            for packed in (False, True) if can_pack(device, dtype) else (False,):
                name = f"{precision} packed" if packed else precision
                rates[name] = product_rates(device, dtype, sizes, clock, packed)
                kept = kernel_sizes(dtype, sizes, packed) if on_cpu and (packed or name != "float32") else {}
                if kept:
                    kernels[name] = kept
        return DeviceCard(
            name=HERE if used is None else f"{HERE}-{used}",
            title=f"{hardware}{'' if used is None else f', {used} threads'}",
            hardware=(hardware,),
            bandwidth_bytes_per_s=streaming_rate(device, sizes, clock),
            product_flops_per_s=rates,
            launch_s=launch_seconds(device, sizes.read_bytes, sizes.passes, clock),
            source="measured by pardec calibrate",
            memory_bytes=None if on_cpu else float(torch.cuda.get_device_properties(device).total_memory),
            threads=used,
            asynchronous=not on_cpu,
            kernel_bytes=kernels,
            attention=faster_attention(device, sizes, clock),
        )


def streaming_rate(device: torch.device, sizes: Sizes, clock: Clock) -> float:
    """Bytes/s read and written by a copy."""
    source = torch.zeros(sizes.stream_bytes // 8, dtype=torch.float32, device=device)
    target = torch.ones_like(source)
    return 2 * source.nbytes / _median_seconds(lambda: target.copy_(source), clock, sizes.repeats)


def product_rates(
    device: torch.device, dtype: torch.dtype, sizes: Sizes, clock: Clock, packed: bool = False
) -> dict[int, float]:
    """FLOP/s of linear products whose weights come from memory, by rows."""
    weight = torch.zeros(sizes.outputs, sizes.inputs, dtype=dtype, device=device)
    count = max(1, math.ceil(sizes.weights_bytes / weight.nbytes))
    weights = [torch.randn_like(weight) for _ in range(count)]
    rates = {}
    for rows in sizes.rows:
        x = torch.randn(rows, sizes.inputs, dtype=dtype, device=device)
        layers = [PackedLinear(each, None, rows) for each in weights] if packed else []

        def multiply(x: torch.Tensor = x, layers: list[PackedLinear] = layers) -> None:
            if layers:
                for layer in layers:
                    layer(x)
            else:
                for each in weights:
                    F.linear(x, each)

        flops = 2 * rows * sizes.inputs * sizes.outputs * count
        rates[rows] = flops / _median_seconds(multiply, clock, sizes.repeats)
    return rates


def faster_attention(device: torch.device, sizes: Sizes, clock: Clock) -> str:
    """``mask`` or ``parts``: which takes less time for a step of LPD's, half of its rows seeing half as many
    of them, over a cache as its published network has it."""
    images, heads, rows, slots = 8, 16, 2 * sizes.rows[1], max(sizes.rows)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    queries = torch.zeros(images, heads, rows, 64, dtype=dtype, device=device)
    keys = torch.zeros(images, heads, slots, 64, dtype=dtype, device=device)
    start = slots - rows
    view = View(start, runs=((rows // 2, start + rows // 2), (rows // 2, slots)))
    x = queries.transpose(1, 2).flatten(2)
    seconds = {
        name: _median_seconds(partial(attend, queries, keys, keys, placed), clock, sizes.repeats)
        for name, placed in (("mask", view.placed(x, slots)), ("parts", view.placed(x, slots, by_parts=True)))
    }
    return min(seconds, key=seconds.__getitem__)


def kernel_sizes(dtype: torch.dtype, sizes: Sizes, packed: bool) -> dict[int, float]:
    """Bytes that the product library keeps for a shape it has met, by rows: what the process grows by, a
    shape on average. Empty where the system doesn't tell."""
    weight = torch.zeros(sizes.outputs, sizes.inputs, dtype=dtype)
    layer = PackedLinear(weight, None, min(sizes.kernel_rows)) if packed else None
    found = {}
    for rows in sizes.kernel_rows:
        x = torch.zeros(rows + sizes.kernels, sizes.inputs, dtype=dtype)
        before = resident_bytes()
        for more in range(sizes.kernels):
            fed = x[: rows + more]
            layer(fed) if layer else F.linear(fed, weight)
        after = resident_bytes()
        if before is None or after is None:
            return {}
        found[rows] = max(1.0, (after - before) / sizes.kernels)
    return found


def _median_seconds(work: Callable[[], object], clock: Clock, repeats: int) -> float:
    """Median seconds after one warm-up."""
    work()
    seconds = []
    for _ in range(repeats):
        start = clock.now()
        work()
        seconds.append(clock.now() - start)
    return max(statistics.median(seconds), time.get_clock_info("perf_counter").resolution)
