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
from strategies.decoding.described import described
from strategies.decoding.orders import raster
from strategies.decoding.plan import Plan
from strategies.decoding.requests import Decoding
from strategies.decoding.schedules import one_per_step
from strategies.decoding.streams import Streams
from strategies.published.naming import Published

N = TypeVar("N", bound=Network | Networks)


@dataclass(frozen=True)
class Lesson:
    """What one training pass teaches: an order [B, P] per row and, where the method has them, group sizes.

    shown: bool [B, P] by position, the tokens that a masked network sees while it is asked for the others.
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
"""What a strategy promises beyond the contract's core, each held to by a check. A class that names a ``base``
promises anew: it inherits none of them. A trait that depends on an option is a property of the class."""


@dataclass(frozen=True)
class Strategy(ABC, Generic[N]):
    """One paper, for networks of type N; the fields of its frozen dataclass are the method's options.

    A method with a network of its own writes ``network``, ``lesson``, ``taught_logits`` and ``decode``, and
    ``allowed_steps``, ``sizes`` and ``orders`` where its plan is another than raster, one token a step. One
    that decodes networks of another derives from ``TrainingFree``: a plan and ``decode``. It sees no clock,
    file, flag, seed or device; the loop (``decoding.decode``) guides, filters, draws, counts and records.

    Shapes: B images; R rows of the network, B for each branch of guidance (B without guidance, 2 B with it);
    N positions of the grid (h, w), position = row * w + column; P places of the canvas, N where its one map
    is the grid; n places of a step; M given positions; V codes; d channels. Tokens are int64, logits float32.

    ``pardec new-strategy NAME`` writes a whole file to start from, ``pardec check FILE`` holds it to what it
    promises. In short:

        @dataclass(frozen=True)
        class Columns(Strategy[RasterNetwork]):
            name: ClassVar[str] = "columns"
            title: ClassVar[str] = "Columns"
            paper: ClassVar[str] = "none"

            def network(self, config):
                return RasterNetwork(config)
            ...
    """

    name: ClassVar[str]
    """By which sweeps, commands and ``pardec.get`` know it: letters, digits, "-", "_" and "."; that of its
    file. Check: ``declares_itself``."""
    title: ClassVar[str]
    """What tables and pictures call it, at most 24 characters. Check: ``declares_itself``."""
    paper: ClassVar[str]
    """arXiv id, or "none". Check: ``declares_itself``."""
    base: ClassVar[str | None] = None
    """A training-free strategy names the one whose trained networks it decodes."""
    roles: ClassVar[Mapping[str, str]] = {}
    """Of a training-free strategy that decodes several networks of its base together: the role of each -> the
    zoo's network that plays it where a cell names no other. The last one's grid and codes are the image's."""
    tokenizer: ClassVar[str] = "tokenizer"
    """The tokenizer of the zoo whose codes its networks speak."""
    published: ClassVar[Published | None] = None
    """The authors' files, where a plug-in knows some; built-in families are in ``strategies.published``."""
    any_order: ClassVar[bool] = False
    """Decodes any order, so it takes given tokens (inpainting), explicit group sizes and other orders: its
    ``orders`` puts the known positions first, and ``decode`` feeds ``rows.known`` before the first step.
    Checks: ``given_tokens``, ``everything_given``."""
    revises: ClassVar[bool] = False
    """May write a place again that it has written; what is written last comes out. Without it a second write
    ends the decode. Check: ``every_position_once``."""
    decides_steps: ClassVar[bool] = False
    """How many steps an image takes depends on its content: no ``steps`` can be asked for, and its plan
    (``bounded``) has no sizes but a bound. Checks: ``plans_are_valid``, and ``lossless_in_a_batch`` where it
    is lossless."""
    tests_drafts: ClassVar[bool] = False
    """Accepts drafts by ``Accept``, so that the loop counts them, and that on random weights a declared share
    (a cell's ``acceptance``) can stand in for what trained ones would accept. Check: ``tests_its_drafts``."""
    vain_steps: ClassVar[int] = 0
    """Most steps that a decode which ``decides_steps`` may take after its last image is complete. Check:
    ``used_through_the_loop_only``."""
    timed_options: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """Options that may be "auto", and the values of which whoever runs the method takes the fastest."""
    reads_code_vectors: ClassVar[bool] = False
    """Compares codes by the vectors that the tokenizer gives them: its network must have been given some."""
    lossless: ClassVar[bool] = False
    """Samples exactly what its network, or its base's, decoded one token at a time in the same order would:
    every image of a small world is as likely, with guidance too. Checks: ``lossless``,
    ``lossless_in_a_batch``."""
    batch_exact: ClassVar[bool] = True
    """An image's logits and tokens are the same in any batch as alone, but for rounding. Declared False where
    the paper lets images of a batch share something. Check: ``batch_equals_singles``."""
    learns_from_code_vectors: ClassVar[bool] = False
    """Its networks are told the vectors that the tokenizer gives codes before they learn: ``meet_codes``."""
    sequential_conditionals: ClassVar[bool] = True
    """Its network also gives the distribution of each place given all places before it, so likelihood and
    lossiness have a judge."""
    empty_context: ClassVar[bool] = False
    """Attends to cache slots that are not yet filled, as a published method may; they hold zeros. Check:
    ``reads_only_filled_slots``."""
    cached_equals_taught: ClassVar[bool] = True
    """Decoding with a cache gives the logits of ``taught_logits`` over the same tokens and groups, within
    1e-4. Of a training-free strategy only where it overrides ``taught_logits``. Check:
    ``cached_equals_taught``."""
    gradient_exceptions: ClassVar[Mapping[str, str]] = {}
    """Parameters (by suffix) that cannot get a gradient -> the mathematical reason; a part of each must truly
    get none. Checks: ``every_parameter_learns``, ``declares_itself``."""
    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Checks of the contract that this strategy cannot pass -> the reason. They must fail: one that passes is
    a failure too. Check: ``expected_failures_are_declared``."""

    def __init_subclass__(cls, **options: Any) -> None:
        """What decodes the networks of a base promises for itself: traits are not inherited with the code."""
        super().__init_subclass__(**options)
        if cls.base is not None:
            for trait in TRAITS:
                if trait not in vars(cls):
                    setattr(cls, trait, getattr(Strategy, trait))

    @abstractmethod
    def network(self, config: NetworkConfig) -> N:
        """The trunk dressed for this method, on the current default device and with any initial values.

        config: trunk, codes V, classes, grid, whether there is a null class. What a network can't use of a
        trunk it refuses (``config.trunk.require``).

            return RasterNetwork(config)
        """

    # Learning ------------------------------------------------------------------------------------------

    def meet_codes(self, network: N, vectors: Tensor) -> None:
        """Take from the vectors of all codes [V, c] what the network keeps of them; called once, before it
        learns, where the method ``learns_from_code_vectors``."""
        raise TypeError(f"strategy '{self.name}' takes nothing from the vectors of codes")

    @abstractmethod
    def lesson(
        self, batch: int, grid: tuple[int, int], generator: torch.Generator, progress: float
    ) -> Lesson:
        """Orders int64 [B, P], and group sizes where the method has them, of one training pass.

        All that is random comes from ``generator``. progress: 0..1, how far training has come. Checks:
        ``lessons``, ``lessons_leak_nothing``.

            return Lesson(random_orders(batch, grid[0] * grid[1], generator))
        """

    @abstractmethod
    def taught_logits(self, network: N, tokens: Tensor, labels: Tensor, lesson: Lesson) -> Tensor:
        """Teacher-forced logits [B, P, V] in the lesson's order for tokens [B, P] by position, labels [B].

        The k-th logits may depend on tokens of earlier groups only (without sizes: on the k before). Also
        called with orders and sizes of plans, by whoever judges a decode. Checks: ``cached_equals_taught``,
        ``lessons_leak_nothing``.

            prefix = network.class_embedding(labels).unsqueeze(1)  # [B, 1, d]
            fed = network.token_embedding(tokens.gather(1, lesson.order)[:, :-1])
            phases = network.phases(torch.arange(tokens.shape[1]))
            return network(torch.cat([prefix, fed], dim=1), phases, View(causal=True))
        """

    def canvas(self, network: N, codes: Tensor) -> Tensor:
        """Tokens of the whole canvas [B, P] that show the codes of images [B, N]; here those."""
        return codes

    def loss(self, network: N, tokens: Tensor, labels: Tensor, lesson: Lesson) -> Tensor:
        """Mean cross-entropy over all B x P predictions, of codes of images [B, N] or of canvases [B, P].

        A number in nats with a gradient. Check: ``loss_is_mean_cross_entropy``.
        """
        if tokens.shape[1] != lesson.order.shape[1]:
            tokens = self.canvas(network, tokens)
        logits = self.taught_logits(network, tokens, labels, lesson)
        targets = tokens.gather(1, lesson.order)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    # Planning ------------------------------------------------------------------------------------------

    def allowed_steps(self, grid: tuple[int, int], given: int = 0) -> range:
        """Step counts that can be asked for on this grid; a plan has at most one step a place not given.

        Unless said otherwise the one count that ``sizes`` gives. UserError for a grid that the method can't
        decode. Check: ``plans_are_valid``.

            return range(1, grid[0] * grid[1] + 1)  # any number of steps
        """
        steps = len(self.sizes(grid, 0, given))
        return range(steps, steps + 1)

    def places(self, grid: tuple[int, int]) -> int:
        """P, the tokens of an image: of all maps of the canvas."""
        return grid[0] * grid[1]

    def sizes(self, grid: tuple[int, int], steps: int, given: int = 0) -> tuple[int, ...]:
        """Group sizes of ``steps`` steps over the places that are not given; here one token a step.

        They are positive and sum to P - given. Check: ``plans_are_valid``.

            return halton_sizes(grid[0] * grid[1] - given, steps)  # few at first, many at the end
        """
        return one_per_step(grid[0] * grid[1] - given)

    def orders(
        self, grid: tuple[int, int], sizes: tuple[int, ...], streams: Streams, known: np.ndarray
    ) -> np.ndarray:
        """Position at each place, known positions [M] first: int64 [P], or [B, P] by image; here raster.

        All that is random comes from ``streams``, which belong to the images: ``streams.permutations(P)`` is
        [B, P]. Check: ``noise_belongs_to_images``.

            return known_first(streams.permutations(grid[0] * grid[1]), known)
        """
        return raster(grid)

    def arrange(
        self, grid: tuple[int, int], order: np.ndarray, sizes: tuple[int, ...], given: int = 0
    ) -> Plan:
        """A plan from explicit order [P] or [B, P] and sizes, with the clock by which this method is guided.

        The clock is ``progress``, float64 [P] by place in 0..1; unless given, place / P.

            return Plan(grid, order, sizes, given, progress=after_step_progress(sizes, given))
        """
        return Plan(grid, order, sizes, given)

    def plan(
        self,
        grid: tuple[int, int],
        steps: int | None,
        streams: Streams,
        known: np.ndarray | None = None,
        sizes: tuple[int, ...] | None = None,
    ) -> Plan:
        """The plan for one batch of images; what is called from outside, and hardly ever overridden.

        steps: None takes the method's largest count. known: raster positions [M] whose tokens are given.
        sizes: explicit group sizes instead of the method's schedule. Raises UserError where the method
        cannot have such a plan.

            plan = pardec.get("lpd").plan((8, 8), 12, pardec.Streams(0, images=(0, 1)))
        """
        known = np.zeros(0, dtype=np.int64) if known is None else np.asarray(known, dtype=np.int64)
        if len(known) and not self.any_order:
            raise UserError(f"strategy '{self.name}' has a fixed order and takes no given tokens")
        places = grid[0] * grid[1]
        if len(np.unique(known)) < len(known) or not ((known >= 0) & (known < places)).all():
            raise UserError(
                f"known positions {known.tolist()}: expected different ones from 0 to {places - 1}"
            )
        if self.decides_steps:
            if steps is not None or sizes is not None:
                raise UserError(f"steps = {steps}: strategy '{self.name}' decides its steps while decoding")
            return self.bounded(grid)
        unknown = places - len(known)
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
        """The paper's algorithm box, a generator: yield what is to be drawn or written, receive the tokens.

        rows: labels [R], order [R, P] or [1, P], known tokens [R, M] or None. Each step is one call of each
        network that it needs. ``Ask(logits [R, n, V], at)`` is answered by tokens [R, n], the same for all
        branches; methods that choose what they keep take it apart: ``Draft`` -> ``Drawn``, ``Accept``,
        ``Redraw``, ``Commit`` (``strategies.decoding.requests``). A cached pass writes its n inputs to the
        slots that its ``View`` names (``start``, or ``slots`` [1 or R, n]); a mask of it is bool [n, S] or
        [R, 1, n, S] over the S slots that are read, those up to the last one written, True where a row may
        look. Checks: ``every_position_once``, ``causal``, ``guidance``, ``hides_no_work``.

            cache = network.cache(len(rows), *self.cache_shape(network.config))
            phases = network.phases(torch.arange(plan.places))
            x = network.class_embedding(rows.labels).unsqueeze(1)  # [R, 1, d]
            for slot, at in enumerate(plan.groups()):
                tokens = yield Ask(network(x, phases[slot : slot + 1], View(start=slot), cache), at)
                x = network.token_embedding(tokens)
        """

    def cache_shape(self, config: NetworkConfig) -> tuple[int, int]:
        """(layers, slots) of the key/value cache of one row; (0, 0) where there is none.

        The cost model reads it, too, so it is what ``decode`` allocates.
        """
        return config.trunk.depth, 1 + config.places

    def cache_shapes(self, config: NetworkConfig) -> Mapping[str, tuple[int, int]]:
        """The same by role, where there are several networks."""
        return {"network": self.cache_shape(config)}


Strategy.__doc__ = described(Strategy)


class TrainingFree(Strategy[N]):
    """A method that decodes the trained networks of ``base``, of type N: a plan and ``decode``, nothing else.

    A class that derives from its base's instead takes over lesson, plan or decode, but none of its traits.
    One that overrides ``taught_logits`` is held to ``cached_equals_taught``.
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
