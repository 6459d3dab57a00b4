"""Options that a cell leaves to measurement (``"auto"``): the value that is fastest here, by batch size.

A strategy never sees a clock: its candidates are timed from outside, and it is handed the fastest.
"""

import dataclasses
import itertools
import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.measure.timed import timed_batches
from harness.subject.subject import Subject
from pardec.errors import UserError
from pardec.files import read_text, write_whole

BATCHES = 3
"""Timed for each candidate, after one that is not."""
CHOSEN = "chosen.json"
"""Beside stored images: what they were made with, for whoever goes on with them."""


@dataclass
class Choice:
    """The subject of a cell, decided for each batch size that is asked for."""

    subject: Subject
    folder: Path | None = None
    """Of stored images, whose choice at the cell's own batch stays."""
    values: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Batch size -> option -> value."""

    @property
    def row(self) -> dict[str, dict[str, Any]]:
        """Option -> batch size (as text) -> value; empty where the cell leaves nothing open."""
        return {
            name: {str(size): values[name] for size, values in sorted(self.values.items())}
            for name in self.subject.prepared.undecided
        }

    def at(self, size: int) -> Subject:
        if not self.subject.prepared.undecided:
            return self.subject
        if size not in self.values:
            self.values[size] = self._stored(size) or self._fastest(size)
        return decided(self.subject, self.values[size])

    def _fastest(self, size: int) -> dict[str, Any]:
        prepared = self.subject.prepared
        names = prepared.undecided
        candidates = itertools.product(*(prepared.strategy.timed_options[name] for name in names))
        tried = [dict(zip(names, values, strict=True)) for values in candidates]
        found = min(tried, key=lambda values: _seconds(decided(self.subject, values), size))
        if self.folder is not None and size == prepared.cell.batch:
            text = json.dumps(found).encode() + b"\n"
            write_whole(self.folder / CHOSEN, lambda file: file.write(text))
        return found

    def _stored(self, size: int) -> dict[str, Any] | None:
        path = None if self.folder is None else self.folder / CHOSEN
        prepared = self.subject.prepared
        if path is None or size != prepared.cell.batch or not path.is_file():
            return None
        try:
            found = json.loads(read_text(path))
            values = {name: found[name] for name in prepared.undecided}
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UserError(f"'{path}' can't be read: {type(error).__name__}: {error}") from None
        for name, value in values.items():
            if value not in prepared.strategy.timed_options[name]:
                raise UserError(f"'{path}': {name} = {value!r:.80} is none of the values that are tried")
        return values


def decided(subject: Subject, values: dict[str, Any]) -> Subject:
    """The subject with these options of its strategy, nothing left open."""
    strategy = dataclasses.replace(subject.prepared.strategy, **values)
    prepared = dataclasses.replace(subject.prepared, strategy=strategy, undecided=())
    return dataclasses.replace(subject, prepared=prepared)


def _seconds(subject: Subject, size: int) -> float:
    """Median of the batches of one candidate."""
    run = timed_batches(subject, size)
    return statistics.median([run() for _ in range(1 + BATCHES)][1:])
