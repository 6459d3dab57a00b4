"""Enumerable worlds: tiny networks with random weights, and the order rules that they are decoded in."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import torch

from backbones.config import NetworkConfig, TrunkConfig
from backbones.networks import Networks
from backbones.transformer import Network
from harness.lossiness.branches import CODES, Sampled, branch_joints, sampled
from harness.lossiness.conditionals import Undefined
from harness.lossiness.exact import LARGEST, Loss, compare_joints, joints
from pardec.errors import UserError
from strategies.decoding import registry
from strategies.decoding.base import Strategy
from strategies.decoding.contract.recording import random_code_vectors
from strategies.decoding.guidance import Guidance
from strategies.decoding.networks import network_of
from strategies.decoding.orders import OrderRule, ruled_orders
from strategies.decoding.plan import Plan
from strategies.decoding.streams import Streams

TRUNK = TrunkConfig(depth=2, width=16, heads=2, mlp_width=32)
CLASSES = 2
WEIGHT_STD = 0.3
"""Large enough that tokens depend on each other, small enough that guidance makes no token certain."""
_NOTHING = np.zeros(0, dtype=np.int64)
_COMPARED_ON = ((8, 8), 16)
"""Grid and steps on which options are asked whether they change a plan."""

OWN = "own"
Rule = Callable[[tuple[int, int], tuple[int, ...], Streams], np.ndarray]


def _locality(grid: tuple[int, int], sizes: tuple[int, ...], streams: Streams) -> np.ndarray:
    return registry.get("lpd").orders(grid, sizes, streams, _NOTHING)


def _by_rule(rule: OrderRule) -> Rule:
    return lambda grid, sizes, streams: ruled_orders(rule, grid, streams)


RULES: dict[str, Rule] = {rule: _by_rule(rule) for rule in get_args(OrderRule)} | {"locality": _locality}
"""Orders that every network which decodes any order can be given, with its own group sizes."""


def ordered_plan(
    strategy: Strategy, grid: tuple[int, int], steps: int | None, streams: Streams, rule: str
) -> Plan:
    """The strategy's plan with its places in another order; ``own`` keeps the strategy's.

    UserError where the strategy or the rule cannot have it.
    """
    if rule == OWN:
        return strategy.plan(grid, steps, streams)
    if not strategy.any_order:
        raise UserError(f"strategy '{strategy.name}' has a fixed order")
    strategy.check_steps(grid, steps)
    sizes = strategy.sizes(grid, strategy.allowed_steps(grid)[-1] if steps is None else steps)
    try:
        return strategy.arrange(grid, RULES[rule](grid, sizes, streams), sizes)
    except ValueError as error:
        raise UserError(f"order '{rule}': {error}") from None


def variants(name: str) -> Iterator[tuple[str, Strategy]]:
    """(label, strategy): the defaults, then every choice of an option that changes its plans.

    An order that any network decoding any order can be given is no variant of one of them.
    """
    default = registry.get(name)
    yield default.title, default
    plans = [_plan_of(default)]
    hints = get_type_hints(type(default))
    for field in dataclasses.fields(default):
        if get_origin(hints[field.name]) is not Literal:
            continue
        for choice in get_args(hints[field.name]):
            if default.any_order and choice in RULES:
                continue
            changed = registry.get(name, **{field.name: choice})
            plan = _plan_of(changed)
            if plan not in plans:
                plans.append(plan)
                yield f"{default.title} ({field.name} {choice})", changed


def _plan_of(strategy: Strategy) -> tuple[Any, ...]:
    grid, steps = _COMPARED_ON
    allowed = strategy.allowed_steps(grid)
    plan = strategy.plan(grid, steps if steps in allowed else None, Streams(0, (0,)))
    return plan.sizes, plan.order.tobytes()


@dataclass(frozen=True)
class World:
    """Grid and codes of an enumerable world."""

    grid: tuple[int, int]
    codes: int

    def network(self, strategy: Strategy, seed: int) -> Network | Networks:
        """The strategy's network with every weight N(0, 0.3^2), around 1 for the scales of norms.

        Published initialisations zero whole heads, which would make every distribution uniform.
        """
        config = NetworkConfig(TRUNK, self.codes, CLASSES, self.grid)
        network = network_of(strategy, config).eval().requires_grad_(False)
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * WEIGHT_STD)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1.0)
        if strategy.reads_code_vectors:
            network.code_vectors = random_code_vectors(self.codes, seed)
        return network

    def small_enough(self, strategy: Strategy) -> "World":
        """This world with as many of its codes as the strategy's places leave enumerable, two at least: one
        that decodes several maps, or coarse tokens before fine ones, has more places than the grid."""
        try:
            places = strategy.plan(self.grid, self.steps(strategy, None), Streams(0, (0,))).places
        except UserError:  # for whoever decodes to say
            return self
        fitting = (codes for codes in range(self.codes, 2, -1) if codes**places <= LARGEST)
        return dataclasses.replace(self, codes=next(fitting, 2))

    def steps(self, strategy: Strategy, steps: int | None) -> int:
        """``steps``, by default half as many as places, or as near as the strategy comes."""
        allowed = strategy.allowed_steps(self.grid)
        if steps is not None:
            strategy.check_steps(self.grid, steps)
            return steps
        return min(allowed, key=lambda count: abs(count - self.grid[0] * self.grid[1] / 2))

    def loss(
        self, strategy: Strategy, rule: str, seed: int, steps: int | None, guidance: Guidance | None
    ) -> tuple[Plan, Loss]:
        """What the strategy loses with the random network and the order of ``seed``.

        Of a lossy one that decides its steps, in a world of more than ``CODES`` codes, given the first token.

        Raises UserError for a plan that the strategy cannot have and for a world that is too large, Undefined
        where there is no one-at-a-time distribution.
        """
        streams = Streams(seed, (0,))
        if strategy.decides_steps:
            plan, network = strategy.plan(self.grid, steps, streams), self.network(strategy, seed)
            given = self.codes > CODES and not strategy.lossless
            found = branch_joints(network, strategy, plan, seed % CLASSES, guidance, given)
            return plan, compare_joints(*found, (1,) * found[0].dim())
        plan = ordered_plan(strategy, self.grid, self.steps(strategy, steps), streams, rule)
        if plan.opened:
            raise Undefined(
                f"strategy '{strategy.name}' orders places by what it draws, and each order has another "
                "one-at-a-time distribution"
            )
        if (images := self.codes**plan.places) > LARGEST:
            raise UserError(f"{plan.places} places of {self.codes} codes hold {images:,} images: too many")
        plan = dataclasses.replace(plan, order=plan.order[:1])
        network = self.network(strategy, seed)
        sizes = tuple(at.stop - at.start for at in plan.groups())
        return plan, compare_joints(*joints(network, strategy, plan, seed % CLASSES, guidance), sizes)

    def leaves_open(self, strategy: Strategy) -> bool:
        """Whether the strategy chooses its places while decoding, whatever order it is given."""
        try:
            return strategy.plan(self.grid, self.steps(strategy, None), Streams(0, (0,))).opened
        except UserError:
            return False

    def sampled(self, strategy: Strategy, seed: int, guidance: Guidance | None) -> Sampled:
        """What images sampled in batches show, with the random network of ``seed``."""
        return sampled(self.network(strategy, seed), strategy, seed % CLASSES, seed, guidance)
