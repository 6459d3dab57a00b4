"""Modules whose weights take no memory: to count them, to compare shapes, or before a file fills them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

M = TypeVar("M", bound=nn.Module)


class _WithoutDecompositions(TorchDispatchMode):
    """Answers the two operations that torch takes through its decompositions on the meta device.

    The first use of those imports the compiler or its symbolic algebra: a worker that is ready to decode
    after 1.3 s takes 2.4 s with them (2 cores of an AMD EPYC).
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the guard against it would import the compiler

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.ops.aten.normal_.default:
            return args[0]  # there are no values to set
        if func is torch.ops.aten.empty_like.default and kwargs and kwargs.get("device") is not None:
            return torch.empty(args[0].shape, dtype=args[0].dtype, device=kwargs["device"])
        return func(*args, **(kwargs or {}))


@contextmanager
def without_memory() -> Iterator[None]:
    """Modules built inside are on the meta device."""
    with torch.device("meta"), _WithoutDecompositions():
        yield


def with_memory(module: M, device: torch.device | str) -> M:
    """The module on a device, its parameters and buffers still to be filled."""
    with _WithoutDecompositions():
        return module.to_empty(device=device)
