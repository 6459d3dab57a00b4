"""What a decode does, step by step, without doing it: the public loop on torch's meta device.

The strategy's own generator runs, so every strategy is covered, plug-ins included. Of a trunk of equal blocks
three are run and counted for all. A strategy that reads what it drew can't be foreseen, since nothing is
drawn; one that tests drafts can, once the share that is accepted is given.
"""

import dataclasses
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from backbones.networks import Networks
from backbones.tokenizers import Tokenizer
from backbones.transformer import Network, Trunk
from harness.cost.drafting import Script, drafted_course
from harness.subject.prepare import Prepared, dtype_of
from harness.weights.empty import on_meta
from strategies.decoding.decode import decode
from strategies.decoding.meter import by_role
from strategies.decoding.sampling import StreamSampler
from strategies.decoding.trace import Committed

Kind = Literal["product", "attention", "other"]
META = torch.device("meta")
VECTOR_CHANNELS = 8
"""Of the codes' vectors, for strategies that compare them: LlamaGen's."""
_GATHERS = {"embedding", "index", "index_select", "gather"}
_ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


class Unforeseeable(Exception):
    """A strategy whose course depends on what it draws."""


@dataclass(frozen=True)
class Operations:
    """Operations of one kind in one step. ``rows``: of each matrix product. Bytes are read or written."""

    kind: Kind
    rows: int
    flops: int = 0
    weight_bytes: int = 0
    cache_bytes: int = 0
    other_bytes: int = 0
    launches: int = 0

    @property
    def nbytes(self) -> int:
        return self.weight_bytes + self.cache_bytes + self.other_bytes


class Kernel(NamedTuple):
    """What the size of a kernel that is kept depends on."""

    dtype: torch.dtype
    packed: bool
    rows: int


@dataclass(frozen=True)
class DecodeWork:
    """Operations of each step of one batch; prefill belongs to the first."""

    steps: tuple[tuple[Operations, ...], ...]
    cache_bytes: int
    activation_bytes: int
    """Most that lives at once beside weights and caches."""
    kernels: Mapping[Kernel, int] = field(default_factory=dict)
    """How many kernels of a kind a CPU's product library keeps by the end: one for each shape it has met."""

    @property
    def flops(self) -> int:
        return sum(work.flops for step in self.steps for work in step)


class Product(NamedTuple):
    """A kind of matrix product; two of a kind share one kernel."""

    name: str
    dtype: torch.dtype
    shapes: tuple[torch.Size, ...]
    rows: int
    weighs: bool
    """Whether one factor is a weight."""


class _Recorder(TorchDispatchMode):
    """Counts every operation on meta tensors, and what lives at once."""

    def __init__(self, weights: set[int]) -> None:
        super().__init__()
        self.weights, self.caches = weights, set[int]()
        self.cache_sizes: list[int] = []
        self.repeat = self.kept = 1
        self.whole: set[Any] = set()
        self.steps: list[dict[tuple[Kind, int], list[int]]] = [{}]
        self.products: set[Product] = set()
        self.live: dict[int, weakref.ref[Any]] = {}
        self.live_bytes = self.peak_bytes = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the guard against it imports the compiler: seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet not in flop_registry and func not in self.whole:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
            self.whole.add(func)
        out = func(*args, **kwargs)
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        on_device = any(tensor.is_meta for tensor in made)
        if on_device and (not read or any(tensor.is_meta for tensor in read)):
            self._record(func, packet, read, made, args, kwargs, out)
        return out

    def _record(
        self, func: Any, packet: Any, read: list[Tensor], made: list[Tensor], args: Any, kwargs: Any, out: Any
    ) -> None:
        sources = {_storage(tensor) for tensor in read}
        fresh = [tensor for tensor in made if _storage(tensor) not in sources]
        for tensor in fresh:
            self._hold(tensor)
        name = packet.__name__
        if name in _ALLOCATIONS or not (fresh or func._schema.is_mutable):
            return  # memory alone, or a view
        flops, rows = 0, 1
        kind: Kind = "other"
        if packet in flop_registry:
            flops = int(flop_registry[packet](*args, **kwargs, out_val=out))
            channels = 1 if name in ("convolution", "_convolution") else -1
            rows = made[0].numel() // made[0].shape[channels]
            if made[0].dim() == 3:
                rows //= made[0].shape[0]  # a batch of products
            kind = "product"
            weighs = not sources.isdisjoint(self.weights)
            shapes = tuple(one.shape for one in read)
            self.products.add(Product(name, made[0].dtype, shapes, rows, weighs))
        gathers = name in _GATHERS
        moved = {id(tensor): tensor for tensor in [*([] if gathers else read), *made] if tensor.is_meta}
        self.add(kind, rows, flops, [*moved.values(), *(made if gathers else [])])

    def add(self, kind: Kind, rows: int, flops: int, moved: list[Tensor]) -> None:
        """Note one operation that moves these tensors."""
        row = self.steps[-1].setdefault((kind, rows), [0, 0, 0, 0, 0])
        row[0] += self.repeat * flops
        for tensor in moved:
            storage = _storage(tensor)
            column = 1 if storage in self.weights else 2 if storage in self.caches else 3
            row[column] += self.repeat * min(tensor.nbytes, tensor.untyped_storage().nbytes())
        row[4] += self.repeat

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes() * self.kept
        if key in self.live or key in self.weights:
            return

        def drop(reference: Any) -> None:
            del self.live[key]
            self.live_bytes -= size

        self.live[key] = weakref.ref(storage, drop)
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


class _AsOnDevice(TorchFunctionMode):
    """What the meta device would do otherwise than the cell's: attention is one kernel, RMSNorm six passes on
    a CPU and one kernel elsewhere; and logits are finite."""

    def __init__(self, recorder: _Recorder, on_cpu: bool, course: Script | None = None) -> None:
        super().__init__()
        self.recorder, self.on_cpu, self.course = recorder, on_cpu, course

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **(kwargs or {}))
        if func is F.rms_norm:
            return self._normalise(*args, **(kwargs or {}))
        if func is Tensor.isfinite and args[0].is_meta and args[0].dim() == 0:
            return torch.tensor(True)  # the loop's question whether any logit was broken
        if func is Tensor.tolist and args[0].is_meta and self.course is not None:
            return self.course.next()
        return func(*args, **(kwargs or {}))

    def _normalise(self, x: Tensor, shape: Any, weight: Tensor | None = None, eps: Any = None) -> Tensor:
        out = torch.empty_like(x)
        scale = [] if weight is None else [weight]
        if not self.on_cpu:
            self.recorder.add("other", 1, 0, [x, out, *scale])
            return out
        squares = torch.empty_like(x)
        for moved in ([x, squares], [squares], [], [], [x, squares], [squares, out, *scale]):
            self.recorder.add("other", 1, 0, moved)
        return out

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Any = None, *rest: Any) -> Tensor:
        mixed = torch.empty_like(queries)
        flops = 4 * queries.numel() * keys.shape[-2]
        self.recorder.add("attention", queries.shape[-2], flops, [queries, keys, values, mixed])
        return mixed


@dataclass(frozen=True)
class _MetaSampler(StreamSampler):
    def noise(self, order: Tensor, purpose: str = "token", visit: int = 0) -> Tensor:
        return torch.empty(order.shape, device=order.device)

    def race(self, probs: Tensor, positions: Tensor) -> Tensor:
        """As where positions are known; of numbers for the whole window."""
        exponential = -torch.log1p(-(torch.empty_like(probs) + 2.0**-25).clamp(max=1 - 2.0**-24))
        return (probs / exponential).argmax(dim=-1)


def decode_work(
    prepared: Prepared,
    batch: int | None = None,
    on_cpu: bool | None = None,
    acceptance: float | None = None,
) -> DecodeWork:
    """The work of decoding one batch (default: the cell's size).

    on_cpu: whether operations are a CPU's or a GPU's (default: the cell's device). acceptance: share of
    tested drafts that are accepted (default: the cell's), for a strategy whose steps follow from it.
    Weights that are read by position (embeddings) count by what is read of them; all other tensors count once
    for each operation that reads or writes them. Raises Unforeseeable where a strategy reads what it drew.
    """
    cell = prepared.cell
    images = range(batch or cell.batch)
    course = None
    if prepared.strategy.decides_steps:
        acceptance = cell.acceptance if acceptance is None else acceptance
        if acceptance is None or not prepared.strategy.tests_drafts:
            raise Unforeseeable(f"strategy '{cell.strategy}' decides its steps while decoding")
        course = drafted_course(prepared, len(images), acceptance)
    network = on_meta(prepared.strategy, prepared.config).to(dtype_of(cell)).eval().requires_grad_(False)
    if prepared.strategy.reads_code_vectors and isinstance(network, Network):
        network.code_vectors = torch.empty(prepared.config.codes, VECTOR_CHANNELS, device=META)
    blocks = _few_blocks(network)
    if on_cpu is None:
        on_cpu = torch.device(cell.device).type == "cpu"
    recorder = _Recorder({_storage(parameter) for parameter in network.parameters()})
    with _caches_noted(network, recorder), _blocks_repeated(blocks, recorder):
        plan = prepared.plan(images)
        labels = torch.zeros(len(images), dtype=torch.int64, device=META)
        sampler = _MetaSampler(prepared.streams(images), cell.temperature, cell.top_k, cell.top_p)

        def next_step(commit: Committed) -> None:
            recorder.steps.append({})

        with _AsOnDevice(recorder, on_cpu, course), recorder:
            try:
                decode(
                    network, prepared.strategy, plan, labels, sampler, prepared.guidance, observe=next_step
                )
            except (RuntimeError, NotImplementedError) as error:
                if "meta" not in str(error).lower():
                    raise
                raise Unforeseeable(
                    f"strategy '{cell.strategy}' depends on what it draws: {' '.join(str(error).split())}"
                ) from error
    *steps, after = recorder.steps
    merged = [_works(step) for step in steps[:-1]] + [_works(steps[-1]) + _works(after)]
    cached = sum(recorder.cache_sizes)
    kernels = _kernels(recorder.products, cell.products == "packed") if on_cpu else {}
    return DecodeWork(tuple(merged), cached, recorder.peak_bytes - cached, kernels)


def _kernels(products: Iterable[Product], packed: bool) -> Mapping[Kernel, int]:
    """What oneDNN keeps for these products on a CPU: float32 ones are its own where they are packed."""
    kinds = [Kernel(one.dtype, packed and one.weighs, one.rows) for one in products]
    return Counter(kind for kind in kinds if kind.packed or kind.dtype != torch.float32)


def tokenizer_work(tokenizer: Tokenizer, batch: int) -> DecodeWork:
    """The work of turning the tokens of one batch into images; ``tokenizer`` is on the meta device."""
    recorder = _Recorder({_storage(tensor) for tensor in tokenizer.state_dict().values()})
    codes = torch.zeros((batch, *tokenizer.code_shape), dtype=torch.int64, device=META)
    with torch.inference_mode(), recorder:
        tokenizer.decode(codes)
    return DecodeWork((_works(recorder.steps[0]),), 0, recorder.peak_bytes)


def count_launches(work: Callable[[], object], on_cpu: bool) -> int:
    """Operations of some work on the meta device, as those of a decode are counted."""
    recorder = _Recorder(set())
    with torch.inference_mode(), _AsOnDevice(recorder, on_cpu), recorder:
        work()
    return sum(one.launches for one in _works(recorder.steps[0]))


def unguided(prepared: Prepared) -> Prepared:
    return dataclasses.replace(prepared, guidance=None)


def _works(step: dict[tuple[Kind, int], list[int]]) -> tuple[Operations, ...]:
    return tuple(Operations(kind, rows, *numbers) for (kind, rows), numbers in step.items())


def _few_blocks(network: Network | Networks) -> list[tuple[nn.Module, int]]:
    """Cut every trunk down to three blocks; the kept blocks, and how many each stands for.

    The first one's input is also the trunk's, and may be a view of a weight; the last computes only the rows
    that are read.
    """
    kept: list[tuple[nn.Module, int]] = []
    for module in network.modules():
        if type(module) is Trunk and len(module.blocks) > 3:
            first, second, last = module.blocks[0], module.blocks[1], module.blocks[-1]
            kept += [(first, 1), (second, len(module.blocks) - 2), (last, 1)]
            module.blocks = nn.ModuleList([first, second, last])
    return kept


@contextmanager
def _blocks_repeated(blocks: list[tuple[nn.Module, int]], recorder: _Recorder) -> Iterator[None]:
    """While a kept block, or a part of it, runs, what it does counts as often as there were blocks.

    A part that runs apart from its block makes something to be kept for it: so much lives once per block.
    """
    hooks = []
    running: list[nn.Module] = []
    for block, count in blocks:
        for part in block.modules():

            def enter(
                module: nn.Module, args: Any, count: int = count, apart: bool = part is not block
            ) -> None:
                if not running:
                    recorder.repeat, recorder.kept = count, count if apart else 1
                running.append(module)

            def leave(module: nn.Module, args: Any, out: Any) -> None:
                running.pop()
                if not running:
                    recorder.repeat = recorder.kept = 1

            hooks += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _caches_noted(network: Network | Networks, recorder: _Recorder) -> Iterator[None]:
    """Tell the recorder which memory is key/value cache."""

    def noting(make: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **named: Any) -> Any:
            cache = make(*args, **named)
            recorder.caches.add(_storage(cache.store))
            recorder.cache_sizes.append(cache.nbytes)
            return cache

        return noted

    for one in by_role(network).values():
        one.cache = noting(one.cache)  # type: ignore[method-assign]
    yield
