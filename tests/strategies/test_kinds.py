"""Every kind of method that the loop holds, by a tiny one of each kind (``kinds``)."""

from dataclasses import replace

import pytest
import torch

from backbones.networks import Networks
from strategies.decoding import registry
from strategies.decoding.base import TRAITS, Strategy, TrainingFree
from strategies.decoding.contract import CHECKS, CONTROLLED
from strategies.decoding.contract.recording import run, subject
from strategies.decoding.decode import OffPlan, decode
from strategies.decoding.guidance import Guidance
from strategies.decoding.requests import Ask, Commit, Draft
from strategies.decoding.sampling import ForcedSampler, StreamSampler
from strategies.decoding.streams import Streams
from strategies.decoding.trace import step_of_position
from strategies.raster import Raster
from tests.strategies.kinds import KINDS, ByConfidence, ByEquality, ByTest, Scales, Staggered, TwoNetworks

IMAGES = (0, 1, 2, 5, 8, 9)


def decoded(strategy, images=IMAGES, guidance=None, seed=0, **settings):
    case = subject(strategy)
    sampler = StreamSampler(Streams(seed, images))
    plan = case.plan(images)
    return decode(case.network, strategy, plan, case.labels(images), sampler, guidance, **settings)


# Steps that the content decides -----------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2, 3, 5])
@pytest.mark.parametrize("guidance", [None, Guidance(2.0, "linear")])
def test_drafts_that_equal_their_draws_give_rasters_tokens(window, guidance):
    found = decoded(ByEquality(window), guidance=guidance)
    expected = decoded(Raster(), guidance=guidance)
    assert torch.equal(found.tokens, expected.tokens)
    assert found.steps <= expected.steps
    if window == 1:
        assert found.steps == 16


@pytest.mark.parametrize("kind", [ByEquality(), ByTest()])
def test_images_of_one_batch_go_on_at_their_own_pace(kind):
    found = decoded(kind, keep_drafts=True)
    steps = found.steps_of_image
    assert int(steps.max()) == found.steps == found.forwards
    assert int(steps.min()) < found.steps
    last = step_of_position(found.trace, found.order).amax(dim=1)
    assert torch.equal(last + 1, steps)
    for row, image in enumerate(IMAGES):
        alone = decoded(kind, (image,))
        assert torch.equal(alone.tokens[0], found.tokens[row])
        assert alone.steps == int(steps[row])
    assert len(found.drafts) == found.steps - 1, "the first token is asked for"
    assert found.counts["network"].tokens_processed == 1 + (found.steps - 1) * kind.window


def test_a_draft_is_no_commit():
    found = decoded(ByTest(), keep_drafts=True)
    drawn = sum(int((draft.places >= 0).sum()) for draft in found.drafts)
    written = sum(int(((entry.places >= 0) & entry.where).sum()) for entry in found.trace[1:])
    assert written == len(IMAGES) * 15
    assert drawn > written
    assert not decoded(ByTest()).drafts


def test_forced_tokens_come_out_whatever_is_drafted():
    for kind in (ByEquality(), ByTest(), ByConfidence(), Scales()):
        case = subject(kind)
        tokens = case.tokens(2)
        found = run(case, case.plan((0, 1)), case.labels((0, 1)), ForcedSampler(tokens))
        assert torch.equal(found.decoded.tokens, tokens)


def test_a_plan_that_decides_while_decoding_says_so():
    plan = ByTest().plan((4, 4), None, Streams(0, (0,)))
    assert plan.steps is None
    assert plan.steps_in_words() == "at most 16, decided while decoding"
    with pytest.raises(ValueError, match="chosen while decoding: see the trace"):
        plan.groups()


# Places chosen after drawing, revisions ---------------------------------------------------------------------


def test_the_surest_places_are_written_first():
    found = decoded(ByConfidence())
    steps = step_of_position(found.trace, found.order)
    assert found.steps == 6
    assert (steps.sort(dim=1).values == steps.sort(dim=1).values[0]).all()
    assert len(steps.unique(dim=0)) > 1, "each image has an order of its own"
    assert found.tokens_processed == found.steps * 17, "every place is fed at every step"


def test_a_revision_leaves_the_last_token():
    found = decoded(KINDS["revising"])
    assert torch.equal(found.tokens, found.trace[-1].tokens)
    changed = [(a.tokens != b.tokens).any() for a, b in zip(found.trace, found.trace[1:], strict=False)]
    assert any(changed)


class WritesWithoutADraw(Raster):
    def decode(self, network, plan, rows):
        yield Commit(slice(0, 16), torch.zeros(len(rows), 16, dtype=torch.int64))


class YieldsATensor(Raster):
    def decode(self, network, plan, rows):
        yield torch.zeros(1)


class Stops(ByTest):
    decides_steps = True

    def decode(self, network, plan, rows):
        yield Ask(torch.zeros(len(rows), 3, 11), slice(0, 3))


@pytest.mark.parametrize(
    ("kind", "error", "says"),
    [
        (WritesWithoutADraw(), OffPlan, "step -1 writes places 0..16, its plan says places 0..1"),
        (YieldsATensor(), TypeError, r"yields requests \(Ask, Draft, ...\), not Tensor"),
        (Stops(), OffPlan, "decoding left 78 places of its batch unwritten"),
    ],
)
def test_what_a_plan_does_not_say_is_refused(kind, error, says):
    with pytest.raises(error, match=says):
        decoded(kind)


# Several maps, heads, networks ------------------------------------------------------------------------------


def test_a_canvas_of_maps_is_one_plan():
    plan = Scales().plan((4, 4), None, Streams(0, (0,)))
    assert (plan.maps, plan.places, plan.sizes) == (((1, 1), (2, 2), (4, 4)), 21, (1, 4, 16))
    found = decoded(Scales())
    assert found.tokens.shape == (6, 21)
    assert found.steps == 3


def test_networks_are_counted_apart():
    found = decoded(TwoNetworks(), guidance=Guidance(2.0))
    assert list(found.counts) == ["auxiliary", "main"]
    for count in found.counts.values():
        assert (count.forwards, count.tokens_processed) == (16, 16)
    assert found.steps == 16
    assert found.forwards == found.tokens_processed == 32


def test_what_speaks_for_the_image_is_the_last_networks_configuration():
    other = replace(CONTROLLED, trunk=replace(CONTROLLED.trunk, depth=1))
    networks = Networks(drafter=Raster().network(other), refiner=Raster().network(CONTROLLED))
    assert networks.config is CONTROLLED


# Inputs and slots -------------------------------------------------------------------------------------------


def test_rows_start_before_the_row_above_is_complete():
    plan = Staggered().plan((4, 4), None, Streams(0, (0,)))
    assert plan.steps == 3 * 2 + 4
    assert Staggered(4).plan((4, 4), None, Streams(0, (0,))).steps == 16


def test_staggered_rows_that_wait_for_the_row_above_are_raster():
    assert torch.equal(decoded(Staggered(4)).tokens, decoded(Raster()).tokens)
    assert not torch.equal(decoded(Staggered(2)).tokens, decoded(Raster()).tokens)


# Training-free methods --------------------------------------------------------------------------------------


def test_traits_are_not_inherited_from_a_base_silently():
    class Derived(TrainingFree, Raster):
        name = "derived"
        base = "raster"
        empty_context = True

    assert Raster.lossless
    assert not Derived.lossless
    assert Derived.empty_context
    for trait in set(TRAITS) - {"empty_context"}:
        assert getattr(Derived, trait) == getattr(Strategy, trait)

    class Plugin(Raster):
        base = "raster"

    assert not Plugin.lossless


def test_a_training_free_method_needs_neither_lesson_nor_taught_logits():
    assert "taught_logits" not in {name for kind in (ByTest, Staggered) for name in vars(kind)}
    why_not = CHECKS["cached_equals_taught"].why_not(Staggered())
    assert why_not == "training-free: 'raster' says what the network is taught"
    with pytest.raises(TypeError, match="strategy 'staggered' learns nothing; 'raster' does"):
        Staggered().lesson(1, (4, 4), torch.Generator(), 0.0)


def test_a_clock_of_a_draft_is_what_guidance_reads():
    class Clocked(ByConfidence):
        def decode(self, network, plan, rows):
            codes = torch.full((len(rows), plan.places), network.config.codes)
            drawn = yield Draft(network(rows.labels, codes), slice(None), clock=0.25)
            yield Commit(slice(None), drawn.tokens)

    case = subject(Clocked())
    found = run(
        case, case.plan((0,), 1), torch.tensor([1]), ForcedSampler(case.tokens(1)), Guidance(3.0, "linear")
    )
    c, u = found.asked[0].chunk(2)
    assert torch.allclose(found.combined[0], u + 1.5 * (c - u), atol=1e-5)


def test_registered_strategies_pass_with_their_own_traits():
    for name in registry.names():
        strategy = registry.get(name)
        assert strategy.base is None or isinstance(strategy, TrainingFree), name
