"""What a setting of a sweep file may be, and how to say what was expected. Without torch."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from results.annotations import LARGEST, is_whole


@dataclass(frozen=True)
class Rule:
    """What a value must be. Text is printable: it goes to terminals and into file names."""

    expectation: str
    fits: Callable[[Any], bool]
    choices: tuple[str, ...] = ()
    real: bool = False
    """Whether a whole number becomes a float."""


def is_number(value: Any) -> bool:
    """Whether ``value`` is a whole number of 64 bits or a finite float."""
    return is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def whole(least: int, most: int = LARGEST) -> Rule:
    def fits(value: Any) -> bool:
        return is_whole(value) and least <= value <= most

    return Rule(f"a whole number of at least {least} and at most {most:,}", fits)


def number(expectation: str, fits: Callable[[float], bool]) -> Rule:
    return Rule(expectation, lambda value: is_number(value) and fits(value), real=True)


def text(expectation: str = "text", choices: tuple[str, ...] = ()) -> Rule:
    def fits(value: Any) -> bool:
        return isinstance(value, str) and value.isprintable() and (not choices or value in choices)

    return Rule(f"one of {', '.join(choices)}" if choices else expectation, fits, choices)


def switch() -> Rule:
    return Rule("true or false", lambda value: isinstance(value, bool))


def options() -> Rule:
    def fits(value: Any) -> bool:
        return isinstance(value, dict) and all(
            isinstance(one, bool) or is_number(one) or (isinstance(one, str) and one.isprintable())
            for one in value.values()
        )

    return Rule("a table of strategy options: numbers, texts, true or false", fits)


def texts(expectation: str) -> Rule:
    def fits(value: Any) -> bool:
        return isinstance(value, dict) and all(
            isinstance(one, str) and one.isprintable() for one in value.values()
        )

    return Rule(expectation, fits)


def guidance_scale() -> Rule:
    """A scale; ``false`` for none, and ``tuned`` for the one that the network's card records."""

    def fits(value: Any) -> bool:
        return value is False or value == TUNED or is_number(value)

    return Rule(f"a number, false for none, or '{TUNED}'", fits, real=True)


TUNED = "tuned"
"""The guidance scale that the card of a zoo network records."""
