"""The worker on the small published networks of a catalogue: arguments CATALOGUE FD PARENT."""

import sys
from pathlib import Path

from harness.sweep.worker import main
from tests.harness.small_catalogue import use_catalogue

if __name__ == "__main__":
    use_catalogue(Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
