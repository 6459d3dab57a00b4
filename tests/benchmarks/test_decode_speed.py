"""Decode speed against named baselines of the same run; run by ``make bench``.

(a) uncached: the same network decoded by a full pass per step. (b) floor: its linear products alone, packed
at full size as the decode's are; products: those and every attention. (c) limit: weight streaming or
arithmetic at the machine's measured rates, whichever takes longer. (d) eager: the decode before compiling.
"""

import statistics
from collections.abc import Callable

import pytest
import torch

from backbones.controlled import controlled_network
from harness.subject import compiled
from strategies.decoding.presets import preset
from strategies.decoding.registry import get
from tests.benchmarks.decode_baselines import Case, floor_of, machine_limit, timed, work_of

SMALL_STEPS = {"raster": 64, "rar": 64, "par": 19, "lpd": 10, "arpg": 16, "randar": 20}
FULL_SIZE = {
    "llamagen-l-256": 256,
    "rar-l": 256,
    "par-l-4x-256": 67,
    "arpg-l": 64,
    "lpd-l-256": 20,
    "randar-l": 88,
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def note(benchmark, **baselines_s: list[float]) -> None:
    """Keep the decode's times, and its ratio to every baseline, beside the benchmark's own statistics."""
    decode_s = benchmark.stats.stats.data
    benchmark.extra_info["decode_s"] = statistics.median(decode_s)
    benchmark.extra_info["decode_range_s"] = [min(decode_s), max(decode_s)]
    for name, seconds in baselines_s.items():
        benchmark.extra_info[f"{name}_s"] = statistics.median(seconds)
        benchmark.extra_info[f"ratio_to_{name}"] = statistics.median(decode_s) / statistics.median(seconds)


def timed_beside(
    benchmark, case: Case, rounds: int, **baselines: Callable[[], object]
) -> dict[str, list[float]]:
    """Seconds of the baselines, which run before every round, so that drift of the machine meets all."""
    seconds: dict[str, list[float]] = {name: [] for name in baselines}

    def run_baselines() -> None:
        for name, baseline in baselines.items():
            seconds[name].extend(timed(baseline, 1))

    benchmark.pedantic(case.run, setup=run_baselines, rounds=rounds)
    return seconds


@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("name", SMALL_STEPS)
def test_small_trunk(benchmark, name: str, batch: int) -> None:
    if not benchmark.enabled:
        pytest.skip("measures: run by `make bench`")
    case = Case.build(get(name), controlled_network(64, 10, (8, 8)), SMALL_STEPS[name], batch, torch.float32)
    floor, products = floor_of(case), floor_of(case, attending=True)
    beside = timed_beside(benchmark, case, 7, floor=floor, products=products)
    uncached_s = timed(case.run_uncached, 1)
    note(benchmark, **beside, uncached=uncached_s, limit=[machine_limit(case)])


@pytest.mark.parametrize("name", SMALL_STEPS)
def test_baselines_do_the_same_work(name: str) -> None:
    """The uncached baseline draws the same tokens; the floors do what the decode does, and in its order."""
    strategy = get(name)
    config = controlled_network(64, 10, (4, 4))
    case = Case.build(strategy, config, strategy.allowed_steps((4, 4))[-1], 2, torch.float32)
    decoded = case.run()
    assert torch.equal(decoded.tokens, case.run_uncached())
    head = case.network.head
    assert sum(one.layer is head for one in case.products) == decoded.forwards
    assert len(case.attentions) >= decoded.forwards * config.trunk.depth
    assert max(one.keys for one in case.attentions) <= 1 + 2 * case.plan.places
    assert work_of(case.network, floor_of(case)) == tuple(case.products)
    assert work_of(case.network, floor_of(case, attending=True)) == case.work


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size(benchmark, name: str, dtype: str) -> None:
    if not benchmark.enabled:
        pytest.skip("minutes per case: run by `make bench`")
    strategy, config, _ = preset(name)
    case = Case.build(strategy, config, FULL_SIZE[name], 2, DTYPES[dtype], packed=True)
    floor, products = floor_of(case), floor_of(case, attending=True)  # recording a decode warms it up
    beside = timed_beside(benchmark, case, 1, floor=floor, products=products)
    note(benchmark, **beside, limit=[machine_limit(case)])


@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size_compiled(benchmark, name: str) -> None:
    """In bfloat16, where the host's part is largest."""
    if not benchmark.enabled:
        pytest.skip("minutes per case: run by `make bench`")
    strategy, config, _ = preset(name)
    case = Case.build(strategy, config, FULL_SIZE[name], 2, torch.bfloat16, packed=True)
    floor = floor_of(case)
    products = floor_of(case, attending=True)
    eager_s = timed(case.run, 1)
    torch._dynamo.reset()
    compiled.compile_trunks(case.network)
    case.run()
    beside = timed_beside(benchmark, case, 3, floor=floor, products=products)
    note(benchmark, **beside, eager=eager_s)
