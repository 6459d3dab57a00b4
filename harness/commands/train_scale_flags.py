"""The flags of ``pardec train --trunk``: training at scale, alone or under torchrun."""

import argparse
from pathlib import Path

from harness.machine.distributed import launch
from pardec.errors import UserError

ONLY_AT_SCALE = (
    "start_from",
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
    add(
        "--start-from",
        type=Path,
        metavar="FILE",
        help="begin with a published network of the strategy, lpd's also of another grid",
    )
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
