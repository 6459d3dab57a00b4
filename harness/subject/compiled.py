"""Compiled and recorded decoding: its switches, its graphs, and their time, kept apart from decoding."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from backbones import attention
from backbones.cache import KVCache
from backbones.graphs import Recorder, Recordings, part_slots, replay_trunks
from backbones.networks import Networks
from backbones.taught_attention import attend_taught
from backbones.transformer import Block, Network, Trunk, View, run_blocks
from harness.machine.clock import Clock
from harness.subject.one_graph import ReplayedDecode
from strategies.decoding.decode import Running, answer_all
from strategies.decoding.drawing import Drawing, draw_guided
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
        """As ``draw_guided``, of the same shapes; a sampler of another kind draws without a recording."""
        if not isinstance(sampler, StreamSampler):
            return draw_guided(logits, weights, numbers, sampler)

        def draw(fed: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
            logits, numbers, *weights = (tensor for tensor in fed if tensor is not None)
            return draw_guided(logits, weights, numbers, sampler)

        settings = type(sampler), sampler.temperature, sampler.top_k, sampler.top_p
        tokens, guided, soundness = self.recordings.run(settings, (logits, numbers, *weights), draw)
        return tokens, guided, soundness


PARTS = (1, 2, 4, 8)
"""In how many parts a cache may be read."""
AS_FAST = 1.05
"""Times of the fastest: what takes no longer is as good and has fewer recordings."""
TIMED_CALLS = 50


class Reading:
    """In how many parts recorded passes read a cache, chosen on CUDA by the time of one row's attention to
    it; elsewhere one."""

    def __init__(self) -> None:
        self.chosen: dict[int, int] = {}
        """Address of a cache -> its parts."""

    def __call__(self, cache: KVCache) -> int:
        on_cuda = cache.store.is_cuda and cache.slots
        self.chosen[cache.store.data_ptr()] = parts = fewest(reading_seconds(cache)) if on_cuda else 1
        return parts


def fewest(seconds: Mapping[int, float]) -> int:
    """The fewest parts that are as fast as the fastest."""
    return min(parts for parts, one in seconds.items() if one <= AS_FAST * min(seconds.values()))


def reading_seconds(cache: KVCache, calls: int = TIMED_CALLS) -> dict[int, float]:
    """Parts -> seconds of one row's attention, the mean over a decode that fills the cache slot by slot."""
    layer, clock = cache.layers[0], Clock.of(cache.store.device)
    query = torch.zeros_like(layer.keys[:, :, :1])  # [R, H, 1, D]

    def seconds(read: int) -> float:
        keys, values = layer.keys.narrow(2, 0, read), layer.values.narrow(2, 0, read)
        view = View(mask=query.new_zeros(1, 1, 1, read))
        attention.attend(query, keys, values, view)
        started = clock.now()
        for _ in range(calls):
            attention.attend(query, keys, values, view)
        return (clock.now() - started) / calls

    found = {}
    for parts in PARTS:
        size = part_slots(cache.slots, parts)
        ends = [*range(size, cache.slots, size), cache.slots]
        shares = [end - start for start, end in pairwise([0, *ends])]
        found[parts] = (
            sum(share * seconds(end) for share, end in zip(shares, ends, strict=True)) / cache.slots
        )
    return found


@dataclass(frozen=True)
class Recorded:
    """What of a decode is recorded: the passes of its trunks and its draws, or all of it."""

    parts: tuple[Recordings, ...] = ()
    drawing: Drawing = draw_guided
    running: Running = answer_all
    """Both as ``decode`` takes them."""
    reading: Reading | None = None

    @property
    def passes(self) -> int:
        return sum(len(one.made) for one in self.parts)

    @property
    def seconds(self) -> float:
        return sum(one.seconds for one in self.parts)

    @property
    def nbytes(self) -> int | None:
        """Of device memory; None where nothing is recorded."""
        return self.parts[0].recorder.nbytes if self.parts else None

    @property
    def cache_parts(self) -> int | None:
        """The most parts in which a cache is read; None where none is."""
        return max(self.reading.chosen.values(), default=None) if self.reading else None


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


def record_passes(network: Network | Networks, recorder: Recorder) -> Recorded:
    """Record every pass of the trunks when it first occurs, and every draw."""
    reading = Reading()
    trunks, draw = replay_trunks(network, recorder, reading), ReplayedDraw(recorder)
    return Recorded((*(trunk.recordings for trunk in trunks), draw.recordings), draw, reading=reading)


def record_decodes(recorder: Recorder) -> Recorded:
    """Record every decode of a plan known beforehand as one."""
    replayed = ReplayedDecode(recorder)
    return Recorded((replayed.recordings,), running=replayed)


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
