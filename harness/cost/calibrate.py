"""Measures the card of the machine at hand: streaming, matrix products at few and many rows, dispatch."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from backbones.products import PackedLinear, can_pack
from harness.cell import usable_cores
from harness.cost.cards import HERE, DeviceCard
from harness.environment import cpu_name
from harness.generate import Clock

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
    launches: int = 2000
    repeats: int = 5


def calibrate(device: torch.device, threads: int = 0, sizes: Sizes = Sizes()) -> DeviceCard:
    """The card of ``device``. threads: CPU threads (0: every core), set for the whole process."""
    on_cpu = device.type == "cpu"
    used = (threads or usable_cores()) if on_cpu else None
    if used is not None:
        torch.set_num_threads(used)
    hardware = cpu_name() if on_cpu else torch.cuda.get_device_name(device)
    clock = Clock.of(device)
    with torch.inference_mode():
        rates = {}
        for precision in PRECISIONS:
            dtype = getattr(torch, precision)
            if on_cpu and dtype == torch.float16:
                continue  # cells refuse it as well
            rates[precision] = product_rates(device, dtype, sizes, clock)
            if can_pack(device, dtype):
                rates[f"{precision} packed"] = product_rates(device, dtype, sizes, clock, packed=True)
        return DeviceCard(
            name=HERE if used is None else f"{HERE}-{used}",
            title=f"{hardware}{'' if used is None else f', {used} threads'}",
            hardware=(hardware,),
            bandwidth_bytes_per_s=streaming_rate(device, sizes, clock),
            product_flops_per_s=rates,
            launch_s=launch_seconds(device, sizes, clock),
            source="measured by pardec calibrate",
            memory_bytes=None if on_cpu else float(torch.cuda.get_device_properties(device).total_memory),
            threads=used,
            asynchronous=not on_cpu,
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


def launch_seconds(device: torch.device, sizes: Sizes, clock: Clock) -> float:
    """Seconds per operation of a chain of small ones, as eager PyTorch runs them."""
    x = torch.ones(8, 8, device=device)

    def chain() -> None:
        y = x
        for _ in range(sizes.launches // 4):
            y = torch.mm(y, x)
            y = y + x
            y = torch.softmax(y, dim=-1)
            y = y * x

    return _median_seconds(chain, clock, sizes.repeats) / (sizes.launches // 4 * 4)


def _median_seconds(work: Callable[[], object], clock: Clock, repeats: int) -> float:
    """Median seconds after one warm-up."""
    work()
    seconds = []
    for _ in range(repeats):
        start = clock.now()
        work()
        seconds.append(clock.now() - start)
    return max(statistics.median(seconds), time.get_clock_info("perf_counter").resolution)
