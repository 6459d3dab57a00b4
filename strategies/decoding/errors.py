"""Errors that a user can mend: one line that names what, where and the nearest valid choice."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A user's mistake; the command line prints its text on one line and exits with 2."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """The clause that helps a reader on: the closest valid name, then all of them."""
    valid = sorted(choices)
    close = get_close_matches(name, valid, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}valid: {', '.join(valid) if valid else 'none'}"


def unknown(kind: str, name: str, choices: Iterable[str], where: str = "") -> UserError:
    """The error for a name that does not exist, e.g. ``unknown("strategy", "lpdd", names())``."""
    place = f" in {where}" if where else ""
    return UserError(f"unknown {kind} '{name}'{place}: {nearest(name, choices)}")
