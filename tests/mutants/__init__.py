"""Deliberately wrong strategies and sampling parts, and the checks of the contract that must find them."""

from dataclasses import dataclass

from strategies.decoding.base import Strategy
from strategies.decoding.contract import Parts


@dataclass(frozen=True)
class Mutant:
    """What is wrong, in what, and which checks say so.

    killers: names of checks that must fail. says: what the first of them says, in part.
    """

    wrong: str
    strategy: Strategy
    killers: tuple[str, ...]
    says: str
    parts: Parts | None = None

    @property
    def name(self) -> str:
        """The mutated class."""
        if self.parts is None:
            return type(self.strategy).__name__
        changed = self.parts.sampler if self.parts.sampler is not Parts().sampler else self.parts.guidance
        return changed.__name__

    @property
    def original(self) -> Strategy:
        """The strategy before the mutation."""
        return self.strategy if self.parts else type(self.strategy).__mro__[1]()
