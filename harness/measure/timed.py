"""Which images a timed batch is of.

A decode whose plan is known costs the same whatever its images, so every repeat takes the first ones. One
that decides its steps while decoding is fast on some images and slow on others: its repeats take one batch
after the other of the cell's images, round and round, so that medians and intervals are those of images at
large.
"""

from collections.abc import Iterator
from itertools import count

from harness.measure.repeats import Run
from harness.subject.prepare import Prepared
from harness.subject.subject import Subject, run_batch


def images_of(prepared: Prepared, size: int, repeat: int) -> range:
    """The images of a repeat, from 0 on, at this batch size."""
    batches = prepared.cell.images // size if prepared.strategy.decides_steps else 1
    first = repeat % max(batches, 1) * size
    return range(first, first + size)


def timed_batches(subject: Subject, size: int) -> Run:
    """Runs the next batch of this size; returns its seconds."""
    repeats: Iterator[int] = count()
    return lambda: run_batch(subject, images_of(subject.prepared, size, next(repeats))).seconds["total"]
