"""The contract of a strategy: how a network learns, what a plan is, and how it decodes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.config import NetworkConfig
from backbones.networks import Networks
from backbones.transformer import Network
from pardec.errors import UserError
from strategies.decoding.decode import Rows
from strategies.decoding.orders import raster
from strategies.decoding.plan import Plan
from strategies.decoding.requests import Decoding
from strategies.decoding.schedules import one_per_step
from strategies.decoding.streams import Streams
from strategies.published.naming import Published

N = TypeVar("N", bound=Network | Networks)


@dataclass(frozen=True)
class Lesson:
    """What one training pass teaches: an order [B, N] per row and, where the method has them, group sizes.

    shown: bool [B, N] by position, the tokens that a masked network sees while it is asked for the others.
    """

    order: Tensor
    sizes: tuple[int, ...] | None = None
    shown: Tensor | None = None

    def to(self, device: torch.device) -> Lesson:
        shown = None if self.shown is None else self.shown.to(device)
        return Lesson(self.order.to(device), self.sizes, shown)

    def rows(self, part: slice) -> Lesson:
        """What these rows of the batch are taught."""
        return Lesson(self.order[part], self.sizes, None if self.shown is None else self.shown[part])


TRAITS = (
    "any_order",
    "revises",
    "decides_steps",
    "tests_drafts",
    "lossless",
    "batch_exact",
    "empty_context",
    "gradient_exceptions",
    "expected_failures",
)
"""What a strategy promises beyond the contract's core, each held to by a check of its own."""


@dataclass(frozen=True)
class Strategy(ABC, Generic[N]):
    """One paper, for networks of type N; the fields of its frozen dataclass are the method's options."""

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    """arXiv id."""
    base: ClassVar[str | None] = None
    """A training-free strategy names the one whose trained network it decodes."""
    roles: ClassVar[Mapping[str, str]] = {}
    """Of a training-free strategy that decodes several networks of its base together: the role of each -> the
    zoo's network that plays it where a cell names no other. The last one's grid and codes are the image's."""
    tokenizer: ClassVar[str] = "tokenizer"
    """The tokenizer of the zoo whose codes its networks speak."""
    published: ClassVar[Published | None] = None
    """The authors' files, where a plug-in knows some; built-in families are in ``strategies.published``."""
    any_order: ClassVar[bool] = False
    """Decodes any order and so takes given tokens (inpainting)."""
    revises: ClassVar[bool] = False
    """May overwrite a committed token."""
    decides_steps: ClassVar[bool] = False
    """How many steps an image takes depends on its content: a plan only bounds it."""
    tests_drafts: ClassVar[bool] = False
    """Accepts drafts by tests against random numbers of the purpose "accept", which a declared share of
    accepted drafts can stand in for."""
    timed_options: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """Options that may be "auto", and the values of which whoever runs the method takes the fastest."""
    reads_code_vectors: ClassVar[bool] = False
    """Compares codes by the vectors that the tokenizer gives them: its network must have been given some."""
    lossless: ClassVar[bool] = False
    """Samples exactly what its network decoded one token at a time would."""
    batch_exact: ClassVar[bool] = True
    """A batch equals its images one by one."""
    learns_from_code_vectors: ClassVar[bool] = False
    """Its networks are told the vectors that the tokenizer gives codes before they learn: ``meet_codes``."""
    sequential_conditionals: ClassVar[bool] = True
    """Its network also gives the distribution of each place given all places before it."""
    empty_context: ClassVar[bool] = False
    """Attends to cache slots that are not yet filled."""
    cached_equals_taught: ClassVar[bool] = True
    """Cached decoding equals the teacher-forced pass over the same tokens."""
    lessons_alike_until: ClassVar[float] = 1.0
    """Progress of training up to which ``lesson`` doesn't depend on it."""
    gradient_exceptions: ClassVar[Mapping[str, str]] = {}
    """Parameters (by suffix) that cannot get a gradient, with the mathematical reason."""
    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Checks of the contract that this strategy cannot pass, with the reason; they must fail."""

    def __init_subclass__(cls, **options: Any) -> None:
        """What decodes the networks of a base promises for itself: traits are not inherited with the code."""
        super().__init_subclass__(**options)
        if cls.base is not None:
            for trait in TRAITS:
                if trait not in vars(cls):
                    setattr(cls, trait, getattr(Strategy, trait))

    @abstractmethod
    def network(self, config: NetworkConfig) -> N:
        """The trunk dressed for this method, on the current default device."""

    # Learning ------------------------------------------------------------------------------------------

    def meet_codes(self, network: N, vectors: Tensor) -> None:
        """Take from the vectors of all codes [V, c] what the network keeps of them; called once, before it
        learns, where the method ``learns_from_code_vectors``."""
        raise TypeError(f"strategy '{self.name}' takes nothing from the vectors of codes")

    @abstractmethod
    def lesson(
        self, batch: int, grid: tuple[int, int], generator: torch.Generator, progress: float
    ) -> Lesson:
        """Orders and group sizes of one training pass; ``progress`` in 0..1 is how far training has come."""

    @abstractmethod
    def taught_logits(self, network: N, tokens: Tensor, labels: Tensor, lesson: Lesson) -> Tensor:
        """Teacher-forced logits [B, N, V] in generation order for tokens [B, N] (raster), labels [B]."""

    def canvas(self, network: N, codes: Tensor) -> Tensor:
        """Tokens of the whole canvas [B, P] that show the codes of images [B, N]; here those."""
        return codes

    def loss(self, network: N, tokens: Tensor, labels: Tensor, lesson: Lesson) -> Tensor:
        """Mean cross-entropy over all B x P predictions, of codes of images [B, N] or of canvases [B, P]."""
        if tokens.shape[1] != lesson.order.shape[1]:
            tokens = self.canvas(network, tokens)
        logits = self.taught_logits(network, tokens, labels, lesson)
        targets = tokens.gather(1, lesson.order)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    # Planning ------------------------------------------------------------------------------------------

    def allowed_steps(self, grid: tuple[int, int], given: int = 0) -> range:
        """Step counts that can be asked for on this grid; a plan has at most one step a place not given.

        Unless said otherwise the one count that ``sizes`` gives.
        """
        steps = len(self.sizes(grid, 0, given))
        return range(steps, steps + 1)

    def places(self, grid: tuple[int, int]) -> int:
        """Tokens of an image: of all maps of the canvas."""
        return grid[0] * grid[1]

    def sizes(self, grid: tuple[int, int], steps: int, given: int = 0) -> tuple[int, ...]:
        """Group sizes of ``steps`` steps over the places that are not given; here one token a step."""
        return one_per_step(grid[0] * grid[1] - given)

    def orders(
        self, grid: tuple[int, int], sizes: tuple[int, ...], streams: Streams, known: np.ndarray
    ) -> np.ndarray:
        """Position at each place, known positions [M] first: int64 [N], or [B, N] by image; here raster."""
        return raster(grid)

    def arrange(
        self, grid: tuple[int, int], order: np.ndarray, sizes: tuple[int, ...], given: int = 0
    ) -> Plan:
        """A plan from explicit order and sizes, with the clock by which this method is guided."""
        return Plan(grid, order, sizes, given)

    def plan(
        self,
        grid: tuple[int, int],
        steps: int | None,
        streams: Streams,
        known: np.ndarray | None = None,
        sizes: tuple[int, ...] | None = None,
    ) -> Plan:
        """The plan for one batch of images.

        steps: None takes the method's largest count. known: raster positions [M] whose tokens are given.
        sizes: explicit group sizes instead of the method's schedule. Raises UserError where the method
        cannot have such a plan.
        """
        known = np.zeros(0, dtype=np.int64) if known is None else np.asarray(known, dtype=np.int64)
        if len(known) and not self.any_order:
            raise UserError(f"strategy '{self.name}' has a fixed order and takes no given tokens")
        if self.decides_steps:
            if steps is not None or sizes is not None:
                raise UserError(f"steps = {steps}: strategy '{self.name}' decides its steps while decoding")
            return self.bounded(grid)
        unknown = grid[0] * grid[1] - len(known)
        if sizes is None:
            self.check_steps(grid, steps, len(known))
            steps = self.allowed_steps(grid, len(known))[-1] if steps is None else steps
            steps = min(steps, unknown) if len(known) else steps
            sizes = self.sizes(grid, steps, len(known)) if unknown else ()
        elif not self.any_order:
            self.check_steps(grid, len(sizes))
            if tuple(sizes) != self.sizes(grid, len(sizes)):
                raise UserError(f"strategy '{self.name}' has fixed group sizes and takes no others")
        return self.arrange(grid, self.orders(grid, sizes, streams, known), sizes, len(known))

    def bounded(self, grid: tuple[int, int]) -> Plan:
        """The plan of a strategy that ``decides_steps``: here one grid, at most a step a place."""
        return Plan(grid, raster(grid), None, most_steps=grid[0] * grid[1])

    def check_steps(self, grid: tuple[int, int], steps: int | None, given: int = 0) -> None:
        """Raise UserError unless ``steps`` (None: the method's own) is possible on this grid."""
        allowed = self.allowed_steps(grid, given)
        if steps is None or steps in allowed:
            return
        bounds = f"{allowed[0]} to {allowed[-1]}" if len(allowed) > 1 else f"exactly {allowed[0]}"
        raise UserError(
            f"steps = {steps}: strategy '{self.name}' on a {grid[0]}x{grid[1]} grid takes {bounds} steps"
        )

    # Decoding ------------------------------------------------------------------------------------------

    @abstractmethod
    def decode(self, network: N, plan: Plan, rows: Rows) -> Decoding:
        """Yield what is to be drawn and written (``requests``), receive the tokens, feed them on."""

    def cache_shape(self, config: NetworkConfig) -> tuple[int, int]:
        """(layers, slots) of the key/value cache of one row."""
        return config.trunk.depth, 1 + config.places

    def cache_shapes(self, config: NetworkConfig) -> Mapping[str, tuple[int, int]]:
        """The same by role, where there are several networks."""
        return {"network": self.cache_shape(config)}


class TrainingFree(Strategy[N]):
    """A method that decodes the trained networks of ``base``, of type N: a plan and ``decode``, nothing else.

    A class that derives from its base's instead takes over lesson, plan or decode, but none of its traits.
    """

    def network(self, config: NetworkConfig) -> N:
        raise TypeError(f"strategy '{self.name}' decodes networks of '{self.base}' and has none of its own")

    def lesson(
        self, batch: int, grid: tuple[int, int], generator: torch.Generator, progress: float
    ) -> Lesson:
        raise TypeError(f"strategy '{self.name}' learns nothing; '{self.base}' does")

    def taught_logits(self, network: N, tokens: Tensor, labels: Tensor, lesson: Lesson) -> Tensor:
        raise TypeError(f"strategy '{self.name}' learns nothing; '{self.base}' does")


def raster_lesson(batch: int, grid: tuple[int, int]) -> Lesson:
    return Lesson(torch.arange(grid[0] * grid[1]).expand(batch, -1))


def random_orders(batch: int, places: int, generator: torch.Generator) -> Tensor:
    """A uniform permutation per row, int64 [B, N]."""
    return torch.rand(batch, places, generator=generator).argsort(dim=1)


def drop_labels(labels: Tensor, null_label: int, rate: float, generator: torch.Generator) -> Tensor:
    """Labels [B] of which each became "no class" with probability ``rate``."""
    dropped = torch.rand(labels.shape, generator=generator) < rate
    return torch.where(dropped.to(labels.device), null_label, labels)
