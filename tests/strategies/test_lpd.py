"""LPD: queries beside content, published step lists, guidance by place."""

import math

import numpy as np
import pytest
import torch

from backbones.transformer import parameter_count
from pardec.errors import UserError
from strategies.decoding.contract.recording import CONTROLLED, run, subject
from strategies.decoding.contract.requirements import close
from strategies.decoding.guidance import Guidance
from strategies.decoding.sampling import ForcedSampler
from strategies.decoding.schedules import lpd_sizes
from strategies.decoding.streams import Streams
from strategies.lpd import LPD, teaching_mask
from strategies.published.lpd import PUBLISHED
from strategies.raster import Raster
from tests.strategies.dressings import LEARNED


@pytest.mark.parametrize(
    ("side", "steps", "sizes"),
    [
        (16, 20, "1 2 4 5 7 8 10 11 12 14 15 16 17 18 18 19 19 20 20 20"),
        (16, 8, "1 15 24 32 40 45 49 50"),
        (16, 12, "1 7 11 15 19 22 25 28 30 32 33 33"),
        (16, 16, "1 4 6 8 11 13 15 17 19 20 22 23 24 24 24 25"),
    ],
)
def test_published_sizes(side, steps, sizes):
    plan = LPD().plan((side, side), steps, Streams(0, (0,)))
    assert plan.sizes == tuple(map(int, sizes.split()))


@pytest.mark.parametrize(("side", "steps"), [(16, 20), (16, 32), (32, 48)])
def test_published_settings_take_their_steps(side, steps):
    plan = LPD(order="random").plan((side, side), steps, Streams(0, (0, 1)))
    assert plan.steps == steps
    assert plan.order.shape == (2, side * side)


def test_the_first_group_is_one_token_so_one_step_is_refused():
    with pytest.raises(UserError, match="takes 2 to 16 steps"):
        LPD().plan((4, 4), 1, Streams(0, (0,)))


@pytest.mark.parametrize("options", [{"repulsion": -1.0}, {"repulsion": math.nan}, {"proximity": math.nan}])
def test_unusable_thresholds_are_refused_at_once(options):
    with pytest.raises(UserError, match=f"option '{next(iter(options))}' of strategy 'lpd'"):
        LPD(**options)


def test_the_locality_order_needs_a_square_and_the_random_one_does_not():
    with pytest.raises(UserError, match="square grids, not 4x6"):
        LPD().plan((4, 6), 8, Streams(0, (0,)))
    assert LPD(order="random").plan((4, 6), 8, Streams(0, (0,))).steps == 8


def test_the_teaching_mask_by_hand():
    sizes = (1, 2, 1)
    rows = [
        # class, g0, g1, g1 | q0, q1, q1, q2
        "1000 0000",  # the class sees itself
        "1100 0000",  # content of a group sees all up to its own
        "1111 0000",
        "1111 0000",
        "1000 1000",  # queries see earlier content and their own group
        "1100 0110",
        "1100 0110",
        "1111 0001",
    ]
    expected = torch.tensor([[c == "1" for c in row.replace(" ", "")] for row in rows])
    assert torch.equal(teaching_mask(sizes, torch.device("cpu")), expected)


@pytest.mark.parametrize("config", [CONTROLLED, LEARNED], ids=["shared", "published"])
@pytest.mark.parametrize("steps", [2, 6, 16])
def test_rows_through_the_trunk(config, steps):
    tiny = subject(LPD(), config)
    plan = tiny.plan((0, 1), steps)
    found = run(tiny, plan, torch.zeros(2, dtype=torch.int64), ForcedSampler(tiny.tokens(2))).decoded
    assert found.forwards == steps
    assert found.tokens_processed == 1 + 16 - plan.sizes[-1] + 16


def test_a_prefill_costs_one_forward_more():
    tiny, known = subject(LPD()), np.array([0, 5])
    tokens, labels = tiny.tokens(2), torch.tensor([0, 1])
    plan = tiny.strategy.plan((4, 4), 4, Streams(0, (0, 1)), known=known)
    found = run(tiny, plan, labels, ForcedSampler(tokens), known=tokens).decoded
    assert plan.sizes == lpd_sizes(14, 4, first_is_one=False)
    assert found.forwards == 4 + 1


@pytest.mark.parametrize("known", [1, 6, 15])
def test_one_step_around_given_tokens_draws_all_others(known):
    tiny = subject(LPD())
    tokens, labels = tiny.tokens(2), torch.tensor([0, 1])
    plan = tiny.strategy.plan((4, 4), 1, Streams(0, (0, 1)), known=np.arange(known))
    found = run(tiny, plan, labels, ForcedSampler(tokens), known=tokens).decoded
    assert plan.sizes == (16 - known,)
    assert (found.forwards, torch.equal(found.tokens, tokens)) == (2, True)
    with pytest.raises(UserError, match="steps = 1: strategy 'lpd' on a 4x4 grid takes 2 to 16 steps"):
        tiny.strategy.plan((4, 4), 1, Streams(0, (0, 1)))


def test_the_order_of_given_tokens_does_not_matter():
    tiny = subject(LPD(order="random"))
    tokens, labels = tiny.tokens(1), torch.tensor([1])
    tails = [p for p in range(16) if p not in (1, 4, 9)]
    logits = []
    for known in ([1, 4, 9], [9, 1, 4]):
        plan = tiny.strategy.arrange((4, 4), np.array([*known, *tails]), (5, 8), 3)
        logits.append(run(tiny, plan, labels, ForcedSampler(tokens), known=tokens).logits)
    close(logits[0], logits[1], 1e-5)


def test_guidance_grows_place_by_place_and_never_reaches_the_scale():
    plan = LPD().plan((16, 16), 20, Streams(0, (0,)))
    weights = Guidance(4.8, "linear").weights(plan)
    assert np.allclose(weights, 1 + 3.8 * np.arange(256) / 256)
    assert weights[0] == 1.0
    assert len(np.unique(weights[plan.groups()[5]])) == plan.sizes[5]
    known = LPD().plan((4, 4), 3, Streams(0, (0,)), known=np.arange(6))
    assert np.allclose(Guidance(3.0, "linear").weights(known)[6:], 1 + 2 * np.arange(10) / 10)


@pytest.mark.parametrize(("scale", "guided"), [(1.0, False), (0.5, True), (4.0, True)])
def test_published_guidance_is_off_at_exactly_one(scale, guided):
    assert (PUBLISHED.setting({"cfg": scale}).guidance is not None) == guided


def test_lessons_take_every_published_list_and_random_orders_only():
    seen = set()
    for seed in range(60):
        lesson = LPD().lesson(2, (16, 16), torch.Generator().manual_seed(seed), 0.0)
        seen.add(len(lesson.sizes))
        assert lesson.sizes == lpd_sizes(256, len(lesson.sizes))
    assert seen == {8, 12, 16, 20, 24, 32, 64, 128, 256}
    small = {len(LPD().lesson(1, (4, 4), torch.Generator().manual_seed(s), 0.0).sizes) for s in range(60)}
    assert min(small) == 2
    assert max(small) == 16


def test_the_key_third_of_the_projection_bias_is_dead():
    case = subject(LPD(), LEARNED)
    lesson = LPD().lesson(4, (4, 4), torch.Generator().manual_seed(0), 0.0)
    LPD().loss(case.network, case.tokens(4), torch.arange(4), lesson).backward()
    biases = [p.grad for n, p in case.network.named_parameters() if n.endswith("qkv.bias")]
    assert len(biases) == 2
    for query, key, value in (bias.chunk(3) for bias in biases):
        assert float(key.abs().max()) < 1e-6
        assert min(float(query.abs().max()), float(value.abs().max())) > 1e-5


def test_a_dropped_label_is_the_extra_row_of_the_class_table():
    case = subject(LPD())
    lesson = LPD().lesson(1, (4, 4), torch.Generator().manual_seed(0), 0.0)
    LPD().loss(case.network, case.tokens(1), torch.tensor([3]), lesson).backward()
    read = case.network.class_embedding.weight.grad.abs().amax(dim=1).nonzero().flatten().tolist()
    assert read == [3]
    assert case.network.class_embedding.num_embeddings == 3 + 1


def test_on_the_shared_trunk_one_query_vector_is_all_it_adds():
    raster, lpd = (parameter_count(kind().network(CONTROLLED)) for kind in (Raster, LPD))
    assert lpd - raster == CONTROLLED.trunk.width
