"""Starts the worker of a cell with the modules that are ours: ``python -P start_worker.py FD PARENT``.

A worker runs in the folder in which the sweep was started. Nothing is imported from there, whatever lies in
it under the name of a module (``-P``, and no empty entry in ``PYTHONPATH``); and the folder that holds our
own rooms, which may be a checkout that someone works in, stands behind the library of Python.
"""

import os
import sys
from collections.abc import Sequence


def settled(path: Sequence[str], ours: str) -> list[str]:
    """``sys.path`` with ``ours`` behind Python's own library and before what is installed."""
    others = [place for place in path if place and os.path.realpath(place) != os.path.realpath(ours)]
    installed = ("site-packages", "dist-packages")
    at = (number for number, place in enumerate(others) if os.path.basename(place) in installed)
    place = next(at, len(others))
    return [*others[:place], ours, *others[place:]]


if __name__ == "__main__":
    sys.path[:] = settled(
        sys.path, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    )
    from harness.sweep.worker import main

    sys.exit(main(sys.argv[1:]))
