"""The account of a training run: what its card copies, and a JSONL file with a line per entry."""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pardec.files import read_text, write_whole

FORWARD_AND_BACKWARD = 3
"""Backward costs two products for each of forward's (Kaplan et al., arXiv 2001.08361)."""


@dataclass
class Log:
    """What a training run has seen; stored with it and copied to the card."""

    train: list[tuple[int, float]] = field(default_factory=list)
    """(step, mean loss since the log entry before)."""
    validation: list[tuple[int, float]] = field(default_factory=list)
    """(step, loss of the kept weights on held-out images)."""
    seconds: float = 0.0


@dataclass(frozen=True)
class LogFile:
    """One JSON object a line: kind ``start``, ``train`` or ``validation``, and its step."""

    path: Path

    def cut(self, step: int) -> None:
        """Forget a torn last line and what came after ``step``, which will be trained again."""
        if not self.path.is_file():
            return
        kept = [entry for entry in self.entries() if entry["step"] <= step]
        lines = "".join(json.dumps(entry) + "\n" for entry in kept)
        write_whole(self.path, lambda file: file.write(lines.encode()))

    def append(self, **entry: Any) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def entries(self) -> list[dict[str, Any]]:
        """All whole lines; one that a kill tore is left out."""
        lines = read_text(self.path).splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]


class Window:
    """Mean loss of the steps since the entry before, kept on the device so that no step waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)
        """Sum of losses, number of steps."""

    def add(self, loss: Tensor) -> None:
        self.sums[0] += loss
        self.sums[1] += 1

    def take(self) -> float:
        """The mean; the next entry begins."""
        mean = (self.sums[0] / self.sums[1]).item()
        self.sums.zero_()
        return mean


class Speed:
    """Images and floating-point operations per second of the steps alone: no validation, no saving."""

    def __init__(self, flops_per_image: float, peak_flops_per_s: float | None) -> None:
        """flops_per_image: of one forward pass. peak_flops_per_s: of all processes together, if known."""
        self.flops_per_image, self.peak = flops_per_image, peak_flops_per_s
        self.images, self.seconds, self.started = 0, 0.0, time.monotonic()

    def add(self, images: int) -> None:
        self.images += images

    def pause(self) -> None:
        self.seconds += time.monotonic() - self.started

    def start(self) -> None:
        self.started = time.monotonic()

    def take(self) -> dict[str, float | None]:
        """Since the last call: images_per_s, tflops_per_s, and mfu, None where the peak is unknown."""
        images_per_s = self.images / max(self.seconds, 1e-9)
        flops_per_s = FORWARD_AND_BACKWARD * self.flops_per_image * images_per_s
        self.images, self.seconds = 0, 0.0
        return {
            "images_per_s": images_per_s,
            "tflops_per_s": flops_per_s / 1e12,
            "mfu": None if self.peak is None else flops_per_s / self.peak,
        }
