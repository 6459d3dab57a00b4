"""SJD-GS: draws by one Gumbel noise of a place and code; what the noise is, and that redraws have another."""

from itertools import product

import numpy as np
import pytest
import torch

from strategies.decoding.contract import judge
from strategies.decoding.contract import lossless as contract
from strategies.decoding.contract.card import CHECKS
from strategies.decoding.contract.racing import after, unbounded
from strategies.decoding.contract.recording import subject
from strategies.decoding.contract.requirements import Broken
from strategies.decoding.contract.worlds import world
from strategies.decoding.sampling import StreamSampler
from strategies.decoding.streams import Streams
from strategies.sjd import SJD
from strategies.sjd_gs import SJDGS
from tests.strategies.test_sjd_mc import decoded

SAMPLER = StreamSampler(Streams(7, tuple(range(500))))


# The noise --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codes", [3, 8, 11])
def test_a_window_s_numbers_are_those_of_the_whole_stream(codes):
    streams = Streams(3, (0, 5))
    whole = streams.of_codes("gumbel", codes, np.array([0, 0]), 9)
    assert whole.shape == (2, 9, codes)
    assert len(np.unique(whole)) == whole.size
    part = streams.of_codes("gumbel", codes, np.array([2, 6]), 3)
    assert np.array_equal(part[0], whole[0, 2:5])
    assert np.array_equal(part[1], whole[1, 6:9])
    assert np.array_equal(Streams(3, (5,)).of_codes("gumbel", codes, np.array([0]), 9)[0], whole[1])


def test_races_draw_the_distribution():
    law = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0])
    tokens = SAMPLER.race(law.expand(500, 40, 5), torch.arange(40).expand(500, -1))
    shares = tokens.flatten().bincount(minlength=5) / tokens.numel()
    assert shares[4] == 0
    assert torch.allclose(shares, law, atol=0.012)  # 20,000 draws: 3.4 standard deviations


def test_like_distributions_draw_alike():
    p = torch.tensor([0.5, 0.3, 0.2]).expand(500, 40, 3)
    q = torch.tensor([0.45, 0.33, 0.22]).expand(500, 40, 3)
    at = torch.arange(40).expand(500, -1)
    first, again = SAMPLER.race(p, at), SAMPLER.race(q, at)
    assert torch.equal(first, SAMPLER.race(p, at))
    changed = float((first != again).double().mean())
    # At least the total variation, 0.05; drawn apart it would be 0.63.
    assert 0.04 < changed < 0.1


def test_places_that_are_none_cost_no_numbers():
    at = torch.tensor([[3, 4, -1], [-1, -1, -1]])
    sampler = StreamSampler(Streams(7, (0, 1)))
    law = torch.full((2, 3, 4), 0.25)
    whole = sampler.race(law[:, :2], torch.tensor([[3, 4], [3, 4]]))
    assert torch.equal(sampler.race(law, at)[0, :2], whole[0])


# The odds of the next race ----------------------------------------------------------------------------------


@pytest.mark.parametrize("codes", [2, 3])
def test_odds_after_several_races_are_those_of_many_numbers(codes):
    generator = torch.Generator().manual_seed(1)
    numbers = torch.empty(200_000, codes, dtype=torch.float64).exponential_(generator=generator)
    laws = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.1, 0.45, 0.45], [0.6, 0.0, 0.4]])[
        :, :codes
    ].double()
    winners = [(law / numbers).argmax(dim=1) for law in laws]
    total = 0.0
    for outcomes in product(range(codes), repeat=len(laws)):
        bounds, chance = unbounded(1, codes, codes), 1.0
        for law, winner in zip(laws, outcomes, strict=True):
            narrowed, odds = after(bounds, law[None])
            chance *= float(odds[0, winner])
            bounds = narrowed[:, winner]
            if not chance > 0:
                break
        chance = max(chance, 0.0) if chance == chance else 0.0
        share = (
            torch.stack([one == k for one, k in zip(winners, outcomes, strict=True)])
            .all(dim=0)
            .double()
            .mean()
        )
        assert chance == pytest.approx(float(share), abs=0.006)
        total += chance
    assert total == pytest.approx(1, abs=1e-9)


def test_races_of_many_codes_are_not_enumerated():
    with pytest.raises(Broken, match="races of 4 codes can't be enumerated"):
        after(unbounded(1, 4, 4), torch.full((1, 4), 0.25))


# The method -------------------------------------------------------------------------------------------------


def test_drafts_settle_sooner_than_sjd_s():
    coupled, plain = (
        decoded(method, images=64).steps_of_image for method in (SJDGS(window=8), SJD(window=8))
    )
    assert float(coupled.double().mean()) < float(plain.double().mean())


def test_five_places_and_windows_of_three_are_exact():
    small = world(subject(SJDGS(window=3)), (1, 5), 2)
    tokens, _, masses = contract.branches_of(small)
    index = (tokens * small.powers).sum(dim=1)
    joint = torch.zeros(2**5, dtype=torch.float64).index_add_(0, index, masses)
    assert float(masses.sum()) == pytest.approx(1, abs=1e-6)
    assert float((joint - small.joint(small.sampler((0,)))).abs().max()) < 1e-6


@pytest.mark.slow
def test_it_is_lossless_at_its_own_setting():
    assert judge(CHECKS["lossless"], SJDGS()).status == "pass"


@pytest.mark.slow
@pytest.mark.parametrize(("images", "batch"), [(12_000, 4), (150_000, 1000)])
def test_many_images_at_paces_of_their_own(images, batch):
    """A lossless method fails once in a million."""
    small = world(subject(SJDGS(window=4)), (2, 3))
    statistic, threshold, paces = contract.sampled(small, images, batch)
    assert paces > 2
    assert statistic < threshold
