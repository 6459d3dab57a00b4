"""pardec train: the tokenizer, the classifiers, or the networks of strategies, into the zoo; or at scale."""

import argparse
from pathlib import Path

from harness.commands.common import add_plugin_flag
from harness.commands.train_scale_flags import add_scale_flags
from pardec.files import spec_of

SUMMARY = "train a strategy's network (or all that is missing) under the common budget"
RUNS = Path("runs/train")


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("what", nargs="?", metavar="WHAT", help="tokenizer, features, judge or a strategy")
    command.add_argument("--strategy", metavar="NAME", help="the same as naming it as WHAT")
    command.add_argument("--all", action="store_true", help="everything")
    command.add_argument(
        "--again",
        action="store_true",
        help="begin anew, and keep the saved run as run-before.pt; with --all: also what is in the zoo",
    )
    command.add_argument("--steps", type=int, help="optimiser steps (default: as the recipe says)")
    command.add_argument("--seed", type=int, help="0, or one more network beside it: zoo/NAME-seed1")
    command.add_argument(
        "--data",
        type=spec_of,
        help="fashion, idx:DIR or imagefolder:PATH (default: fashion); with the first two, "
        "networks are trained from mark to mark",
    )
    command.add_argument(
        "--size",
        choices=("", "small"),
        default="",
        help="small: a network half as deep and wide, zoo/NAME-small (default: the trunk of all)",
    )
    command.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="with fashion: of the strategy, e.g. clusters=4 of ctf, zoo/ctf-clusters4; may be repeated",
    )
    command.add_argument("--most", type=int, metavar="MARK", help="with fashion: no mark beyond this one")
    command.add_argument(
        "--codes",
        type=Path,
        metavar="PATH",
        help="npz of training codes (default: made); with --trunk: folder of pardec encode",
    )
    command.add_argument("--out", type=Path, metavar="DIR", help="zoo folder (default: the package's)")
    command.add_argument(
        "--runs", type=Path, default=RUNS, metavar="DIR", help="states to resume from (default: %(default)s)"
    )
    command.add_argument(
        "--device",
        default="cpu",
        help="cpu, cuda or cuda:N; networks from mark to mark and the multiscale and robust tokenizers have "
        "the CPU alone (default: %(default)s)",
    )
    command.add_argument("--threads", type=int, default=0, help="CPU threads (default: every core)")
    add_plugin_flag(command)
    add_scale_flags(command)


def run(options: argparse.Namespace) -> int:
    from harness.commands.train_run import train

    return train(options)
