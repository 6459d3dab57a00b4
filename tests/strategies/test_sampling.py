"""Sampling: inversion draws the softmax with one number per token; filters as published."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from strategies.decoding.sampling import ForcedSampler, StreamSampler, draw_by_inversion, filter_logits
from strategies.decoding.streams import Streams

INF = float("inf")
ALMOST_ONE = 1.0 - 2.0**-24


def tokens_of(logits, uniform):
    """Tokens by inversion of softmax(logits), as a sampler without filters draws them."""
    return StreamSampler(Streams(0, (0,))).draw(logits, uniform)[0]


def draw(logits, uniform):
    return int(tokens_of(torch.tensor(logits), torch.tensor(uniform)))


def test_draws_follow_the_softmax():
    logits = torch.tensor([0.3, -1.0, 2.0, -INF, 0.0, 1.1])
    images = tuple(range(400))
    sampler = StreamSampler(Streams(7, images))
    noise = sampler.noise(torch.arange(50).expand(400, -1))
    counts = sampler.draw(logits.expand(400, 50, 6), noise)[0].flatten().bincount(minlength=6).double()
    expected = logits.double().softmax(0) * 20_000
    assert counts[3] == 0
    alive = expected > 0
    chi_square = ((counts - expected)[alive] ** 2 / expected[alive]).sum()
    assert chi_square < 18.5  # 0.999 quantile of 4 degrees of freedom


@pytest.mark.parametrize(
    ("logits", "uniform", "token"),
    [
        ([0.0, 0.0, 0.0, 0.0], 0.0, 0),
        ([0.0, 0.0, 0.0, 0.0], 0.25, 1),
        ([0.0, 0.0, 0.0, 0.0], 0.2499, 0),
        ([0.0, 0.0, 0.0, 0.0], ALMOST_ONE, 3),
        ([-INF, 0.0, 0.0], 0.0, 1),
        ([-INF, -INF, 5.0], 0.0, 2),
        ([0.0, -INF, -INF], ALMOST_ONE, 0),
        ([0.0, 0.0, -INF], ALMOST_ONE, 1),
        ([0.0, -INF, 0.0], 0.5, 2),
        ([1000.0, -1000.0], ALMOST_ONE, 0),
        ([-1000.0, -1000.0], 0.75, 1),
    ],
)
def test_edges(logits, uniform, token):
    assert draw(logits, uniform) == token


@given(
    st.lists(st.floats(-50, 50, width=32) | st.just(-INF), min_size=1, max_size=40).filter(
        lambda logits: max(logits) > -INF
    ),
    st.floats(0, ALMOST_ONE, width=32),
)
def test_what_has_no_mass_is_never_drawn(logits, uniform):
    token = draw(logits, uniform)
    assert 0 <= token < len(logits)
    assert logits[token] > -INF


@given(st.integers(0, 2**31), st.floats(0, ALMOST_ONE, width=32), st.floats(0, ALMOST_ONE, width=32))
def test_a_larger_number_never_draws_an_earlier_token(seed, first, second):
    logits = torch.randn(30, generator=torch.Generator().manual_seed(seed)).tolist()
    low, high = sorted((first, second))
    assert draw(logits, low) <= draw(logits, high)


@pytest.mark.parametrize("codes", [16_384, 65_536])
def test_a_large_vocabulary_in_single_precision(codes):
    """The cumulative sum loses no token's interval beyond rounding."""
    logits = torch.randn(codes, generator=torch.Generator().manual_seed(0)) * 2
    exact = logits.double().softmax(0).cumsum(0)
    uniform = torch.rand(400, generator=torch.Generator().manual_seed(1))
    tokens = tokens_of(logits.expand(400, -1), uniform)
    assert int(tokens.max()) < codes
    below = torch.where(tokens > 0, exact[(tokens - 1).clamp(min=0)], 0.0)
    assert float((below - uniform).max()) < 1e-4
    assert float((uniform - exact[tokens]).max()) < 1e-4


def test_weights_need_not_sum_to_one_and_their_sum_comes_back():
    weights = torch.tensor([[0.0, 0.5, 1.5], [0.0, 0.0, 0.0]])
    tokens, totals = draw_by_inversion(weights.clone().repeat(2, 1), torch.tensor([0.24, 0.9, 0.26, 0.9]))
    assert tokens[[0, 2]].tolist() == [1, 2]
    assert totals.tolist() == [2.0, 0.0, 2.0, 0.0]
    assert StreamSampler(Streams(0, (0,))).draw_from(weights[:1, None], torch.tensor([[0.2]])).tolist() == [
        [1]
    ]
    assert weights.tolist() == [[0.0, 0.5, 1.5], [0.0, 0.0, 0.0]], "a residual is read, not written"


@pytest.mark.parametrize("logits", [[0.0, math.nan], [0.0, INF], [INF, INF], [-INF, -INF]])
def test_what_is_no_distribution_is_unsound(logits):
    sampler = StreamSampler(Streams(0, (0,)))
    _, soundness = sampler.draw(torch.tensor([[logits, [0.0, -INF]]]), torch.tensor([[0.5, 0.5]]))
    assert soundness.isfinite().tolist() == [[False, True]]


def test_probabilities_are_those_that_tokens_are_drawn_by():
    sampler = StreamSampler(Streams(0, (0,)), temperature=0.7, top_k=5, top_p=0.9)
    logits = torch.randn(1, 1, 9, generator=torch.Generator().manual_seed(2))
    noise = (torch.arange(8192)[None] + 0.5) / 8192
    drawn, _ = sampler.draw(logits.expand(1, 8192, 9), noise)
    shares = drawn.flatten().bincount(minlength=9) / 8192
    assert float((shares - sampler.probabilities(logits)[0, 0]).abs().max()) < 2 / 8192


def test_a_second_pass_over_the_same_images_has_numbers_of_its_own():
    streams, order = Streams(3, (0, 1)), torch.arange(6).expand(2, -1)
    plain, large = StreamSampler(streams), StreamSampler(streams, stream="twice the side")
    expected = torch.from_numpy(streams.uniform("token at twice the side", 6))
    assert torch.equal(large.noise(order), expected)
    assert not torch.equal(large.noise(order), plain.noise(order))


def test_uniform_logits_split_the_interval_evenly():
    uniform = (torch.arange(1000) + 0.5) / 1000
    tokens = tokens_of(torch.zeros(1000, 10), uniform)
    assert tokens.bincount().tolist() == [100] * 10


@pytest.mark.parametrize("temperature", [0.0, 1e-9])
def test_temperature_zero_is_the_largest_logit(temperature):
    logits = torch.randn(2, 16, 9, generator=torch.Generator().manual_seed(0))
    sampler = StreamSampler(Streams(0, (0, 1)), temperature=temperature)
    noise = sampler.noise(torch.arange(16).expand(2, -1))
    assert torch.equal(sampler.draw(logits, noise)[0], logits.argmax(-1))


def test_temperature_comes_before_the_filters():
    logits = torch.tensor([2.0, 1.0, 0.0]).expand(1, 64, 3)
    order = torch.arange(64).expand(1, -1)
    cold = StreamSampler(Streams(0, (0,)), temperature=0.1, top_p=0.9)
    assert (cold.draw(logits, cold.noise(order))[0] == 0).all()
    warm = StreamSampler(Streams(0, (0,)), temperature=10.0, top_p=0.9)
    assert len(warm.draw(logits, warm.noise(order))[0].unique()) == 3


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"),
    [
        (0, 1.0, [0, 1, 2, 3, 4]),
        (1, 1.0, [1]),
        (2, 1.0, [1, 2, 3]),  # the two tied with the second stay
        (3, 1.0, [1, 2, 3]),
        (99, 1.0, [0, 1, 2, 3, 4]),
        (0, 0.0, [1]),
        (0, 0.39, [1]),
        (0, 0.41, [1, 2]),  # the token that crosses stays
        (0, 0.65, [1, 2, 3]),
        (2, 0.49, [1]),  # top-p reads what top-k left: 0.4 of 0.8 in all is one half
        (2, 0.51, [1, 2]),
    ],
)
def test_filters(top_k, top_p, kept):
    logits = torch.tensor([0.1, 0.4, 0.2, 0.2, 0.1]).log()
    found = filter_logits(logits, top_k, top_p)
    assert found.isfinite().nonzero().flatten().tolist() == kept
    assert torch.equal(found[kept], logits[kept])


@given(st.integers(0, 2**31), st.integers(0, 12), st.floats(0, 1))
def test_filters_keep_the_largest_and_treat_rows_alone(seed, top_k, top_p):
    logits = torch.randn(2, 3, 10, generator=torch.Generator().manual_seed(seed))
    found = filter_logits(logits, top_k, top_p)
    assert found.shape == logits.shape
    assert found.gather(-1, logits.argmax(-1, keepdim=True)).isfinite().all()
    assert torch.equal(found[1, 2], filter_logits(logits[1, 2], top_k, top_p))
    kept = found.isfinite()
    smallest_kept = torch.where(kept, logits, INF).amin(-1)
    largest_removed = torch.where(kept, -INF, logits).amax(-1)
    assert (smallest_kept >= largest_removed).all()
    if top_k > 0:
        assert int(kept.sum(-1).max()) <= max(top_k, 1)


def test_no_filter_returns_the_logits_themselves():
    logits = torch.randn(3, 5)
    assert filter_logits(logits) is logits


def test_noise_is_gathered_by_place():
    order = torch.tensor([[3, 1, 0, 2], [0, 1, 2, 3]])
    streams = Streams(0, (5, 6))
    noise = StreamSampler(streams).noise(order)
    by_position = torch.from_numpy(streams.uniform("token", 4))
    assert torch.equal(noise[0], by_position[0][[3, 1, 0, 2]])
    assert torch.equal(noise[1], by_position[1])


def test_a_forced_sampler_ignores_the_logits():
    tokens, order = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[3, 1, 0, 2]])
    sampler = ForcedSampler(tokens)
    drawn, _ = sampler.draw(torch.full((1, 4, 9), math.nan), sampler.noise(order))
    assert drawn.tolist() == [[8, 6, 5, 7]]
