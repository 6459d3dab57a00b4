"""A strategy with a tiny random network, and recordings of how it decodes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from backbones.config import NetworkConfig, TrunkConfig
from backbones.transformer import Network
from strategies.decoding import registry
from strategies.decoding.base import Strategy
from strategies.decoding.contract.requirements import Broken
from strategies.decoding.decode import Decoded, OffPlan, Rows, decode
from strategies.decoding.guidance import Guidance
from strategies.decoding.plan import Plan
from strategies.decoding.requests import Ask, Decoding, Draft
from strategies.decoding.sampling import Sampler, StreamSampler
from strategies.decoding.streams import Streams

CONTROLLED = NetworkConfig(
    TrunkConfig(depth=2, width=32, heads=4, mlp_width=64), codes=11, classes=3, grid=(4, 4)
)
"""The shared trunk in miniature: RMSNorm, SwiGLU, rotary phases, class prefix."""


@dataclass(frozen=True)
class Parts:
    """The sampling parts that a strategy is checked with; they are checked themselves."""

    sampler: Callable[..., Sampler] = StreamSampler
    """Called as StreamSampler is: streams, temperature, top_k, top_p."""
    guidance: Callable[..., Guidance] = Guidance
    """Called as Guidance is: scale, schedule, power, interval."""


@dataclass(frozen=True)
class Subject:
    """What a check is about: a strategy, a network of it whose parameters are all random, and the parts.

    (Published initialisations zero whole heads, which would make most checks empty.)
    """

    strategy: Strategy
    network: Network
    parts: Parts = Parts()

    @property
    def config(self) -> NetworkConfig:
        return self.network.config

    def plan(self, images: tuple[int, ...], steps: int | None = None, seed: int = 0) -> Plan:
        """The plan of these images, by default in about a third of the possible steps."""
        allowed = self.strategy.allowed_steps(self.config.grid)
        steps = allowed[len(allowed) // 3] if steps is None else steps
        return self.strategy.plan(self.config.grid, steps, Streams(seed, images))

    def sampler(self, images: tuple[int, ...], seed: int = 0, **settings: Any) -> Sampler:
        return self.parts.sampler(Streams(seed, images), **settings)

    def guidance(self, scale: float, **settings: Any) -> Guidance:
        return self.parts.guidance(scale, **settings)

    def step_counts(self) -> list[int]:
        """The smallest, about a third of, and the largest of the possible step counts, ascending."""
        allowed = self.strategy.allowed_steps(self.config.grid)
        return sorted({allowed[0], allowed[len(allowed) // 3], allowed[-1]})

    def tokens(self, batch: int, seed: int = 5) -> Tensor:
        """Any tokens, int64 [batch, N] in raster order."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(self.config.codes, (batch, self.config.places), generator=generator)

    def labels(self, images: tuple[int, ...]) -> Tensor:
        return torch.tensor([image % self.config.classes for image in images])


def subject(
    strategy: Strategy, config: NetworkConfig = CONTROLLED, seed: int = 0, parts: Parts | None = None
) -> Subject:
    """A strategy and a network of it (or of its base) in which no parameter is at a special value."""
    owner = strategy if strategy.base is None else registry.get(strategy.base)
    network = owner.network(config).eval()
    randomise(network, seed)
    return Subject(strategy, network, parts or Parts())


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

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sampler, name)

    def draw(self, logits: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        self.combined.append(logits.clone())
        self.noises.append(noise.clone())
        return self.sampler.draw(logits, noise)


class Overheard:
    """A strategy whose yielded logits (all branches of guidance) are kept, and the tokens it was sent."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self.asked: list[Tensor] = []
        self.answers: list[tuple[Tensor, Tensor]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.strategy, name)

    def decode(self, network: Network, plan: Plan, rows: Rows) -> Decoding:
        inner = self.strategy.decode(network, plan, rows)
        answer: Any = None
        while True:
            try:
                request = inner.send(answer)
            except StopIteration:
                return
            if isinstance(request, Ask | Draft):
                self.asked.append(request.logits.clone())
            answer = yield request
            tokens = answer.tokens if isinstance(request, Draft) else answer
            if isinstance(tokens, Tensor):
                self.answers.append((tokens, tokens.clone()))


@dataclass(frozen=True)
class Run:
    """One recorded decode; the lists run over steps.

    asked: logits as yielded, [R, n, V]. combined: after guidance, [B, n, V]. noises: what each draw consumed,
    [B, n]. answers: tokens [R, n] sent to the strategy, and a copy made before it had them.
    """

    plan: Plan
    decoded: Decoded
    asked: list[Tensor]
    combined: list[Tensor]
    noises: list[Tensor]
    answers: list[tuple[Tensor, Tensor]]

    @property
    def order(self) -> Tensor:
        """Raster position at each place of every image, int64 [B, N]."""
        return torch.as_tensor(self.plan.order).expand(len(self.decoded.tokens), -1)

    @property
    def logits(self) -> Tensor:
        """Combined logits by place, [B, N - given, V]."""
        return torch.cat(self.combined, dim=1)

    def noise_of_position(self) -> Tensor:
        """What the committing draw of each raster position consumed, [B, N]."""
        noise = torch.cat(self.noises, dim=1)
        return torch.empty_like(noise).scatter_(1, self.order, noise)


def run(
    subject: Subject,
    plan: Plan,
    labels: Tensor,
    sampler: Sampler,
    guidance: Guidance | None = None,
    known: Tensor | None = None,
) -> Run:
    """A recorded decode; Broken where the loop refuses what leaves the plan."""
    overheard, listening = Overheard(subject.strategy), Listening(sampler)
    try:
        decoded = decode(subject.network, overheard, plan, labels, listening, guidance, known)  # type: ignore[arg-type]
    except OffPlan as refusal:
        raise Broken(str(refusal)) from refusal
    return Run(plan, decoded, overheard.asked, listening.combined, listening.noises, overheard.answers)
