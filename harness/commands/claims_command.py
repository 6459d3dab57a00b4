"""pardec claims: which published figures the measured rows reproduce, and which relations of methods hold."""

import argparse
from pathlib import Path

from harness.commands.common import introduce_strategies
from pardec.errors import UserError
from results.store import RESULTS

SUMMARY = (
    "hold every published figure, and what papers claim against their baselines, against the measured rows"
)


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--results",
        type=Path,
        action="append",
        metavar="DIR",
        help=f"folder or file of rows; may be repeated (default: every folder under {RESULTS})",
    )
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="write claims and relations there, as .md and .csv"
    )


def run(options: argparse.Namespace) -> int:
    from reports import claim_tables, relation_tables
    from reports.claims import claims
    from reports.relation_verdicts import held
    from reports.training_noise import TrainingNoise
    from results.store import folders_of_rows, load_rows

    introduce_strategies()
    folders = options.results or folders_of_rows(RESULTS)
    rows = [row for folder in folders for row in load_rows(folder)]
    found, relations = claims(rows), held(rows, TrainingNoise.known(rows))
    relation_tables.print_relations(relations)
    claim_tables.print_claims(found)
    if options.out is None:
        return 0
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        written = {
            "claims.md": claim_tables.to_markdown(found),
            "claims.csv": claim_tables.to_csv(found),
            "relations.md": relation_tables.to_markdown(relations),
            "relations.csv": relation_tables.to_csv(relations),
        }
        for name, text in written.items():
            (options.out / name).write_text(text, encoding="utf-8")
            print(options.out / name)
    except OSError as error:
        raise UserError(f"--out '{options.out}' can't be written: {error.strerror or error}") from None
    return 0
