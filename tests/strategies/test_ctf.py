"""CTF: clusters, the two stages, what may be drawn, and any sequential method as the first stage."""

import math
from dataclasses import replace
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch

from backbones.tokenizers.clusters import cluster_codes
from backbones.transformer import parameter_count
from pardec.errors import UserError
from strategies.ctf import CTF, NEVER, STAGES, FineNetwork
from strategies.decoding.contract import check_strategy
from strategies.decoding.contract.recording import CONTROLLED, run, subject
from strategies.decoding.decode import decode
from strategies.decoding.guidance import Guidance
from strategies.decoding.presets import preset, preset_info
from strategies.decoding.sampling import ForcedSampler, StreamSampler
from strategies.decoding.streams import Streams

PLACES = CONTROLLED.places
LINE = torch.arange(11.0)[:, None]


def case(**options):
    made = subject(CTF(**options))
    made.strategy.meet_codes(made.network, LINE)
    return made


def generated(made, images=(0, 1, 2), guidance=None, **filters):
    plan = made.plan(images)
    sampler = StreamSampler(Streams(0, images), **filters)
    return plan, decode(made.network, made.strategy, plan, made.labels(images), sampler, guidance)


# Clusters ---------------------------------------------------------------------------------------------------


def test_a_network_keeps_the_clusters_that_it_met():
    made = case(clusters=3)
    fine = made.network["fine"]
    assert fine.cluster_of.tolist() == cluster_codes(LINE, 3).tolist()
    again = made.strategy.network(CONTROLLED)
    assert again["fine"].cluster_of.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2]  # before it meets any
    again.load_state_dict(made.network.state_dict())
    assert torch.equal(again["fine"].cluster_of, fine.cluster_of)
    first = [int((fine.cluster_of == one).nonzero()[0]) for one in range(3)]
    assert fine.stand_ins().tolist() == first


@pytest.mark.parametrize("clusters", [1, 12, -3])
def test_a_number_of_clusters_that_cannot_be_is_named(clusters):
    with pytest.raises(UserError, match=f"clusters = {clusters} of 11 codes: expected 2 to 11"):
        CTF(clusters=clusters).network(CONTROLLED)


# Decoding ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coarse", [stage for stage in STAGES if stage != "raster"])
def test_the_contract_holds_whatever_decodes_the_labels(coarse):
    only = (
        "plans_are_valid",
        "every_position_once",
        "causal",
        "cached_equals_taught",
        "lessons_leak_nothing",
    )
    card = check_strategy(CTF(coarse=coarse), only=only)
    assert card.passed, card.failures
    assert set(get_args(get_type_hints(CTF)["coarse"])) == set(STAGES)


@pytest.mark.slow
@pytest.mark.parametrize("coarse", STAGES)
def test_the_whole_contract_holds_whatever_decodes_the_labels(coarse):
    card = check_strategy(CTF(coarse=coarse))
    assert card.passed, card.failures


def test_there_is_one_step_more_than_the_labels_take():
    assert CTF().plan((16, 16), None, Streams(0, (0,))).steps == 257
    assert CTF(coarse="nar").plan((16, 16), None, Streams(0, (0,))).steps == 32
    plan = CTF(coarse="arpg").plan((16, 16), 17, Streams(0, (0, 1)))
    assert plan.sizes == (*STAGES["arpg"].sizes((16, 16), 16), 256)
    assert plan.order.shape == (2, 512)
    assert (plan.order[:, 256:] == 256 + np.arange(256)).all()
    assert (plan.maps, plan.codes_from) == (((16, 16), (16, 16)), 256)


@pytest.mark.parametrize("guidance", [None, Guidance(3.0)])
@pytest.mark.parametrize("filters", [{}, {"temperature": 3.0, "top_k": 2}])
def test_codes_are_of_the_cluster_that_was_drawn(guidance, filters):
    made = case(clusters=3)
    _, found = generated(made, range(8), guidance, **filters)
    fine = made.network["fine"]
    labels, codes = found.tokens.split(PLACES, dim=1)
    assert torch.equal(fine.cluster_of[codes], fine.cluster_of[labels])
    assert set(labels.unique().tolist()) <= set(fine.stand_ins().tolist())
    assert len(codes.unique()) > 3
    assert {role: count.forwards for role, count in found.counts.items()} == {"coarse": 16, "fine": 1}
    assert {role: count.tokens_processed for role, count in found.counts.items()} == {
        "coarse": 16,
        "fine": 17,
    }


def test_the_first_stage_is_the_method_itself_on_labels():
    """Labels drawn are those that raster draws from the coarse network, by the same numbers."""
    made = case(clusters=4)
    _, found = generated(made)
    stage, coarse = STAGES["raster"], made.network["coarse"]
    plan = stage.plan((4, 4), None, Streams(0, (0, 1, 2)))

    class Same(StreamSampler):
        """Its numbers are those of the longer canvas, which begin with the shorter one's."""

    alone = decode(coarse, stage, plan, made.labels((0, 1, 2)), Same(Streams(0, (0, 1, 2))))
    fine = made.network["fine"]
    assert torch.equal(fine.cluster_of[found.tokens[:, :PLACES]], alone.tokens)
    assert coarse.config == replace(CONTROLLED, codes=4)


def test_fine_codes_see_every_label_on_either_side():
    made = case(clusters=4)
    fine, labels = made.network["fine"], torch.tensor([1])
    coarse = torch.zeros(1, PLACES, dtype=torch.int64)
    base = fine(labels, coarse)
    for place in range(PLACES):
        changed = coarse.clone()
        changed[0, place] = 2
        others = [one for one in range(PLACES) if one != place]
        assert ((fine(labels, changed) - base)[0, others].abs().amax(dim=1) > 1e-4).all()


def test_only_members_can_be_drawn():
    fine = case(clusters=3).network["fine"]
    coarse = torch.arange(PLACES)[None] % 3
    logits = fine(torch.tensor([0]), coarse)
    member = fine.cluster_of == coarse.unsqueeze(-1)
    assert torch.equal(logits > NEVER / 2, member)
    assert float(logits.detach().softmax(-1).masked_fill(member, 0).max()) == 0


def test_taught_probabilities_are_those_of_the_image():
    """p(label) p(code given all labels), summed over all images of two codes, is one."""
    config = replace(CONTROLLED, grid=(1, 2), codes=4)
    made = subject(CTF(clusters=2), config)
    codes = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    canvas = made.strategy.canvas(made.network, codes)
    lesson = made.strategy.lesson(16, (1, 2), torch.Generator(), 0.0)
    logits = made.strategy.taught_logits(made.network, canvas, torch.zeros(16, dtype=torch.int64), lesson)
    found = logits.log_softmax(-1).gather(-1, canvas.gather(1, lesson.order).unsqueeze(-1)).sum(dim=(1, 2))
    assert float(found.exp().sum()) == pytest.approx(1, abs=1e-5)


def test_codes_of_images_teach_both_stages():
    made = case(clusters=4)
    codes = made.tokens(5)[:, :PLACES]
    labels = torch.arange(5) % 3
    lesson = made.strategy.lesson(5, (4, 4), torch.Generator().manual_seed(0), 0.0)
    whole = made.strategy.canvas(made.network, codes)
    assert torch.equal(whole[:, PLACES:], codes)
    loss = made.strategy.loss(made.network, codes, labels, lesson)
    assert loss == made.strategy.loss(made.network, whole, labels, lesson)
    assert float(loss) < 20  # no code of another cluster is asked for
    loss.backward()
    for network in made.network.roles.values():
        assert all(one.grad is not None and one.grad.abs().max() > 0 for one in network.parameters())


@pytest.mark.parametrize("coarse", ["arpg", "nar"])
def test_labels_reach_the_fine_network_by_position(coarse):
    made = case(coarse=coarse, clusters=4)
    images = (0, 1)
    plan = made.plan(images)
    tokens = made.tokens(2)
    found = run(made, plan, made.labels(images), ForcedSampler(tokens))
    fine = made.network["fine"]
    with torch.no_grad():
        expected = fine(made.labels(images), fine.cluster_of[tokens[:, :PLACES]])
    assert torch.allclose(found.logits[:, PLACES:], expected, atol=1e-4)


# Published sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "millions"), [("b", 87), ("l", 310), ("xl", 734)])
def test_the_first_stage_of_a_preset_has_the_papers_parameters(size, millions):
    strategy, config, info = preset(f"ctf-{size}")
    with torch.device("meta"):
        network = strategy.network(config)
    counted = {role: parameter_count(one) for role, one in network.roles.items()}
    assert round(counted["coarse"] / 1e6) == millions
    assert info.reported == f"{millions}M (without the auxiliary network)"
    assert sum(counted.values()) == info.parameters == parameter_count(network)
    assert strategy.clusters == 512
    assert preset_info(f"ctf-{size}").file is None


def test_logits_that_never_are_keep_their_value_under_guidance():
    never = torch.full((2,), NEVER)
    assert torch.equal(torch.lerp(never, never, 7.5), never)
    assert math.exp(NEVER) == 0
    assert isinstance(CTF().network(CONTROLLED)["fine"], FineNetwork)


def test_clocks_of_the_second_stage():
    streams = Streams(0, (0,))
    plan, first = CTF(coarse="arpg").plan((4, 4), 5, streams), STAGES["arpg"].plan((4, 4), 4, streams)
    assert plan.progress.tolist() == [*first.progress, *[1] * 16]
    assert plan.count.tolist() == [*first.count, *[16] * 16]
