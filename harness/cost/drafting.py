"""How a speculative decode goes on when drafts are accepted at a declared rate: what it reads back, in order.

On the meta device nothing is drawn, so nothing is accepted. The course comes from a decode of the same plan,
batch and window by a network of one narrow block and few codes: by a declared rate the tests of drafts need
neither its probabilities nor its codes.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from backbones.config import NetworkConfig
from backbones.transformer import Network
from harness.subject.prepare import Prepared
from strategies.decoding.decode import Decoded, decode
from strategies.decoding.networks import network_of
from strategies.decoding.sampling import DeclaredAcceptance

CODES = 16


class Noting(TorchFunctionMode):
    """Keeps what is read back from the device as lists of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[Any] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        value = func(*args, **(kwargs or {}))
        if func is Tensor.tolist:
            self.read.append(value)
        return value


class Script:
    """Answers a decode that reads back, on the meta device, with what another one read."""

    def __init__(self, read: Sequence[Any]) -> None:
        self._left: Iterator[Any] = iter(read)

    def next(self) -> Any:
        """The next reading; RuntimeError where the other decode read no more."""
        try:
            return next(self._left)
        except StopIteration:
            raise RuntimeError("a meta tensor is read that the drafted course doesn't tell of") from None


def drafted_course(prepared: Prepared, batch: int, acceptance: float) -> Script:
    """What the decode of ``batch`` images reads back if tested drafts are accepted with one probability."""
    with Noting() as noting:
        _decoded(prepared, batch, acceptance)
    return Script(noting.read)


def drafted_steps(prepared: Prepared, images: int, acceptance: float) -> float:
    """Steps of an image at its own pace, the mean over so many."""
    return _decoded(prepared, images, acceptance).steps_of_image.double().mean().item()


def _decoded(prepared: Prepared, batch: int, acceptance: float) -> Decoded:
    images = range(batch)
    config = _narrow(prepared.config)
    network = network_of(prepared.strategy, config)
    assert isinstance(network, Network)  # what tests drafts has one
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data.normal_(std=0.02, generator=generator)
    network.code_vectors = torch.rand(config.codes, 4, generator=generator)
    sampler = DeclaredAcceptance(prepared.streams(images), acceptance=acceptance)
    labels = torch.zeros(batch, dtype=torch.int64)
    plan = prepared.plan(images)
    return decode(network.eval(), prepared.strategy, plan, labels, sampler, prepared.guidance)


def _narrow(config: NetworkConfig) -> NetworkConfig:
    trunk = dataclasses.replace(config.trunk, depth=1, width=16, heads=2, kv_heads=None, mlp_width=16)
    return dataclasses.replace(config, trunk=trunk, codes=min(CODES, config.codes))
