"""Loading makes no second copy: a float32 file becomes bfloat16 weights with little beside them in memory."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.cell.cell import Cell, normalised
from harness.subject.prepare import prepare
from harness.subject.subject import load
from harness.sweep.process import ROOT

MEASURE = """
import sys, threading, time
from pathlib import Path
import torch
from harness.cell.cell import Cell, normalised
from harness.subject.subject import load
from harness.subject.prepare import prepare

def anonymous():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1024 * int(line.split()[1])

network, path = sys.argv[1:]
torch.set_num_threads(1)
cell = Cell("raster", network=network, checkpoint=path, dtype="bfloat16", threads=1)
prepared = prepare(normalised(cell))
before, peak, done = anonymous(), [0], threading.Event()

def watch():
    while not done.is_set():
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.002)

watcher = threading.Thread(target=watch)
watcher.start()
subject = load(prepared)
done.set()
watcher.join()
assert subject.network.dtype == torch.bfloat16
print((max(peak[0], anonymous()) - before) / Path(path).stat().st_size)
"""


def write_zeros(network: str, path: Path) -> None:
    """A float32 file in the authors' layout; pages of zeros take no memory until they are written."""
    code = """
import sys, torch
from strategies.decoding.presets import preset
from strategies.decoding.registry import families
from harness.weights.empty import on_meta
from tests.backbones.published_files import to_published
from safetensors.torch import save_file
strategy, config, _ = preset(sys.argv[1])
network = on_meta(strategy, config).to_empty(device="cpu")
published = next(found for found in families().values() if found.strategy == strategy.name)
state = to_published(network, published.keys)
state = {key: torch.zeros(tensor.shape) for key, tensor in state.items()}
if sys.argv[2].endswith(".safetensors"):
    save_file(state, sys.argv[2])
else:
    torch.save({"model": state}, sys.argv[2])
"""
    subprocess.run([sys.executable, "-c", code, network, str(path)], cwd=ROOT, check=True)


def peak_share(network: str, path: Path) -> float:
    """Peak anonymous memory of loading, over the file's size, in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, network, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs Linux's account of anonymous memory"
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_float32_file_loads_into_bfloat16_within_seven_tenths_of_its_size(tmp_path, suffix):
    path = tmp_path / f"c2i_L_256{suffix}"
    write_zeros("llamagen-l-256", path)
    assert path.stat().st_size > 1.3e9
    assert 0.45 < peak_share("llamagen-l-256", path) < 0.7


@pytest.mark.parametrize("strategy", ["raster", "lpd"])
def test_weights_loaded_into_bfloat16_are_the_float32_ones_rounded(small_zoo, strategy):
    def weights(dtype: str) -> dict[str, torch.Tensor]:
        cell = Cell(strategy, dtype=dtype, zoo=str(small_zoo), threads=1)
        return load(prepare(normalised(cell))).network.state_dict()

    exact, rounded = weights("float32"), weights("bfloat16")
    for name, tensor in exact.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(rounded[name], tensor.bfloat16()), name


def test_a_network_with_buffers_keeps_them(small_zoo, monkeypatch):
    from strategies.raster import Raster, RasterNetwork

    class Buffered(RasterNetwork):
        def __init__(self, config) -> None:
            super().__init__(config)
            self.register_buffer("table", torch.arange(5.0), persistent=False)

    monkeypatch.setattr(Raster, "network", lambda self, config: Buffered(config))
    network = load(prepare(normalised(Cell("raster", zoo=str(small_zoo), threads=1)))).network
    assert torch.equal(network.table, torch.arange(5.0))
