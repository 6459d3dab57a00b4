"""Errors that a user can mend: one line that names what, where and the nearest valid choice."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A user's mistake; the command line prints its text on one line and exits with 2."""


def closest(name: str, choices: Iterable[str]) -> str | None:
    """The valid name that looks most like ``name``, if any does."""
    return next(iter(get_close_matches(name, sorted(choices), n=1, cutoff=0.5)), None)


def nearest(name: str, choices: Iterable[str]) -> str:
    """The clause that helps a reader on: the closest valid name, then all of them."""
    valid = sorted(choices)
    close = closest(name, valid)
    hint = f"did you mean '{close}'? " if close else ""
    return f"{hint}valid: {', '.join(valid) if valid else 'none'}"


def unknown(kind: str, name: str, choices: Iterable[str], where: str = "") -> UserError:
    """The error for a name that does not exist, e.g. ``unknown("strategy", "lpdd", names())``."""
    place = f" in {where}" if where else ""
    return UserError(f"unknown {kind} '{name}'{place}: {nearest(name, choices)}")
