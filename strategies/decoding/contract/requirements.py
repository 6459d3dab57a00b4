"""What a check of the contract says when something is broken: one line with the evidence."""

from collections.abc import Callable

from torch import Tensor

from pardec.errors import UserError

TOLERANCE = 1e-4
"""Largest difference between logits of one mathematical value computed in two ways."""


class Broken(AssertionError):
    """A requirement of the contract that does not hold; its text is the reason on the score card."""


def require(holds: object, reason: str) -> None:
    """Raise Broken with ``reason`` unless ``holds`` is true; unlike ``assert``, also under ``python -O``."""
    if not holds:
        raise Broken(reason)


def require_equal(found: object, expected: object, what: str) -> None:
    require(found == expected, f"{what}: {found!r}, expected {expected!r}")


def close(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE, what: str = "logits") -> None:
    """Require equal shapes and no difference above ``tolerance``; what is not a number is different."""
    require_equal(tuple(found.shape), tuple(expected.shape), f"shape of {what}")
    worst = float((found - expected).abs().max())
    require(worst <= tolerance, f"{what} differ by {worst:.2e}, allowed {tolerance:.0e}")


def refused(call: Callable[[], object], what: str) -> None:
    """Require a UserError of one line."""
    try:
        call()
    except UserError as error:
        require("\n" not in str(error), f"{what}: the UserError has several lines")
        return
    raise Broken(f"{what} is accepted, expected a UserError")
