"""How long a user waits: the command's first answers (aim: 0.5 s), all metrics of a thousand images (2 s)."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness import quality as q
from tests.harness.quality_standins import of_points

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("arguments", [["--help"], ["list"]], ids=["help", "list"])
def test_first_answers(benchmark, arguments: list[str]) -> None:
    if not benchmark.enabled:
        pytest.skip("measures: run by `make bench`")
    command = [sys.executable, "-m", "harness.cli", *arguments]
    done = benchmark.pedantic(
        lambda: subprocess.run(command, cwd=ROOT, capture_output=True, check=True), rounds=5, warmup_rounds=1
    )
    assert done.stdout


def test_metrics_of_a_thousand_images(benchmark) -> None:
    if not benchmark.enabled:
        pytest.skip("measures: run by `make bench`")
    generator = np.random.default_rng(0)
    fake, real = (of_points(np.maximum(generator.normal(size=(n, 128)), 0)) for n in (1000, 4000))
    found = benchmark.pedantic(lambda: q.quality(fake, real, np.arange(1000) % 10), rounds=3, warmup_rounds=1)
    assert len(found) == 7
