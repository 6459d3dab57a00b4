"""A strategy with a tiny random network, and recordings of how it decodes."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from backbones.config import NetworkConfig, TrunkConfig
from backbones.transformer import Network
from strategies.decoding import registry
from strategies.decoding.base import Strategy
from strategies.decoding.decode import Decoded, Decoding, Rows, decode
from strategies.decoding.guidance import Guidance
from strategies.decoding.plan import Plan
from strategies.decoding.sampling import Sampler
from strategies.decoding.streams import Streams

TOLERANCE = 1e-4
"""Largest difference between logits of one mathematical value computed in two ways."""
CONTROLLED = NetworkConfig(
    TrunkConfig(depth=2, width=32, heads=4, mlp_width=64), codes=11, classes=3, grid=(4, 4)
)
"""The shared trunk in miniature: RMSNorm, SwiGLU, rotary phases, class prefix."""


@dataclass(frozen=True)
class Subject:
    strategy: Strategy
    network: Network

    @property
    def config(self) -> NetworkConfig:
        return self.network.config

    def plan(self, images: tuple[int, ...], steps: int | None = None, seed: int = 0) -> Plan:
        """The plan of these images, by default in about a third of the possible steps."""
        allowed = self.strategy.allowed_steps(self.config.grid)
        steps = allowed[len(allowed) // 3] if steps is None else steps
        return self.strategy.plan(self.config.grid, steps, Streams(seed, images))

    def tokens(self, batch: int, seed: int = 5) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(self.config.codes, (batch, self.config.places), generator=generator)

    def labels(self, images: tuple[int, ...]) -> Tensor:
        return torch.tensor([image % self.config.classes for image in images])


def subject(strategy: Strategy, config: NetworkConfig = CONTROLLED, seed: int = 0) -> Subject:
    """A strategy and a network of it (or of its base) in which no parameter is at a special value."""
    owner = strategy if strategy.base is None else registry.get(strategy.base)
    network = owner.network(config).eval()
    randomise(network, seed)
    return Subject(strategy, network)


def randomise(network: torch.nn.Module, seed: int = 0, std: float = 0.2) -> None:
    """N(0, std^2) everywhere, around 1 for the scales of norms."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1.0)


# Recording a decode ----------------------------------------------------------------------------------------


class Listening:
    """A sampler that keeps what the loop hands over at every step: combined logits and noise."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        self.combined: list[Tensor] = []
        self.noises: list[Tensor] = []

    def noise(self, order: Tensor) -> Tensor:
        return self.sampler.noise(order)

    def draw(self, logits: Tensor, noise: Tensor) -> Tensor:
        self.combined.append(logits.clone())
        self.noises.append(noise.clone())
        return self.sampler.draw(logits, noise)


class Overheard:
    """A strategy whose yielded logits (both halves of guidance) are kept."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self.asked: list[Tensor] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.strategy, name)

    def decode(self, network: Network, plan: Plan, rows: Rows) -> Decoding:
        inner = self.strategy.decode(network, plan, rows)
        answer: Tensor | None = None
        while True:
            try:
                ask = inner.send(answer)  # type: ignore[arg-type]
            except StopIteration:
                return
            self.asked.append(ask.logits.clone())
            answer = yield ask


@dataclass(frozen=True)
class Run:
    """One recorded decode; the lists run over steps."""

    plan: Plan
    decoded: Decoded
    asked: list[Tensor]
    combined: list[Tensor]
    noises: list[Tensor]

    @property
    def logits(self) -> Tensor:
        """Combined logits by place, [B, N - given, V]."""
        return torch.cat(self.combined, dim=1)

    def noise_of_position(self) -> Tensor:
        """What the committing draw of each raster position consumed, [B, N]."""
        noise = torch.cat(self.noises, dim=1)
        order = torch.as_tensor(self.plan.order).reshape(-1, self.plan.places).expand(len(noise), -1)
        return torch.empty_like(noise).scatter_(1, order, noise)


def run(
    subject: Subject,
    plan: Plan,
    labels: Tensor,
    sampler: Sampler,
    guidance: Guidance | None = None,
    known: Tensor | None = None,
) -> Run:
    overheard, listening = Overheard(subject.strategy), Listening(sampler)
    decoded = decode(subject.network, overheard, plan, labels, listening, guidance, known)  # type: ignore[arg-type]
    return Run(plan, decoded, overheard.asked, listening.combined, listening.noises)


def close(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    assert found.shape == expected.shape, f"{tuple(found.shape)} against {tuple(expected.shape)}"
    worst = float((found - expected).abs().max())
    assert worst <= tolerance, f"differ by {worst:.2e}, allowed {tolerance:.0e}"
