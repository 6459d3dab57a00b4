"""GSD: the chance of a draft by hand, and that grouping is lossy."""

import pytest
import torch

from backbones.tokenizers import load_tokenizer
from pardec.errors import UserError
from strategies.decoding.contract.lossless import chi_square
from strategies.decoding.contract.recording import CONTROLLED, random_code_vectors, subject
from strategies.decoding.contract.worlds import world
from strategies.decoding.decode import decode
from strategies.decoding.sampling import StreamSampler
from strategies.decoding.streams import Streams
from strategies.gsd import GSD
from strategies.raster import Raster

# Ranks of p, ascending: codes 5, 4, 3, 2, 1, 0.
P = torch.tensor([0.3, 0.25, 0.2, 0.15, 0.07, 0.03])
Q = torch.tensor([0.1, 0.2, 0.1, 0.2, 0.1, 0.3])
ALIKE = torch.zeros(6, 2)


def chance(method: GSD, draft: int, vectors: torch.Tensor = ALIKE) -> float:
    return float(method.chance(P[None, None], Q[None, None], torch.tensor([[draft]]), vectors))


def test_a_group_are_the_ranks_around_the_draft():
    wide = GSD(group=4, alike=1.0, near=1.0)
    # Code 1 has rank 4: ranks 2 to 5 are codes 3, 2, 1 and 0.
    assert chance(wide, 1) == pytest.approx((0.15 + 0.2 + 0.25 + 0.3) / (0.2 + 0.1 + 0.2 + 0.1))
    # The likeliest has nothing above it: ranks 3 to 5.
    assert chance(wide, 0) == pytest.approx((0.2 + 0.25 + 0.3) / (0.1 + 0.2 + 0.1))


def test_far_down_the_ranking_a_draft_is_tested_alone():
    wide = GSD(group=4, alike=1.0, near=1.0)
    assert chance(wide, 4) == pytest.approx(0.07 / 0.1)
    assert chance(wide, 5) == pytest.approx(0.03 / 0.3)


def test_members_are_of_like_probability_and_near():
    assert chance(GSD(group=4, alike=0.06, near=1.0), 1) == pytest.approx(
        (0.2 + 0.25 + 0.3) / (0.1 + 0.2 + 0.1)
    )
    apart = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.5], [3.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    # Squared distances to code 1: 1, 0.25 and 4.
    assert chance(GSD(group=4, alike=1.0, near=0.5), 1, apart) == pytest.approx((0.2 + 0.25) / (0.1 + 0.2))
    assert chance(GSD(group=4, alike=1.0, near=0.2), 1, apart) == pytest.approx(0.25 / 0.2)


def test_with_seven_codes_the_default_is_sjd():
    vectors = random_code_vectors(6)
    for draft in range(6):
        assert chance(GSD(), draft, vectors) == pytest.approx(float(P[draft] / Q[draft]))


def test_a_group_is_even():
    with pytest.raises(UserError, match="group = 5: expected an even number"):
        GSD(group=5).plan((4, 4), None, Streams(0, (0,)))


@pytest.mark.parametrize("option", ["alike", "near"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_draft_belongs_to_its_own_group(option, value):
    with pytest.raises(UserError, match=f"{option} = {value}: expected a number above 0"):
        GSD(**{option: value}).plan((4, 4), None, Streams(0, (0,)))


def test_without_code_vectors_it_says_so():
    network = Raster().network(CONTROLLED).eval()
    streams = Streams(0, (0,))
    plan, labels = GSD().plan(CONTROLLED.grid, None, streams), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(UserError, match="'gsd' compares the vectors of codes, and no tokenizer gave"):
        decode(network, GSD(), plan, labels, StreamSampler(streams))


def test_the_small_tokenizer_has_vectors_of_its_codes():
    tokenizer = load_tokenizer()
    vectors = tokenizer.vectors()
    assert vectors is not None
    assert vectors.shape[0] == tokenizer.codes
    assert len(vectors.unique(dim=0)) == tokenizer.codes
    codes = torch.arange(2)[None, None]
    assert torch.equal(tokenizer.quantiser.values(codes)[0, :, 0].T, vectors[:2])


def test_images_of_sixteen_codes_come_otherwise_than_one_at_a_time():
    small = world(subject(GSD(window=3, alike=1.0, near=9.0)), (1, 3), 16)
    images = 6000
    streams = Streams(5, tuple(range(images)))
    plan, labels = small.subject.plan(streams.images), torch.full((images,), small.label)
    sampler = small.sampler(streams.images, 5)
    found = small.decoded(small.subject.strategy, plan, labels, sampler)
    pairs = found.tokens[:, 0] * 16 + found.tokens[:, 1]
    expected = small.joint(sampler).view(16 * 16, 16).sum(dim=1)
    counts = pairs.bincount(minlength=256).double()
    statistic, threshold = chi_square(counts, expected * images)
    assert statistic > 2 * threshold
