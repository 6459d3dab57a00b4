"""Options and fixtures that all tests share."""

import gc
import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # before any library starts its threads, and for child processes
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--goldens",
        type=Path,
        default=Path(__file__).parent / "goldens",
        help="folder of recordings to replay (default: tests/goldens)",
    )
    parser.addoption(
        "--fuzz-examples",
        type=int,
        default=0,
        metavar="N",
        help="inputs that every test of tests/fuzz tries, new ones each time (default: 25, the same ones)",
    )
    parser.addoption("--kills", type=int, default=50, help="kills of the slow kill test (default: 50)")
    parser.addoption("--kill-seed", type=int, default=0, help="chooses victims and instants (default: 0)")


@pytest.fixture(autouse=True, scope="module")
def no_garbage() -> None:
    """What is there before a module is none: the collection before every timed batch passes over it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def few_threads() -> None:
    """Two threads, or one in each of several test processes: more would wait for each other."""
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, torch.get_num_threads()))


@pytest.fixture(autouse=True)
def same_weights() -> None:
    """Layers take their first weights from the global generator: no test sees what ran before it there."""
    torch.manual_seed(0)
    torch.set_flush_denormal(False)  # training sets it for its whole process, and hypothesis refuses it


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for the recordings: how many were replayed, and the worst difference found."""
    differences = [
        (dict(report.user_properties)["worst_difference"], report.nodeid)
        for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
        if "worst_difference" in dict(report.user_properties)
    ]
    if differences:
        worst, where = max(differences)
        name = where.partition("[")[2][:-1]
        terminalreporter.write_line(
            f"goldens: {len(differences)} replayed, worst difference {worst:.1e} ({name})"
        )
