"""The contract finds what it should: every mutant is killed by its named checks, its original by none."""

from functools import cache

import pytest

from strategies.decoding.contract import CHECKS, judge
from tests.mutants.catalogue import MUTANTS, killers, verdict

MANY_BRANCHES = ("KeepsTheLawOfAKeptDraft", "AdvancesByTheSlowestWithOldLaws")
"""Enumerating their originals takes seconds, and others die of the same checks."""
PAIRS = [
    pytest.param(
        mutant,
        check,
        id=f"{mutant.name}-{check}",
        marks=[pytest.mark.slow] if mutant.name in MANY_BRANCHES else [],
    )
    for mutant in MUTANTS
    for check in mutant.killers
]


@cache
def verdict_on_original(original, check):
    return judge(CHECKS[check], original)


@pytest.mark.parametrize(("mutant", "check"), PAIRS)
def test_a_named_check_kills_the_mutant_and_passes_its_original(mutant, check):
    found = verdict(mutant, check)
    assert found.status == "fail"
    assert not found.crashed, found.reason
    if check == mutant.killers[0]:
        assert mutant.says in found.reason
    original = verdict_on_original(mutant.original, check)
    assert original.status in ("pass", "not applicable"), original.reason


def test_every_check_kills_a_mutant():
    named = {check for mutant in MUTANTS for check in mutant.killers}
    assert len(MUTANTS) >= 60
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert set(CHECKS) - named == {
        "expected_failures_are_declared",  # tested in test_score_card.py
        "needs_a_null_class_for_guidance",  # refused by the loop, whatever a strategy does
    }


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_whole_card_kills_the_mutant_by_name(mutant):
    assert set(mutant.killers) <= set(killers(mutant))
