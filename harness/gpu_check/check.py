"""A check, what it found, and a run of many within a given time."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from backbones.graphs import CUDAGraphs, Recorder, Repeats
from harness.machine.failures import classify

State = Literal["pass", "fail", "not run"]
Figures = Mapping[str, float | int | str | None]


class NotHere(Exception):
    """A check that this device or machine can't run, and why."""


@dataclass(frozen=True)
class Bench:
    """What is checked.

    goldens: folder of recordings of published implementations, or None. recorder: makes recorded passes; a
    stand-in where the device has none. backend: of the compiler.
    """

    device: torch.device
    goldens: Path | None = None
    recorder: Callable[[], Recorder] = Repeats
    backend: str = "eager"

    @classmethod
    def of(cls, device: torch.device, goldens: Path | None) -> "Bench":
        if device.type == "cuda":
            return cls(device, goldens, partial(CUDAGraphs, device), "inductor")
        return cls(device, goldens)


@dataclass(frozen=True)
class Finding:
    """What a check found; ``reason`` says what failed or was not there, and may stand empty where all is
    well."""

    passed: bool
    figures: Figures
    reason: str = ""


@dataclass(frozen=True)
class Check:
    """One line of the page. seconds: about what it takes on a GPU, by which it is run or left out."""

    name: str
    shows: str
    seconds: float
    run: Callable[[Bench], Finding]


@dataclass(frozen=True)
class Outcome:
    """A check's line."""

    name: str
    shows: str
    state: State
    reason: str
    seconds: float
    figures: Figures = field(default_factory=dict)


def run_checks(
    checks: Sequence[Check], bench: Bench, seconds: float, now: Callable[[], float] = time.monotonic
) -> Iterator[Outcome]:
    """Each check in order, while the ``seconds`` last: one that would outlast them is left out."""
    started = now()
    for check in checks:
        begun = now()
        left = seconds - (begun - started)
        if check.seconds > left:
            reason = f"out of time: takes about {check.seconds:.0f} s, {max(left, 0.0):.0f} s are left"
            yield Outcome(check.name, check.shows, "not run", reason, 0.0)
            continue
        state, reason, figures = _judged(check, bench)
        yield Outcome(check.name, check.shows, state, reason, now() - begun, figures)


def _judged(check: Check, bench: Bench) -> tuple[State, str, Figures]:
    """A check that breaks has failed, and leaves the others their time."""
    try:
        found = check.run(bench)
    except NotHere as reason:
        return "not run", str(reason), {}
    except Exception as error:  # noqa: BLE001 - whatever a device makes of a check is its result
        return "fail", classify(error)[1], {}
    return "pass" if found.passed else "fail", found.reason, found.figures
