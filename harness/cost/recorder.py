"""Counts every operation of some work on the meta device, where nothing has values and nothing is done."""

import weakref
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from harness.cost.drafting import Script

Kind = Literal["product", "attention", "other"]
META = torch.device("meta")
_GATHERS = {"embedding", "index", "index_select", "gather"}
_ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


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


class Product(NamedTuple):
    """A kind of matrix product; two of a kind share one kernel."""

    name: str
    dtype: torch.dtype
    shapes: tuple[torch.Size, ...]
    rows: int
    weighs: bool
    """Whether one factor is a weight."""


class _Form(NamedTuple):
    """All there is of a tensor without values."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    def tensor(self) -> Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=META)


def _form(argument: Any) -> Any:
    """What the form of a result depends on: 1 and 1.0 and True are equal, and make other types of it."""
    if isinstance(argument, Tensor):
        return _Form(argument.shape, argument.stride(), argument.dtype)
    return type(argument), argument


class Recorder(TorchDispatchMode):
    """Counts every operation on meta tensors, and what lives at once."""

    def __init__(self, weights: set[int]) -> None:
        super().__init__()
        self.weights, self.caches = weights, set[int]()
        self.cache_sizes: list[int] = []
        self.repeat = self.kept = 1
        self.whole: set[Any] = set()
        self.views: set[Any] = set()
        self.forms: dict[Any, tuple[list[_Form], bool]] = {}
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
        leaves = tree_leaves((args, kwargs))
        read = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        out = self._out(func, args, kwargs, leaves, read)
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        on_device = any(tensor.is_meta for tensor in made)
        if on_device and (not read or any(tensor.is_meta for tensor in read)):
            self._record(func, packet, read, made, args, kwargs, out)
        return out

    def _out(self, func: Any, args: Any, kwargs: Any, leaves: list[Any], read: list[Tensor]) -> Any:
        """What the operation returns. What it makes anew is asked once for inputs of one form: PyTorch works
        out many shapes in Python, which takes up to a millisecond."""
        if func in self.views or not read or not all(tensor.is_meta for tensor in read):
            return func(*args, **kwargs)
        in_place = func._schema.is_mutable and func._schema.name.endswith("_")
        if in_place and torch.Tag.inplace_view not in func.tags:
            return args[0]
        key = (func, *kwargs, *map(_form, leaves))
        if key in self.forms:
            forms, several = self.forms[key]
            new = tuple(form.tensor() for form in forms)
            return new if several else new[0]
        out = func(*args, **kwargs)
        made = out if isinstance(out, tuple) else (out,)
        sources = {storage_of(tensor) for tensor in read}
        if all(isinstance(one, Tensor) and storage_of(one) not in sources for one in made):
            self.forms[key] = ([_form(one) for one in made], isinstance(out, tuple))
        else:
            self.views.add(func)
        return out

    def _record(
        self, func: Any, packet: Any, read: list[Tensor], made: list[Tensor], args: Any, kwargs: Any, out: Any
    ) -> None:
        sources = {storage_of(tensor) for tensor in read}
        fresh = [tensor for tensor in made if storage_of(tensor) not in sources]
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
            storage = storage_of(tensor)
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


def storage_of(tensor: Tensor) -> int:
    """What tensors that share memory have in common."""
    return int(tensor.untyped_storage()._cdata)


class AsOnDevice(TorchFunctionMode):
    """What the meta device would do otherwise than the cell's: attention is one kernel, RMSNorm six passes on
    a CPU and one kernel elsewhere; and logits are finite."""

    def __init__(self, recorder: Recorder, on_cpu: bool, course: Script | None = None) -> None:
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


def works_of(step: dict[tuple[Kind, int], list[int]]) -> tuple[Operations, ...]:
    """The operations of one of ``Recorder.steps``, a kind and number of rows each."""
    return tuple(Operations(kind, rows, *numbers) for (kind, rows), numbers in step.items())
