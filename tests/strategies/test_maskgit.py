"""MaskGIT: which places are accepted, what noise orders them, the drawn mask, lesson, sizes, parameters."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from backbones.config import Dropout
from backbones.transformer import Block, View, parameter_count
from pardec.errors import UserError
from strategies.decoding.base import Lesson
from strategies.decoding.contract.recording import run, subject
from strategies.decoding.contract.requirements import close
from strategies.decoding.guidance import Guidance
from strategies.decoding.mask_schedules import halton_sizes, known_share, maskgit_sizes
from strategies.decoding.presets import preset
from strategies.decoding.requests import Drawn
from strategies.decoding.sampling import ForcedSampler, StreamSampler
from strategies.decoding.streams import Streams
from strategies.decoding.trace import places_of
from strategies.maskgit import LEAST_UNIFORM, MaskGIT
from tests.strategies.dressings import MASKED

SCHEDULES = ("arccos", "cosine", "linear", "root", "square")
PRINTED = {
    "arccos": (1, 22, 24, 25, 27, 30, 38, 89),
    "cosine": (1, 5, 19, 30, 41, 48, 55, 57),
    "linear": (1, 35, 37, 36, 37, 36, 37, 37),
    "square": (1, 4, 15, 27, 36, 47, 58, 68),
    "root": (1, 95, 40, 31, 26, 23, 21, 19),
}


# Sizes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_sizes_printed_in_the_specification(schedule):
    assert maskgit_sizes(256, 8, schedule) == PRINTED[schedule]


def test_sizes_hang_on_the_last_bit():
    assert np.cumsum(maskgit_sizes(36, 7, "cosine")).tolist() == [1, 2, 4, 10, 17, 26, 36]
    assert sum(halton_sizes(36, 2)[:1]) == 11
    assert sum(halton_sizes(576, 2)[:1]) == 191


@given(st.integers(1, 700), st.data(), st.sampled_from(SCHEDULES))
def test_sizes_are_complete_and_only_root_has_empty_steps(unknown, data, schedule):
    steps = data.draw(st.integers(1, unknown))
    sizes = maskgit_sizes(unknown, steps, schedule)
    assert (len(sizes), sum(sizes)) == (steps, unknown)
    assert min(sizes) >= (0 if schedule == "root" else 1)
    assert sizes[0] == 1 or steps == 1
    halton = halton_sizes(unknown, steps)
    assert (len(halton), sum(halton)) == (steps, unknown)
    assert min(halton) >= 1


@pytest.mark.parametrize(("places", "steps"), [(16, 13), (36, 24), (256, 141)])
def test_root_reaches_an_empty_step_where_the_specification_says(places, steps):
    assert 0 not in maskgit_sizes(places, steps - 1, "root")
    assert 0 in maskgit_sizes(places, steps, "root")


def test_an_empty_step_is_a_forward_that_writes_nothing():
    tiny = subject(MaskGIT(schedule="root"))
    found = run(tiny, tiny.plan((0, 1), 16), tiny.labels((0, 1)), tiny.sampler((0, 1)))
    written = [int(entry.where.sum()) for entry in found.decoded.trace]
    assert found.decoded.forwards == found.decoded.steps == 16
    assert written == [2 * size for size in found.plan.sizes]
    assert 0 in written


@pytest.mark.parametrize("steps", [0, 1, 17])
def test_steps_that_there_are_not(steps):
    with pytest.raises(UserError, match="takes 2 to 16 steps"):
        MaskGIT().plan((4, 4), steps, Streams(0, (0,)))


# Confidence -------------------------------------------------------------------------------------------------


def test_without_noise_the_likeliest_draws_are_kept():
    tiny = subject(MaskGIT(noise="none"))
    images = (0, 1, 2)
    found = run(tiny, tiny.plan(images, 5), tiny.labels(images), tiny.sampler(images))
    draws = [event for event in found.events if event.logits is not None]
    written = torch.zeros(3, 16, dtype=torch.bool)
    for draw, entry, size in zip(draws, found.decoded.trace, found.plan.sizes, strict=True):
        probability = draw.logits.softmax(-1).gather(2, draw.entry.tokens[..., None])[..., 0]
        left = probability.masked_fill(written, -1)
        for row in range(3):
            kept = entry.where[row].nonzero().flatten().tolist()
            assert sorted(kept) == sorted(left[row].topk(size).indices.tolist())
        written |= entry.where
    assert written.all()


def confidence(strategy, step, ratio, uniform):
    """What two drawn tokens of probabilities 3/4 and 1/4 are ranked by."""
    logits = torch.tensor([[[0.75, 0.25], [0.75, 0.25]]]).log()
    drawn = Drawn(torch.tensor([[0, 1]]), logits, StreamSampler(Streams(0, (0,))))
    asking = strategy.confidence(drawn, slice(0, 2), step, ratio)
    try:
        request = next(asking)
        assert request.purpose == "confidence"
        asking.send(uniform)
    except StopIteration as end:
        return end.value
    raise AssertionError("asks twice")


def test_noise_is_gumbels_and_falls_to_nothing():
    uniform = torch.tensor([[0.5, 0.1]])
    gumbel = -torch.log(-torch.log(uniform.double()))
    logs = torch.tensor([[0.75, 0.25]]).log()
    for ratio in (0.0, 0.4, 1.0):
        found = confidence(MaskGIT(noise_scale=2.0), 3, ratio, uniform)
        assert found.dtype == torch.float64
        close(found, logs + 2.0 * (1 - ratio) * gumbel, 1e-6)


@pytest.mark.parametrize("number", [0.0, LEAST_UNIFORM, 1 - 2.0**-24])
def test_no_number_makes_noise_infinite(number):
    found = confidence(MaskGIT(), 0, 1.0, torch.full((1, 2), number))
    close(found.float(), torch.tensor([[0.75, 0.25]]).log(), 1e-6)


def test_other_noises():
    uniform, plain = torch.tensor([[0.2, 0.9]]), torch.tensor([[0.75, 0.25]])
    for step in range(4):
        assert torch.equal(confidence(MaskGIT(noise="random"), step, 0.5, uniform), uniform)
        warming = confidence(MaskGIT(noise="warm_up"), step, 0.5, uniform)
        close(warming, uniform if step < 2 else plain, 1e-6)
        close(confidence(MaskGIT(noise="none"), step, 0.5, None), plain, 1e-6)


def test_guidance_rises_with_the_steps_whatever_the_sizes():
    tiny = subject(MaskGIT())
    plan, labels, guidance = tiny.plan((0, 1), 5), tiny.labels((0, 1)), Guidance(4.0, "linear")
    found = run(tiny, plan, labels, ForcedSampler(tiny.tokens(2)), guidance)
    clocks = [event.request.clock for event in found.events if event.logits is not None]
    assert clocks == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    for clock, asked, combined in zip(clocks, found.asked, found.combined, strict=True):
        conditional, plain = asked.chunk(2)
        close(combined, conditional + 3 * clock * (conditional - plain), 1e-5)


def test_a_guidance_interval_counts_the_tokens_before_a_step():
    tiny = subject(MaskGIT())
    plan, labels = tiny.plan((0, 1), 5), tiny.labels((0, 1))
    before = np.cumsum([0, *(plan.sizes or ())])[:-1]
    guidance = Guidance(4.0, interval=int(before[2]))
    found = run(tiny, plan, labels, ForcedSampler(tiny.tokens(2)), guidance)
    guided = []
    for asked, combined in zip(found.asked, found.combined, strict=True):
        conditional, _ = asked.chunk(2)
        guided.append(not torch.equal(combined, conditional))
    assert guided == [True, True, True, False, False]


# What is known ----------------------------------------------------------------------------------------------


def test_known_tokens_stand_unless_they_are_drawn_anew():
    for strategy in (MaskGIT(), MaskGIT(resample_known=True)):
        tiny = subject(strategy)
        found = run(tiny, tiny.plan((0, 1), 4), tiny.labels((0, 1)), tiny.sampler((0, 1)))
        sizes = [int(entry.where[0].sum()) for entry in found.decoded.trace]
        planned = np.array(found.plan.sizes)
        assert sizes == (planned.cumsum() if strategy.resample_known else planned).tolist()
        draws = [event.entry for event in found.events if event.logits is not None]
        same = torch.equal(found.decoded.tokens, draws[-1].tokens)
        assert same is strategy.resample_known


class DrawsTheMask(ForcedSampler):
    """The mask wherever it may be drawn."""

    def draw(self, logits, noise):
        return torch.full_like(noise, logits.shape[-1] - 1), logits.sum(dim=-1)


def test_a_drawn_mask_stays_unknown_and_becomes_the_last_code():
    """At every step all places stay masked, so all forwards are fed alike; the end clamps what is left."""
    tiny = subject(MaskGIT(), MASKED)
    found = run(tiny, tiny.plan((0,), 4), tiny.labels((0,)), DrawsTheMask(tiny.tokens(1)))
    assert [int(entry.where.sum()) for entry in found.decoded.trace] == [0, 0, 0, 16]
    assert (found.decoded.tokens == tiny.config.codes - 1).all()
    for later in found.asked[1:]:
        assert torch.equal(later, found.asked[0])


def test_a_sharper_sampler_ranks_by_its_own_distribution():
    tiny = subject(MaskGIT(noise="none"))
    found = run(tiny, tiny.plan((0,), 2), tiny.labels((0,)), tiny.sampler((0,), temperature=0.1))
    first = next(event for event in found.events if event.logits is not None)
    law = (first.logits / 0.1).softmax(-1).gather(2, first.entry.tokens[..., None])[..., 0]
    assert found.decoded.trace[0].where[0].nonzero().item() == int(law[0].argmax())


@pytest.mark.parametrize("filters", [{"top_k": 1}, {"top_p": 0.3}])
def test_filters_that_leave_one_code_make_no_place_surer(filters):
    """Each step writes what its plan says, in the order of the probabilities before filters."""
    tiny = subject(MaskGIT(noise="none"))
    found = run(tiny, tiny.plan((0,), 6), tiny.labels((0,)), tiny.sampler((0,), **filters))
    assert tuple(int(entry.where.sum()) for entry in found.decoded.trace) == found.plan.sizes
    first = next(event for event in found.events if event.logits is not None)
    law = first.logits.softmax(-1).gather(2, first.entry.tokens[..., None])[..., 0]
    assert found.decoded.trace[0].where[0].nonzero().item() == int(law[0].argmax())


# The lesson -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_tokens_are_shown_one_by_one_with_a_probability_of_each_image(schedule):
    lesson = MaskGIT(schedule=schedule).lesson(4000, (4, 8), torch.Generator().manual_seed(0), 0.0)
    shares = lesson.shown.float().mean(dim=1)
    progress = (torch.arange(20_000) + 0.5) / 20_000
    expected = known_share(progress, schedule)
    assert float(shares.mean()) == pytest.approx(float(expected.mean()), abs=0.02)
    # A coin a place: beside the spread of probabilities, that of 32 coins.
    spread = expected.var() + (expected * (1 - expected)).mean() / 32
    assert float(shares.var()) == pytest.approx(float(spread), rel=0.1)


def test_a_lesson_is_dealt_by_rows():
    lesson = MaskGIT().lesson(6, (4, 4), torch.Generator().manual_seed(1), 0.0)
    part = lesson.rows(slice(2, 4)).to(torch.device("cpu"))
    assert torch.equal(part.shown, lesson.shown[2:4])
    assert torch.equal(part.order, lesson.order[2:4])


def test_the_loss_counts_all_places_or_those_that_are_masked():
    tiny = subject(MaskGIT())
    tokens, labels = tiny.tokens(3), torch.tensor([0, 1, 2])
    lesson = tiny.strategy.lesson(3, (4, 4), torch.Generator().manual_seed(3), 0.0)
    assert 0 < int(lesson.shown.sum()) < 48
    with torch.no_grad():
        logits = tiny.strategy.taught_logits(tiny.network, tokens, labels, lesson)
        every = MaskGIT().loss(tiny.network, tokens, labels, lesson)
        masked = MaskGIT(taught="masked").loss(tiny.network, tokens, labels, lesson)
        nothing = MaskGIT(taught="masked").loss(
            tiny.network, tokens, labels, replace(lesson, shown=torch.ones(3, 16, dtype=torch.bool))
        )
    close(every, F.cross_entropy(logits.flatten(0, 1), tokens.flatten()), 1e-6)
    close(masked, F.cross_entropy(logits[~lesson.shown], tokens[~lesson.shown]), 1e-6)
    assert float(nothing) == 0


def test_shown_tokens_count_by_position_whatever_the_order():
    tiny = subject(MaskGIT())
    tokens, labels = tiny.tokens(2), torch.tensor([0, 1])
    lesson = tiny.strategy.lesson(2, (4, 4), torch.Generator().manual_seed(3), 0.0)
    order = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(k)) for k in (1, 2)])
    with torch.no_grad():
        plain = tiny.strategy.taught_logits(tiny.network, tokens, labels, lesson)
        turned = tiny.strategy.taught_logits(tiny.network, tokens, labels, Lesson(order, shown=lesson.shown))
    close(turned, plain.gather(1, order[..., None].expand_as(plain)), 1e-5)


# The network ------------------------------------------------------------------------------------------------

VIEW = View()
COUNTED = {
    "t": (23_031_425, 23_154_305), "s": (69_344_769, 69_508_609), "b": (142_224_641, 142_470_401),
    "l": (479_656_961, 479_984_641), "xl": (692_118_401, 692_487_041),
}  # fmt: skip


@pytest.mark.parametrize("pixels", [256, 384])
@pytest.mark.parametrize("size", COUNTED)
def test_published_sizes(size, pixels):
    name, counted = f"maskgit-{size}-{pixels}", COUNTED[size][pixels // 384]
    strategy, config, info = preset(name)
    with torch.device("meta"):
        assert parameter_count(strategy.network(config)) == info.parameters == counted
    assert strategy.resample_known
    assert config.grid == (info.image_size // 16,) * 2


def test_queries_and_keys_are_normalised_over_all_heads():
    block = Block(MASKED.trunk, "self")
    attention = block.attention
    torch.manual_seed(0)
    x = torch.randn(2, 5, 32)
    with torch.no_grad():
        queries, keys, values = attention.project(x, None)
        q, k, v = attention.qkv(x).split(30, dim=-1)
    for found, plain in ((queries, q), (keys, k)):
        expected = plain * torch.rsqrt(plain.pow(2).mean(-1, keepdim=True) + 1e-5)
        close(found, expected.unflatten(-1, (3, 10)).transpose(1, 2), 1e-6)
    close(values, v.unflatten(-1, (3, 10)).transpose(1, 2), 1e-6)
    with torch.no_grad():
        in_place, pair = attention.project_in_place(x, None)
    close(in_place, queries, 1e-6)
    close(pair, torch.cat([keys, values], dim=1), 1e-6)


def test_dropout_is_where_the_authors_have_it():
    """On attention probabilities, behind attention's last product and on the gated vector."""
    trunk = preset("maskgit-t-256")[1].trunk
    assert trunk.dropout == Dropout(attention=0.1, attended=0.1, hidden=0.1)
    torch.manual_seed(0)
    for certain in (Dropout(attended=1.0), Dropout(hidden=1.0)):
        block = Block(replace(MASKED.trunk, dropout=certain, conditioning="prefix"), "self").train()
        part = block.attention if certain.attended else block.mlp
        inputs = (torch.randn(1, 4, 32),) if part is block.mlp else (torch.randn(1, 4, 32), None, VIEW)
        assert not part(*inputs).any()
        assert part.eval()(*inputs).any()


def test_registers_are_seen_and_predict_nothing():
    tiny, codes = subject(MaskGIT(), MASKED), torch.full((1, 16), MASKED.codes)
    order, labels = torch.arange(16)[None], torch.tensor([0])
    with torch.no_grad():
        before = tiny.network(labels, codes, order)
        tiny.network.registers.zero_()
        after = tiny.network(labels, codes, order)
    assert before.shape == (1, 16, MASKED.codes + 1)
    assert float((before - after).abs().max()) > 1e-3
    bare = subject(MaskGIT(), replace(MASKED, registers=0))
    assert not hasattr(bare.network, "registers")
    assert bare.network(labels, codes, order).shape == before.shape


def test_given_tokens_take_part_and_are_left_out_of_the_counts():
    tiny, known = subject(MaskGIT(resample_known=True)), np.array([5, 1, 9])
    plan = tiny.strategy.plan((4, 4), 4, Streams(0, (0, 1)), known=known)
    assert plan.sizes == maskgit_sizes(13, 4)
    tokens = tiny.tokens(2)
    found = run(tiny, plan, tiny.labels((0, 1)), tiny.sampler((0, 1)), known=tokens)
    assert torch.equal(found.decoded.tokens[:, known], tokens[:, known])
    written = torch.zeros(2, 17, dtype=torch.int64)
    for entry in found.decoded.trace:
        at = places_of(entry, 2, 16)
        written.scatter_add_(1, at, torch.ones_like(at))
    assert not written[:, :3].any()
