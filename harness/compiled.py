"""Compiled and recorded decoding: its switches, its graphs, and their time, kept apart from decoding."""

import sys
from dataclasses import dataclass
from typing import Any

from backbones.graphs import CUDAGraphs, Recorder, ReplayedTrunk, replay_trunks
from backbones.transformer import Block, Network

RECOMPILE_LIMIT = 64
"""Graphs of one function before the compiler gives up; it then fails and doesn't go on without compiling."""


@dataclass(frozen=True)
class Recorded:
    """The trunks of a network whose passes are recorded."""

    trunks: tuple[ReplayedTrunk, ...] = ()

    @property
    def passes(self) -> int:
        return sum(len(trunk.recordings) for trunk in self.trunks)

    @property
    def seconds(self) -> float:
        return sum(trunk.seconds for trunk in self.trunks)


NOTHING_RECORDED = Recorded()


def compile_blocks(network: Network, backend: str = "inductor") -> None:
    """Compile the trunk's block once for all layers, its sizes and slots left open.

    A block is compiled and not the network: one graph serves every layer, and hooks on trunks go on counting.
    """
    import torch._dynamo

    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    for module in network.modules():
        if isinstance(module, Block):
            module.compile(dynamic=True, backend=backend)


def record_passes(network: Network, recorder: Recorder | None = None) -> Recorded:
    """Record every pass of the trunks when it first occurs, by default as CUDA graphs."""
    return Recorded(tuple(replay_trunks(network, recorder or CUDAGraphs())))


def graphs(recorded: Recorded = NOTHING_RECORDED) -> int:
    """Graphs compiled and passes recorded so far; 0 where the compiler was never loaded."""
    dynamo: Any = sys.modules.get("torch._dynamo.utils")
    return recorded.passes + (int(dynamo.counters["stats"]["unique_graphs"]) if dynamo else 0)


def compile_s(recorded: Recorded = NOTHING_RECORDED) -> float | None:
    """Seconds spent compiling and recording so far; None in eager mode.

    Where compiled blocks are recorded, the compiler runs while a pass is recorded: it is counted once.
    """
    if not graphs(recorded):
        return None
    dynamo: Any = sys.modules.get("torch._dynamo.utils")
    # The outermost phase holds all others.
    metrics = dynamo.compilation_time_metrics if dynamo else {}
    return max(float(sum(metrics.get("_compile.compile_inner", []))), recorded.seconds)
