"""Guidance scales by place: the published schedules and intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.arpg import ARPG
from strategies.decoding.guidance import SCHEDULES, Guidance
from strategies.decoding.plan import Plan
from strategies.decoding.streams import Streams
from strategies.lpd import LPD
from strategies.par import PAR
from strategies.rar import RAR
from strategies.raster import Raster

STREAMS = Streams(0, (0,))
EIGHTHS = [0, 32, 64, 96, 128, 160, 192, 224, 255]


@pytest.mark.parametrize(
    ("scale", "power", "printed"),
    [
        (16.0, 2.75, "1 1.0004 1.0181 1.1674 1.8031 3.6216 7.4044 12.7674 15.9958"),
        (15.5, 2.5, "1 1.0011 1.0349 1.2637 2.0896 4.1526 7.9572 12.8039 15.4966"),
        (6.9, 1.5, "1 1.0284 1.2246 1.7350 2.6402 3.8954 5.2853 6.4332 6.8995"),
        (8.0, 1.2, "1 1.1168 1.6019 2.5164 3.7932 5.2520 6.6283 7.6282 7.9996"),
    ],
)
def test_rar_ramps(scale, power, printed):
    plan = RAR().plan((16, 16), None, STREAMS)
    weights = Guidance(scale, "power-cosine", power=power).weights(plan)
    assert weights[EIGHTHS] == pytest.approx(list(map(float, printed.split())), abs=5.1e-5)
    assert weights.max() < scale


@pytest.mark.parametrize("power", [0.5, 1.0, 2.75])
def test_the_power_cosine_starts_at_one(power):
    plan = RAR().plan((4, 4), None, STREAMS)
    assert Guidance(9.0, "power-cosine", power=power).weights(plan)[0] == 1.0


def test_power_zero_is_constant():
    plan = RAR().plan((4, 4), None, STREAMS)
    assert (Guidance(9.0, "power-cosine", power=0.0).weights(plan) == 9.0).all()


def guided(strategy, interval, side=4):
    plan = strategy.plan((side, side), None, STREAMS)
    return (Guidance(3.0, interval=interval).weights(plan) == 3.0).tolist()


@pytest.mark.parametrize("interval", [0, 1, 5, 13, 14, 100])
def test_an_interval_of_llamagen_guides_two_predictions_more(interval):
    count = min(interval + 2, 16)
    assert guided(Raster(), interval) == [True] * count + [False] * (16 - count)


@pytest.mark.parametrize("interval", [-1, -7])
def test_a_negative_interval_guides_everything(interval):
    assert all(guided(Raster(), interval))
    assert all(guided(PAR(), interval))


@pytest.mark.parametrize("regions", [4, 16])
@pytest.mark.parametrize("interval", [0, 1, 2, 3, 4, 7, 8, 15, 16, 32, 64, 200])
def test_an_interval_of_par_starts_anew_in_the_parallel_phase(regions, interval):
    places = 64
    expected = [True] + [i <= interval for i in range(regions - 1)]
    parallel = places // regions - 1
    steps = min(parallel, interval // regions + 1)
    expected += [k < steps for k in range(parallel) for _ in range(regions)]
    assert guided(PAR(regions), interval, side=8) == expected


def test_the_printed_case_of_par():
    """n = 4 and I = 1: prefill, i = 0 and 1 guided, i = 2 not, the transition guided, later ones not."""
    assert guided(PAR(4), 1) == [True, True, True, False, *[True] * 4, *[False] * 8]


def test_linear_clocks_differ_by_method():
    lpd = LPD(order="random").plan((4, 4), 4, STREAMS)
    arpg = ARPG().plan((4, 4), 4, STREAMS)
    linear = Guidance(5.0, "linear")
    assert np.allclose(linear.weights(lpd), 1 + 4 * np.arange(16) / 16)
    assert np.allclose(linear.weights(arpg), 1 + 4 * np.repeat(np.cumsum(arpg.sizes), arpg.sizes) / 16)


@given(st.floats(0, 20), st.sampled_from(SCHEDULES), st.floats(0, 4))
def test_weights_lie_between_one_and_the_scale(scale, schedule, power):
    plan = Plan((4, 4), np.arange(16), (4, 4, 8))
    weights = Guidance(scale, schedule, power).weights(plan)
    low, high = sorted((1.0, scale))
    assert weights.shape == (16,)
    assert weights.dtype == np.float64
    assert (weights >= low - 1e-12).all()
    assert (weights <= high + 1e-12).all()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_scale_one_is_one_everywhere(schedule):
    plan = ARPG().plan((4, 4), 4, STREAMS)
    assert (Guidance(1.0, schedule, 2.0).weights(plan) == 1.0).all()
