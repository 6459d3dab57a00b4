"""The flags of ``pardec train --trunk``: training at scale, alone or under torchrun."""

import argparse
from pathlib import Path
from typing import Any

from harness.cell.cell import checked
from harness.machine.distributed import launch, local_device, processes
from harness.machine.environment import usable_cores
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
    "rate": 0,
    "peak_tflops": 0,
}
ONLY_AT_SCALE = (
    "validation",
    "recipe",
    "batch",
    "accumulation",
    "rate",
    "average",
    "precision",
    "no_dropout",
    "compile",
    "validate_every",
    "log_every",
    "save_every",
    "peak_tflops",
)


def add_scale_flags(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("at scale, under torchrun or alone")
    add = group.add_argument
    add("--trunk", metavar="NAME", help="a published network's trunk, e.g. llamagen-b, or controlled")
    add("--validation", type=Path, metavar="DIR", help="codes to validate on (default: none)")
    add("--recipe", metavar="NAME", help="common, paper, or a strategy's (default: common)")
    add(
        "--batch",
        type=int,
        help="images of a step over all processes; scales the rate (default: the recipe's)",
    )
    add("--accumulation", type=int, metavar="N", help="micro-batches of a process and step (default: 1)")
    add("--rate", type=float, help="another learning rate than the recipe's")
    add("--average", type=float, metavar="DECAY", help="keep a moving average, e.g. 0.9999 (default: none)")
    add("--precision", metavar="NAME", help="bfloat16 (autocast) or float32 (default: bfloat16)")
    add("--no-dropout", action="store_true", default=None, help="without the trunk's dropout")
    add("--compile", action="store_true", default=None, help="compile the loss")
    add("--validate-every", type=int, metavar="STEPS", help="default: once an epoch")
    add("--log-every", type=int, metavar="STEPS", help="default: 100")
    add("--save-every", type=float, metavar="SECONDS", help="default: 600")
    add("--peak-tflops", type=float, metavar="X", help="of one device, for the log's MFU")


def refuse_scale_flags(options: argparse.Namespace) -> None:
    """UserError for what only training at scale has: its flags, and several processes."""
    for key in ONLY_AT_SCALE:
        if getattr(options, key) is not None:
            raise UserError(f"--{key.replace('_', '-')} needs --trunk NAME and --codes DIR")
    if launch().size > 1:
        raise UserError("train under torchrun needs --trunk NAME and --codes DIR")


def run_at_scale(options: argparse.Namespace) -> int:
    name = _checked(options)
    import torch

    from harness.subject.prepare import check_device
    from harness.train.at_scale import Job, train_at_scale

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
    if options.codes is None:
        raise UserError("--trunk needs --codes DIR, made by pardec encode")
    for key, least in LEAST.items():
        value = getattr(options, key)
        if value is not None and not value >= least:
            raise UserError(f"--{key.replace('_', '-')} {value}: expected at least {least}")
    checked("threads", options.threads, "--threads")
    if options.average is not None and not 0 <= options.average < 1:
        raise UserError(f"--average {options.average}: expected a decay from 0 to below 1")
    if options.precision not in (None, *PRECISIONS):
        raise unknown("precision", options.precision, PRECISIONS)
    return asked[0]
