"""A strategy with a tiny random network, and recordings of how it decodes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from backbones.config import NetworkConfig, TrunkConfig
from backbones.networks import Networks
from backbones.transformer import Network
from strategies.decoding.base import Strategy
from strategies.decoding.contract.requirements import Broken
from strategies.decoding.decode import Decoded, OffPlan, Rows, decode
from strategies.decoding.guidance import Guidance
from strategies.decoding.meter import by_role
from strategies.decoding.networks import network_of
from strategies.decoding.plan import Plan
from strategies.decoding.requests import Ask, Commit, Decoding, Draft, Redraw, Request, Uniform
from strategies.decoding.sampling import Sampler, StreamSampler
from strategies.decoding.streams import Streams
from strategies.decoding.trace import Committed, Drafted, places_of

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
class Case:
    """What a check is about: a strategy, a network of it whose parameters are all random, and the parts.

    (Published initialisations zero whole heads, which would make most checks empty.)
    """

    strategy: Strategy
    network: Network | Networks
    parts: Parts = Parts()

    @property
    def config(self) -> NetworkConfig:
        return self.network.config

    @property
    def places(self) -> int:
        """Of the canvas: of all its maps."""
        return self.strategy.plan(self.config.grid, None, Streams(0, (0,))).places

    def plan(self, images: tuple[int, ...], steps: int | None = None, seed: int = 0) -> Plan:
        """The plan of these images, by default in about a third of the possible steps."""
        if steps is None and not self.strategy.decides_steps:
            allowed = self.strategy.allowed_steps(self.config.grid)
            steps = allowed[len(allowed) // 3]
        return self.strategy.plan(self.config.grid, steps, Streams(seed, images))

    def sampler(self, images: tuple[int, ...], seed: int = 0, **settings: Any) -> Sampler:
        return self.parts.sampler(Streams(seed, images), **settings)

    def guidance(self, scale: float, **settings: Any) -> Guidance:
        return self.parts.guidance(scale, **settings)

    def step_counts(self) -> Sequence[int | None]:
        """The smallest, about a third of, and the largest of the possible step counts, ascending.

        None alone where the strategy decides while decoding.
        """
        if self.strategy.decides_steps:
            return [None]
        allowed = self.strategy.allowed_steps(self.config.grid)
        return sorted({allowed[0], allowed[len(allowed) // 3], allowed[-1]})

    def tokens(self, batch: int, seed: int = 5) -> Tensor:
        """Any tokens, int64 [batch, N] by position of the canvas."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(self.config.codes, (batch, self.places), generator=generator)

    def labels(self, images: tuple[int, ...]) -> Tensor:
        return torch.tensor([image % self.config.classes for image in images])


def subject(
    strategy: Strategy, config: NetworkConfig = CONTROLLED, seed: int = 0, parts: Parts | None = None
) -> Case:
    """A strategy and a network of it (or of its base) in which no parameter is at a special value."""
    network = network_of(strategy, config).eval()
    randomise(network, seed)
    if strategy.reads_code_vectors:
        network.code_vectors = random_code_vectors(config.codes, seed)
    return Case(strategy, network, parts or Parts())


def random_code_vectors(codes: int, seed: int = 0, width: int = 2) -> Tensor:
    """A unit vector for each code, [V, width]: few dimensions, so that some are near each other."""
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(codes, width, generator=generator), dim=1)


def randomise(network: torch.nn.Module, seed: int = 0, std: float = 0.2) -> None:
    """N(0, std^2) everywhere, around 1 for the scales of norms."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1.0)


# Recording a decode ----------------------------------------------------------------------------------------


DRAW = "a draw"


@dataclass(frozen=True)
class Event:
    """One request of a decode, in the order of the requests.

    entry: what it drew or committed. logits: after guidance, float32 [B, n, V]; numbers: the noise that it
    consumed, [B, n], for ``purpose`` (None: nothing). fresh: numbers that no earlier event consumed.
    """

    request: Request
    entry: Drafted | Committed | None = None
    logits: Tensor | None = None
    purpose: str | None = None
    numbers: Tensor | None = None
    fresh: bool = True


class Listening:
    """A sampler that keeps what it consumed: combined logits and noise of every draw."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        self.combined: list[Tensor] = []
        self.noises: list[Tensor] = []
        self.consumed: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sampler, name)

    def draw(self, logits: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        self.combined.append(logits.clone())
        self.noises.append(noise.clone())
        self.consumed = self.noises[-1]
        return self.sampler.draw(logits, noise)

    def hearing(self, law: Callable[[Tensor, Any], Tensor]) -> Callable[[Tensor, Any], Tensor]:
        """The same law, whose logits are kept as those of a plain draw."""

        def heard(logits: Tensor, sampler: Any) -> Tensor:
            self.combined.append(logits.clone())
            return law(logits, sampler)

        return heard

    def draw_from(self, probs: Tensor, noise: Tensor) -> Tensor:
        self.consumed = noise.clone()
        return self.sampler.draw_from(probs, noise)


class Overheard:
    """A strategy whose requests are kept, and what they were answered with."""

    def __init__(self, strategy: Strategy, sampler: Listening) -> None:
        self.strategy, self.sampler = strategy, sampler
        self.asked: list[Tensor] = []
        self.events: list[Event] = []
        self.answers: list[tuple[Tensor, Tensor]] = []
        self.calls: list[str] = []
        """Role of every network called, and ``DRAW`` for every request that draws from logits."""
        self.step = -1

    def __getattr__(self, name: str) -> Any:
        return getattr(self.strategy, name)

    def decode(self, network: Network | Networks, plan: Plan, rows: Rows) -> Decoding:
        inner = self.strategy.decode(network, plan, rows)
        answer: Any = None
        while True:
            try:
                request = inner.send(answer)
            except StopIteration:
                return
            if isinstance(request, Ask) and request.law is not None:
                request = replace(request, law=self.sampler.hearing(request.law))
            if isinstance(request, Ask | Draft):
                self.asked.append(request.logits.clone())
                self.step += bool(self.calls and self.calls[-1] != DRAW)
                self.calls.append(DRAW)
            answer = yield request
            self.keep(request, answer, len(rows) // rows.branches)

    def keep(self, request: Request, answer: Any, batch: int) -> None:
        step = max(self.step, 0)
        if isinstance(request, Ask):
            drawn = Drafted(step, request.at, answer[:batch].clone())
            self.events.append(
                Event(request, drawn, self.sampler.combined[-1], "token", self.sampler.consumed, False)
            )
            self.events.append(Event(request, Committed(step, request.at, drawn.tokens)))
            self.answers.append((answer, answer.clone()))
        elif isinstance(request, Draft):
            drawn = Drafted(step, request.at, answer.tokens.clone())
            fresh, raced = request.noise == "fresh", request.noise == "gumbel"
            numbers = None if raced else self.sampler.consumed
            purpose = None if raced else "token"
            self.events.append(Event(request, drawn, answer.logits.clone(), purpose, numbers, fresh))
            self.answers.append((answer.tokens, answer.tokens.clone()))
        elif isinstance(request, Redraw):
            drawn = Drafted(step, request.at, answer.clone())
            self.events.append(Event(request, drawn, None, "redraw", self.sampler.consumed))
            self.answers.append((answer, answer.clone()))
        elif isinstance(request, Uniform):
            self.events.append(Event(request, None, None, request.purpose, answer.clone()))
        elif isinstance(request, Commit):
            where = None if request.where is None else request.where.clone()
            at = request.at if isinstance(request.at, slice) else request.at.clone()
            self.events.append(Event(request, Committed(step, at, request.tokens.clone(), where)))

    def steps(self) -> list[list[str]]:
        """Roles called before each draw that has any, in order: a step each."""
        found: list[list[str]] = []
        since: list[str] = []
        for call in self.calls:
            if call != DRAW:
                since.append(call)
            elif since:
                found.append(since)
                since = []
        return found


@dataclass(frozen=True)
class Run:
    """One recorded decode.

    asked: logits as yielded, [R, n, V], of every draw; combined: after guidance, [B, n, V]. answers: tokens
    sent to the strategy, and a copy made before it had them. steps: roles of the networks called for each
    step. idle: those called after the last draw.
    """

    plan: Plan
    decoded: Decoded
    asked: list[Tensor]
    events: list[Event]
    answers: list[tuple[Tensor, Tensor]]
    steps: list[list[str]]
    idle: list[str]

    @property
    def combined(self) -> list[Tensor]:
        return [event.logits for event in self.events if event.logits is not None]

    @property
    def noises(self) -> list[Tensor]:
        """What each draw from logits consumed, [B, n]."""
        return [
            event.numbers for event in self.events if event.logits is not None and event.numbers is not None
        ]

    @property
    def order(self) -> Tensor:
        """Position at each place of every image, int64 [B, N]."""
        return torch.as_tensor(self.plan.order).expand(len(self.decoded.tokens), -1)

    @property
    def logits(self) -> Tensor:
        """Combined logits by place, [B, N - given, V]: of the last draw before a place was last written."""
        return self.by_place(first=False)[0][:, self.plan.given :]

    def by_place(self, first: bool) -> tuple[Tensor, Tensor]:
        """Logits [B, N, V] that the token of each place was drawn from, and the step that wrote it, [B, N].

        first: of the first commit of a place, else of the last. NaN and -1 where nothing was written.
        """
        batch, places = self.decoded.tokens.shape
        codes = next(event.logits.shape[-1] for event in self.events if event.logits is not None)
        drawn = torch.full((batch, places + 1, codes), float("nan"))
        kept, steps = drawn.clone(), torch.full((batch, places + 1), -1)
        for event in self.events:
            if event.entry is None:
                continue
            at = places_of(event.entry, batch, places)
            if event.logits is not None:
                drawn.scatter_(1, at.unsqueeze(2).expand(-1, -1, codes), event.logits)
            if isinstance(event.entry, Committed):
                now = torch.zeros(batch, places + 1, dtype=torch.bool).scatter_(1, at, True)
                now &= (steps < 0) if first else True
                kept = torch.where(now.unsqueeze(2), drawn, kept)
                steps = torch.where(now, event.entry.step, steps)
        return kept[:, :places], steps[:, :places]


def run(
    subject: Case,
    plan: Plan,
    labels: Tensor,
    sampler: Sampler,
    guidance: Guidance | None = None,
    known: Tensor | None = None,
) -> Run:
    """A recorded decode; Broken where the loop refuses what leaves the plan."""
    listening = Listening(sampler)
    overheard = Overheard(subject.strategy, listening)
    hooks = [
        network.register_forward_pre_hook(lambda *_, role=role: overheard.calls.append(role))
        for role, network in by_role(subject.network).items()
    ]
    try:
        decoded = decode(subject.network, overheard, plan, labels, listening, guidance, known)  # type: ignore[arg-type]
    except OffPlan as refusal:
        raise Broken(str(refusal)) from refusal
    finally:
        for hook in hooks:
            hook.remove()
    steps = overheard.steps()
    idle = list(takewhile(lambda call: call != DRAW, reversed(overheard.calls)))
    return Run(plan, decoded, overheard.asked, overheard.events, overheard.answers, steps, idle)
