"""Plans: data that is whole, says who writes what, and carries the guidance clock."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pardec.errors import UserError
from strategies.arpg import ARPG
from strategies.decoding.orders import ruled_orders
from strategies.decoding.plan import Plan, after_step_progress, known_before
from strategies.decoding.streams import Streams
from strategies.halton import Halton
from strategies.lpd import LPD
from strategies.maskgit import MaskGIT
from strategies.par import PAR
from strategies.randar import RandAR


@st.composite
def plans(draw):
    """A plan of any grid, any order (shared or by image), any sizes, any number of given places."""
    grid = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    places = grid[0] * grid[1]
    given_places = draw(st.integers(0, places - 1))
    cuts = (
        sorted(draw(st.sets(st.integers(given_places + 1, places - 1)))) if places > given_places + 1 else []
    )
    borders = [given_places, *cuts, places]
    sizes = tuple(b - a for a, b in pairwise(borders))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    order = rng.permutation(places)
    if draw(st.booleans()):
        order = np.stack([order, rng.permutation(places), rng.permutation(places)])
    return Plan(grid, order, sizes, given_places)


@given(plans())
def test_groups_tile_the_places_and_every_position_has_its_step(plan):
    groups = plan.groups()
    assert len(groups) == plan.steps == len(plan.sizes)
    covered = np.concatenate([np.arange(g.start, g.stop) for g in groups])
    assert covered.tolist() == list(range(plan.given, plan.places))
    steps = plan.step_of_position()
    assert steps.shape == plan.order.shape
    for row, order in zip(np.atleast_2d(steps), np.atleast_2d(plan.order), strict=True):
        assert (row[order[: plan.given]] == -1).all()
        for k, group in enumerate(groups):
            assert (row[order[group]] == k).all()


@pytest.mark.parametrize(
    ("order", "sizes", "given_places", "text"),
    [
        (np.arange(5), (4,), 0, "does not fit a canvas of 4 positions"),
        (np.zeros((1, 1, 4), int), (4,), 0, "does not fit"),
        (np.array([0, 1, 2, 2]), (4,), 0, "not a permutation"),
        (np.array([1, 2, 3, 4]), (4,), 0, "not a permutation"),
        (np.array([[0, 1, 2, 3], [0, 1, 1, 3]]), (4,), 0, "not a permutation"),
        (np.arange(4), (1, 2), 0, "sum to 4, not 3"),
        (np.arange(4), (4, 0), 0, "must be positive"),
        (np.arange(4), (5, -1), 0, "must be positive"),
        (np.arange(4), (4,), 1, "sum to 3, not 4"),
    ],
)
def test_what_is_not_whole_is_refused(order, sizes, given_places, text):
    with pytest.raises(ValueError, match=text):
        Plan((2, 2), order, sizes, given_places)


def test_plans_are_frozen_and_clocks_have_defaults():
    plan = Plan((2, 2), np.arange(4), (1, 3))
    assert plan.progress.tolist() == [0.0, 0.25, 0.5, 0.75]
    assert plan.count.tolist() == [0, 0, 1, 2]
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.sizes = (4,)


def test_after_step_progress():
    assert after_step_progress((1, 3, 4)).tolist() == [0.125, 0.5, 0.5, 0.5, 1, 1, 1, 1]
    assert after_step_progress((2, 2), given=1).tolist() == [0, 0.5, 0.5, 1, 1]
    assert after_step_progress((), given=3).tolist() == [0, 0, 0]


@given(st.integers(0, 2**40), st.sets(st.integers(0, 11), max_size=12))
def test_random_orders_put_the_known_first_and_belong_to_images(seed, known):
    known = np.array(sorted(known, reverse=True), dtype=np.int64)
    orders = known_before(ruled_orders("random", (3, 4), Streams(seed, (0, 1, 2))), known)
    assert orders.shape == (3, 12)
    assert (orders[:, : len(known)] == known).all()
    assert (np.sort(orders, axis=1) == np.arange(12)).all()
    alone = known_before(ruled_orders("random", (3, 4), Streams(seed, (2,))), known)
    assert np.array_equal(alone[0], orders[2])


def test_random_orders_are_uniform():
    orders = ruled_orders("random", (2, 2), Streams(0, tuple(range(4800))))
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24
    chi_square = ((counts - 200) ** 2 / 200).sum()
    assert chi_square < 49.7  # 0.999 quantile of 23 degrees of freedom


@pytest.mark.parametrize("strategy", [ARPG(), LPD(), LPD(order="random")])
def test_explicit_sizes_and_known_cells(strategy):
    streams, known = Streams(3, (0, 1)), np.array([5, 2])
    plan = strategy.plan((4, 4), None, streams, known=known, sizes=(4, 4, 6))
    assert (plan.order[:, :2] == known).all()
    assert plan.sizes == (4, 4, 6)
    everything = strategy.plan((4, 4), 3, streams, known=np.arange(16))
    assert everything.sizes == ()
    assert everything.steps == 0
    few = strategy.plan((4, 4), 16, streams, known=np.arange(13))
    assert few.sizes == (1, 1, 1), "steps are cut to the unknown places"


@pytest.mark.parametrize("known", [[0, 0, 1], [0, 16], [-1, 2]])
@pytest.mark.parametrize("strategy", [ARPG(), LPD(), RandAR(), MaskGIT(), Halton()])
def test_known_cells_are_different_ones_of_the_grid(strategy, known):
    with pytest.raises(UserError, match="expected different ones from 0 to 15") as caught:
        strategy.plan((4, 4), 4, Streams(0, (0,)), known=np.array(known))
    assert str(known) in str(caught.value)


def test_a_fixed_order_takes_no_known_cells():
    with pytest.raises(UserError, match="'par' has a fixed order"):
        PAR().plan((4, 4), None, Streams(0, (0,)), known=np.array([1]))
