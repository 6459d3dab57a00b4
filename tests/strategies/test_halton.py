"""Halton: order and roll, multipliers by step, the drawn mask, other grids than the recorded."""

import math
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

from pardec.errors import UserError
from strategies.decoding.contract.recording import run, subject
from strategies.decoding.contract.requirements import close
from strategies.decoding.mask_schedules import halton_sizes
from strategies.decoding.orders import halton
from strategies.decoding.sampling import ForcedSampler, StreamSampler
from strategies.decoding.streams import Streams
from strategies.halton import Halton
from tests.replays import read_golden
from tests.strategies.dressings import MASKED

ROLLED = Path(__file__).parents[1] / "goldens" / "maskgit-decode-halton-rolled-6x6.safetensors"


def test_the_sequence_goes_on_where_the_published_one_ends():
    order = halton((64, 64))
    assert np.array_equal(np.sort(order), np.arange(4096))


def test_orders_are_shifted_as_recorded():
    golden = read_golden(ROLLED)
    shifts = (golden.io["roll"].numpy() + 0.5) / 36
    with patch.object(Streams, "uniform", lambda self, purpose, size: shifts[:, None]):
        plan = Halton(roll=True).plan((6, 6), 6, Streams(0, (0, 1, 2)))
    assert np.array_equal(plan.order, golden.io["order"].numpy())


def test_every_shift_occurs_and_belongs_to_its_image():
    streams = Streams(3, tuple(range(400)))
    orders = Halton(roll=True).plan((4, 4), 4, streams).order
    starts = [halton((4, 4)).tolist().index(order[0]) for order in orders]
    assert set(starts) == set(range(16))
    alone = Halton(roll=True).plan((4, 4), 4, Streams(3, (17,))).order
    assert np.array_equal(alone[0], orders[17])
    assert len(Halton().plan((4, 4), 4, streams).order) == 1


@pytest.mark.parametrize("roll", [False, True])
def test_given_tokens_come_first_and_the_rest_keeps_its_order(roll):
    known = np.array([7, 2])
    plan = Halton(roll=roll).plan((4, 4), 5, Streams(0, (0, 1)), known=known)
    assert (plan.given, plan.sizes) == (2, halton_sizes(14, 5))
    whole = Halton(roll=roll).plan((4, 4), 5, Streams(0, (0, 1))).order
    for order, without in zip(plan.order, whole, strict=True):
        assert set(order[:2]) == {7, 2}
        assert order[2:].tolist() == [cell for cell in without if cell not in known]


def test_multipliers_rise_and_the_first_are_halved():
    strategy = Halton(sharpness=1.0, last_sharpness=2.0, sharpness_power=2.0, halved_steps=1)
    assert strategy.multipliers(3) == pytest.approx([0.5, 2.25, 4.0])
    assert Halton().multipliers(4) == [1.0] * 4


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("sharpness", 0.0),
        ("sharpness", -1.0),
        ("last_sharpness", math.nan),
        ("sharpness_power", -1.0),
        ("sharpness_power", math.inf),
        ("halved_steps", -1),
    ],
)
def test_multipliers_that_are_none_are_refused(option, value):
    with pytest.raises(UserError, match=f"option '{option}' of strategy 'halton' is {value}"):
        Halton(**{option: value})
    assert Halton(sharpness=2.0, sharpness_power=0.0).multipliers(2) == [1.0, 1.0]


def test_a_multiplier_is_an_inverse_temperature_of_its_step():
    """Tokens are those of the sampler at 1 / multiplier, and top-k is the sampler's."""
    tiny, images = subject(Halton(sharpness=0.5, last_sharpness=2.0)), (0, 1)
    plan, labels = tiny.plan(images, 2), tiny.labels(images)
    found = run(tiny, plan, labels, tiny.sampler(images, top_k=4))
    streams = Streams(0, images)
    draws = [event for event in found.events if event.logits is not None]
    for draw, multiplier in zip(draws, (0.5, 2.0), strict=True):
        sampler = StreamSampler(streams, temperature=1 / multiplier, top_k=4)
        noise = sampler.noise(found.order)[:, draw.entry.places]
        assert torch.equal(sampler.draw(draw.logits, noise)[0], draw.entry.tokens)
    plain = run(replace(tiny, strategy=Halton()), plan, labels, tiny.sampler(images, top_k=4))
    close(plain.combined[0], found.combined[0], 1e-6)
    assert not torch.equal(plain.decoded.tokens, found.decoded.tokens)


class DrawsTheMask(ForcedSampler):
    def draw(self, logits, noise):
        return torch.full_like(noise, logits.shape[-1] - 1), logits.sum(dim=-1)


def test_a_drawn_mask_stays_one_for_the_network_and_is_the_last_code_of_the_image():
    tiny = subject(Halton(), MASKED)
    fed = []
    tiny.network.token_embedding.register_forward_pre_hook(lambda _, args: fed.append(args[0].clone()))
    found = run(tiny, tiny.plan((0,), 4), tiny.labels((0,)), DrawsTheMask(tiny.tokens(1)))
    assert len(fed) == 4
    assert all((codes == MASKED.codes).all() for codes in fed)
    assert (found.decoded.tokens == MASKED.codes - 1).all()


def test_the_head_reads_only_the_places_of_its_step():
    tiny = subject(Halton(roll=True), MASKED)
    plan = tiny.plan((0, 1), 4)
    found = run(tiny, plan, tiny.labels((0, 1)), ForcedSampler(tiny.tokens(2)))
    assert [asked.shape[1] for asked in found.asked] == list(plan.sizes)
    assert found.decoded.tokens_processed == 4 * (16 + MASKED.registers)
    codes = torch.full((2, 16), MASKED.codes)
    with torch.no_grad():
        whole = tiny.network(tiny.labels((0, 1)), codes, torch.as_tensor(plan.order))
    close(found.asked[0], whole[:, : plan.sizes[0]], 1e-5)


def test_guidance_rises_with_the_steps():
    plan = Halton().plan((4, 4), 5, Streams(0, (0,)), known=np.array([7, 2]))
    assert plan.progress.tolist() == [0, 0, *np.repeat([0, 0.25, 0.5, 0.75, 1], plan.sizes)]
