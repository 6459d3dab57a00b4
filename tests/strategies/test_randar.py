"""RandAR: instruction tokens, the interleaved cache, sizes, clock, extrapolation."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from backbones.checkpoints import load_published
from backbones.positions import rotary_table
from strategies.decoding.base import Lesson
from strategies.decoding.contract.recording import run, subject
from strategies.decoding.contract.requirements import close
from strategies.decoding.decode import decode
from strategies.decoding.guidance import Guidance
from strategies.decoding.plan import known_first
from strategies.decoding.sampling import ForcedSampler, StreamSampler
from strategies.decoding.streams import Streams
from strategies.published.randar import PUBLISHED
from strategies.randar import RandAR, reading_mask
from strategies.zero_shot.randar import (
    ContextGuidance,
    Extrapolation,
    extrapolate,
    large_orders,
    small_orders,
    spread,
    thinned,
)
from tests.backbones.published_files import published
from tests.strategies.dressings import with_trunk

GRID = (4, 4)
IMAGES = (0, 1)


@pytest.fixture(scope="module")
def tiny():
    return subject(RandAR(), with_trunk(depth=3))


# Plans -----------------------------------------------------------------------------------------------------


def test_guidance_counts_before_the_step():
    plan = RandAR().plan((16, 16), 88, Streams(0, (0,)))
    weights = Guidance(4.0, "linear").weights(plan)
    for group in plan.groups():
        assert np.allclose(weights[group], 1 + 3 * group.start / 256)
    assert weights[0] == 1.0
    assert weights[-1] < 4.0
    known = RandAR().plan(GRID, 3, Streams(0, (0,)), known=np.arange(6))
    assert known.sizes[0] == 1
    starts = np.repeat(np.cumsum(known.sizes) - known.sizes, known.sizes)
    assert np.allclose(known.progress[6:], starts / 10)


def test_known_positions_come_first_in_a_random_order():
    known = np.array([1, 5, 6, 11, 14])
    orders = RandAR().plan(GRID, 4, Streams(3, tuple(range(8))), known=known).order
    assert (np.sort(orders[:, :5], axis=1) == known).all()
    assert len(np.unique(orders[:, :5], axis=0)) > 1
    raster = RandAR(order="raster").plan(GRID, 4, Streams(0, (0,)), known=known).order
    assert raster[:, :6].tolist() == [[*known, 0]]
    assert known_first(np.array([[3, 1, 0, 2]]), np.array([0, 3])).tolist() == [[3, 0, 1, 2]]


# The sequence ----------------------------------------------------------------------------------------------


def test_an_instruction_is_the_vector_turned_head_by_head(tiny):
    network, trunk = tiny.network, tiny.config.trunk
    phases = network.phases(1 + torch.arange(16))  # [16, 1, D/2]
    found = network.instructions(phases).detach()
    pairs = torch.view_as_complex(network.instruction.detach().view(trunk.heads, -1, 2))
    expected = torch.view_as_real(pairs * phases).reshape(16, -1)
    close(found, expected, 1e-6)
    close(found[0], network.instruction[0].detach(), 1e-6)  # cell (0, 0) turns nothing


def test_the_class_has_no_query_and_no_key_but_a_value(tiny):
    """With its phases zero the class attends evenly; what it says still reaches the others."""
    assert not tiny.network.phases(torch.tensor([0])).any()
    tokens, order = tiny.tokens(1), torch.randperm(16, generator=torch.Generator().manual_seed(0))[None]
    taught = [
        tiny.strategy.taught_logits(tiny.network, tokens, torch.tensor([label]), Lesson(order))
        for label in (0, 1)
    ]
    assert float((taught[0] - taught[1]).detach().abs().max()) > 1e-2


@pytest.mark.parametrize("steps", [2, 5, 16])
def test_rows_through_the_trunk_and_slots_of_the_cache(tiny, steps):
    plan = tiny.plan(IMAGES, steps)
    found = run(tiny, plan, torch.zeros(2, dtype=torch.int64), ForcedSampler(tiny.tokens(2))).decoded
    sizes = plan.sizes
    fed = [1 + sizes[0], *(2 * sizes[k] - 1 + sizes[k + 1] for k in range(steps - 1))]
    assert found.tokens_processed == sum(fed)
    assert found.forwards == steps
    assert tiny.strategy.cache_shape(tiny.config) == (3, 2 * 16)


def test_the_context_does_not_depend_on_how_tokens_were_grouped(tiny):
    """Instructions that were only read out leave nothing behind: the last step sees the training layout."""
    tokens, labels = tiny.tokens(1), torch.tensor([1])
    order = np.random.default_rng(0).permutation(16)
    logits = [
        run(tiny, tiny.strategy.arrange(GRID, order, sizes), labels, ForcedSampler(tokens)).combined[-1]
        for sizes in ((1,) * 13 + (3,), (1, 12, 3), (5, 2, 6, 3))
    ]
    for other in logits[1:]:
        close(other, logits[0], 2e-5)


def test_instructions_of_one_step_see_those_before_them_and_no_token_of_the_step(tiny):
    labels, order = torch.tensor([1]), np.arange(16)
    swapped = order.copy()
    swapped[[4, 5]] = swapped[[5, 4]]
    tokens = tiny.tokens(1)
    plans = [tiny.strategy.arrange(GRID, one, (4, 12)) for one in (order, swapped)]
    first, other = (run(tiny, plan, labels, ForcedSampler(tokens)).combined[1] for plan in plans)
    # The instruction of place 6 has the same set before it, the one of place 4 (now at 5) sees one more.
    assert float((first[:, 0] - other[:, 1]).abs().max()) > 1e-3
    changed = tokens.clone()
    changed[0, 4:] = (changed[0, 4:] + 1) % tiny.config.codes
    close(run(tiny, plans[0], labels, ForcedSampler(changed)).combined[1], first, 0)


def test_the_reading_mask_by_hand():
    rows = ["10000000", "11000000", "11100000", "11110000", "11111000", "10000100", "11100010", "11100011"]
    expected = torch.tensor([[value == "1" for value in row] for row in rows])
    assert torch.equal(reading_mask((1, 2), torch.device("cpu")), expected)  # class P0 X0 P1 X1 | P0 P1 P2


def test_the_order_of_known_tokens_matters(tiny):
    tokens, labels = tiny.tokens(1), torch.tensor([1])
    order = np.arange(16)
    other = np.array([2, 0, 1, *range(3, 16)])
    logits = [
        run(
            tiny,
            tiny.strategy.arrange(GRID, one, (13,), given=3),
            labels,
            ForcedSampler(tokens),
            known=tokens,
        )
        for one in (order, other)
    ]
    assert float((logits[0].logits - logits[1].logits).abs().max()) > 1e-3


# The authors' files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scales", "guidance"),
    [
        ((1.0, 4.0), Guidance(4.0, "linear", start=1.0)),
        ((2.5, 2.5), Guidance(2.5)),
        ((4.0, 2.0), Guidance(2.0, "linear", start=4.0)),
        ((4.0, 1.0), None),
        ((1.0, 1.0), None),
    ],
)
def test_guidance_is_decided_by_the_end_value(scales, guidance):
    assert PUBLISHED.setting({"cfg_scales": scales}).guidance == guidance


def test_a_pair_of_scales_runs_from_the_first_to_the_second():
    plan = RandAR().plan(GRID, 16, Streams(0, (0,)))
    assert np.allclose(Guidance(2.0, "linear", start=4.0).weights(plan), 4 - 2 * np.arange(16) / 16)


@pytest.mark.parametrize(("published_count", "steps"), [(-1, None), (1, 2), (88, 88)])
def test_published_step_requests(published_count, steps):
    assert PUBLISHED.setting({"num_inference_steps": published_count}).steps == steps


def test_caches_in_a_published_file_are_ignored():
    case = published("randar")
    stray = {
        f"layers.{i}.attention.kv_cache.{k}_cache": torch.zeros(2, 4, 40, 8) for i in (0, 1) for k in "kv"
    }
    network = case.empty()
    load_published(network, {**case.state(), **stray}, case.keys, "file")
    assert torch.equal(case.logits(network), case.logits(case.network))


# Resolution extrapolation ----------------------------------------------------------------------------------


def test_large_orders_open_with_the_even_cells():
    orders = large_orders((3, 4), Streams(0, (0, 1, 2)))
    assert (np.sort(orders, axis=1) == np.arange(48)).all()
    row, column = np.divmod(orders[:, :12], 8)
    assert not (row % 2).any()
    assert not (column % 2).any()
    assert (np.sort(small_orders((3, 4), orders), axis=1) == np.arange(12)).all()
    assert len(np.unique(orders[:, :12], axis=0)) == 3
    tokens = torch.arange(1, 13)[None]
    large = spread((3, 4), tokens)[0]
    assert (
        large[torch.as_tensor(orders[0, :12])].tolist() == tokens[0][small_orders((3, 4), orders)[0]].tolist()
    )
    assert int((large != 0).sum()) == 12


def test_the_highest_frequencies_go_on_and_the_others_stay_within_the_trained_positions():
    head, device = 16, torch.device("cpu")
    table = rotary_table((8, 8), head, 100.0, device, (4, 4), 2)[1:].unflatten(0, (8, 8))
    plain = rotary_table((8, 8), head, 100.0, device)[1:].unflatten(0, (8, 8))
    trained = rotary_table((4, 4), head, 100.0, device)[1:].unflatten(0, (4, 4))
    quarter = head // 4
    for part, axis in ((slice(0, 2), 0), (slice(quarter, quarter + 2), 1)):
        assert torch.equal(table[..., part], plain[..., part]), axis
    low = [2, 3, quarter + 2, quarter + 3]
    close(torch.view_as_real(table[7, 7, low]), torch.view_as_real(trained[3, 3, low]), 1e-6)
    steps = table[1:, 0, 2] / table[:-1, 0, 2]
    close(torch.view_as_real(steps), torch.view_as_real(steps[:1].expand(7)), 1e-6)


def test_three_branches_by_formula(tiny):
    settings = Extrapolation(steps=20, class_scales=(3.0, 2.0), context_scales=(1.5, 2.5), thinned=0.5)
    streams = Streams(0, IMAGES)
    plan = settings.plan(GRID, large_orders(GRID, streams))
    guidance = settings.guidance(plan.given, streams)
    assert isinstance(guidance, ContextGuidance)
    assert (guidance.kept.sum(axis=1) == 8).all()
    assert not np.array_equal(guidance.kept[0], guidance.kept[1])
    small, labels, null = tiny.tokens(2), torch.tensor([0, 1]), torch.full((2,), tiny.config.classes)
    large = replace(tiny, network=tiny.network.enlarged(2))
    seeing = replace(large, strategy=thinned(tiny.strategy, guidance))
    known = spread(GRID, small)
    sampler = ForcedSampler(large.tokens(2))
    found = run(seeing, plan, labels, sampler, guidance, known)  # type: ignore[arg-type]
    full, spatial = (run(large, plan, one, sampler, None, known).logits for one in (labels, null))
    weakest = torch.cat([branch.chunk(3)[2] for branch in found.asked], dim=1)
    progress = plan.progress[plan.given :, None]
    by_class, by_context = (torch.as_tensor(a + (b - a) * progress).float() for a, b in ((3, 2), (1.5, 2.5)))
    close(found.logits, weakest + by_class * (full - spatial) + by_context * (spatial - weakest))
    assert float((spatial - weakest).abs().max()) > 1e-3
    everything = replace(guidance, kept=np.ones_like(guidance.kept))
    seeing = replace(large, strategy=thinned(tiny.strategy, everything))
    kept = run(seeing, plan, labels, sampler, everything, known)  # type: ignore[arg-type]
    close(torch.cat([branch.chunk(3)[2] for branch in kept.asked], dim=1), spatial)


def test_guidance_of_the_second_pass_by_its_end_values():
    streams = Streams(0, IMAGES)
    assert Extrapolation(context_scales=(2.5, 1.0)).guidance(16, streams) == Guidance(3.0)
    assert Extrapolation(class_scales=(3.0, 1.0)).guidance(16, streams) is None
    assert Extrapolation(thinned=0.3).guidance(16, streams).kept.sum(axis=1).tolist() == [12, 12]


def test_the_second_pass_keeps_the_first_and_the_network_as_it_was(tiny):
    streams = Streams(4, IMAGES)
    settings = Extrapolation(steps=24)
    plan = settings.plan(GRID, large_orders(GRID, streams))
    assert plan.sizes == (1,) * 16 + (4,) * 8
    labels = torch.tensor([0, 1])
    first = tiny.strategy.arrange(GRID, small_orders(GRID, plan.order), (1, 7, 8))
    small = decode(tiny.network, tiny.strategy, first, labels, StreamSampler(streams)).tokens
    large = tiny.network.enlarged(settings.boundary)
    arguments = (large, tiny.strategy, plan, labels, small, StreamSampler(streams, stream="large"))
    found = extrapolate(*arguments, settings.guidance(plan.given, streams))
    assert torch.equal(found.tokens.unflatten(1, (8, 8))[:, ::2, ::2].flatten(1), small)
    assert tiny.network.config.grid == GRID
    assert not tiny.network._forward_pre_hooks
    cut = extrapolate(*arguments, settings.guidance(plan.given, streams), published_tail=True)
    last = torch.as_tensor(plan.order)[:, -4:]
    assert not cut.tokens.gather(1, last).any()
    same = torch.ones_like(cut.tokens, dtype=torch.bool).scatter(1, last, False)
    assert torch.equal(cut.tokens[same], found.tokens[same])


def test_the_control_learns_raster():
    lesson = RandAR(order="raster").lesson(3, (4, 4), torch.Generator().manual_seed(0), 0.0)
    assert torch.equal(lesson.order, torch.arange(16).expand(3, -1))
