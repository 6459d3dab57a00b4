"""VAR and CoDe: maps, the clock of guidance, sums of features, the hand-over, sampling, published sizes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backbones.attention import LOG_MOST
from backbones.tokenizers.multiscale import SIDES, sides_for
from backbones.transformer import View, parameter_count
from harness.weights.empty import on_meta
from pardec.errors import UserError
from strategies.code import CoDe
from strategies.decoding import registry
from strategies.decoding.contract.recording import CONTROLLED, run, subject
from strategies.decoding.contract.requirements import close
from strategies.decoding.decode import decode
from strategies.decoding.guidance import Guidance
from strategies.decoding.presets import preset
from strategies.decoding.registry import by_family
from strategies.decoding.sampling import ForcedSampler, StreamSampler, filter_logits
from strategies.decoding.streams import Streams
from strategies.var import VAR, Condition, Sums, scale_mask, warmed
from tests.replays import read_golden
from tests.replays.var import network_of, replay
from tests.strategies.dressings import COSINE

GOLDENS = Path(__file__).parents[1] / "goldens"
STREAMS = Streams(0, (0,))


@pytest.mark.parametrize(
    ("side", "scales", "places"),
    [(16, 10, 680), (32, 10, 2240), (64, 14, 9451), (4, 4, 30), (2, 2, 5), (1, 1, 1)],
)
def test_a_step_is_a_map(side, scales, places):
    plan = VAR().plan((side, side), None, STREAMS)
    assert (plan.steps, plan.places) == (scales, places)
    assert plan.maps == tuple((one, one) for one in sides_for(side))
    assert plan.sizes == tuple(rows * columns for rows, columns in plan.maps)
    assert VAR().places((side, side)) == places


@pytest.mark.parametrize("text", ["1 2 3", "4 2 1", "1 two 4", "0 4", "1 1 4", "1,4", "2 4"])
def test_sides_that_are_none_are_refused(text):
    with pytest.raises(UserError, match=r"expected ascending sides from 1 that end with 4, e.g. '1 2 3 4'"):
        VAR(scales=text).plan((4, 4), None, STREAMS)


def test_maps_are_square():
    with pytest.raises(UserError, match="strategy 'var' has square maps, not 4x6"):
        VAR().plan((4, 6), None, STREAMS)


def test_guidance_grows_with_the_scale():
    plan = VAR().plan((16, 16), None, STREAMS)
    weights = Guidance(1 + 1.5, "linear").weights(plan)
    for scale, at in enumerate(plan.groups()):
        np.testing.assert_allclose(weights[at], 1 + 1.5 * scale / 9)


class ClockOfTheNextScale(VAR):
    def arrange(self, grid, order, sizes, given=0):
        plan = super().arrange(grid, order, sizes, given)
        progress = (1 + np.arange(len(sizes))) / len(sizes)
        return replace(plan, progress=np.repeat(progress, sizes))


class CountedByPlaces(VAR):
    def arrange(self, grid, order, sizes, given=0):
        plan = super().arrange(grid, order, sizes, given)
        return replace(plan, progress=np.arange(plan.places) / plan.places)


@pytest.mark.parametrize("mutant", [ClockOfTheNextScale, CountedByPlaces])
def test_a_recording_tells_a_clock_that_is_off(mutant):
    golden = read_golden(GOLDENS / "var-decode-a.safetensors")
    strategy, network = network_of(golden, "var_wo_ddp.")
    wrong = type("Mutant", (mutant,), {"__module__": "strategies.var"})(strategy.scales, strategy.code_width)
    assert replay(golden, strategy, network)[0] < 5e-5
    assert replay(golden, wrong, network)[0] > 1e-2


def test_unguided_logits_are_those_of_the_taught_pass():
    golden = read_golden(GOLDENS / "var-loss-saln.safetensors")
    strategy, network = network_of(golden, "var_wo_ddp.")
    tokens, labels = golden.io["tokens"], golden.io["labels"]
    plan = strategy.plan(network.config.grid, None, STREAMS)
    seen = []

    class Seeing(ForcedSampler):
        def draw(self, logits, noise):
            seen.append(logits)
            return super().draw(logits, noise)

    decode(network, strategy, plan, labels, Seeing(tokens))
    close(torch.cat(seen, dim=1), golden.io["logits"], 5e-5)


def test_a_place_sees_its_own_scale_and_all_smaller_ones():
    mask = scale_mask((1, 2, 3), torch.device("cpu"))
    assert mask.sum(dim=1).tolist() == [1] + [5] * 4 + [14] * 9


def test_sums_keep_every_map_and_feed_the_next():
    case = subject(VAR())
    quantiser, tokens = case.network.quantiser, case.tokens(2)
    sums = Sums()
    for scale, part in enumerate(quantiser.maps(tokens)[:-1]):
        assert len(sums.up_to(scale, quantiser)) == scale
        sums.drew(scale, part.flatten(1))
    found = torch.cat(sums.up_to(3, quantiser), dim=1)
    close(found, quantiser.inputs(tokens), 1e-5)


def test_the_quantiser_is_neither_counted_nor_stored():
    network = subject(VAR()).network
    assert not [name for name in network.state_dict() if "quantiser" in name]
    assert not [name for name, _ in network.named_parameters() if "quantiser" in name]
    assert len(list(network.quantiser.buffers())) == 9


# Sampling --------------------------------------------------------------------------------------------------


def test_logits_are_filtered_before_they_are_divided():
    logits = torch.tensor([[[2.0, 1.0, 0.5, -1.0]]])
    sampler = StreamSampler(STREAMS, top_p=0.8)
    found = warmed(2.0)(logits, sampler)
    kept = filter_logits(logits, 0, 0.8)
    assert kept.isneginf().tolist() == [[[False, False, True, True]]]
    close(found, (kept / 2.0).softmax(dim=-1), 1e-6)
    # Divided first, a third code would stay.
    assert not filter_logits(logits / 2.0, 0, 0.8).isneginf()[0, 0, 2]


def test_a_temperature_acts_beside_warmth():
    logits = torch.tensor([[[2.0, 1.0, 0.5, -1.0]]])
    found = warmed(2.0)(logits, StreamSampler(STREAMS, temperature=0.5))
    close(found, (logits / (0.5 * 2.0)).softmax(dim=-1), 1e-6)


@pytest.mark.parametrize("warmth", [0.0, -1.0, float("nan"), float("inf")])
def test_a_warmth_is_above_zero(warmth):
    with pytest.raises(UserError, match=f"option 'warmth' of strategy 'var' is {warmth}"):
        VAR(warmth=warmth)


@pytest.mark.parametrize(("config", "single"), [(COSINE, True), (CONTROLLED, False)])
def test_what_follows_the_blocks_of_the_published_network_is_in_single_precision(config, single):
    """Else logits of few distinct values are ties for top-k."""
    case = subject(VAR(), replace(config, codes=512))
    network = case.network.in_precision(torch.bfloat16)
    seen = []
    for module in (network.trunk, network.head):
        module.register_forward_hook(lambda module, inputs, output: seen.append(output))
    decode(network, case.strategy, case.plan((0,)), case.labels((0,)), case.sampler((0,)))
    trunk, logits = seen[-2:]
    assert trunk.dtype == network.dtype == torch.bfloat16
    assert (logits.dtype == torch.float32) is single
    assert (len(logits[0, -1].unique()) == 512) is single
    kinds = {name: parameter.dtype for name, parameter in network.named_parameters()}
    assert (kinds["head.weight"] == torch.float32) is single
    assert sum(kind == torch.float32 for kind in kinds.values()) == (4 if single else 0), kinds


def test_only_the_first_scales_are_warm():
    asks = [
        VAR(warmth=1.1, warm_scales=2).ask(torch.zeros(1, 1, 1), slice(0, 1), scale) for scale in range(4)
    ]
    assert [ask.law is not None for ask in asks] == [True, True, False, False]
    assert VAR().ask(torch.zeros(1, 1, 1), slice(0, 1), 0).law is None


def test_warmth_changes_what_is_drawn_and_not_what_is_counted():
    images = (0, 1, 2, 3)
    cold, warm = subject(VAR()), subject(VAR(warmth=3.0))
    found = [
        run(one, one.plan(images), one.labels(images), one.sampler(images)).decoded for one in (cold, warm)
    ]
    assert not torch.equal(found[0].tokens, found[1].tokens)
    assert found[1].drafted.sum() == 0
    assert (found[0].forwards, found[1].forwards) == (4, 4)


def test_soft_features_are_refused():
    setting = by_family("var").setting
    with pytest.raises(UserError, match="more_smooth = true"):
        setting({"more_smooth": True})
    found = setting({"cfg": 1.5, "top_k": 900, "top_p": 0.0})
    assert (found.guidance, found.top_k, found.top_p) == (Guidance(2.5, "linear"), 900, 1.0)
    with pytest.raises(UserError, match="unknown option 'more_smooth' in strategy 'var'"):
        registry.get("var", more_smooth=True)


# The hand-over ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("refined", "drafted"), [(4, 91), (3, 155), (2, 255), (1, 424)])
def test_the_refiner_reads_all_drafted_places_once(refined, drafted):
    strategy = CoDe(refined=refined)
    small = replace(CONTROLLED, grid=(16, 16), trunk=replace(CONTROLLED.trunk, depth=1, width=16, heads=2))
    case = subject(strategy, small)
    found = run(case, case.plan((0,)), case.labels((0,)), ForcedSampler(case.tokens(1))).decoded
    drafter, refiner = found.counts["drafter"], found.counts["refiner"]
    assert (drafter.forwards, refiner.forwards) == (10 - refined, refined)
    assert (drafter.tokens_processed, refiner.tokens_processed) == (drafted, 680)
    assert found.steps == 10
    assert strategy.cache_shapes(small) == {"drafter": (1, drafted), "refiner": (1, 680)}


@pytest.mark.parametrize("refined", [0, 4])
def test_both_networks_draw_a_map(refined):
    with pytest.raises(
        UserError, match=r"option 'refined' of strategy 'code' is \d; expected 1 to 3 of the 4 maps"
    ):
        CoDe(refined=refined).plan((4, 4), None, STREAMS)


def test_a_pair_of_one_network_twice_is_that_network():
    case, images = subject(CoDe()), (0, 1)
    case.network["drafter"].load_state_dict(case.network["refiner"].state_dict())
    alone = replace(case, strategy=VAR(), network=case.network["refiner"])
    found = [
        run(one, one.plan(images), one.labels(images), one.sampler(images), Guidance(2.0, "linear"))
        for one in (case, alone)
    ]
    assert torch.equal(found[0].decoded.tokens, found[1].decoded.tokens)
    close(found[0].logits, found[1].logits, 1e-4)


# Published networks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "counted"),
    [
        ("var-d16", 310_283_520), ("var-d20", 600_917_136), ("var-d24", 1_033_399_360),
        ("var-d30", 2_010_020_356), ("var-d36", 2_353_893_904), ("code-n6", 2_320_303_876),
        ("code-n7", 2_320_303_876), ("code-n8", 2_320_303_876), ("code-n9", 2_320_303_876),
        ("code-free", 2_320_303_876),
    ],
)  # fmt: skip
def test_published_sizes(name, counted):
    strategy, config, info = preset(name)
    assert parameter_count(on_meta(strategy, config)) == info.parameters == counted


@pytest.mark.parametrize("drafts", [6, 7, 8, 9])
def test_the_pairs_hand_over_after_as_many_maps_as_their_files_say(drafts):
    strategy, config, info = preset(f"code-n{drafts}")
    assert len(SIDES) - strategy.refined == drafts
    assert config.of("drafter").trunk.depth == 30
    assert config.of("refiner").trunk.depth == 16
    assert info.role_files == {role: f"{role}_{drafts}.pth" for role in ("drafter", "refiner")}


def test_a_head_multiplies_by_no_more_than_a_hundred():
    case = subject(VAR(), COSINE)
    attention = case.network.trunk.blocks[0].attention
    x = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        attention.log_factor.fill_(LOG_MOST)
        most = attention.project(x, None)[0]
        attention.log_factor.fill_(9.0)
        beyond = attention.project(x, None)[0]
    assert torch.equal(most, beyond)
    close(most.norm(dim=-1), torch.full(most.shape[:-1], 100 * 8**0.5), 1e-2)


def test_networks_without_normalised_attention_are_refused():
    published = by_family("var")
    with pytest.raises(UserError, match="attn_l2_norm = false"):
        published.configure(
            {**published.defaults, "depth": 1, "embed_dim": 8, "num_heads": 1, "attn_l2_norm": False}
        )


def test_the_class_modulates_once_for_all_steps():
    case = subject(VAR(), COSINE)
    condition, sums = Condition(torch.tensor([1])), Sums()
    plan = case.plan((0,))
    assert condition.parts is None
    with torch.inference_mode():
        case.network(condition, sums, range(1), View(), case.network.cache(1, 2, plan.places))
    assert len(condition.parts) == 3
