"""The window of drafts that speculative decoders share."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import pytest
import torch

from backbones.config import NetworkConfig, TrunkConfig
from pardec.errors import UserError
from strategies.decoding import registry
from strategies.decoding.contract import check_strategy
from strategies.decoding.contract.recording import CONTROLLED, randomise, subject
from strategies.decoding.decode import Decoded, decode, make_rows
from strategies.decoding.plan import Plan
from strategies.decoding.requests import Commit, Draft, Uniform
from strategies.decoding.sampling import StreamSampler
from strategies.decoding.speculation import Guess, Speculative, Window, residual, until_rejection
from strategies.decoding.streams import Streams
from strategies.raster import Raster
from strategies.sjd import SJD
from tests.strategies.dressings import ADALN

CODES = 8


def window(guess: Guess, known: int, accepted: int) -> Window:
    """Of two images on a 4 x 4 grid, place p holding code p modulo 8, and 7 - that being the likeliest."""
    config = NetworkConfig(TrunkConfig(depth=1, width=8, heads=1, mlp_width=8), CODES, 2, (4, 4))
    strategy = SJD(init=guess, window=6)
    plan = strategy.plan(config.grid, None, Streams(0, (0, 1)))
    rows = make_rows(plan, torch.tensor([0, 1]), 2, 1, None)
    made = Window(strategy, Raster().network(config), plan, rows, guess)
    made.tokens[:, :known] = torch.arange(known) % CODES
    made.likely[:, :known] = 7 - torch.arange(known) % CODES
    made.accepted, made.known = torch.tensor([accepted, 16]), torch.tensor([known, 16])
    return made


def drafts(guess: Guess, known: int, accepted: int, length: int) -> list[int]:
    """Of the first image, with 0.99 as the random number of every guess."""
    made = window(guess, known, accepted)
    laying = made.lay(length)
    asked = next(laying)
    assert isinstance(asked, Uniform)
    try:
        laying.send(torch.full((2, length - 1), 0.99))
    except StopIteration as end:
        at = end.value
    assert at.tolist()[1] == [-1] * length, "an image that is complete has no place"
    assert made.drafts.shape == (2, length - 1)
    return made.drafts[0].tolist()


def test_carried_drafts_come_first_and_guesses_after_them():
    assert drafts("random", known=7, accepted=5, length=5) == [5, 6, 7, 7]


def test_a_neighbour_without_a_token_is_the_last_place_that_has_one():
    # Places 6, 7, 8 and 9; 8 opens a row, so nothing is left of it.
    assert drafts("repeat_horizon", known=6, accepted=6, length=5) == [5, 5, 7, 5]
    assert drafts("sample_horizon", known=6, accepted=6, length=5) == [2, 2, 7, 2]


def test_vertical_guesses_take_the_place_above():
    assert drafts("repeat_vertical", known=6, accepted=6, length=6) == [2, 3, 4, 5, 5]
    assert drafts("sample_vertical", known=6, accepted=6, length=6) == [5, 4, 3, 2, 2]
    assert drafts("repeat_vertical", known=2, accepted=2, length=4) == [7, 7, 0], (
        "nothing is above the first row"
    )


def test_the_last_place_of_an_image_has_no_draft():
    made = window("random", known=14, accepted=14)
    laying = made.lay(4)
    asked = next(laying)
    assert isinstance(asked, Uniform)
    assert asked.at[0].tolist() == [14, -1, -1], "place 15 is drawn at once"
    assert made.at[0].tolist() == [14, 15, -1, -1]


def test_places_become_final_up_to_the_first_rejection_and_one_more():
    at = torch.tensor([[3, 4, 5, 6], [3, 4, 5, 6], [3, 4, 5, 6], [14, 15, -1, -1], [-1, -1, -1, -1]])
    accepted = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1], [1, 1, 1]]).bool()
    final = until_rejection(accepted, at)
    assert final.int().tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    for row in final.int().tolist():
        assert all(before >= after for before, after in pairwise(row))


def test_a_residual_that_rounding_leaves_empty_is_the_target():
    p = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.8, 0.0]])
    assert residual(p, p.clone()).tolist() == p.tolist()
    torch.testing.assert_close(residual(p[1], p[0]), torch.tensor([0.0, 0.3, 0.0]))


# What the loop does for them --------------------------------------------------------------------------------


def sjd_with(most_visits: int | None) -> Decoded:
    """Four images by SJD with windows of 4, whose plan says this of visits."""
    network, method, streams = Raster().network(CONTROLLED).eval(), SJD(window=4), Streams(0, (0, 1, 2, 3))
    randomise(network)
    plan = replace(method.plan(CONTROLLED.grid, None, streams), most_visits=most_visits)
    return decode(network, method, plan, torch.zeros(4, dtype=torch.int64), StreamSampler(streams))


def test_numbers_do_not_depend_on_how_many_visits_are_expected():
    assert torch.equal(sjd_with(4).tokens, sjd_with(None).tokens)


def test_a_number_is_not_handed_out_twice():
    with pytest.raises(ValueError, match=r"visited [234] times for '(token|accept)', its plan says 1"):
        sjd_with(1)


@dataclass(frozen=True)
class Certain(Speculative):
    """Draws a window's places from a law of its own, and keeps what stands at even places."""

    decides_steps: ClassVar[bool] = True

    def decode(self, network, plan: Plan, rows):
        window = Window(self, network, plan, rows, "random")
        yield from window.prefill()
        at = yield from window.lay(15)
        law = torch.zeros(2, 15, CONTROLLED.codes)
        law[..., 3] = 2.0
        drawn = yield Draft(window.forward(), at, law=lambda logits, sampler: law)
        assert drawn.probs is law
        yield Commit(at, drawn.tokens, where=at % 2 == 0)
        yield Commit(at, drawn.tokens + 1, where=at % 2 == 1)


def test_a_draft_may_bring_the_law_that_it_is_drawn_from():
    network, method, streams = Raster().network(CONTROLLED).eval(), Certain(), Streams(0, (0, 1))
    randomise(network)
    plan = method.plan(CONTROLLED.grid, None, streams)
    found = decode(network, method, plan, torch.zeros(2, dtype=torch.int64), StreamSampler(streams))
    assert found.tokens[:, 1:].tolist() == [[4, 3] * 7 + [4]] * 2
    assert found.drafted.tolist() == found.kept.tolist() == [15, 15]


@pytest.mark.parametrize("name", ["jacobi", "sjd", "sjd-mc", "sjd-gs", "gsd"])
@pytest.mark.parametrize("base", ["raster", "rar"])
def test_asking_less_often_changes_no_token_and_costs_less_than_so_many_steps(name, base):
    found = {}
    for read_every in (1, 2, 5, 100):
        case = subject(registry.get(name, window=4, base=base, read_every=read_every))
        images = (0, 1, 2)
        found[read_every] = decode(
            case.network, case.strategy, case.plan(images), case.labels(images), case.sampler(images)
        )
    often = found.pop(1)
    for read_every, seldom in found.items():
        assert torch.equal(seldom.tokens, often.tokens)
        assert torch.equal(seldom.steps_of_image, often.steps_of_image)
        assert 0 <= seldom.steps - often.steps < read_every
        assert seldom.steps <= case.plan(images).most_steps


def test_steps_in_vain_are_declared():
    for read_every in (1, 4):
        strategy = registry.get("sjd", window=4, read_every=read_every)
        assert strategy.vain_steps == read_every - 1
        (outcome,) = check_strategy(strategy, only=("used_through_the_loop_only",)).outcomes
        assert outcome.status == "pass", outcome.reason


def test_rows_past_the_end_of_an_image_find_a_modulation():
    """RAR's table of steps ends where no image needs one; a fast image of a batch asks beyond it."""
    config = replace(ADALN, grid=(16, 16))
    case = subject(registry.get("jacobi", base="rar", window=160), config)
    images = tuple(range(4))
    sampler = case.sampler(images, temperature=1e-5)
    found = decode(case.network, case.strategy, case.plan(images), case.labels(images), sampler)
    assert found.tokens.shape == (4, 256)
    assert len(found.steps_of_image.unique()) > 1


def test_how_often_to_ask_is_a_number_of_steps():
    case = subject(registry.get("sjd", read_every=0))
    with pytest.raises(UserError, match="read_every = 0: expected at least 1"):
        case.plan((0,))
    with pytest.raises(UserError, match="the published loop asks at every step"):
        subject(registry.get("sjd", loop="published", read_every=2)).plan((0,))
