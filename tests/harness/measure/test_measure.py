"""What is measured is what is said: FLOPs and cache bytes by formula, waited-for devices, whole galleries."""

import dataclasses
import gc
import hashlib
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from backbones.cache import KVCache
from backbones.config import NetworkConfig
from backbones.graphs import Repeats
from backbones.transformer import Network
from harness.cell.cell import RANDOM, Cell, normalised
from harness.machine.clock import Clock
from harness.measure import measure as measuring
from harness.measure.measure import Budgets, count_flops, measure
from harness.measure.repeats import Budget
from harness.measure.turns import time_in_turn
from harness.subject.compiled import record_passes
from harness.subject.prediction import predict
from harness.subject.prepare import prepare
from harness.subject.subject import PHASES, Batch, Gallery, Subject, load, run_batch
from strategies.decoding.plan import Plan
from strategies.decoding.streams import Streams

STEPS = {"raster": 64, "rar": 64, "par": 19, "lpd": 7, "arpg": 9, "randar": 11}
ONCE = Budget(seconds=0, least=1)
QUICK = Budgets(warmup_s=0, images=Budget(seconds=0, least=2), latency=ONCE, by_batch=ONCE)


@pytest.fixture
def subject(small_zoo) -> Callable[..., Subject]:
    def make(strategy: str, **changes) -> Subject:
        cell = Cell(strategy, steps=STEPS[strategy], zoo=str(small_zoo), threads=1, batch=4)
        return load(prepare(normalised(dataclasses.replace(cell, **changes))))

    return make


# FLOPs: two per multiply-add of every matrix product and attention, by the shapes alone --------------------


def linear(rows: int, inputs: int, outputs: int) -> int:
    return 2 * rows * inputs * outputs


def block(
    config: NetworkConfig,
    rows: int,
    runs: list[tuple[int, int]],
    cross: bool = False,
    read: int | None = None,
) -> int:
    """One block over ``rows``, of which each run (rows, keys) attends to so many keys, and ``read`` go on."""
    trunk, fed = config.trunk, rows
    rows = rows if read is None else read
    projected = trunk.width if cross else trunk.width + 2 * trunk.shared_heads * trunk.head_width
    mlp = linear(rows, trunk.width, 2 * trunk.mlp_width) + linear(rows, trunk.mlp_width, trunk.width)
    attention = sum(2 * 2 * queries * keys * trunk.width for queries, keys in runs)
    return linear(fed, trunk.width, projected) + attention + linear(rows, trunk.width, trunk.width) + mlp


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
            total += (trunk.depth - 1) * block(config, rows, [(rows, keys)])
            total += block(config, rows, [(asked, keys)], read=asked)
            total += linear(asked, trunk.width, config.codes)
        elif strategy == "lpd":
            rows, keys = fed + asked, filled + asked
            total += (trunk.depth - 1) * block(config, rows, [(rows, keys)])
            total += block(config, rows, [(asked, keys)], read=asked)
            total += linear(asked, trunk.width, config.codes)
        else:
            total += trunk.depth * block(config, fed, [(fed, filled)]) + linear(
                fed, trunk.width, config.codes
            )
        before = asked
    return total


@pytest.mark.parametrize(
    ("strategy", "guided", "products"),
    [
        pytest.param(
            strategy, *how, marks=[pytest.mark.slow] * (how[0] and strategy in ("raster", "rar", "randar"))
        )
        for strategy in STEPS
        for how in ((False, "plain"), (True, "plain"), (True, "packed"))
    ],
)
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


def test_the_collector_is_off_while_a_batch_is_timed(subject):
    chosen = subject("lpd")
    seen: list[bool] = []
    chosen.network.register_forward_pre_hook(lambda *ignored: seen.append(gc.isenabled()))
    run_batch(chosen, [0])
    assert seen == [False] * 7


def test_cells_are_timed_in_turn_beside_the_first(subject, monkeypatch):
    monkeypatch.setattr("harness.measure.turns.SECONDS", 0.0)
    cells = [subject("lpd").prepared.cell, subject("lpd", steps=12).prepared.cell]
    found = time_in_turn(cells, rounds=2)
    assert list(found) == [cell.key for cell in cells]
    first, second = found.values()
    assert first["reference"] == second["reference"] == cells[0].key
    assert first["seconds"] == first["reference_seconds"] == second["reference_seconds"]
    assert len(first["seconds"]) == len(second["seconds"]) == 2
    assert first["batch"] == 4


# Memory that runs out -------------------------------------------------------------------------------------


def short_of_memory_from(size: int) -> Callable[..., Batch]:
    def run(subject: Subject, images, **named) -> Batch:
        if len(images) >= size:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return run_batch(subject, images, **named)

    return run


def test_batches_past_one_that_ran_out_of_memory_are_skipped(subject, monkeypatch):
    monkeypatch.setattr(measuring, "run_batch", short_of_memory_from(16))
    found = measure(subject("lpd", images=4), lambda share, doing: None, QUICK)
    assert found.row["throughput_by_batch"]["4"] > 0
    assert found.row["throughput_by_batch"]["16"] is found.row["peak_bytes_by_batch"]["64"] is None
    assert found.unmeasured["throughput_by_batch.16"] == "out of memory"
    assert found.unmeasured["peak_bytes_by_batch.64"] == "batch 16 ran out of memory"


def test_batches_that_would_take_too_long_are_skipped(subject):
    impatient = dataclasses.replace(QUICK, by_batch=Budget(seconds=0, least=1, patience_s=0.0))
    found = measure(subject("lpd", images=4), lambda share, doing: None, impatient)
    assert found.row["throughput_by_batch"]["4"] > 0
    assert found.row["throughput_by_batch"]["16"] is None
    assert found.unmeasured["throughput_by_batch.16"].startswith("would take up to")


def test_a_cell_whose_own_batch_has_no_memory_fails(subject, monkeypatch):
    monkeypatch.setattr(measuring, "run_batch", short_of_memory_from(4))
    with pytest.raises(RuntimeError, match="can't allocate"):
        measure(subject("lpd", images=4), lambda share, doing: None, QUICK)


# Images ---------------------------------------------------------------------------------------------------


def test_a_cell_is_measured_whole(subject, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch._dynamo.utils", raising=False)  # another test may have compiled
    chosen = subject("lpd", images=10, guidance=2.0)
    found = measure(chosen, lambda share, doing: None, QUICK)
    row = found.row
    assert (row["steps"], row["forwards"]) == (7, 7)
    assert row["throughput_repeats"] == len(row["throughput_samples"]) == 2
    assert set(row["throughput_by_batch"]) == {"1", "4", "16", "64"}
    assert row["throughput_best_images_per_s"] == max(row["throughput_by_batch"].values())
    assert len(row["warmup_s"]) == 3
    assert isinstance(row["steady"], bool)
    assert row["stopped_by"] == "budget"
    assert row["latency_percentiles_s"] == {"p50": row["latency_s"], "p90": None, "p95": None, "p99": None}
    assert "p90 needs 44" in found.unmeasured["latency_percentiles_s.p90"]
    assert set(row["calibration_s"]) == {"matmul", "python"}
    assert row["graphs"] == 0
    assert row["compile_s"] is row["energy_per_image_j"] is None
    assert {"compile_s", "energy_per_image_j"} <= set(found.unmeasured)
    tokens = torch.cat(
        [run_batch(chosen, part).decoded.tokens for part in (range(4), range(4, 8), range(8, 10))]
    )
    assert row["tokens_sha256"] == hashlib.sha256(tokens.numpy().tobytes()).hexdigest()
    assert row["latency_interval_s"][0] <= row["latency_s"] <= row["latency_interval_s"][1]
    assert set(row["phases_s"]) == set(PHASES)
    assert torch.cat(found.gallery.pixels).shape == (10, 3, 32, 32)
    assert found.gallery.film.shape == (8, 32, 32, 3)
    assert (found.gallery.film[0] == 127).all()
    order = found.gallery.step_of_position
    assert order.dtype == np.int16
    assert sorted(np.unique(order)) == list(range(7))


@pytest.mark.parametrize(
    ("changes", "filmed"),
    [({"once": True, "checkpoint": RANDOM}, False), ({"once": True}, True), ({"checkpoint": RANDOM}, True)],
)
def test_random_weights_taken_once_make_no_film(subject, changes, filmed):
    chosen, gallery = subject("lpd", images=1, batch=1, **changes), Gallery()
    gallery.add(chosen, run_batch(chosen, [0]))
    assert len(gallery.pixels) == 1
    assert (gallery.film is not None) == filmed


@dataclasses.dataclass
class KeptCaches:
    """Stands in for ``PeakMemory`` where nothing is freed: the bytes of a network's kept caches."""

    network: Network
    loaded: int = 0

    @property
    def held(self) -> int:
        return sum(cache.nbytes for cache in (self.network._kept or {}).values())

    def settle(self) -> None:
        self.loaded = self.held

    def reset(self) -> None:
        pass

    def release(self) -> None:
        pass

    def over_loaded(self) -> tuple[int, None]:
        return self.held - self.loaded, None


def test_caches_that_smaller_batches_keep_are_not_counted(subject, monkeypatch):
    chosen = subject("lpd", images=4)
    prepared = dataclasses.replace(
        chosen.prepared, cell=dataclasses.replace(chosen.prepared.cell, cuda_graphs=True)
    )
    recorded = record_passes(chosen.network, Repeats())
    chosen = dataclasses.replace(chosen, prepared=prepared, recorded=recorded)
    monkeypatch.setattr(measuring, "PeakMemory", lambda device: KeptCaches(chosen.network))
    peaks = measure(chosen, lambda share, what: None, QUICK).row["peak_bytes_by_batch"]
    assert peaks == {str(size): predict(chosen.prepared, size).cache_bytes for size in (1, 4, 16, 64)}


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
