"""pardec lossiness: what decoding in groups loses, exactly on tiny worlds, estimated on trained networks."""

import argparse

from harness.commands.common import add_machine_flags

SUMMARY = "bits that parallel decoding loses against one token at a time"

DESCRIPTION = (
    SUMMARY + ". Without arguments: every strategy on tiny random networks, all of whose images are "
    "enumerated, so the figures are exact. That takes minutes, nearly all for the speculative strategies: "
    "one takes up to two, any other some seconds; --strategies names those to enumerate. With CELL: an "
    "estimate from images that a stored network draws. A flag of the other kind is refused"
)


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.description = DESCRIPTION
    command.add_argument(
        "cell",
        metavar="CELL",
        nargs="?",
        help="a stored network, as for explain: strategy=lpd,steps=10,guidance=2; without it, tiny random "
        "networks",
    )
    command.add_argument("--strategies", nargs="+", metavar="NAME", help="enumerated ones (default: all)")
    command.add_argument(
        "--orders",
        nargs="*",
        metavar="RULE",
        help="random, raster, halton, s-curve, hilbert, spiral, subsample, locality (default: all that fit)",
    )
    command.add_argument("--grid", nargs="+", metavar="HxW", help="enumerated grids (default: 2x2 2x3)")
    command.add_argument("--codes", type=int, help="codes of the enumerated worlds (default: 3)")
    command.add_argument(
        "--steps", type=int, help="decoding steps (default: about half the places, or as CELL says)"
    )
    command.add_argument(
        "--guidance", type=float, help="scale of the guided lines (default: 2), or of CELL (default: its own)"
    )
    command.add_argument("--networks", type=int, help="random networks and orders averaged over (default: 5)")
    command.add_argument("--images", type=int, help="images of a stored network (default: 200)")
    add_machine_flags(command)


def run(options: argparse.Namespace) -> int:
    from harness.commands.lossiness_run import lossiness

    return lossiness(options)
