"""Compiled and recorded decoding: its switches, its graphs, and their time, kept apart from decoding."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from backbones import attention
from backbones.graphs import CUDAGraphs, Recorder, Recordings, replay_trunks
from backbones.networks import Networks
from backbones.taught_attention import attend_taught
from backbones.transformer import Block, Network, Trunk, run_blocks
from strategies.decoding.decode import Drawing, draw_guided
from strategies.decoding.sampling import Sampler, StreamSampler

RECOMPILE_LIMIT = 64
"""Graphs of one function before the compiler gives up; it then fails and doesn't go on without compiling."""


class ReplayedDraw:
    """Stands in for ``draw_guided``: guidance, filters and the draw as one recording for each shape."""

    def __init__(self, recorder: Recorder) -> None:
        self.recordings = Recordings(recorder)

    def __call__(
        self, logits: Tensor, weights: list[Tensor], numbers: Tensor, sampler: Sampler
    ) -> tuple[Tensor, Tensor, Tensor]:
        if not isinstance(sampler, StreamSampler):
            return draw_guided(logits, weights, numbers, sampler)

        def draw(fed: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
            logits, numbers, *weights = (tensor for tensor in fed if tensor is not None)
            return draw_guided(logits, weights, numbers, sampler)

        settings = type(sampler), sampler.temperature, sampler.top_k, sampler.top_p
        tokens, guided, soundness = self.recordings.run(settings, (logits, numbers, *weights), draw)
        return tokens, guided, soundness


@dataclass(frozen=True)
class Recorded:
    """What of a decode is recorded: the passes of its trunks, and its draws."""

    parts: tuple[Recordings, ...] = ()
    drawing: Drawing = draw_guided
    """As ``decode`` takes it."""

    @property
    def passes(self) -> int:
        return sum(len(one.made) for one in self.parts)

    @property
    def seconds(self) -> float:
        return sum(one.seconds for one in self.parts)


NOTHING_RECORDED = Recorded()


BLOCKS_PER_GRAPH = 6
"""Blocks compiled as one graph, which serves a trunk's next blocks as well. One by one, looking the graph up
takes the host a tenth of the time of a block of 1024 channels; all together, compiling takes minutes."""


def compile_trunks(network: nn.Module, backend: str = "inductor") -> None:
    """Compile the trunks' blocks, a few at a time, their sizes and slots left open.

    Hooks on trunks stay outside of the graphs, and go on counting.
    """
    from torch._dynamo import config

    config.recompile_limit = RECOMPILE_LIMIT
    config.fail_on_recompile_limit_hit = True
    run = torch.compile(run_blocks, dynamic=True, backend=backend)
    for module in network.modules():
        if isinstance(module, Trunk):
            module.run, module.at_once = run, BLOCKS_PER_GRAPH


def compile_taught(network: Network | Networks) -> bool:
    """Compile the blocks of a network that is taught on the CPU, around their attention: 1.25 to 1.35 times
    as fast (AMX, 6 blocks of 128 channels, 256 places). False where there is no compiler for C++."""
    if not any(shutil.which(name) for name in ("g++", "c++", "clang++")):
        return False
    from torch._dynamo import config

    config.recompile_limit = RECOMPILE_LIMIT
    # Marked here and not where they are written: the mark would load the compiler with every import.
    attention.attend_taught = torch.compiler.disable(attend_taught)
    attention.taught_tiles = torch.compiler.disable(attention.taught_tiles)
    for module in network.modules():
        if isinstance(module, Block):
            module.compile()
    return True


def record_passes(network: Network | Networks, recorder: Recorder | None = None) -> Recorded:
    """Record every pass of the trunks when it first occurs, by default as CUDA graphs, and every draw."""
    recorder = recorder or CUDAGraphs()
    trunks, draw = replay_trunks(network, recorder), ReplayedDraw(recorder)
    return Recorded((*(trunk.recordings for trunk in trunks), draw.recordings), draw)


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
