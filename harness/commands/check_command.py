"""pardec check: a strategy held to the contract, as a score card."""

import argparse
import dataclasses
from pathlib import Path

from harness.cell.inline import Word, options_of, pieces, settings
from harness.commands.common import add_plugin_flag
from pardec.errors import UserError
from pardec.files import path_of
from strategies.decoding import registry

SUMMARY = "hold a strategy to the contract and print its score card"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "strategy",
        nargs="?",
        metavar="NAME|FILE[,OPTION=VALUE...]",
        help="a strategy's name or a plug-in file (.py), and options of it: lpd,order=random; without one, "
        "every strategy, a line each: minutes, for those with drafts decode small worlds thousands of times",
    )
    command.add_argument(
        "--only", action="append", default=[], metavar="CHECK", help="one check; may be repeated"
    )
    add_plugin_flag(command)


def run(options: argparse.Namespace) -> int:
    """0 where nothing failed but what the strategy declares, 1 otherwise."""
    for path in options.plugin:
        registry.add_plugin(path)
    from strategies.decoding.contract import CHECKS, check_strategy

    def holds(text: str, whole: bool) -> bool:
        """Whether it keeps the contract; prints its card, or one line of it, and why what failed did."""
        name, given = _asked(text)
        strategy = registry.get(name, **options_of(name, given, f"check '{text}'"))
        card = check_strategy(strategy, only=options.only)
        named = ",".join([card.strategy, *(f"{key}={word.text}" for key, word in given.items())])
        card = dataclasses.replace(card, strategy=named)
        print("\n".join(card.lines()) if whole else card.total(), flush=True)
        for outcome in card.failures:
            print(f"\n{outcome.check}: {CHECKS[outcome.check].requires}\n  {outcome.reason}")
        return card.passed

    if options.strategy:
        return 0 if holds(options.strategy, whole=True) else 1
    kept = [holds(name, whole=False) for name in registry.loadable()]  # one that fails stops no other
    return 0 if all(kept) else 1


def _asked(text: str) -> tuple[str, dict[str, Word]]:
    """Name and options of ``NAME,OPTION=VALUE`` or ``FILE,OPTION=VALUE``; the file's strategy is loaded."""
    where = f"check '{text}'"
    if Path(text).suffix == ".py":  # a file's name may hold commas
        return registry.add_plugin(path_of(text)), {}
    first, *rest = pieces(text)
    if "=" in first:
        given = settings(text, where)
        if "strategy" not in given:
            raise UserError(f"{where}: no strategy; expected NAME,OPTION=VALUE")
        return given.pop("strategy").text, given
    name = registry.add_plugin(path_of(first)) if Path(first).suffix == ".py" else first
    return name, settings(text[len(first) + 1 :], where) if rest else {}
