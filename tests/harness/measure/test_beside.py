"""What is measured beside the decode: workloads, energy, compiled graphs, with devices that are made up."""

import gc
import sys
import types
from collections.abc import Iterator

import pytest
import torch

from harness.machine.clock import Clock, collector_paused
from harness.machine.energy import EnergyMeter
from harness.measure.workloads import Workloads
from harness.subject import compiled

CPU = torch.device("cpu")


class CountedClock:
    """A clock of its own time: every reading is a second later; the waits are counted."""

    def __init__(self) -> None:
        self.read = 0

    def now(self) -> float:
        self.read += 1
        return float(self.read)


def test_workloads_are_medians_over_all_samples_of_the_cells_clock():
    clock = CountedClock()
    workloads = Workloads(CPU, clock)  # type: ignore[arg-type]
    workloads.sample()
    workloads.sample()
    assert workloads.medians() == {"matmul": 1.0, "python": 1.0}
    assert clock.read == 2 * 2 * 2 * 5  # before and after, two workloads, start and end, five times


def test_the_collector_is_off_inside_and_as_before_outside():
    with collector_paused():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_device_without_counter_says_why():
    meter = EnergyMeter.of(CPU)
    assert meter.per_image_j(lambda: 1.0, 4) is None
    assert "cpu" in meter.reason


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """A counter in millijoules that grows by 30 J with every reading."""
    module = types.ModuleType("pynvml")
    module.NVMLError = type("NVMLError", (Exception,), {})  # type: ignore[attr-defined]
    module.nvmlInit = lambda: None  # type: ignore[attr-defined]
    module.nvmlDeviceGetHandleByUUID = lambda uuid: uuid  # type: ignore[attr-defined]
    readings = iter(range(0, 10**9, 30_000))
    module.nvmlDeviceGetTotalEnergyConsumption = lambda handle: next(readings)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pynvml", module)
    properties = types.SimpleNamespace(uuid="1234")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    return module


def test_energy_is_the_counters_difference_over_a_window_of_a_second(nvml):
    runs: list[float] = []

    def run() -> float:
        runs.append(0.3)
        return 0.3

    assert EnergyMeter.of(torch.device("cuda", 0)).per_image_j(run, 5) == pytest.approx(30 / (4 * 5))
    assert len(runs) == 4


def test_a_counter_that_fails_is_a_reason(nvml, monkeypatch):
    def fail(handle: str) -> int:
        raise nvml.NVMLError("Not Supported")

    monkeypatch.setattr(nvml, "nvmlDeviceGetTotalEnergyConsumption", fail)
    meter = EnergyMeter.of(torch.device("cuda", 0))
    assert meter.read_j is None
    assert meter.reason == "NVML: Not Supported"


def test_without_the_package_energy_is_null(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "nvidia-ml-py" in EnergyMeter.of(torch.device("cuda", 0)).reason


def test_graphs_and_their_time_are_counted():
    before = compiled.graphs()
    double = torch.compile(lambda x: 2 * x, backend="eager")
    assert double(torch.ones(3)).sum() == 6
    assert compiled.graphs() == before + 1
    seconds = compiled.compile_s()
    assert seconds is not None
    assert seconds > 0
    double(torch.ones(3))
    assert compiled.graphs() == before + 1


def test_eager_mode_compiles_nothing(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch._dynamo.utils", raising=False)
    assert (compiled.graphs(), compiled.compile_s()) == (0, None)


def test_a_clock_waits_before_it_reads():
    said: list[str] = []
    clock = Clock(lambda: said.append("waited"))
    clock.now()
    assert said == ["waited"]
