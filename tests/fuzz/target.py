"""A target: one reader of what a user hands in, some whole inputs of its kind, and what must hold for any."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.guard import harmless, one_mistake

Check = Callable[[bytes, Path], None]
"""Reads an input, whose files go into the folder; a UserError is an answer, any other error a finding."""
Seeds = Callable[[Path], list[bytes]]
"""Whole inputs; the folder is for making them."""


@dataclass(frozen=True)
class Target:
    name: str
    check: Check
    seeds: Seeds
    words: tuple[str, ...] = ()
    """What mutation may put in beside random bytes."""

    def run(self, data: bytes, folder: Path, limited: bool = True) -> None:
        """Reads ``data`` as if a user had handed it in; raises for anything that no input may do."""
        inside, secret = folder / "inside", folder / "secret"
        for place in (inside, secret):
            place.mkdir(exist_ok=True)
        with harmless(inside, secret, limited), one_mistake():
            self.check(data, inside)


TARGETS: dict[str, Target] = {}


def target(name: str, seeds: Seeds, words: tuple[str, ...] = ()) -> Callable[[Check], Check]:
    """Registers a check under a name."""

    def register(check: Check) -> Check:
        TARGETS[name] = Target(name, check, seeds, words)
        return check

    return register


def write(folder: Path, name: str, data: bytes) -> Path:
    """The input as a file; opened anew so that no reader's cache takes it for the last one."""
    path = folder / name
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    return path
