"""A browser for tests: Debian's chromium, driven by playwright; tests that ask for it are skipped without."""

import shutil
from collections.abc import Iterator

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """Path of an installed browser."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """One browser for all tests of a process."""
    driver = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'pardec[dev]'")
    path = chromium()
    if path is None:
        pytest.skip(f"no browser ({', '.join(NAMES)}): apt-get install chromium")
    with driver.sync_playwright() as play:
        running = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()
