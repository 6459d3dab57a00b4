"""Predicted speed of speculative decoding against its window: writes ``results/predicted_windows.csv``.

Run ``python -m harness.cost.windows`` after a change of the cost model or the cards. SJD stands for all that
draft windows: their forwards are the same, their tests cost next to nothing. Shares of accepted drafts are
declared, for none is published for class-conditional images.
"""

import csv
import io
import sys
from itertools import product
from pathlib import Path
from typing import Any

from harness.cell.cell import RANDOM, Cell, normalised
from harness.cost.drafting import drafted_steps
from harness.cost.model import decode_seconds
from harness.cost.work import DecodeWork, decode_work
from harness.machine.cards import card_named
from harness.subject.prepare import Prepared, prepare

NETWORK = "llamagen-l-256"
DTYPE = "bfloat16"
WINDOWS = (2, 4, 8, 16, 32, 64)
ACCEPTANCES = (0.5, 0.7, 0.9)
BATCHES = (1, 64)
IMAGES = 64
"""Over which the steps of one image are averaged."""
MODES = ("eager", "recorded")
CARDS = ("a100-80gb", "h100-sxm", "h200", "l20")
COLUMNS = (
    "network",
    "dtype",
    "mode",
    "card",
    "batch",
    "acceptance",
    "window",
    "steps",
    "step_ms",
    "images_per_s",
    "times_raster",
)


def subject(window: int | None, acceptance: float | None, batch: int) -> Prepared:
    """Guided images by SJD; without a window by one token at a time."""
    cell = Cell(
        "raster" if window is None else "sjd",
        network=NETWORK,
        checkpoint=RANDOM,
        options={} if window is None else {"window": window},
        acceptance=acceptance,
        guidance=2.0,  # the cost does not depend on the scale
        batch=batch,
        dtype=DTYPE,
    )
    return prepare(normalised(cell))


def batch_seconds(work: DecodeWork, card: str, mode: str) -> float:
    """Of all steps; recorded ones cost the host nothing."""
    seconds = decode_seconds(work, card_named(card), DTYPE)
    return seconds.total - (seconds.launch if mode == "recorded" else 0.0)


def table() -> str:
    """``results/predicted_windows.csv``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    lines: list[tuple[Any, ...]] = []
    for batch in BATCHES:
        alone = decode_work(subject(None, None, batch), on_cpu=False)
        for acceptance, window in product(ACCEPTANCES, WINDOWS):
            drafting = subject(window, acceptance, batch)
            work = decode_work(drafting, on_cpu=False)
            # A batch waits for its slowest image; one alone is some image, so its steps are a mean.
            steps = len(work.steps) if batch > 1 else drafted_steps(drafting, IMAGES, acceptance)
            for name, mode in product(CARDS, MODES):
                step_s = batch_seconds(work, name, mode) / len(work.steps)
                times = batch_seconds(alone, name, mode) / (step_s * steps)
                numbers = (steps, 1e3 * step_s, batch / (step_s * steps), times)
                told = (f"{number:.4g}" for number in numbers)
                lines.append((NETWORK, DTYPE, mode, name, batch, acceptance, window, *told))
    writer.writerows(sorted(lines))
    return text.getvalue()


def main() -> int:
    path = Path(__file__).parents[2] / "results" / "predicted_windows.csv"
    path.write_text(table(), encoding="utf-8")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
