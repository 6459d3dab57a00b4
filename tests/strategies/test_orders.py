"""Orders: recordings, the locality rule's own properties and its plain-loop oracle."""

from fractions import Fraction
from math import floor
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_locality import naive_locality_order, violations

from pardec.errors import UserError
from strategies.decoding import registry
from strategies.decoding.contract import check_strategy
from strategies.decoding.orders import (
    RULES,
    LocalityDraws,
    OrderRule,
    halton,
    hilbert,
    locality_orders,
    raster,
    region_order,
    ruled_orders,
    s_curve,
    spiral,
    subsample,
)
from strategies.decoding.schedules import lpd_sizes
from strategies.decoding.streams import Streams


def fresh(side, sizes, images=range(4), seed=0):
    return LocalityDraws.from_streams(Streams(seed, tuple(images)), side * side, len(sizes))


def test_raster_counts_row_by_row():
    assert raster((3, 4)).tolist() == list(range(12))
    assert raster((3, 4)).dtype == np.int64


RECTANGLES = st.tuples(st.integers(1, 33), st.integers(1, 33))


@pytest.mark.parametrize("rule", RULES)
@given(grid=RECTANGLES)
def test_rules_visit_every_cell_of_any_rectangle_once(rule, grid):
    order = RULES[rule](grid)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(grid[0] * grid[1]))


@pytest.mark.parametrize("rule", ["s-curve", "hilbert", "spiral"])
@given(grid=RECTANGLES)
def test_curves_go_from_neighbour_to_neighbour(rule, grid):
    row, column = np.divmod(RULES[rule](grid), grid[1])
    assert (np.abs(np.diff(row)) + np.abs(np.diff(column)) == 1).all()


@pytest.mark.parametrize("rule", RULES)
def test_rules_refuse_a_grid_without_positions(rule):
    with pytest.raises(ValueError, match="no positions"):
        RULES[rule]((0, 3))


def naive_halton(height, width, points):
    """Points of exact fractions, one after the other."""

    def inverse(number, base):
        value, share = Fraction(0), Fraction(1, base)
        while number:
            number, digit = divmod(number, base)
            value, share = value + digit * share, share / base
        return value

    seen = dict.fromkeys(
        floor(height * inverse(i, 2)) * width + floor(width * inverse(i, 3)) for i in range(1, points + 1)
    )
    return list(seen)


@pytest.mark.parametrize(("grid", "points"), [((4, 4), 25), ((16, 16), 685), ((6, 11), 400)])
def test_halton_points_fall_into_cells_exactly(grid, points):
    order = naive_halton(*grid, points)
    assert len(order) == grid[0] * grid[1]
    assert halton(grid).tolist() == order


def test_s_curve_turns_at_the_ends_of_rows():
    assert s_curve((3, 3)).tolist() == [0, 1, 2, 5, 4, 3, 6, 7, 8]


def test_hilbert_is_the_classical_curve_where_there_is_one():
    assert hilbert((4, 4)).tolist() == [0, 1, 5, 4, 8, 12, 13, 9, 10, 14, 15, 11, 7, 6, 2, 3]


@given(st.integers(1, 5), st.data())
def test_hilbert_fills_every_quarter_before_the_next(power, data):
    side = 2**power
    row, column = np.divmod(hilbert((side, side)), side)
    block = 2 ** data.draw(st.integers(0, power))
    cells = (row // block * side + column // block).reshape(-1, block * block)
    assert (cells == cells[:, :1]).all()


@given(st.tuples(st.integers(1, 33), st.integers(1, 33)).filter(lambda grid: max(grid) <= 3 * min(grid)))
def test_hilbert_stays_close_to_where_it_was(grid):
    row, column = np.divmod(hilbert(grid), grid[1])
    for apart in (4, 16, 64):
        far = np.maximum(np.abs(row[apart:] - row[:-apart]), np.abs(column[apart:] - column[:-apart]))
        assert far.size == 0 or far.max() <= 2.5 * apart**0.5


@given(RECTANGLES)
def test_a_spiral_grows_from_the_centre(grid):
    row, column = np.divmod(spiral(grid), grid[1])
    rings = np.minimum(np.minimum(row, grid[0] - 1 - row), np.minimum(column, grid[1] - 1 - column))
    assert (np.diff(rings) <= 0).all()
    assert row[-1] == column[-1] == 0


@given(RECTANGLES, st.integers(0, 3))
def test_subsampling_completes_ever_finer_grids(grid, power):
    stride = 2**power
    row, column = np.divmod(subsample(grid, stride), grid[1])
    for finer in (2**left for left in range(power, -1, -1)):
        on_grid = (row % finer == 0) & (column % finer == 0)
        assert on_grid[: on_grid.sum()].all()
    first = (row % stride == 0) & (column % stride == 0)
    offsets = (row % stride * stride + column % stride)[~first]
    assert (np.diff(offsets) != 0).sum() + 1 == len(np.unique(offsets)) or not len(offsets)


def test_ruled_orders_are_per_image_only_where_random():
    streams = Streams(0, (0, 1))
    for rule in get_args(OrderRule):
        orders = ruled_orders(rule, (3, 4), streams)
        assert orders.shape == (2 if rule == "random" else 1, 12)
    assert set(get_args(OrderRule)) == {"random", *RULES}
    ruled_orders("raster", (3, 4), streams)[0, 0] = 5
    assert ruled_orders("raster", (3, 4), streams)[0, 0] == 0


ANY_ORDER = [(name, rule) for name in ("arpg", "lpd", "randar", "halton") for rule in get_args(OrderRule)]
ABOUT_ORDERS = ("plans_are_valid", "every_position_once", "given_tokens", "batch_equals_singles")


@pytest.mark.parametrize(("name", "rule"), ANY_ORDER)
def test_networks_of_any_order_decode_by_every_rule(name, rule):
    strategy = registry.get(name, order=rule)
    if rule == "spiral":  # a rule is data; all of them are in the slow set
        card = check_strategy(strategy, only=ABOUT_ORDERS)
        assert card.passed, card.failures
    streams = Streams(3, (0, 1))
    plan = strategy.plan((3, 5), 6, streams)
    assert np.array_equal(plan.order, ruled_orders(rule, (3, 5), streams))
    known = np.array([7, 2])
    order = strategy.plan((3, 5), 6, streams, known).order
    assert set(order[0, :2]) == {7, 2}
    rest = plan.order[0]
    assert order[0, 2:].tolist() == [p for p in rest.tolist() if p not in known]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rule"), ANY_ORDER)
def test_the_whole_contract_holds_by_every_rule(name, rule):
    card = check_strategy(registry.get(name, order=rule))
    assert card.passed, card.failures


@pytest.mark.parametrize("name", ["arpg", "lpd", "randar"])
def test_an_unknown_rule_is_named(name):
    with pytest.raises(UserError, match="did you mean 'hilbert'"):
        registry.get(name, order="hilbet")


@given(st.integers(2, 5), st.integers(1, 4), st.integers(1, 4))
def test_region_order_visits_every_region_in_turn(side, high, wide):
    height, width = side * high, side * wide
    order = region_order((height, width), side * side)
    assert sorted(order.tolist()) == list(range(height * width))
    row, column = np.divmod(order.reshape(high * wide, side * side), width)  # [local places, regions]
    assert (row // high * side + column // wide == np.arange(side * side)).all()
    local = row % high * wide + column % wide
    assert (local == np.arange(high * wide)[:, None]).all()


@pytest.mark.parametrize(
    ("grid", "regions", "text"),
    [
        ((16, 16), 8, "perfect square"),
        ((16, 16), 1, "perfect square"),
        ((16, 16), -4, "perfect square"),
        ((16, 16), 9, "doesn't divide into 3 x 3"),
        ((16, 15), 4, "doesn't divide into 2 x 2"),
    ],
)
def test_impossible_regions_say_why(grid, regions, text):
    with pytest.raises(ValueError, match=text):
        region_order(grid, regions)


def test_an_empty_grid_has_no_order():
    with pytest.raises(ValueError, match="no positions"):
        raster((0, 4))


def test_from_the_centre_of_a_5x5_grid_the_sets_are_forced():
    sizes = (1, 4, 4, 4, 8, 4)
    ties = fresh(5, sizes, range(32)).tie_rank
    orders = locality_orders(5, sizes, 1.0, 0.0, LocalityDraws(np.full(32, 12), ties))
    expected = [
        {12},
        {7, 11, 13, 17},
        {6, 8, 16, 18},
        {2, 10, 14, 22},
        {1, 3, 5, 9, 15, 19, 21, 23},
        {0, 4, 20, 24},
    ]
    for order in orders:
        assert [set(group.tolist()) for group in np.split(order, np.cumsum(sizes)[:-1])] == expected
    assert len(np.unique(orders, axis=0)) > 1


@st.composite
def settings_of_orders(draw):
    """(side, sizes, proximity, repulsion, known) with every kind of group."""
    side = draw(st.integers(1, 8))
    total = side * side
    known = draw(st.lists(st.integers(0, total - 1), max_size=total // 2, unique=True))
    left = total - len(known)
    sizes = []
    while left:
        sizes.append(1 if not known and not sizes else draw(st.integers(1, max(1, min(left, 20)))))
        left -= sizes[-1]
    proximity = draw(st.sampled_from([-1.0, 0.0, 0.5, 0.5**0.5, 1.0, 2**0.5, 1.5, 2.0, 3.5, float("inf")]))
    repulsion = draw(st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 10.0, float("inf")]))
    return side, tuple(sizes), proximity, repulsion, known


@settings(max_examples=150, deadline=None)
@given(settings_of_orders(), st.integers(0, 1000))
def test_fresh_orders_obey_the_rule_and_equal_the_plain_loops(setting, seed):
    side, sizes, proximity, repulsion, known = setting
    draws = fresh(side, sizes, range(3), seed)
    orders = locality_orders(side, sizes, proximity, repulsion, draws, known=np.array(known, dtype=int))
    assert orders.dtype == np.int64
    ties = np.stack([draws.ties(step) for step in range(len(sizes))], axis=1)  # [B, K, N]
    for row, order in enumerate(orders.tolist()):
        assert list(violations(order, side, sizes, proximity, repulsion, known)) == []
        assert order == naive_locality_order(
            side, sizes, proximity, repulsion, int(draws.first[row]), ties[row], known=known
        )


@settings(max_examples=40, deadline=None)
@given(settings_of_orders(), st.integers(0, 1000))
def test_coarse_ties_equal_the_plain_loops(setting, seed):
    """Few distinct tie ranks: what they leave open goes by raster position in both."""
    side, sizes, proximity, repulsion, known = setting
    generator = np.random.default_rng(seed)
    ties = generator.integers(0, 3, (2, len(sizes), side * side))
    first = generator.integers(0, side * side, 2)
    orders = locality_orders(
        side, sizes, proximity, repulsion, LocalityDraws(first, ties), known=np.array(known, dtype=int)
    )
    for row, order in enumerate(orders.tolist()):
        assert order == naive_locality_order(
            side, sizes, proximity, repulsion, int(first[row]), ties[row], known=known
        )


@pytest.mark.parametrize(("side", "steps", "repulsion"), [(16, 20, 2), (16, 8, 3), (16, 32, 2.5), (8, 10, 2)])
def test_published_settings_obey_the_rule(side, steps, repulsion):
    sizes = lpd_sizes(side * side, steps)
    for order in locality_orders(side, sizes, 1.0, repulsion, fresh(side, sizes, range(3))):
        assert list(violations(order, side, sizes, 1.0, repulsion)) == []


def test_the_checker_rejects_what_is_no_locality_order():
    side, sizes = 8, lpd_sizes(64, 10)
    order = locality_orders(side, sizes, 1.0, 2.0, fresh(side, sizes, range(1)))[0]
    assert list(violations(order, side, sizes, 1.0, 2.0)) == []
    generator = np.random.default_rng(0)
    for _ in range(20):
        assert list(violations(generator.permutation(64), side, sizes, 1.0, 2.0))
    swapped = order.copy()
    swapped[[1, -1]] = swapped[[-1, 1]]
    assert list(violations(swapped, side, sizes, 1.0, 2.0))
    assert list(violations(order, side, sizes, 1.0, 3.0))
    assert list(violations([*order[:-1], order[0]], side, sizes, 1.0, 2.0)) == ["not a permutation"]


def test_an_order_belongs_to_its_image_not_to_its_batch():
    side, sizes = 8, lpd_sizes(64, 10)
    together = locality_orders(side, sizes, 1.0, 2.0, fresh(side, sizes, range(12), seed=7))
    mixed = locality_orders(side, sizes, 1.0, 2.0, fresh(side, sizes, (5, 100, 2), seed=7))
    assert np.array_equal(mixed[[0, 2]], together[[5, 2]])
    for image in range(12):
        alone = locality_orders(side, sizes, 1.0, 2.0, fresh(side, sizes, (image,), seed=7))
        assert np.array_equal(alone[0], together[image])
    other_seed = locality_orders(side, sizes, 1.0, 2.0, fresh(side, sizes, range(12), seed=8))
    assert (other_seed != together).any(axis=1).all()


def test_the_first_position_is_uniform():
    first = LocalityDraws.from_streams(Streams(3, tuple(range(4000))), 16, 1).first
    counts = np.bincount(first, minlength=16)
    assert ((counts - 250) ** 2 / 250).sum() < 56.5  # chi-squared, 15 degrees of freedom, p = 1e-6


def test_a_first_fill_without_members_is_uniform_over_the_free_positions():
    sizes = (1, 1, 7)
    draws = fresh(3, sizes, range(4000), seed=5)
    orders = locality_orders(3, sizes, 2.0, 1.0, LocalityDraws(np.full(4000, 4), draws.tie_rank))
    counts = np.bincount(orders[:, 1], minlength=9)
    assert counts[4] == 0
    assert (
        (np.delete(counts, 4) - 500) ** 2 / 500
    ).sum() < 40.5  # chi-squared, 7 degrees of freedom, p = 1e-6


def test_known_positions_may_differ_by_image_and_may_be_all():
    known = np.array([[0, 1, 2], [15, 11, 7]])
    sizes = (4, 9)
    orders = locality_orders(4, sizes, 1.0, 1.0, fresh(4, sizes, range(2)), known=known)
    assert np.array_equal(orders[:, :3], known)
    for row in range(2):
        assert list(violations(orders[row], 4, sizes, 1.0, 1.0, known[row].tolist())) == []
    draws = LocalityDraws(np.zeros(2, int), np.zeros((2, 0, 4), int))
    everything = locality_orders(2, (), 1.0, 1.0, draws, known=np.array([3, 1, 0, 2]))
    assert everything.tolist() == [[3, 1, 0, 2]] * 2


ZEROS = LocalityDraws(np.zeros(2, int), np.zeros((2, 3, 16), int))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, (1,), 1.0, 1.0, ZEROS), "side 0"),
        ((4, (1, 5, 9), 1.0, 1.0, ZEROS), "sum to 16; these sum to 15"),
        ((4, (1, 0, 15), 1.0, 1.0, ZEROS), "positive"),
        ((4, (2, 5, 9), 1.0, 1.0, ZEROS), "holds one position, not 2"),
        ((4, (1, 15), 1.0, 1.0, ZEROS), "tie ranks of shape"),
        ((4, (1, 5, 10), float("nan"), 1.0, ZEROS), "proximity"),
        ((4, (1, 5, 10), 1.0, -1.0, ZEROS), "repulsion"),
        ((4, (1, 5, 10), 1.0, float("nan"), ZEROS), "repulsion"),
        ((4, (1, 5, 10), 1.0, 1.0, LocalityDraws(np.array([0, 16]), ZEROS.tie_rank)), "first positions"),
        ((4, (1, 5, 10), 1.0, 1.0, LocalityDraws(np.zeros((2, 2)), ZEROS.tie_rank)), "first positions"),
        ((4, (1, 5, 10), 1.0, 1.0, LocalityDraws(ZEROS.first, ZEROS.tie_rank - 1)), "tie ranks of free"),
        (
            (4, (1, 5, 10), 1.0, 1.0, LocalityDraws(ZEROS.first, lambda step: np.zeros(16, int))),
            "in one step",
        ),
        (
            (4, (1, 5, 10), 9.0, 1.0, LocalityDraws(ZEROS.first, ZEROS.tie_rank, np.full((2, 3), -1))),
            "fps_first",
        ),
        (
            (4, (1, 5, 10), 9.0, 1.0, LocalityDraws(ZEROS.first, ZEROS.tie_rank, np.zeros(3))),
            "fps_first of shape",
        ),
        ((4, (5, 10), 1.0, 1.0, ZEROS, np.array([3, 3])), "differ"),
        ((4, (5, 10), 1.0, 1.0, ZEROS, np.array([16])), "0..15"),
        ((4, (5, 10), 1.0, 1.0, ZEROS, np.array([[3]])), "known positions of shape"),
    ],
)
def test_impossible_requests_say_why(arguments, text):
    with pytest.raises(ValueError, match=text):
        locality_orders(*arguments)
