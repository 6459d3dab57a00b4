"""``python -m tests.mutants``: a Markdown table of all mutants and every check that kills them."""

import sys

from tests.mutants.catalogue import MUTANTS, killers


def main() -> int:
    survivors = 0
    print("| mutant | what is wrong | killed by |\n|---|---|---|")
    for mutant in MUTANTS:
        found = killers(mutant)
        survivors += not set(mutant.killers) <= set(found)
        print(f"| {mutant.name} | {mutant.wrong} | {', '.join(found) or 'nothing'} |", flush=True)
    print(f"\n{len(MUTANTS)} mutants, {survivors} not killed by the checks named for them")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
