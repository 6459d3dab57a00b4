"""Options and fixtures that all tests share."""

from pathlib import Path

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--goldens",
        type=Path,
        default=Path(__file__).parent / "goldens",
        help="folder of recordings to replay (default: tests/goldens)",
    )


@pytest.fixture(autouse=True, scope="session")
def two_threads() -> None:
    torch.set_num_threads(min(2, torch.get_num_threads()))
