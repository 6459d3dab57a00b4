"""Peak memory: what is counted, what is not, and that the cost model predicts it."""

import mmap
import subprocess
import sys

import pytest
import torch

from backbones.products import KERNEL_BYTES, can_pack
from harness.cell.cell import Cell, normalised
from harness.machine.memory import PeakMemory
from harness.machine.precision import capabilities
from harness.measure import measure as measuring
from harness.subject.prepare import prepare
from harness.subject.subject import load
from harness.sweep.process import ROOT

CPU = torch.device("cpu")
ONEDNN = pytest.mark.skipif(not can_pack(CPU, torch.bfloat16), reason="needs a torch with oneDNN")
OF_THE_CONSTANT = pytest.mark.skipif(
    not capabilities().get("avx512_bf16", False),
    reason="KERNEL_BYTES is that of processors with AVX-512 for bfloat16; the others' cards say theirs",
)
KERNELS = """
import torch
from backbones.products import PackedLinear
from harness.machine.memory import PeakMemory

memory = PeakMemory(torch.device("cpu"))
torch.set_num_threads(1)
with torch.inference_mode():
    layer = PackedLinear(torch.zeros(256, 64, dtype=torch.bfloat16), None, 4)
    queries, keys = torch.zeros(4, 1, 64).bfloat16(), torch.zeros(4, 200, 64).bfloat16()
    layer(torch.zeros(1, 64).bfloat16())
    torch.bmm(queries, keys[:, :1].transpose(1, 2).contiguous())
    memory.settle()
    for rows in range(2, 130):
        layer(torch.zeros(rows, 64).bfloat16())
        torch.bmm(queries, keys[:, :rows].transpose(1, 2).contiguous())
print(memory.over_loaded()[0] / (2 * 128))
"""
MEASURE = """
import sys
import torch
from backbones.products import weight_bytes
from harness.cell.cell import RANDOM, Cell, normalised
from harness.cost.model import kernel_bytes
from harness.cost.work import decode_work
from harness.subject.subject import load, run_batch
from harness.machine.memory import PeakMemory
from harness.subject.prepare import prepare

strategy, network, dtype, batch = sys.argv[1:]
torch.set_num_threads(1)
cell = Cell(strategy, network=network, checkpoint=RANDOM, once=True, guidance=2.0, dtype=dtype,
            batch=int(batch), products="packed", threads=1)
prepared = prepare(normalised(cell))
traced = decode_work(prepared)
subject = load(prepared)
memory = PeakMemory(subject.device)
memory.settle()
memory.reset()
run_batch(subject, range(cell.batch), after_step=memory.release)
weights = weight_bytes(subject.network)
beside = traced.cache_bytes + traced.activation_bytes + kernel_bytes(traced)
print((weights + memory.over_loaded()[0]) / (weights + beside))
"""


def printed(code: str, *arguments: str) -> float:
    """The number that a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def test_peak_memory_sees_what_is_held():
    memory = PeakMemory(CPU)
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


def test_pages_of_files_are_not_the_works_memory(tmp_path):
    path = tmp_path / "pages"
    path.write_bytes(bytes(64 << 20))
    memory = PeakMemory(CPU)
    memory.settle()
    if not memory.resettable:
        pytest.skip("the peak resident size can't be reset here")
    memory.reset()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages:
        assert not any(pages[:: mmap.PAGESIZE])
        assert memory.over_loaded()[0] < 10e6


def test_heap_pages_go_back_after_every_step_of_the_batch_that_is_not_timed(small_zoo, monkeypatch):
    cell = Cell("lpd", steps=7, zoo=str(small_zoo), threads=1, batch=4, images=8)
    subject = load(prepare(normalised(cell)))
    calls = []
    monkeypatch.setattr(PeakMemory, "release", lambda memory: calls.append(1))
    generate = measuring._generate

    def timed(*arguments):
        seconds = generate(*arguments)
        assert not calls
        return seconds

    monkeypatch.setattr(measuring, "_generate", timed)
    measuring._measure_once(subject, measuring.Measurements(), lambda share, doing: None, measuring.Budgets())
    assert len(calls) == 7
    calls.clear()
    hurried = measuring.Budgets(memory_patience_s=0.0)
    measuring._measure_once(subject, measuring.Measurements(), lambda share, doing: None, hurried)
    assert not calls
    memory = PeakMemory(subject.device)
    memory.settle()
    brief = measuring.Budgets(0.0, *[measuring.Budget(0.0, least=1)] * 3)
    found = measuring.Measurements()
    monkeypatch.setattr(measuring, "_generate", generate)
    measuring._measure_batch(subject, 2, memory, found, lambda share, doing: None, brief)
    assert len(calls) == 7


@ONEDNN
@OF_THE_CONSTANT
def test_the_product_library_keeps_what_the_model_says_for_every_shape():
    assert 0.7 < printed(KERNELS) / KERNEL_BYTES < 1.3


@ONEDNN
@OF_THE_CONSTANT
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_peak_memory_of_a_published_network_is_predicted_within_5_percent(dtype):
    assert printed(MEASURE, "par", "par-b-4x-256", dtype, "2") == pytest.approx(1, abs=0.05)
