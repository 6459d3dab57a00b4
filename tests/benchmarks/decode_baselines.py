"""What a decode's time is held against, each measured in the same run."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from backbones import attention
from backbones.attention import View
from backbones.config import NetworkConfig
from backbones.products import PackedLinear, pack
from backbones.transformer import Network
from strategies.decoding.base import Lesson, Strategy
from strategies.decoding.decode import Decoded, decode
from strategies.decoding.guidance import Guidance
from strategies.decoding.plan import Plan
from strategies.decoding.sampling import StreamSampler
from strategies.decoding.streams import Streams

Linear = nn.Linear | PackedLinear


@dataclass(frozen=True)
class Product:
    """A linear layer at work on an input of this shape."""

    layer: Linear
    shape: torch.Size

    @property
    def rows(self) -> int:
        return self.shape[:-1].numel()


@dataclass(frozen=True)
class Attention:
    """Queries [R, H, n, D] attending to so many keys."""

    queries: torch.Size
    keys: int

    @property
    def row(self) -> tuple[int, int, int]:
        """(R, H, D)"""
        images, heads, _, width = self.queries
        return images, heads, width


@dataclass(frozen=True)
class Case:
    """One decode to be timed: everything but the clock."""

    strategy: Strategy
    network: Network
    plan: Plan
    labels: Tensor
    sampler: StreamSampler
    guidance: Guidance

    @classmethod
    def build(
        cls,
        strategy: Strategy,
        config: NetworkConfig,
        steps: int,
        batch: int,
        dtype: torch.dtype,
        packed: bool = False,
    ) -> "Case":
        """Random weights N(0, 0.02^2) in ``dtype``, guidance 2 on; ``packed`` as the harness packs them."""
        network = strategy.network(config).eval()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if "norm" in name:
                    parameter.fill_(float(name.endswith("weight")))
                else:
                    parameter.normal_(std=0.02, generator=generator)
        streams = Streams(0, tuple(range(batch)))
        plan = strategy.plan(config.grid, steps, streams)
        labels = torch.arange(batch) % config.classes
        network = network.to(dtype).requires_grad_(False)
        if packed:
            pack(network, 2 * batch * math.ceil(config.places / steps))
        return cls(strategy, network, plan, labels, StreamSampler(streams), Guidance(2.0))

    def run(self) -> Decoded:
        return decode(self.network, self.strategy, self.plan, self.labels, self.sampler, self.guidance)

    @torch.inference_mode()
    def run_uncached(self) -> Tensor:
        """The same tokens by one teacher-forced pass over the whole sequence per step."""
        order = torch.from_numpy(np.atleast_2d(self.plan.order)).expand(len(self.labels), -1)
        labels = torch.cat([self.labels, torch.full_like(self.labels, self.network.config.classes)])
        lesson = Lesson(order.repeat(2, 1), self.plan.sizes)
        tokens = torch.zeros_like(order)
        noise = self.sampler.noise(order)
        for at in self.plan.groups():
            logits = self.strategy.taught_logits(self.network, tokens.repeat(2, 1), labels, lesson)[:, at]
            conditional, unconditional = logits.chunk(2)
            logits = torch.lerp(unconditional, conditional, self.guidance.scale)
            tokens = tokens.scatter(1, order[:, at], self.sampler.draw(logits, noise[:, at])[0])
        return tokens

    @cached_property
    def work(self) -> tuple[Product | Attention, ...]:
        """Every linear product and attention of one decode, in their order. The first use decodes once."""
        return work_of(self.network, self.run)

    @property
    def products(self) -> list[Product]:
        return [one for one in self.work if isinstance(one, Product)]

    @property
    def attentions(self) -> list[Attention]:
        return [one for one in self.work if isinstance(one, Attention)]


def work_of(network: nn.Module, run: Callable[[], object]) -> tuple[Product | Attention, ...]:
    """The linear products of ``network`` and the attentions of one run, in their order."""
    seen: list[Product | Attention] = []
    attend = attention.attend

    def recorded(queries: Tensor, keys: Tensor, *rest: Any) -> Tensor:
        seen.append(Attention(queries.shape, keys.shape[2]))
        return attend(queries, keys, *rest)

    hooks = [
        module.register_forward_pre_hook(lambda layer, args: seen.append(Product(layer, args[0].shape)))
        for module in network.modules()
        if isinstance(module, Linear)
    ]
    with patch.object(attention, "attend", recorded):
        run()
    for hook in hooks:
        hook.remove()
    return tuple(seen)


def floor_of(case: Case, attending: bool = False) -> Callable[[], None]:
    """The decode's linear products alone: the same layers, shapes and dtype, in the decode's order.

    attending: with every attention among them, over as much cache in as many layers.
    """
    dtype, layers = case.network.dtype, case.network.config.trunk.depth
    inputs = {shape: torch.randn(shape).to(dtype) for shape in {one.shape for one in case.products}}
    attentions = case.attentions if attending else []
    queries = {shape: torch.randn(shape).to(dtype) for shape in {one.queries for one in attentions}}
    longest = max((one.keys for one in attentions), default=0)
    caches = {
        row: torch.randn(layers, row[0], 2 * row[1], longest, row[2]).to(dtype)
        for row in {one.row for one in attentions}
    }

    @torch.inference_mode()
    def run() -> None:
        attended = 0
        for one in case.work:
            if isinstance(one, Product):
                one.layer(inputs[one.shape])
            elif attending:
                keys, values = caches[one.row][attended % layers, :, :, : one.keys].chunk(2, dim=1)
                attention.attend(queries[one.queries], keys, values, View())
                attended += 1

    run()  # what a first use costs is no part of it
    return run


def timed(run: Callable[[], object], repeats: int) -> list[float]:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds


def streaming_rate() -> float:
    """Bytes per second of the best of five float32 sums over 512 MB, far beyond the caches."""
    data = torch.ones(2**27)
    return data.nbytes / min(timed(data.sum, 5))


def product_rate(dtype: torch.dtype) -> float:
    """FLOPs per second of the best of five square matrix products."""
    size = 2048
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    return 2 * size**3 / min(timed(lambda: a @ b, 5))


def machine_limit(case: Case) -> float:
    """Seconds no decode can beat: streaming the weights once a step, or all products at the peak rate."""
    weights = [one.layer.in_features * one.layer.out_features for one in case.products]
    streamed = sum(weights) * case.network.dtype.itemsize
    flops = sum(2 * one.rows * size for one, size in zip(case.products, weights, strict=True))
    return max(streamed / streaming_rate(), flops / product_rate(case.network.dtype))
