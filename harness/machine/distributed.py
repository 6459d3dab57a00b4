"""The processes that torchrun starts: who is first, and how they wait. One process needs none of it."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pardec.errors import UserError, one_line


@dataclass(frozen=True)
class Group:
    """This process among those of a run."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.size > 1:
            import torch.distributed

            torch.distributed.barrier()


@dataclass(frozen=True)
class Launch:
    """What torchrun's environment says of this process: its number among all, and of its machine's."""

    rank: int = 0
    size: int = 1
    local_rank: int | None = None
    local_size: int = 1


def launch() -> Launch:
    """How this process was started; UserError where only a part of torchrun's environment is left over.

    Half of it would make a process wait for others, or do its share of the work and nobody the rest.
    """
    given = {name: os.environ[name] for name in (*_NUMBERS, *_MEETING) if name in os.environ}
    size = _number(given, "WORLD_SIZE", 1, None)
    ranks = [name for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE") if name in given]
    if size is None and ranks:
        raise _half(ranks[0], given, ["WORLD_SIZE"])
    if size is not None and (size > 1 or ranks):
        needed = ("RANK", *(_MEETING if size > 1 else ()))
        missing = [name for name in needed if not given.get(name, "").strip()]
        if missing:
            raise _half("WORLD_SIZE", given, missing)
    size = size or 1
    if size > 1:
        _number(given, "MASTER_PORT", 0, 65535)
    rank = _number(given, "RANK", 0, size - 1) or 0
    local_size = _number(given, "LOCAL_WORLD_SIZE", 1, size) or 1
    local_rank = _number(given, "LOCAL_RANK", 0, size - 1)
    return Launch(rank, size, local_rank, local_size)


_NUMBERS = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_MEETING = ("MASTER_ADDR", "MASTER_PORT")
"""Where the processes of a run meet."""


def _half(name: str, given: Mapping[str, str], missing: Sequence[str]) -> UserError:
    names = " and ".join(missing)
    return UserError(
        f"environment: {name}='{given[name]}' without {names}, half of what torchrun sets: "
        f"unset {' '.join(given)}, or start with torchrun"
    )


def _number(given: Mapping[str, str], name: str, least: int, most: int | None) -> int | None:
    """The number that a variable holds; None where it isn't set."""
    text = given.get(name)
    if text is None:
        return None
    if not text.strip().isdecimal() or int(text) < least or (most is not None and int(text) > most):
        bound = "" if most is None else f" and at most {most}"
        raise UserError(
            f"environment: {name}='{text}': expected a whole number of at least {least}{bound}, as torchrun "
            f"sets it; unset {' '.join(given)}, or start with torchrun"
        )
    return int(text)


def local_device(device: str) -> str:
    """``cuda`` is this process's own CUDA device under torchrun."""
    found = launch()
    if device == "cuda" and found.local_rank is not None:
        return f"cuda:{found.local_rank}"
    return device


@contextmanager
def processes(device: str) -> Iterator[Group]:
    """The group that the environment of torchrun describes: NCCL on CUDA devices, gloo on the CPU.

    UserError where the others don't come.
    """
    found = launch()
    if found.size == 1:
        yield Group()
        return
    import torch
    import torch.distributed

    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(device)
    try:
        torch.distributed.init_process_group("nccl" if on_gpu else "gloo")
    except (RuntimeError, ValueError, OSError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise UserError(f"no group of {found.size} processes at {place}: {one_line(error)[:200]}") from None
    try:
        yield Group(torch.distributed.get_rank(), torch.distributed.get_world_size())
    finally:
        torch.distributed.destroy_process_group()
