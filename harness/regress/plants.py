"""Changes planted into a measurement by the self-test; nothing that ships as a result passes through here."""

import time
from collections.abc import Callable
from typing import Any, cast

import torch

from backbones.transformer import Network
from harness.measure.repeats import Run
from strategies.decoding.base import Strategy
from strategies.decoding.decode import Decoding, Rows
from strategies.decoding.plan import Plan

Decode = Callable[[Strategy, Network, Plan, Rows], Decoding]
_OVERWHELMING = 1e4
"""A logit that leaves the sampler no choice."""


class Planted:
    """A strategy that decodes by another function and is itself in everything else."""

    def __init__(self, strategy: Strategy, decode: Decode) -> None:
        self._strategy, self._decode = strategy, decode

    def __getattr__(self, name: str) -> Any:
        return getattr(self._strategy, name)

    def decode(self, network: Network, plan: Plan, rows: Rows) -> Decoding:
        return self._decode(self._strategy, network, plan, rows)


def plant(strategy: Strategy, decode: Decode) -> Strategy:
    """``strategy`` as the loop sees it, with another decode."""
    return cast(Strategy, Planted(strategy, decode))


def one_extra_forward(strategy: Strategy, network: Network, plan: Plan, rows: Rows) -> Decoding:
    """Repeats the last call of the network, whose result changes nothing."""
    last: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def remember(module: torch.nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        last[:] = [(positional, named)]

    hook = network.register_forward_pre_hook(remember, with_kwargs=True)
    try:
        yield from strategy.decode(network, plan, rows)
    finally:
        hook.remove()
    positional, named = last[0]
    network(*positional, **named)


def one_changed_token(instead_of: int) -> Decode:
    """The first image's token at the last place becomes the one after ``instead_of``, its value otherwise."""

    def decode(strategy: Strategy, network: Network, plan: Plan, rows: Rows) -> Decoding:
        asking = strategy.decode(network, plan, rows)
        answer = None
        while True:
            try:
                ask = asking.send(answer)  # type: ignore[arg-type]
            except StopIteration:
                return
            if ask.at.stop == plan.places:
                token = (instead_of + 1) % ask.logits.shape[-1]
                ask.logits[:: rows.labels.shape[0] // 2 or 1, -1, token] += _OVERWHELMING
            answer = yield ask

    return decode


def slower(run: Run, share: float) -> Run:
    """Takes so much longer, really: it spins for its share of the time that the work took."""

    def slowed() -> float:
        seconds = run()
        start = time.perf_counter()
        while time.perf_counter() - start < share * seconds:
            pass
        return seconds + time.perf_counter() - start

    return slowed
