"""A sweep on small networks: arguments CATALOGUE FILE RESULTS [ZOO]; its exit status is the sweep's."""

import sys
from pathlib import Path

from harness.sweep.sweep import run_sweep, sweep_cells
from tests.harness.small_catalogue import use_catalogue


def main(catalogue: str, file: str, results: str, zoo: str | None = None) -> int:
    use_catalogue(Path(catalogue))
    sweep = sweep_cells(file, overrides={} if zoo is None else {"zoo": zoo})
    command = (sys.executable, "-m", "tests.harness.small_worker", catalogue)
    return run_sweep(sweep, Path(results), command).exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
