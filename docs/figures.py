"""Writes what README and docs say in figures: from recorded rows, and from what the code declares.

    python docs/figures.py          # writes it
    python docs/figures.py --check  # exits with 1 where a text says something else

A text holds it between ``<!-- made: NAME -->`` and ``<!-- end -->``; NAME is one of ``MAKERS``. Nothing else
in these texts tells what was measured.
"""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from made import code, rows

ROOT = Path(__file__).parents[1]
TEXTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MARKED = re.compile(r"(<!-- made: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

MAKERS: dict[str, Callable[[], str]] = {
    "controlled": rows.controlled,
    "full-size": rows.full_size,
    "training-noise": rows.training_noise,
    "marks": rows.marks,
    "guidance": rows.guidance,
    "steps": rows.steps,
    "relations": rows.relations,
    "learning": rows.learning,
    "robust": rows.robust,
    "windows": rows.windows,
    "curves": rows.curves,
    "contexts": rows.contexts,
    "probes": rows.probes,
    "strategies": code.strategies,
    "titles": code.titles,
    "kinds": code.kinds,
    "traits": code.traits,
    "declarations": code.declarations,
    "checks": code.checks,
    "settings": code.settings,
    "sweeps": code.sweeps,
    "commands": code.commands,
    "networks": code.networks,
    "numbers": code.numbers,
}


def made(text: str) -> str:
    """The text with everything between its marks made anew; KeyError for a mark that nothing makes."""
    return MARKED.sub(lambda found: found[1] + MAKERS[found[2]]() + found[3], text)


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument(
        "--check", action="store_true", help="write nothing, exit with 1 where a text differs"
    )
    check = options.parse_args().check
    stale = []
    for path in TEXTS:
        before = path.read_text(encoding="utf-8")
        after = made(before)
        if after == before:
            continue
        stale.append(path.relative_to(ROOT).as_posix())
        if not check:
            path.write_text(after, encoding="utf-8")
    for name in stale:
        print(f"{name}: {'differs from what is recorded or declared' if check else 'written'}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
