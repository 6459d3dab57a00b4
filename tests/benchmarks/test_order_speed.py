"""Speed of LPD's locality orders, fresh draws included, against the plain loops on the same machine.

Run with ``pytest tests/benchmarks/test_order_speed.py --benchmark-enable``; without that flag each case runs
once, on a few orders.
"""

import importlib.util
import time
from pathlib import Path

import numpy as np
import pytest

from strategies.decoding.orders import LocalityDraws, locality_orders
from strategies.decoding.schedules import lpd_sizes
from strategies.decoding.streams import Streams

# (grid side, steps, repulsion, batch, most milliseconds per order)
CASES = [
    pytest.param(16, 20, 2.0, 512, 0.5, id="16x16-20"),
    pytest.param(32, 48, 4.0, 256, 5.0, id="32x32-48"),
]


def naive_locality_order(*arguments):
    path = Path(__file__).parents[1] / "strategies" / "naive_locality.py"
    spec = importlib.util.spec_from_file_location("naive_locality", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.naive_locality_order(*arguments)


def orders_of(images, side, sizes, repulsion):
    draws = LocalityDraws.from_streams(Streams(0, tuple(images)), side * side, len(sizes))
    return draws, locality_orders(side, sizes, 1.0, repulsion, draws)


@pytest.mark.benchmark(group="locality order")
@pytest.mark.parametrize(("side", "steps", "repulsion", "batch", "limit_ms"), CASES)
def test_locality_orders(benchmark, side, steps, repulsion, batch, limit_ms):
    sizes = lpd_sizes(side * side, steps)
    measuring = benchmark.enabled
    if not measuring and side > 16:
        pytest.skip("measures: run by `make bench`")
    images = range(batch if measuring else 4)
    draws, orders = orders_of(images, side, sizes, repulsion)
    ties = np.stack([draws.ties(step)[0] for step in range(steps)])  # [K, N]
    started = time.process_time()
    naive = naive_locality_order(side, sizes, 1.0, repulsion, int(draws.first[0]), ties)
    naive_ms = (time.process_time() - started) * 1e3
    assert naive == orders[0].tolist()
    benchmark.pedantic(orders_of, (images, side, sizes, repulsion), rounds=5 if measuring else 1)
    if measuring:
        fast_ms = benchmark.stats.stats.median * 1e3 / batch
        benchmark.extra_info |= {
            "baseline": "plain loops over candidates and written positions, one order",
            "ms_per_order": fast_ms,
            "baseline_ms_per_order": naive_ms,
            "ratio": naive_ms / fast_ms,
        }
        assert fast_ms <= limit_ms
