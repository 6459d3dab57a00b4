"""Who makes which images: the processes of a run over several machines, and what falls to each."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.images.shards import Share
from harness.machine.distributed import Launch
from pardec.errors import UserError

SHOWN = 3
"""Ranges of images named for each process."""


@dataclass(frozen=True)
class Process:
    """One process of a run: its part, its machine by number (None: whichever), and its device there."""

    share: Share
    machine: int | None
    device: str


def fleet(machines: int, each: int, device: str) -> list[Process]:
    """The processes that torchrun starts, ``each`` on every machine, numbered machine by machine; each has a
    CUDA device of its own."""
    return [
        Process(
            Share(machine * each + local, machines * each),
            machine,
            f"cuda:{local}" if device == "cuda" else device,
        )
        for machine in range(machines)
        for local in range(each)
    ]


def processes_of(text: str | None, share: Share | None, launch: Launch, device: str) -> list[Process]:
    """Of ``--processes MxN``, else of torchrun's environment; of ``--shard`` the one it names.

    UserError for other texts, and for processes that would share a device.
    """
    if text is not None:
        match = re.fullmatch(r"(\d+)x(\d+)", text)
        if match is None or not (int(match[1]) and int(match[2])):
            raise UserError(f"--processes '{text}': expected machines x processes on each, e.g. 2x8")
        if share is not None or launch.size > 1:
            other = "--shard" if share is not None else "torchrun"
            raise UserError(f"--processes '{text}': {other} says already which processes there are")
        machines, each = int(match[1]), int(match[2])
    elif share is not None:
        return [Process(share, None, device)]
    else:
        machines, each = launch.size // launch.local_size, launch.local_size
    if each > 1 and device.startswith("cuda:"):
        raise UserError(f"{each} processes of a machine on device '{device}': cuda gives each one of its own")
    return fleet(machines, each, device)


def ranges(chunks: Sequence[range]) -> str:
    """``0-9, 20-29 and 3 more``, by first and last image."""
    named = ", ".join(f"{chunk.start}-{chunk.stop - 1}" for chunk in chunks[:SHOWN])
    left = len(chunks) - SHOWN
    return f"{named} and {left} more" if left > 0 else named
