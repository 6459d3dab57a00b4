"""Group sizes: the published tables and the properties every schedule has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.decoding import schedules
from strategies.decoding.schedules import (
    arpg_sizes,
    lpd_published_steps,
    lpd_sizes,
    one_per_step,
    par_sizes,
    randar_sizes,
)


def test_arpg_sizes_printed_in_the_specification():
    arccos = "6 5 5 5 5 5 5 6 5 5 6 5 6 5 6 6 6 6 6 7 6 7 7 8 8 8 9 10 11 14 17 40"
    cosine = "1 1 1 2 3 4 3 5 5 6 6 7 7 8 8 8 10 9 10 10 11 11 11 12 11 12 12 13 12 12 13 12"
    assert arpg_sizes(256, 32, "arccos") == tuple(map(int, arccos.split()))
    assert arpg_sizes(256, 32, "cosine") == tuple(map(int, cosine.split()))


@given(st.integers(1, 1100), st.data(), st.sampled_from(["arccos", "cosine"]))
def test_arpg_sizes_are_positive_and_complete(unknown, data, schedule):
    steps = data.draw(st.integers(1, unknown))
    sizes = arpg_sizes(unknown, steps, schedule)
    assert len(sizes) == steps
    assert min(sizes) >= 1
    assert sum(sizes) == unknown
    assert arpg_sizes(unknown, unknown, schedule) == one_per_step(unknown)


@pytest.mark.parametrize("tokens", [256, 1024])
def test_published_lpd_lists_are_whole(tokens):
    steps = lpd_published_steps(tokens)
    assert len(steps) == {256: 9, 1024: 14}[tokens]
    for count in steps:
        sizes = lpd_sizes(tokens, count)
        assert len(sizes) == count
        assert sum(sizes) == tokens
        assert sizes[0] == 1
        assert list(sizes) == sorted(sizes)


def test_the_formula_meets_the_published_lists_as_often_as_known(monkeypatch):
    published = {(n, k): lpd_sizes(n, k) for n in (256, 1024) for k in lpd_published_steps(n)}
    monkeypatch.setattr(schedules, "_LPD_PUBLISHED", {})
    equal = {key for key, sizes in published.items() if lpd_sizes(*key) == sizes}
    assert len(published) == 23
    assert len(equal) == 13
    assert {(256, 20), (1024, 48)} <= equal


@given(st.integers(2, 1100), st.data())
def test_lpd_sizes_start_with_one_and_never_shrink(unknown, data):
    steps = data.draw(st.integers(2, unknown))
    sizes = lpd_sizes(unknown, steps)
    assert len(sizes) == steps
    assert sum(sizes) == unknown
    assert sizes[0] == 1
    assert list(sizes) == sorted(sizes)


@given(st.integers(1, 1100), st.data())
def test_lpd_sizes_of_a_prefilled_context(unknown, data):
    steps = data.draw(st.integers(1, unknown))
    sizes = lpd_sizes(unknown, steps, first_is_one=False)
    assert len(sizes) == steps
    assert sum(sizes) == unknown
    assert min(sizes) >= 1
    assert list(sizes) == sorted(sizes)


def test_a_prefilled_context_forces_nothing():
    assert lpd_sizes(100, 4, first_is_one=False) == (8, 22, 32, 38)
    assert lpd_sizes(100, 4) == (1, 22, 32, 45)
    assert lpd_sizes(7, 1, first_is_one=False) == (7,)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: one_per_step(0), "nothing to generate"),
        (lambda: arpg_sizes(0, 1), "nothing to generate"),
        (lambda: arpg_sizes(16, 0), "at least one"),
        (lambda: arpg_sizes(16, 17), "17 steps for 16 positions"),
        (lambda: randar_sizes(16, 0), "at least one"),
        (lambda: randar_sizes(16, 4, written=16), "nothing to generate"),
        (lambda: arpg_sizes(16, 4, "cubic"), "unknown schedule 'cubic'"),
        (lambda: lpd_sizes(16, -1), "at least one"),
        (lambda: lpd_sizes(16, 17), "17 steps for 16 positions"),
        (lambda: lpd_sizes(16, 1), "at least 2 steps"),
        (lambda: par_sizes(256, 9), "256 tokens don't divide into 9 regions"),
        (lambda: par_sizes(256, 0), "0 regions"),
    ],
)
def test_impossible_requests_say_why(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_randar_sizes_printed_in_the_specification():
    sizes = randar_sizes(256, 88)
    assert sizes[:38] == (1,) * 24 + (2,) * 6 + (3, 2, 3, 2, 3, 3, 2, 3)
    assert set(sizes[-4:]) == {4, 5}
    assert (len(sizes), sum(sizes)) == (88, 256)
    assert randar_sizes(16, 1) == (1, 15)
    assert randar_sizes(1, 1) == (1,)


@pytest.mark.parametrize("places", [2, 3, 16, 36, 60, 64, 256, 576])
def test_randar_takes_exactly_the_steps_asked_for(places):
    for steps in range(2, places + 1):
        sizes = randar_sizes(places, steps)
        assert (len(sizes), sum(sizes), sizes[0]) == (steps, places, 1)
    assert randar_sizes(places, places) == randar_sizes(places, 3 * places) == one_per_step(places)


def test_randar_waits_with_single_tokens_until_its_target_passes_what_is_written():
    assert randar_sizes(64, 24, written=16) == (1,) * 16 + (4,) * 8
