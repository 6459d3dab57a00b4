"""Random numbers belong to images: a function of (seed, image, purpose, visit, place) alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.decoding.streams import Streams

SEEDS = st.integers(0, 2**63 - 1)
FIRST = [0.48320114612579346, 0.2492668628692627, 0.0325770378112793, 0.36815518140792847]
ORDERS = [[1, 0, 4, 5, 2, 3], [1, 2, 3, 4, 0, 5]]
IMAGES = st.lists(st.integers(0, 2**40), min_size=1, max_size=6)


@given(SEEDS, IMAGES, st.integers(1, 40))
def test_a_row_is_its_image_alone(seed, images, size):
    whole = Streams(seed, tuple(images)).uniform("token", size)
    assert whole.dtype == np.float32
    assert whole.shape == (len(images), size)
    for row, image in enumerate(images):
        assert np.array_equal(whole[row], Streams(seed, (image,)).uniform("token", size)[0])


@given(SEEDS, st.integers(1, 30), st.integers(1, 30))
def test_a_place_does_not_depend_on_how_many_there_are(seed, size, more):
    streams = Streams(seed, (4,))
    assert np.array_equal(streams.uniform("token", size), streams.uniform("token", size + more)[:, :size])


@given(SEEDS)
def test_numbers_lie_in_the_half_open_unit_interval(seed):
    numbers = Streams(seed, (0, 1)).uniform("token", 500)
    assert (numbers >= 0).all()
    assert (numbers < 1).all()


def test_purposes_visits_images_and_seeds_are_apart():
    draws = [
        Streams(seed, (image,)).uniform(purpose, 64, visit)
        for seed in (0, 1)
        for image in (0, 1)
        for purpose in ("token", "order", "accept")
        for visit in (0, 1, 2)
    ]
    flat = np.concatenate([draw.ravel() for draw in draws])
    assert len(np.unique(flat)) > 0.999 * flat.size
    correlations = np.corrcoef(np.concatenate(draws))
    assert np.abs(correlations - np.eye(len(draws))).max() < 0.6


def test_the_key_is_not_symmetric_in_seed_and_image():
    assert not np.array_equal(Streams(1, (2,)).uniform("token", 8), Streams(2, (1,)).uniform("token", 8))


def test_numbers_are_uniform():
    numbers = Streams(0, tuple(range(200))).uniform("token", 256).ravel()
    counts = np.histogram(numbers, bins=100, range=(0, 1))[0]
    expected = numbers.size / 100
    assert ((counts - expected) ** 2 / expected).sum() < 148.2  # 0.999 quantile, 99 degrees of freedom


def test_these_numbers_are_fixed_for_good():
    """Stored results are compared by noise: the streams must never change silently."""
    found = Streams(0, (0,)).uniform("token", 4)[0]
    assert found == pytest.approx(FIRST, abs=0)
    assert Streams(0, (0, 1)).permutations(6).tolist() == ORDERS


@given(SEEDS, IMAGES, st.integers(1, 30))
def test_permutations_are_permutations(seed, images, size):
    orders = Streams(seed, tuple(images)).permutations(size)
    assert (np.sort(orders, axis=1) == np.arange(size)).all()
    assert np.array_equal(orders[-1:], Streams(seed, (images[-1],)).permutations(size))
