"""pardec check: a strategy held to the contract, as a score card."""

import argparse

from harness.commands.common import add_plugin_flag
from strategies.decoding import registry

SUMMARY = "hold a strategy to the contract and print its score card"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("strategy", metavar="NAME|FILE", help="a strategy's name, or a plug-in file (.py)")
    command.add_argument(
        "--only", action="append", default=[], metavar="CHECK", help="one check; may be repeated"
    )
    add_plugin_flag(command)


def run(options: argparse.Namespace) -> int:
    """0 where nothing failed but what the strategy declares, 1 otherwise."""
    for path in options.plugin:
        registry.add_plugin(path)
    from strategies.decoding.contract import CHECKS, check_strategy

    card = check_strategy(options.strategy, only=options.only)
    print("\n".join(card.lines()))
    for outcome in card.failures:
        print(f"\n{outcome.check}: {CHECKS[outcome.check].requires}\n  {outcome.reason}")
    return 0 if card.passed else 1
