"""Host time of one operation, taken where operations stand: in a block of the shared trunk.

The block is too narrow to compute for long, so its time is the host's: Python, views, dispatch. On a CPU it
is also taken with as much memory read before each product as a network's weights would be, the clock stopped
meanwhile: whoever has just read weights finds its own code in no near cache.
"""

import statistics
from collections.abc import Sequence

import torch
from torch import nn

from backbones.cache import KVCache
from backbones.config import TrunkConfig
from backbones.empty import with_memory, without_memory
from backbones.transformer import Trunk, View
from harness.cost.recorder import META
from harness.cost.work import count_launches
from harness.subject.subject import Clock

NARROW = TrunkConfig(depth=1, width=64, heads=1, mlp_width=64)
ROWS, SLOTS = 4, 32


class Pass:
    """One pass of a narrow block over a few rows."""

    def __init__(self, device: torch.device) -> None:
        with without_memory():
            trunk = Trunk(NARROW)
        self.trunk = with_memory(trunk, device).eval().requires_grad_(False)
        self.cache = KVCache(NARROW, ROWS, SLOTS, torch.float32, device)
        for tensor in (*self.trunk.parameters(), self.cache.store):
            tensor.zero_()
        self.x = torch.zeros(ROWS, 1, NARROW.width, device=device)
        self.phases = torch.ones(1, 1, NARROW.head_width // 2, dtype=torch.complex64, device=device)

    def __call__(self) -> None:
        self.trunk(self.x, self.phases, View(start=SLOTS // 2), self.cache)

    def products(self) -> list[nn.Linear]:
        return [module for module in self.trunk.modules() if isinstance(module, nn.Linear)]


def launch_seconds(
    device: torch.device, read_bytes: Sequence[int], passes: int, clock: Clock
) -> dict[int, float]:
    """Seconds per operation by the bytes read per operation: the mean of passes in a row, and the median of
    passes with reading. A GPU's host reads nothing of what the GPU reads: one figure there.

    read_bytes: read before each product of a pass. Run it in inference mode.
    """
    on_cpu = device.type == "cpu"
    one_pass = Pass(device)
    launches = count_launches(Pass(META), on_cpu)
    found = {1: _uninterrupted(one_pass, passes, clock) / launches}
    for nbytes in read_bytes if on_cpu else ():
        per_launch = nbytes * len(one_pass.products()) // launches
        found[max(2, per_launch)] = _with_reading(one_pass, nbytes, passes, clock) / launches
    return found


def _uninterrupted(one_pass: Pass, passes: int, clock: Clock) -> float:
    one_pass()
    start = clock.now()
    for _ in range(passes):
        one_pass()
    return (clock.now() - start) / passes


def _with_reading(one_pass: Pass, nbytes: int, passes: int, clock: Clock) -> float:
    memory = torch.ones(nbytes // 4)
    reading_s = 0.0

    def read(*_: object) -> None:
        nonlocal reading_s
        start = clock.now()
        memory.sum()
        reading_s += clock.now() - start

    hooks = [product.register_forward_pre_hook(read) for product in one_pass.products()]
    seconds = []
    for _ in range(passes):
        reading_s = 0.0
        start = clock.now()
        one_pass()
        seconds.append(clock.now() - start - reading_s)
    for hook in hooks:
        hook.remove()
    return statistics.median(seconds)
