"""Training at scale as the flags ask for it: one job in each process that torchrun starts, or in one."""

import argparse
import math
from typing import Any

import torch

from harness.cell.cell import checked
from harness.machine.distributed import launch, local_device, processes
from harness.machine.environment import usable_cores
from harness.subject.prepare import check_device
from harness.train.at_scale import Job, train_at_scale
from pardec.errors import UserError, unknown
from strategies.decoding import registry

PRECISIONS = ("bfloat16", "float32")
LEAST = {
    "batch": 1,
    "accumulation": 1,
    "steps": 1,
    "seed": 0,
    "threads": 0,
    "validate_every": 1,
    "log_every": 1,
    "save_every": 0,
}
NOT_AT_SCALE = ("data", "size", "most", "option")


def run_at_scale(options: argparse.Namespace) -> int:
    name = _checked(options)
    device = local_device(options.device)
    check_device(device, "float32")
    torch.set_num_threads(options.threads or max(1, usable_cores() // launch().local_size))
    folder = options.runs / f"{name}-{options.trunk}"
    settings: dict[str, Any] = {
        field: getattr(options, key)
        for key, field in {
            "recipe": "recipe",
            "steps": "steps",
            "batch": "batch",
            "rate": "rate",
            "seed": "seed",
            "average": "averaging",
            "precision": "precision",
            "validate_every": "validate_every",
            "log_every": "log_every",
            "save_every": "save_every_s",
            "accumulation": "accumulation",
            "peak_tflops": "peak_tflops",
        }.items()
        if getattr(options, key) is not None
    }
    job = Job(
        name,
        options.trunk,
        options.codes,
        options.validation,
        folder,
        start=options.start_from,
        dropout=not options.no_dropout,
        compiled=bool(options.compile),
        device=device,
        **settings,
    )
    with processes(device) as group:
        path = train_at_scale(job, options.out or folder, group)
    if path is not None:
        print(f"{name}: {path}")
    return 0


def _checked(options: argparse.Namespace) -> str:
    """The strategy's name, once the flags go together."""
    asked = [name for name in (options.what, options.strategy) if name is not None]
    if len(asked) != 1 or options.all or options.again:
        raise UserError(f"--trunk trains one strategy, named once: {', '.join(registry.names())}")
    if asked[0] not in registry.names():
        raise unknown("strategy", asked[0], registry.names())
    for key in NOT_AT_SCALE:
        if getattr(options, key):
            raise UserError(f"--{key}: --trunk takes none; it trains on --codes, by --steps and --recipe")
    if options.codes is None:
        raise UserError("--trunk needs --codes DIR, made by pardec encode")
    for key, least in LEAST.items():
        value = getattr(options, key)
        if value is not None and not value >= least:
            raise UserError(f"--{key.replace('_', '-')} {value}: expected at least {least}")
    for key in ("rate", "peak_tflops"):
        value = getattr(options, key)
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"--{key.replace('_', '-')} {value}: expected a number above 0")
    checked("threads", options.threads, "--threads")
    if options.average is not None and not 0 <= options.average < 1:
        raise UserError(f"--average {options.average}: expected a decay from 0 to below 1")
    if options.precision not in (None, *PRECISIONS):
        raise unknown("precision", options.precision, PRECISIONS)
    return asked[0]
