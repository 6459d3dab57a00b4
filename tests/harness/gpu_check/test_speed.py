"""gpu-check's figures of memory, speed and training, at tiny size on the CPU; its order of checks on CUDA."""

import dataclasses
from collections import Counter

import pytest
import torch

from harness.gpu_check import speed, suite
from harness.gpu_check.check import Bench, NotHere
from harness.gpu_check.speed import PUBLISHED, TIMES_ROOFLINE, Workbench, cell_of
from harness.gpu_check.training import training_step
from harness.machine.cards import DeviceCard
from harness.measure.repeats import Budget
from harness.subject import prediction, prepare
from tests.backbones.test_graphs import BakedPasses

CPU = torch.device("cpu")
BENCH = Bench(CPU)
CARD = DeviceCard(
    "fast",
    "",
    (),
    bandwidth_bytes_per_s=1e12,
    product_flops_per_s={"float32": {1: 1e14}, "bfloat16": {1: 1e14}},
    launch_s={1: 1e-6},
    source="",
)


@pytest.fixture(autouse=True)
def no_cards(tmp_path, monkeypatch):
    monkeypatch.setenv("PARDEC_CARDS", str(tmp_path / "cards.toml"))


@pytest.fixture(autouse=True)
def few_repeats(monkeypatch):
    monkeypatch.setattr(speed, "REPEATS", Budget(seconds=0.0, least=1))
    monkeypatch.setattr("harness.gpu_check.training.REPEATS", Budget(seconds=0.0, least=3))


def test_on_cuda_the_aims_come_first_and_every_network_mode_and_batch_once():
    asked = suite.checks(torch.device("cuda"))
    names = [check.name for check in asked]
    assert max(Counter(names).values()) == 1
    assert names[0] == "recordings, float32"
    first = names.index("device card") + 1
    assert names[first : first + 5] == [f"{name}, one graph, batch 1" for name in TIMES_ROOFLINE]
    timed = [name for name in names if ", batch " in name]
    assert len(timed) == len(PUBLISHED) * 4 * 3
    compiled = [index for index, name in enumerate(names) if "compiled" in name]
    assert compiled == list(range(compiled[0], len(names)))
    until_eager = names.index("lpd-l-256, eager, batch 1") + 1
    assert sum(check.seconds for check in asked[:until_eager]) <= 8 * 60


@pytest.mark.parametrize("network", PUBLISHED)
def test_networks_of_full_size_can_be_prepared_in_bfloat16(network, monkeypatch):
    monkeypatch.setattr(prepare, "check_device", lambda device, dtype: None)
    prepared = prepare.prepare(cell_of(network, torch.device("cuda"), 8))
    assert prepared.cell.dtype == "bfloat16"
    assert prepared.guidance.scale == speed.GUIDANCE
    assert 2e8 < prediction.predict(prepared).parameters < 7e8


def test_times_stand_beside_roofline_and_prediction():
    bench = Workbench()
    alone = bench.speed(BENCH, "lpd", "eager", 2)
    assert alone.passed
    assert alone.reason == "no device card: the time is held against nothing"
    assert alone.figures["images/s"] == pytest.approx(2 / alone.figures["batch s"])
    bench.measured = CARD
    held = bench.speed(BENCH, "lpd", "eager", 2).figures
    assert held["times roofline"] == pytest.approx(held["batch s"] / held["roofline s"])
    assert held["times roofline"] > 1
    assert held["predicted s"] >= held["roofline s"]
    assert list(bench.loaded) == ["lpd"]


def test_passes_are_not_recorded_without_a_recorder():
    with pytest.raises(NotHere, match="CUDA"):
        Workbench().speed(BENCH, "lpd", "recorded", 1)


def test_recorded_passes_are_timed_where_they_can_be_made():
    bench = Workbench()
    found = bench.speed(dataclasses.replace(BENCH, recorder=BakedPasses), "lpd", "recorded", 1)
    assert found.figures["graphs"] > 0
    assert (found.figures["graph bytes"], found.figures["cache parts"]) == (0, 1)
    assert "replay" not in str(bench.loaded["lpd"].network.trunk.forward).lower()  # a copy was recorded


RECORDING = dataclasses.replace(BENCH, recorder=BakedPasses)


def test_a_decode_is_timed_as_one_graph_where_its_plan_is_known_beforehand():
    assert Workbench().speed(RECORDING, "lpd", "one graph", 1).figures["graphs"] == 1


def test_a_decode_that_decides_is_not_timed_as_one_graph():
    with pytest.raises(NotHere, match="the strategy decides while decoding"):
        Workbench().speed(RECORDING, "maskgit", "one graph", 1)


def test_a_recorded_decode_beyond_its_aim_fails():
    bench = Workbench(measured=CARD)
    prepared = prepare.prepare(cell_of("lpd", CPU, 1))
    published = dataclasses.replace(prepared, cell=dataclasses.replace(prepared.cell, network="lpd-l-256"))
    roofline_s = bench.held({}, 1.0, published, BENCH, "eager").figures["roofline s"]
    assert bench.held({}, 1.59 * roofline_s, published, BENCH, "one graph").passed
    late = bench.held({}, 1.7 * roofline_s, published, BENCH, "one graph")
    assert late.reason == "1.70 times the roofline, at most 1.6 aimed at"
    for mode in ("eager", "recorded"):
        assert bench.held({}, 1.7 * roofline_s, published, BENCH, mode).passed


@pytest.mark.slow
def test_caches_are_as_large_as_predicted(monkeypatch):
    bench = Workbench()
    found = bench.memory(BENCH, ("nar", "lpd"), 2)
    assert found.passed, found.reason
    assert all(found.figures[f"{name} cache bytes"] > 1e5 for name in ("nar", "lpd"))
    assert "cache" not in vars(bench.loaded["nar"].network)
    right = prediction.predict
    monkeypatch.setattr(
        speed,
        "predict",
        lambda prepared: dataclasses.replace(right(prepared), cache_bytes=right(prepared).cache_bytes - 1),
    )
    assert "nar: " in bench.memory(BENCH, ("nar",), 2).reason


def test_a_training_step_is_told_as_a_share_of_the_peak():
    bench = Workbench(measured=CARD)
    found = training_step(BENCH, bench, "raster", 2)
    assert found.passed, found.reason
    assert found.figures["last loss"] < found.figures["first loss"]
    assert found.figures["MFU"] == pytest.approx(found.figures["TFLOP/s"] / 100)
    assert training_step(BENCH, Workbench(), "raster", 1).figures["MFU"] is None


def test_the_card_of_the_device_is_measured():
    bench = Workbench(quick=True)
    figures = bench.rates(BENCH).figures
    assert bench.sheet(BENCH) is bench.measured
    assert figures["GB/s"] > 0
    assert figures["float32 TFLOP/s"] > 0
