"""Lossless methods are found exact, by every branch and by samples; lossy ones are not."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from strategies.decoding.contract import judge
from strategies.decoding.contract import lossless as contract
from strategies.decoding.contract.branching import Branches, Number
from strategies.decoding.contract.card import CHECKS
from strategies.decoding.contract.recording import subject
from strategies.decoding.contract.requirements import Broken
from strategies.decoding.contract.worlds import owner_of, world
from strategies.jacobi import Jacobi
from strategies.raster import Raster
from strategies.sjd import SJD
from tests.mutants.speculation import AdvancesByTheSlowestWithOldLaws, KeepsAStaleLaw
from tests.strategies.kinds import ByEquality, ByTest, Staggered


def branches_of(kind, grid, codes):
    small = world(subject(kind), grid, codes)
    tokens, steps, masses = contract.branches_of(small)
    index = (tokens * small.powers).sum(dim=1)
    joint = torch.zeros(codes**small.plan.places, dtype=torch.float64).index_add_(0, index, masses)
    return small, joint, steps, masses


@pytest.mark.parametrize("kind", [ByEquality(), ByTest(), ByEquality(2), ByTest(4)])
def test_the_branches_of_a_lossless_method_sum_to_the_joint(kind):
    small, joint, steps, masses = branches_of(kind, (1, 4), 2)
    assert float(masses.sum()) == pytest.approx(1, abs=1e-6)  # of float32 probabilities
    assert float((joint - small.joint(small.sampler((0,)))).abs().max()) < 1e-6
    mean = float((steps * masses).sum())
    assert 1 < mean < 4, "drafts are kept and rejected"


def test_the_branches_of_one_token_at_a_time_are_the_images():
    small, joint, steps, masses = branches_of(ByTest(1), (1, 4), 2)
    assert len(masses) == 16
    assert (steps == 4).all()
    assert float((joint - small.joint(small.sampler((0,)))).abs().max()) < 1e-7


@pytest.mark.parametrize(("grid", "codes", "found"), [((1, 5), 2, True), ((1, 2), 2, False)])
def test_a_stale_distribution_needs_a_world_in_which_drafts_grow_old(grid, codes, found):
    small, joint, _, _ = branches_of(KeepsAStaleLaw(), grid, codes)
    distance = float((joint - small.joint(small.sampler((0,)))).abs().sum()) / 2
    assert (distance > 1e-2) == found
    assert found or distance < 1e-6


def test_the_judge_is_who_trained_the_network():
    assert owner_of(Staggered()) == Raster()
    assert owner_of(Raster()) == Raster()


def test_a_method_that_keeps_every_draft_or_none_is_not_tried():
    outcome = judge(CHECKS["lossless"], ByTest(1))
    assert outcome.status == "fail"
    assert "no draft is ever kept" in outcome.reason


@dataclass(frozen=True)
class Rounds(ByTest):
    decides_steps: ClassVar[bool] = True
    lossless: ClassVar[bool] = True

    def test(self, number, drafts, q, p):
        return number.round() < 1


def test_numbers_that_are_used_otherwise_have_a_remedy():
    outcome = judge(CHECKS["lossless"], Rounds())
    assert outcome.status == "fail"
    assert not outcome.crashed
    assert "used in 'round', whose outcomes can't be enumerated; those of u < p, u * q < p" in outcome.reason


# Numbers that are never drawn -------------------------------------------------------------------------------


def outcomes(use):
    """Every value of ``use`` of one number, and its probability."""
    waiting, found = [torch.full((1, 8), -1)], {}
    while waiting:
        branches = Branches(waiting.pop())
        value = use(Number.fresh(branches, torch.ones(len(branches.path), 1, dtype=torch.bool)))
        for one, mass in zip(value.flatten().tolist(), branches.mass.tolist(), strict=True):
            found[one] = found.get(one, 0) + mass
        waiting += [scripts for scripts in branches.later() if len(scripts)]
    return found


def test_comparisons_branch_by_their_probability():
    third = torch.tensor([[0.3]], dtype=torch.float64)
    for use in (
        lambda u: u < third,
        lambda u: third > u,
        lambda u: u * torch.tensor([[2.0]]) < 2 * third,
        lambda u: ~(u >= third),
        lambda u: torch.lt(u, third),
        lambda u: u[:, :1] <= third,
    ):
        assert outcomes(use) == pytest.approx({True: 0.3, False: 0.7})
    assert outcomes(lambda u: u < third * 9) == {True: 1.0}
    assert outcomes(lambda u: u * 0.0 < 0 * third) == {False: 1.0}


def test_codes_are_even():
    assert outcomes(lambda u: (u * 5).long()) == pytest.approx(dict.fromkeys(range(5), 0.2))


def test_a_number_stays_what_it_was_found_to_be():
    half, third = (torch.tensor([[p]], dtype=torch.float64) for p in (1 / 2, 1 / 3))
    assert outcomes(lambda u: (u < half) & ~(u < third)) == pytest.approx({True: 1 / 6, False: 5 / 6})
    assert outcomes(lambda u: (u < third) & ~(u < half)) == {False: 1.0}


def test_what_cannot_be_enumerated_is_broken():
    number = Number.fresh(Branches(torch.full((1, 4), -1)), torch.ones(1, 1, dtype=torch.bool))
    for use in (lambda: number.log(), lambda: torch.exp(number), lambda: torch.tensor([1.0]) + number):
        with pytest.raises(Broken, match="can't be enumerated"):
            use()


# Samples ----------------------------------------------------------------------------------------------------


def test_the_quantile_of_chi_square():
    expected = torch.full((64,), 32.0, dtype=torch.float64)
    statistic, threshold = contract.chi_square(expected, expected)
    assert statistic == 0
    assert threshold == pytest.approx(131.4, abs=0.5)  # of 63 degrees of freedom at one in a million
    rare = torch.tensor([100.0, 1.0, 1.0, 1.0, 3.0], dtype=torch.float64)
    assert contract.chi_square(rare + 1, rare)[0] == pytest.approx(1 / 100 + 16 / 6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ByTest(), SJD(window=3), Jacobi(), Jacobi(init="repeat_horizon")])
def test_the_branches_of_two_rows(kind):
    small, joint, _, masses = branches_of(kind, (2, 3), 2)
    assert float(masses.sum()) == pytest.approx(1, abs=1e-4)
    assert float((joint - small.joint(small.sampler((0,)))).abs().max()) < 2 - 2 * float(masses.sum()) + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "images", "batch", "exact"),
    [
        (ByTest(), 150_000, 1000, True),
        (ByEquality(), 150_000, 1000, True),
        (SJD(), 150_000, 1000, True),
        (Jacobi(), 150_000, 1000, True),
        (ByTest(), 12_000, 4, True),
        (SJD(), 12_000, 4, True),
        (AdvancesByTheSlowestWithOldLaws(), 12_000, 4, False),
    ],
)
def test_many_images(kind, images, batch, exact):
    """In batches of as many paces as there are; a lossless method fails once in a million."""
    small = world(subject(kind), (2, 3))
    statistic, threshold, paces = contract.sampled(small, images, batch)
    assert paces > 2
    assert (statistic < threshold) == exact
