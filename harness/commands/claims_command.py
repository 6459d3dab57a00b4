"""pardec claims: which published figures the measured rows reproduce."""

import argparse
from pathlib import Path

from harness.commands.common import introduce_strategies
from pardec.errors import UserError
from results.store import RESULTS

SUMMARY = "hold every published figure against the measured rows"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--results",
        type=Path,
        action="append",
        metavar="DIR",
        help=f"folder or file of rows; may be repeated (default: every folder under {RESULTS})",
    )
    command.add_argument("--out", type=Path, metavar="DIR", help="write claims.md and claims.csv there")


def run(options: argparse.Namespace) -> int:
    from reports.claim_tables import print_claims, to_csv, to_markdown
    from reports.claims import claims
    from results.store import load_rows

    introduce_strategies()
    folders = options.results or sorted({path.parent for path in RESULTS.glob("*/*.jsonl")})
    found = claims([row for folder in folders for row in load_rows(folder)])
    print_claims(found)
    if options.out is None:
        return 0
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        for name, text in (("claims.md", to_markdown(found)), ("claims.csv", to_csv(found))):
            (options.out / name).write_text(text, encoding="utf-8")
            print(options.out / name)
    except OSError as error:
        raise UserError(f"--out '{options.out}' can't be written: {error.strerror or error}") from None
    return 0
