"""What a decode's time is held against, each measured in the same run."""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from backbones import transformer
from backbones.config import NetworkConfig
from backbones.products import PackedLinear, pack
from backbones.transformer import Network, View
from strategies.decoding.base import Lesson, Strategy
from strategies.decoding.decode import Decoded, decode
from strategies.decoding.guidance import Guidance
from strategies.decoding.plan import Plan
from strategies.decoding.sampling import StreamSampler
from strategies.decoding.streams import Streams

Linear = nn.Linear | PackedLinear


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
    def products(self) -> Counter[tuple[int, Linear]]:
        """Every linear product of one decode: (rows, layer) -> how often. The first use decodes once."""
        seen: Counter[tuple[int, Linear]] = Counter()
        hooks = [
            module.register_forward_pre_hook(
                lambda layer, args: seen.update([(args[0].shape[:-1].numel(), layer)])
            )
            for module in self.network.modules()
            if isinstance(module, Linear)
        ]
        self.run()
        for hook in hooks:
            hook.remove()
        return seen

    def attentions(self) -> Counter[tuple[int, int, int, int]]:
        """Every attention of one decode: (rows x heads, queries, keys, head width) -> how often."""
        seen: Counter[tuple[int, int, int, int]] = Counter()

        def recorded(
            product: Callable[..., Tensor],
        ) -> Callable[..., Tensor]:
            def run(queries: Tensor, keys: Tensor, *rest: object) -> Tensor:
                heads, (asked, width) = queries.shape[:2].numel(), queries.shape[2:]
                seen[heads, asked, keys.shape[2], width] += 1
                return product(queries, keys, *rest)

            return run

        with (
            patch.object(transformer, "attend_fused", recorded(transformer.attend_fused)),
            patch.object(transformer, "attend_by_products", recorded(transformer.attend_by_products)),
        ):
            self.run()
        return seen


def floor_of(case: Case, attention: bool = False) -> Callable[[], None]:
    """The decode's linear products alone, same weights, shapes and dtype, back to back, step by step.

    attention: with every attention after them, as the decode attends, over as much cache in as many layers.
    """
    products, dtype = case.products, case.network.dtype
    inputs = {
        (rows, layer.in_features): torch.randn(rows, layer.in_features).to(dtype) for rows, layer in products
    }
    rounds = max(products.values())
    attentions = case.attentions() if attention else Counter()
    queries = {shape: torch.randn(1, *shape[:2], shape[3]).to(dtype) for shape in attentions}
    longest = max((keys for _, _, keys, _ in attentions), default=0)
    layers = case.network.config.trunk.depth
    caches = {
        (heads, width): torch.randn(layers, 2, 1, heads, longest, width, dtype=dtype)
        for heads, _, _, width in attentions
    }

    @torch.inference_mode()
    def run() -> None:
        # Turn by turn through the layers, so weights leave the caches between uses as they do in a decode.
        for turn in range(rounds):
            for (rows, layer), count in products.items():
                if turn < count:
                    layer(inputs[rows, layer.in_features])
        for shape, count in attentions.items():
            heads, _, reach, width = shape
            for use in range(count):
                keys, values = caches[heads, width][use % layers]
                transformer.attend(queries[shape], keys[:, :, :reach], values[:, :, :reach], View())

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
    dtype = case.network.dtype
    streamed: Counter[str] = Counter()
    flops = 0
    for (rows, layer), count in case.products.items():
        weights = layer.in_features * layer.out_features
        streamed["bytes"] += weights * dtype.itemsize * count
        flops += 2 * rows * weights * count
    return max(streamed["bytes"] / streaming_rate(), flops / product_rate(dtype))
