"""A trunk's forward passes recorded once and replayed: CUDA graphs, without the host's time per kernel.

What a pass computes is fixed by its shapes and the cache it writes to: where its rows go and what they see
are tensors (``View.fixed``) and inputs like the rows. So a pass is recorded when its shape first occurs and
replayed from then on, its inputs copied to where the recording reads them. It reads the whole cache behind a
mask, or the parts of it up to the filled one, whose number is the number of recordings of a shape. Keys and
values stay where the cache has them; a network therefore keeps its caches (``Network.keep_caches``).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from backbones.cache import KVCache
from backbones.networks import Networks
from backbones.transformer import Network, Trunk, View

Outputs = tuple[Tensor, ...]
Run = Callable[[], Outputs]
Key = tuple[Any, ...]
VIEW_FIELDS = tuple(field.name for field in fields(View))


class Recorder(Protocol):
    """Turns a pass into one that can be replayed."""

    nbytes: int
    """Device memory that all recordings took so far."""

    def record(self, run: Run) -> tuple[Callable[[], None], Outputs]:
        """A function that repeats ``run`` on whatever its inputs hold by then, and the tensors it fills."""
        ...


class CUDAGraphs:
    """Recorder of a CUDA device, by default the current one. All graphs share one pool of memory: what a pass
    leaves behind is copied out before the next is replayed."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device
        self.pool = torch.cuda.graph_pool_handle()
        self.nbytes = 0

    def record(self, run: Run) -> tuple[Callable[[], None], Outputs]:
        with torch.cuda.device(self.device):  # streams and captures are the current device's
            return self._record(run)

    def _record(self, run: Run) -> tuple[Callable[[], None], Outputs]:
        # Libraries choose kernels and allocate workspaces in their first calls, which can't be recorded.
        side, current = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(2):
                run()
        current.wait_stream(side)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()  # as entering a capture does: what it frees is no recording's
        free, _ = torch.cuda.mem_get_info()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            outputs = run()
        self.nbytes += max(0, free - torch.cuda.mem_get_info()[0])
        return graph.replay, outputs


class Repeats:
    """Recorder of devices without graphs: a pass is computed again, from where a recording would read.

    What a recording would have fixed stays fixed, so the same recordings serve the same steps, and counting
    them needs no GPU."""

    nbytes = 0

    def record(self, run: Run) -> tuple[Callable[[], None], Outputs]:
        outputs = run()

        def replay() -> None:
            for output, again in zip(outputs, run(), strict=True):
                output.copy_(again)

        return replay, outputs


ALIGNED = 8
"""Slots: kernels read masks of such a width as they are, and copy others."""


def part_slots(slots: int, parts: int) -> int:
    """Slots of each of so many parts, the last of them shorter."""
    return -(-slots // (parts * ALIGNED)) * ALIGNED


@dataclass(frozen=True)
class Recording:
    """One recorded pass: the inputs it reads and the outputs it fills."""

    inputs: tuple[Tensor, ...]
    replay: Callable[[], None]
    outputs: Outputs


class Recordings:
    """Recorded passes of one function by what they are fixed to, and the inputs that they share."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.made: dict[Key, Recording] = {}
        self.calls = 0
        """Passes so far, recorded or replayed."""
        self.seconds = 0.0
        """Spent recording."""
        self._buffers: dict[Key, Tensor] = {}

    def run(
        self,
        fixed: Key,
        fed: Sequence[Tensor | None],
        function: Callable[[Sequence[Tensor | None]], Outputs],
    ) -> Outputs:
        """``function`` of the tensors ``fed``, whose shapes a recording is fixed to as it is to ``fixed``."""
        self.calls += 1
        key = (*(None if tensor is None else (*tensor.shape, tensor.dtype) for tensor in fed), *fixed)
        if key not in self.made:
            started = time.perf_counter()
            buffers = [self._buffer(role, tensor) for role, tensor in enumerate(fed)]
            inputs = tuple(tensor for tensor in buffers if tensor is not None)
            _copy(fed, inputs)
            self.made[key] = Recording(inputs, *self.recorder.record(lambda: function(buffers)))
            self.seconds += time.perf_counter() - started
        recording = self.made[key]
        _copy(fed, recording.inputs)
        recording.replay()
        return tuple(output.clone() for output in recording.outputs)

    def _buffer(self, role: int, like: Tensor | None) -> Tensor | None:
        """Where passes of one shape read this input; one for all, since no two passes run at once."""
        if like is None:
            return None
        key = (role, *like.shape, like.dtype)
        if key not in self._buffers:
            self._buffers[key] = torch.empty(like.shape, dtype=like.dtype, device=like.device)
        return self._buffers[key]


class ReplayedTrunk:
    """Stands in for the ``forward`` of a trunk."""

    def __init__(self, trunk: Trunk, recorder: Recorder) -> None:
        self.forward = trunk.forward
        self.recordings = Recordings(recorder)

    def __call__(
        self,
        x: Tensor,
        phases: Tensor | None,
        view: View,
        cache: KVCache | None = None,
        shared: tuple[Tensor, Tensor] | None = None,
        modulations: Sequence[Tensor] | None = None,
        asked: int | None = None,
    ) -> Tensor:
        """As ``Trunk.forward``. ``shared`` must lie in a kept cache, for it is read where it is."""
        if cache is not None and cache.unit is not None:
            view = view.fixed(x, cache.slots, cache.unit)
        seen = {name: getattr(view, name) for name in VIEW_FIELDS}
        fixed: Key = (
            *(None if isinstance(value, Tensor) else value for value in seen.values()),
            None if cache is None else cache.store.data_ptr(),
            *((tensor.data_ptr(), tensor.shape) for tensor in shared or ()),
            asked,
        )
        parts = 2 + len(VIEW_FIELDS)

        def forward(fed: Sequence[Tensor | None]) -> Outputs:
            x, phases = fed[:2]
            inside: dict[str, Any] = {
                name: tensor
                for name, tensor in zip(VIEW_FIELDS, fed[2:parts], strict=True)
                if tensor is not None
            }
            made = [tensor for tensor in fed[parts:] if tensor is not None] or None
            assert x is not None
            return (self.forward(x, phases, replace(view, **inside), cache, shared, made, asked),)

        fed = (x, phases, *map(_tensor, seen.values()), *(modulations or ()))
        return self.recordings.run(fixed, fed, forward)[0]


def _tensor(value: object) -> Tensor | None:
    return value if isinstance(value, Tensor) else None


def _copy(fed: Sequence[Tensor | None], inputs: tuple[Tensor, ...]) -> None:
    for target, source in zip(inputs, (tensor for tensor in fed if tensor is not None), strict=True):
        target.copy_(source)


def replay_trunks(
    network: Network | Networks, recorder: Recorder, parts: Callable[[KVCache], int] = lambda cache: 1
) -> list[ReplayedTrunk]:
    """Make every trunk of ``network`` record and replay its passes; for decoding, not for learning.

    parts: of a cache, which passes read up to the filled one: one part is one recording for a shape, many
    leave little to read in vain. Hooks of the trunks go on counting: they are called before every pass.
    """
    network.keep_caches(lambda cache: part_slots(cache.slots, parts(cache)))
    replayed = []
    for module in network.modules():
        if isinstance(module, Trunk):
            replayed.append(ReplayedTrunk(module, recorder))
            module.forward = replayed[-1]  # type: ignore[method-assign]
    return replayed
