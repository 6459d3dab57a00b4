"""Which images a timed batch is of.

A decode whose plan is known costs the same whatever its images, so every repeat takes the first ones. One
that decides its steps while decoding is fast on some images and slow on others: its repeats take one batch
after the other of the cell's images, round and round, so that medians and intervals are those of images at
large.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import count

from harness.measure.repeats import Run
from harness.subject.prepare import Prepared
from harness.subject.subject import Subject, run_batch

Timed = tuple[dict[str, float], int]
"""Seconds of a batch by phase, and its steps."""


def images_of(prepared: Prepared, size: int, repeat: int) -> range:
    """The images of a repeat, from 0 on, at this batch size."""
    batches = prepared.cell.images // size if prepared.strategy.decides_steps else 1
    first = repeat % max(batches, 1) * size
    return range(first, first + size)


def timed_batches(subject: Subject, size: int) -> Run:
    """Runs the next batch of this size; returns its seconds."""
    repeats: Iterator[int] = count()
    return lambda: run_batch(subject, images_of(subject.prepared, size, next(repeats))).seconds["total"]


class Batches:
    """Batches of the cell's size, one at each call: those of its images first, which are timed already."""

    def __init__(self, subject: Subject, made: Sequence[Timed]) -> None:
        self.subject, self.waiting = subject, deque(made)
        self.taken: list[Timed] = []

    def __call__(self) -> float:
        prepared = self.subject.prepared
        if self.waiting:
            self.taken.append(self.waiting.popleft())
        else:
            batch = run_batch(self.subject, images_of(prepared, prepared.cell.batch, len(self.taken)))
            self.taken.append((batch.seconds, batch.decoded.steps))
        return self.taken[-1][0]["total"]

    def scaled_to(self, steps: int) -> float:
        """Seconds of the next batch, had it taken so many steps."""
        return self() * steps / self.taken[-1][1]

    def totals(self) -> list[float]:
        return [seconds["total"] for seconds, _ in self.taken]
