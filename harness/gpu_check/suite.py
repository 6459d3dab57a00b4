"""The checks in order of what they are worth, and their rows and page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from harness.gpu_check.check import Check, Outcome
from harness.gpu_check.decodes import (
    compiled_tokens,
    graphs_of,
    host_waits,
    recorded_tokens,
    tokens_of_cpu,
    whole_decodes,
)
from harness.gpu_check.recordings import replay_on
from harness.gpu_check.speed import PUBLISHED, TIMES_ROOFLINE, Mode, Workbench
from harness.gpu_check.training import training_step
from harness.machine.environment import environment
from pardec.errors import UserError
from pardec.files import write_whole

CORRECT = (
    Check(
        "recordings, float32",
        "the published implementations' logits without TF32, to 1e-4",
        20,
        partial(replay_on, dtype=torch.float32),
    ),
    Check(
        "recordings, bfloat16",
        "the same in bfloat16, to 6 % of the logits' root mean square",
        20,
        partial(replay_on, dtype=torch.bfloat16),
    ),
    Check("tokens of the CPU", "every strategy's float32 tokens are the CPU's", 30, tokens_of_cpu),
    Check("recorded passes", "every strategy's tokens are those of eager passes", 60, recorded_tokens),
    Check(
        "recorded decodes",
        "decodes known beforehand, recorded as one, give the tokens of eager ones",
        40,
        whole_decodes,
    ),
    Check("graphs", "how many recordings serve a decode of 16x16 places of every strategy", 30, graphs_of),
    Check("host waits", "no step waits for the device, unless it decides while decoding", 30, host_waits),
)
MODES: tuple[Mode, ...] = ("one graph", "recorded", "eager", "compiled")
COMPILED = (Check("compiled passes", "tokens are those of eager passes", 120, compiled_tokens),)


@dataclass(frozen=True)
class Size:
    """What is timed on a kind of device. seconds: about what one network takes in a mode."""

    networks: tuple[str, ...]
    aimed: int
    """How many of them, the first, are aimed at a multiple of their roofline."""
    batches: tuple[int, ...]
    seconds: Mapping[Mode, float]
    quick: bool = False


FULL = Size(
    PUBLISHED,
    len(TIMES_ROOFLINE),
    (1, 8, 64),
    {"one graph": 25, "eager": 20, "recorded": 25, "compiled": 100},
)
TINY = Size(
    ("raster", "lpd"), 1, (1, 2), {"one graph": 2, "eager": 2, "recorded": 2, "compiled": 20}, quick=True
)


def checks(device: torch.device) -> tuple[Check, ...]:
    """All, the most telling first: is it right, how near are the aims, then all else; compiling last."""
    size = FULL if device.type == "cuda" else TINY
    bench = Workbench(size.quick)
    first, alone, many = size.networks[: size.aimed], size.batches[0], size.batches[-1]

    def timed(network: str, mode: Mode, batch: int) -> Check:
        return Check(
            f"{network}, {mode}, batch {batch}",
            "images/s and seconds of a batch, against roofline and prediction",
            size.seconds[mode],
            partial(bench.speed, network=network, mode=mode, batch=batch),
        )

    aimed: list[tuple[str, Mode, int]] = [
        (name, mode, alone) for mode in ("one graph", "eager") for name in first
    ]
    left = [
        (name, mode, batch)
        for batch, mode, name in product(size.batches, MODES, size.networks)
        if (name, mode, batch) not in aimed
    ]
    return (
        *CORRECT,
        Check("device card", "what the device streams, multiplies and launches", 15, bench.rates),
        *(timed(*one) for one in aimed),
        Check(
            "memory",
            "bytes of the cache as predicted, the peak nearly",
            30,
            partial(bench.memory, networks=first, batch=size.batches[1]),
        ),
        Check(
            "training step",
            "the loss falls; images/s and the share of the peak",
            30,
            partial(training_step, workbench=bench, network=first[0], batch=many),
        ),
        *(timed(*one) for one in left if one[1] != "compiled"),
        *COMPILED,
        *(timed(*one) for one in left if one[1] == "compiled"),
    )


def machine(device: str) -> dict[str, Any]:
    """The environment of the rows: a card by its name, torch, CUDA and the driver."""
    return {**environment(device), "cuda": torch.version.cuda, "driver": driver()}


def driver(file: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """The NVIDIA driver's own line; None where there is none."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return lines[0].partition(":")[2].strip() if lines else None


def rows(outcomes: Sequence[Outcome], where: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "check": one.name,
            "shows": one.shows,
            "state": one.state,
            "reason": one.reason,
            "seconds": round(one.seconds, 3),
            "figures": dict(one.figures),
            "environment": where,
        }
        for one in outcomes
    ]


def figures_of(outcome: Outcome) -> str:
    """The figures in a few words."""
    return ", ".join(f"{name} {_short(value)}" for name, value in outcome.figures.items())


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "unknown" if value is None else str(value)


def page(outcomes: Sequence[Outcome], where: dict[str, Any]) -> str:
    """What the rows say, as Markdown."""
    card = where["gpu"] or f"no GPU; {where['host_cpu']}"
    lines = [
        f"# GPU check: {card}",
        "",
        f"torch {where['torch']}, CUDA {where['cuda'] or 'none'}, driver {where['driver'] or 'none'}, "
        f"pardec {where['pardec']}, commit {where['git_commit'] or 'unknown'}"
        f"{' with changes' if where['git_dirty'] else ''}",
        "",
        "| check | state | figures and reasons | s |",
        "| --- | --- | --- | ---: |",
    ]
    for one in outcomes:
        said = "; ".join(filter(None, (one.reason, figures_of(one)))).replace("|", "\\|")
        lines.append(f"| {one.name}: {one.shows} | {one.state} | {said} | {one.seconds:.1f} |")
    return "\n".join(lines) + "\n"


def write(outcomes: Sequence[Outcome], where: dict[str, Any], path: Path) -> Path:
    """Rows to ``path`` as JSON Lines, and the page beside it; the page's path."""
    beside = path.with_suffix(".md")
    if beside == path:
        raise UserError(f"--out '{path}': expected the name of a JSON Lines file; the page is put beside it")
    text = "".join(json.dumps(row) + "\n" for row in rows(outcomes, where))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: file.write(text.encode()))
        write_whole(beside, lambda file: file.write(page(outcomes, where).encode()))
    except OSError as error:
        raise UserError(f"--out '{path}' can't be written: {error.strerror}") from None
    return beside
