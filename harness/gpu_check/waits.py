"""Where the host waits for the device while it decodes.

On CUDA torch's own sync debug mode tells. On the CPU a stand-in plays the device: weights, and whatever is
made from them or with ``device=``, count as lying on it, and the host waits where it reads such a tensor,
where a result's size depends on one, and where it hands over numbers of its own and doesn't say that it need
not wait.
"""

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).parents[2]
OURS = tuple(str(ROOT / name) for name in ("backbones", "strategies"))
_READS = {
    *(getattr(Tensor, f"__{name}__") for name in ("bool", "int", "float", "index", "array", "contains")),
    *(getattr(Tensor, name) for name in ("item", "tolist", "cpu", "numpy", "is_nonzero", "equal")),
    torch.equal,
    torch.is_nonzero,
}
_SIZED = {
    *(getattr(Tensor, name) for name in ("nonzero", "masked_select", "unique", "unique_consecutive")),
    *(torch.nonzero, torch.masked_select, torch.unique, torch.unique_consecutive, torch.argwhere),
}
"""What gives a tensor whose size the device alone knows."""
_MOVES = {Tensor.to, torch.tensor, torch.as_tensor}
_INDEXED = {Tensor.__getitem__, Tensor.__setitem__}
_MARK = "_lies_on_stand_in"


def _lies_there(value: object) -> bool:
    return isinstance(value, nn.Parameter) or getattr(value, _MARK, False)


def _names_device(args: Any, kwargs: Any) -> bool:
    return kwargs.get("device") is not None or any(isinstance(one, torch.device) for one in args)


class _StandIn(TorchFunctionMode):
    def __init__(self, waits: Counter[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        there = any(map(_lies_there, leaves))
        if self._waits(func, args, kwargs, there):
            self.waits[_place()] += 1
        out = func(*args, **kwargs)
        if func is Tensor.cpu:
            return out.detach()  # the same tensor on a CPU; its copy on the host is waited for once
        if (there or _names_device(args, kwargs)) and func is not Tensor.numpy:
            for made in tree_leaves(out):
                if isinstance(made, Tensor):
                    setattr(made, _MARK, True)
        return out

    def _waits(self, func: Any, args: Any, kwargs: Any, there: bool) -> bool:
        if func in _MOVES:
            return _names_device(args, kwargs) and not there and not kwargs.get("non_blocking")
        if func in _INDEXED and there:
            return any(map(_waited_for_as_index, tree_leaves(args[1]))) or _from_host(args[2:])
        if func is Tensor.copy_ and _lies_there(args[0]):
            return _from_host(args[1:2])
        return there and (func in _READS or func in _SIZED)


def _waited_for_as_index(index: object) -> bool:
    """A mask, whose size is asked for, or places that the host holds."""
    if isinstance(index, Tensor):
        return index.dtype == torch.bool or not _lies_there(index)
    return isinstance(index, np.ndarray)


def _from_host(values: tuple[object, ...]) -> bool:
    """Whether an array of the host is copied; single numbers travel with the call."""
    return any(isinstance(one, Tensor) and one.dim() > 0 and not _lies_there(one) for one in values)


def _place() -> str:
    """``file:line`` of the innermost frame in our own code."""
    frame = sys._getframe(2)
    while frame.f_back is not None:
        if frame.f_code.co_filename.startswith(OURS):
            return f"{Path(frame.f_code.co_filename).relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


def forget_tables() -> None:
    """Empty what functions of ours keep from decode to decode: to the stand-in, a table that was made before
    it played the device lies on the host."""
    for name in [name for name in sys.modules if name.startswith(("backbones.", "strategies."))]:
        for kept in vars(sys.modules[name]).values():
            if callable(clear := getattr(kept, "cache_clear", None)):
                clear()


@contextmanager
def _on_cpu(waits: Counter[str]) -> Iterator[None]:
    with _StandIn(waits):
        yield


@contextmanager
def _on_cuda(waits: Counter[str]) -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)
    for one in found:
        if "synchronizing CUDA operation" in str(one.message):
            path = Path(one.filename)
            inside = path.is_relative_to(ROOT)
            waits[f"{path.relative_to(ROOT) if inside else path.name}:{one.lineno}"] += 1


def waits_of(work: Callable[[], object], device: torch.device) -> Counter[str]:
    """How often the host waits at each place while ``work`` runs."""
    waits: Counter[str] = Counter()
    with (_on_cuda if device.type == "cuda" else _on_cpu)(waits):
        work()
    return waits
