"""Errors that a user can mend: one line that names what, where and the nearest valid choice."""

from collections.abc import Iterable
from difflib import get_close_matches


def visible(text: str) -> str:
    """``text`` with what a terminal would obey (escape sequences, other controls) as readable escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def one_line(error: object) -> str:
    """The text of an error on one line that is safe to print."""
    return visible(" ".join(str(error).split()))


class UserError(Exception):
    """A user's mistake; the command line prints its text on one line and exits with 2."""


class NotFinite(UserError, FloatingPointError):
    """Weights or numbers computed from them that are NaN or infinite: the cell's result is invalid."""


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
