"""A trunk's forward passes recorded once and replayed: CUDA graphs, without the host's time per kernel.

What a pass computes is fixed by its shapes, its ``View`` and the cache it writes to, and a plan repeats them
for every batch. So each is recorded when it first occurs and replayed from then on, its inputs copied to
where the recording reads them: the same kernels in the same order, and so the same numbers as without. The
tensors of a view are inputs as well: images at their own pace need one recording for a shape, not one for
every slot. Keys and values stay where the cache has them; a network therefore keeps its caches
(``Network.keep_caches``).
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

Run = Callable[[], Tensor]
Key = tuple[Any, ...]
VIEW_FIELDS = tuple(field.name for field in fields(View))


class Recorder(Protocol):
    """Turns a pass into one that can be replayed."""

    def record(self, run: Run) -> tuple[Callable[[], None], Tensor]:
        """A function that repeats ``run`` on whatever its inputs hold by then, and the tensor it fills."""
        ...


class CUDAGraphs:
    """Recorder of CUDA devices. All graphs share one pool of memory: what a pass leaves behind is copied out
    before the next is replayed."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()

    def record(self, run: Run) -> tuple[Callable[[], None], Tensor]:
        # Libraries choose kernels and allocate workspaces in their first calls, which can't be recorded.
        side, current = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(2):
                run()
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            output = run()
        return graph.replay, output


@dataclass(frozen=True)
class Recording:
    """One recorded pass: the inputs it reads and the output it fills."""

    inputs: tuple[Tensor, ...]
    replay: Callable[[], None]
    output: Tensor


class ReplayedTrunk:
    """Stands in for the ``forward`` of a trunk."""

    def __init__(self, trunk: Trunk, recorder: Recorder) -> None:
        self.forward = trunk.forward
        self.recorder = recorder
        self.recordings: dict[Key, Recording] = {}
        self.seconds = 0.0
        """Spent recording."""
        self._buffers: dict[Key, Tensor] = {}

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
        if cache is not None and isinstance(view.start, int) and view.slots is None:
            view = view.placed(x, cache.slots)  # its mask is an input
        seen = {name: getattr(view, name) for name in VIEW_FIELDS}
        fed = (x, phases, *map(_tensor, seen.values()), *(modulations or ()))
        resident = () if shared is None else shared
        key: Key = (
            *(None if tensor is None else (*tensor.shape, tensor.dtype) for tensor in fed),
            *(None if isinstance(value, Tensor) else value for value in seen.values()),
            None if cache is None else cache.store.data_ptr(),
            *((tensor.data_ptr(), tensor.shape) for tensor in resident),
            asked,
        )
        if key not in self.recordings:
            started = time.perf_counter()
            self.recordings[key] = self._record(fed, view, cache, shared, asked)
            self.seconds += time.perf_counter() - started
        recording = self.recordings[key]
        _copy(fed, recording.inputs)
        recording.replay()
        return recording.output.clone()

    def _record(
        self,
        fed: tuple[Tensor | None, ...],
        view: View,
        cache: KVCache | None,
        shared: tuple[Tensor, Tensor] | None,
        asked: int | None,
    ) -> Recording:
        buffers = [self._buffer(role, tensor) for role, tensor in enumerate(fed)]
        x, phases, *others = buffers
        assert x is not None
        seen, modulations = others[: len(VIEW_FIELDS)], others[len(VIEW_FIELDS) :]
        inside: dict[str, Any] = {
            name: tensor for name, tensor in zip(VIEW_FIELDS, seen, strict=True) if tensor is not None
        }
        fixed = replace(view, **inside)
        inputs = tuple(tensor for tensor in buffers if tensor is not None)
        _copy(fed, inputs)
        made = [tensor for tensor in modulations if tensor is not None] or None
        replay, output = self.recorder.record(
            lambda: self.forward(x, phases, fixed, cache, shared, made, asked)
        )
        return Recording(inputs, replay, output)

    def _buffer(self, role: int, like: Tensor | None) -> Tensor | None:
        """Where passes of one shape read this input; one for all, since no two passes run at once."""
        if like is None:
            return None
        key = (role, *like.shape, like.dtype)
        if key not in self._buffers:
            self._buffers[key] = torch.empty(like.shape, dtype=like.dtype, device=like.device)
        return self._buffers[key]


def _tensor(value: object) -> Tensor | None:
    return value if isinstance(value, Tensor) else None


def _copy(fed: tuple[Tensor | None, ...], inputs: tuple[Tensor, ...]) -> None:
    for target, source in zip(inputs, (tensor for tensor in fed if tensor is not None), strict=True):
        target.copy_(source)


def replay_trunks(network: Network | Networks, recorder: Recorder) -> list[ReplayedTrunk]:
    """Make every trunk of ``network`` record and replay its passes; for decoding, not for learning.

    Hooks of the trunks go on counting: they are called before a pass, replayed or not.
    """
    network.keep_caches()
    replayed = []
    for module in network.modules():
        if isinstance(module, Trunk):
            replayed.append(ReplayedTrunk(module, recorder))
            module.forward = replayed[-1]  # type: ignore[method-assign]
    return replayed
