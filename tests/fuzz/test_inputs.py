"""Whatever a user hands in ends in success or one line: damaged inputs of every kind of file and text."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.mutation import mutated
from tests.fuzz.targets import TARGETS

SLOW = ("report", "row-tables", "inline-cell", "image", "artifacts", "checkpoint")
"""Targets of which the ordinary suite tries fewer inputs."""


@pytest.mark.usefixtures("quick_figures")
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_damaged_inputs_are_refused_in_one_line(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    target = TARGETS[name]
    (tmp_path / "seeds").mkdir()
    seeds = target.seeds(tmp_path / "seeds")
    few = not request.config.getoption("--fuzz-examples") and name in SLOW

    @given(st.sampled_from(seeds), st.randoms(use_true_random=False))
    def check(seed: bytes, random: Random) -> None:
        target.run(mutated(seed, random, target.words), tmp_path)

    if name != "report":  # whole ones are drawn in test_pages.py
        for seed in seeds:
            target.run(seed, tmp_path)
    if few:
        check = settings(max_examples=2 if name == "report" else 8)(check)
    check()
