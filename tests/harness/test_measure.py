"""What is measured is what is said: FLOPs and cache bytes by formula, waited-for devices, whole galleries."""

import dataclasses
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from backbones.cache import KVCache
from backbones.config import NetworkConfig
from backbones.transformer import Network
from harness.cell import Cell, normalised
from harness.generate import PHASES, Clock, Subject, load, run_batch
from harness.measure import Budget, count_flops, is_steady, measure, warm_up
from harness.memory import PeakMemory
from harness.prepare import predict, prepare
from strategies.decoding.plan import Plan
from strategies.decoding.streams import Streams

STEPS = {"raster": 64, "rar": 64, "par": 19, "lpd": 7, "arpg": 9, "randar": 11}
QUICK = Budget(warmup_s=0, latency_s=0, batch_s=0, least=2, least_by_batch=1, warmups=2)


@pytest.fixture
def subject(small_zoo) -> Callable[..., Subject]:
    def make(strategy: str, **changes) -> Subject:
        cell = Cell(strategy, steps=STEPS[strategy], zoo=str(small_zoo), threads=1, batch=4)
        return load(prepare(normalised(dataclasses.replace(cell, **changes))))

    return make


# FLOPs: two per multiply-add of every matrix product and attention, by the shapes alone --------------------


def linear(rows: int, inputs: int, outputs: int) -> int:
    return 2 * rows * inputs * outputs


def block(config: NetworkConfig, rows: int, runs: list[tuple[int, int]], cross: bool = False) -> int:
    """One block over ``rows``, of which each run (rows, keys) attends to so many keys."""
    trunk = config.trunk
    projected = trunk.width if cross else trunk.width + 2 * trunk.shared_heads * trunk.head_width
    mlp = linear(rows, trunk.width, 2 * trunk.mlp_width) + linear(rows, trunk.mlp_width, trunk.width)
    attention = sum(2 * 2 * queries * keys * trunk.width for queries, keys in runs)
    return linear(rows, trunk.width, projected) + attention + linear(rows, trunk.width, trunk.width) + mlp


def formula(strategy: str, config: NetworkConfig, plan: Plan) -> int:
    """FLOPs of one row of the batch."""
    trunk, total, filled = config.trunk, 0, 0
    before = 1  # the class, then what the step before wrote
    for step, asked in enumerate(plan.sizes):
        if strategy == "par":
            fed = asked if plan.sizes[step - 1 : step] != (1,) or asked == 1 else 1 + (asked - 1)
        else:
            fed = before
        filled += fed
        if strategy == "arpg":
            total += trunk.depth // 2 * block(config, fed, [(fed, filled)])
            total += 2 * linear(fed, trunk.width, trunk.width)
            total += (trunk.depth - trunk.depth // 2) * block(config, asked, [(asked, filled)], cross=True)
            total += linear(asked, trunk.width, config.codes)
        elif strategy == "randar":
            # An instruction beside every token; the first of a group is in the cache already.
            rows, keys = 2 * fed - 1 + asked, 2 * filled - 1 + asked
            total += trunk.depth * block(config, rows, [(rows, keys)])
            total += linear(asked, trunk.width, config.codes)
        elif strategy == "lpd":
            runs = [(fed, filled), (asked, filled + asked)]
            total += trunk.depth * block(config, fed + asked, runs) + linear(asked, trunk.width, config.codes)
        else:
            total += trunk.depth * block(config, fed, [(fed, filled)]) + linear(
                fed, trunk.width, config.codes
            )
        before = asked
    return total


@pytest.mark.parametrize(("guided", "products"), [(False, "plain"), (True, "plain"), (True, "packed")])
@pytest.mark.parametrize("strategy", STEPS)
def test_counted_flops_equal_the_formula(subject, strategy, guided, products):
    chosen = subject(strategy, guidance=2.0 if guided else None, products=products)
    plan = chosen.prepared.plan([0])
    expected = formula(strategy, chosen.prepared.config, plan) * (2 if guided else 1)
    assert count_flops(chosen) == expected


@pytest.mark.parametrize("strategy", STEPS)
def test_predicted_cache_is_what_decoding_allocates(subject, strategy, monkeypatch):
    made: list[KVCache] = []
    original = Network.cache

    def remember(self: Network, *arguments, **named) -> KVCache:
        made.append(original(self, *arguments, **named))
        return made[-1]

    monkeypatch.setattr(Network, "cache", remember)
    for guidance, dtype in ((None, "float32"), (2.0, "bfloat16")):
        made.clear()
        chosen = subject(strategy, guidance=guidance, dtype=dtype)
        run_batch(chosen, range(4))
        assert sum(cache.nbytes for cache in made) == predict(chosen.prepared).cache_bytes
        assert predict(chosen.prepared).weight_bytes == sum(p.nbytes for p in chosen.network.parameters())


# Time -----------------------------------------------------------------------------------------------------


class SlowDevice:
    """Takes every piece of work at once and finishes it only when waited for, as a GPU does."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.pending = seconds, 0.0

    def launch(self, *ignored) -> None:
        self.pending += self.seconds

    def wait(self) -> None:
        time.sleep(self.pending)
        self.pending = 0.0


def test_an_asynchronous_device_is_waited_for(subject):
    device = SlowDevice(0.02)
    chosen = dataclasses.replace(subject("lpd"), clock=Clock(device.wait))
    run_batch(chosen, range(4))
    chosen.network.register_forward_pre_hook(device.launch)
    seconds = run_batch(chosen, range(4)).seconds
    assert seconds["prefill"] >= 0.02
    assert seconds["decode"] >= 6 * 0.02
    assert seconds["total"] >= 7 * 0.02
    assert device.pending == 0


def test_phases_follow_one_another(subject):
    seconds = run_batch(subject("arpg"), range(4)).seconds
    assert tuple(seconds) == PHASES
    assert sum(seconds[name] for name in PHASES[:-1]) == pytest.approx(seconds["total"], rel=1e-6)


def test_warm_up_ends_when_steady(subject):
    assert is_steady([1.0, 1.04, 0.97], 0.05)
    assert not is_steady([1.0, 1.2, 0.97], 0.05)
    totals = warm_up(subject("arpg"), 2, Budget(warmup_s=60, warmups=5))
    assert 3 <= len(totals) <= 5


# Images ---------------------------------------------------------------------------------------------------


def test_a_cell_is_measured_whole(subject):
    chosen = subject("lpd", images=10, guidance=2.0)
    found = measure(chosen, lambda share, doing: None, QUICK)
    row = found.row
    assert (row["steps"], row["forwards"]) == (7, 7)
    assert row["throughput_repeats"] == len(row["throughput_samples"]) == 2
    assert set(row["throughput_by_batch"]) == {"1", "4", "16", "64"}
    assert row["throughput_best_images_per_s"] == max(row["throughput_by_batch"].values())
    assert row["latency_interval_s"][0] <= row["latency_s"] <= row["latency_interval_s"][1]
    assert set(row["phases_s"]) == set(PHASES)
    assert torch.cat(found.gallery.pixels).shape == (10, 3, 32, 32)
    assert found.gallery.film.shape == (8, 32, 32, 3)
    assert (found.gallery.film[0] == 127).all()
    order = found.gallery.step_of_position
    assert order.dtype == np.int16
    assert sorted(np.unique(order)) == list(range(7))


def test_batches_do_not_change_images(subject):
    """Cut anywhere, a run draws the same tokens, but for the edge of an interval."""
    chosen = subject("arpg")
    together = run_batch(chosen, range(6)).decoded.tokens
    parts = [run_batch(chosen, part).decoded.tokens for part in (range(2), range(2, 6))]
    assert (together == torch.cat(parts)).float().mean() > 0.99
    assert chosen.prepared.streams([3]) == Streams(0, (3,))


def test_broken_logits_are_invalid(subject):
    chosen = subject("raster")
    with torch.no_grad():
        chosen.network.head.weight[0, 0] = float("nan")
    with pytest.raises(FloatingPointError):
        run_batch(chosen, [0])


def test_peak_memory_sees_what_is_held(subject):
    memory = PeakMemory(torch.device("cpu"))
    memory.settle()
    memory.reset()
    held = torch.ones(64 << 20, dtype=torch.uint8)
    del held
    peak, reason = memory.over_loaded()
    if reason is None:
        assert 60e6 < peak < 90e6
    if memory.resettable:
        memory.reset()
        assert memory.over_loaded()[0] < 10e6
