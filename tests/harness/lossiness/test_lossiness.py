"""Lossiness of known distributions, of every strategy's claim, and of estimates against enumeration."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.cell.cell import Cell, normalised
from harness.cli import main
from harness.lossiness import branches
from harness.lossiness.conditionals import Undefined, sequential_log_probabilities
from harness.lossiness.estimate import estimate
from harness.lossiness.exact import compare_joints, joints
from harness.lossiness.tables import by_step, exact_lines, printed_sizes
from harness.lossiness.worlds import OWN, RULES, World, ordered_plan, variants
from harness.subject.prepare import prepare
from harness.subject.subject import load
from pardec.errors import UserError
from strategies import sjd
from strategies.decoding import registry
from strategies.decoding.base import Lesson
from strategies.decoding.guidance import Guidance
from strategies.decoding.orders import halton
from strategies.decoding.plan import Plan
from strategies.decoding.streams import Streams
from strategies.raster import Raster

SQUARE = World((2, 2), 3)


def test_two_equal_coins_drawn_apart() -> None:
    """p: both tokens equal, a fair coin. Drawn independently they are so half of the time only."""
    p = torch.tensor([[0.5, 0.0], [0.0, 0.5]], dtype=torch.float64).clamp(min=1e-300)
    q = torch.full((2, 2), 0.25, dtype=torch.float64)
    found = compare_joints(p, q, (2,))
    assert found.total_variation == pytest.approx(0.5)
    assert found.reverse_kl_bits == pytest.approx(1.0)
    (step,) = found.steps
    assert step.correlation_bits == pytest.approx(1.0)  # the mutual information of the coins
    assert step.mismatch_bits == pytest.approx(0.0)


def test_independent_tokens_lose_nothing_together() -> None:
    one, other = torch.tensor([0.2, 0.3, 0.5]).double(), torch.tensor([0.6, 0.3, 0.1]).double()
    joint = one[:, None] * other
    found = compare_joints(joint, joint, (2,))
    assert found.total_variation == 0
    assert found.steps[0].correlation_bits == pytest.approx(0, abs=1e-12)
    assert found.kl_bits == pytest.approx(0, abs=1e-12)


def test_other_marginals_are_mismatch_not_correlation() -> None:
    p = torch.tensor([0.5, 0.5]).double()
    q = torch.tensor([0.25, 0.75]).double()
    found = compare_joints(p[:, None] * p, q[:, None] * p, (2,))
    assert found.steps[0].correlation_bits == pytest.approx(0, abs=1e-12)
    assert found.steps[0].mismatch_bits == pytest.approx(1 - 0.5 * math.log2(3))
    assert found.steps[0].kl_bits == pytest.approx(0.25 * -1 + 0.75 * math.log2(1.5))
    assert found.total_variation == pytest.approx(0.25)


def test_steps_add_up_to_the_whole() -> None:
    strategy = registry.get("arpg")
    _, found = SQUARE.loss(strategy, OWN, 3, 2, Guidance(1.5))
    assert sum(step.kl_bits for step in found.steps) == pytest.approx(found.kl_bits, abs=1e-9)
    reverse = sum(step.correlation_bits + step.mismatch_bits for step in found.steps)
    assert reverse == pytest.approx(found.reverse_kl_bits, abs=1e-6)
    assert found.kl_bits > 0.01
    assert 2 * found.total_variation**2 / math.log(2) <= found.kl_bits  # Pinsker


@pytest.mark.parametrize(
    ("sizes", "shape", "words"), [((2,), (2, 3), "equal shapes"), ((1,), (2, 2), "equal shapes")]
)
def test_joints_that_do_not_fit_are_refused(sizes, shape, words) -> None:
    p = torch.full((2, 2), 0.25).double()
    with pytest.raises(ValueError, match=words):
        compare_joints(p, torch.full(shape, 1 / math.prod(shape)).double(), sizes)
    with pytest.raises(ValueError, match=r"as decoded sum to 0\.5"):
        compare_joints(p, p / 2, (2,))


TRAINED = registry.trained()
"""Of the others some are their base in so small a world."""


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("guidance", [None, Guidance(2.0)])
def test_what_claims_to_be_lossless_is(name: str, guidance: Guidance | None) -> None:
    strategy = registry.get(name)
    if not strategy.sequential_conditionals:
        with pytest.raises(Undefined, match="whole groups"):
            SQUARE.loss(strategy, OWN, 0, None, guidance)
        return
    if SQUARE.leaves_open(strategy):
        with pytest.raises(Undefined, match="orders places by what it draws"):
            SQUARE.loss(strategy, OWN, 0, None, guidance)
        return
    _, found = SQUARE.loss(strategy, OWN, 1, None, guidance)
    if strategy.lossless:
        assert found.total_variation < 1e-5
        assert abs(found.kl_bits) < 1e-8
    else:
        assert found.total_variation > 1e-3
    # In groups of one every strategy is its own reference.
    steps = strategy.allowed_steps(SQUARE.grid)[-1]
    _, single = SQUARE.loss(strategy, OWN, 1, steps, guidance)
    assert single.total_variation < 1e-5


@pytest.mark.parametrize("guidance", [None, Guidance(2.0)])
def test_a_decoder_that_decides_its_steps_is_judged_by_every_branch(guidance: Guidance | None) -> None:
    world = World((2, 2), 2)
    for name in ("jacobi", "sjd"):
        plan, found = world.loss(registry.get(name, window=3), OWN, 1, None, guidance)
        assert plan.opened
        assert found.total_variation < 1e-5
        assert abs(found.kl_bits) < 1e-6
    with pytest.raises(UserError, match="decides its steps while decoding"):
        world.loss(registry.get("sjd"), OWN, 0, 4, None)


def test_grouped_acceptance_loses_where_codes_are_many() -> None:
    """Exactly, over every branch behind one first token."""
    method = registry.get("gsd", init="repeat_horizon")
    _, found = World((1, 3), 16).loss(method, OWN, 4, None, None)
    assert len(found.steps) == 2, "two places are left"
    assert found.total_variation > 0.05
    assert abs(sum(step.kl_bits for step in found.steps) - found.kl_bits) < 1e-6
    _, alone = World((1, 3), 16).loss(
        registry.get("gsd", init="repeat_horizon", near=1e-9), OWN, 4, None, None
    )
    assert alone.total_variation < 1e-6, "a group of one is SJD's own test"


def test_a_world_of_too_many_branches_is_not_half_enumerated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branches, "MOST_BRANCHES", 500)
    with pytest.raises(Undefined, match="more than 500 branches"):
        World((2, 2), 3).loss(registry.get("sjd"), OWN, 0, None, None)


def test_sampled_images_show_what_a_wrong_test_does(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World((2, 2), 3)
    honest = world.sampled(registry.get("sjd"), 3, Guidance(2.0))
    assert honest.as_expected
    assert honest.total_variation < 2 * honest.chance
    # Every draft that is carried on counts as drawn from the distribution of now.
    monkeypatch.setattr(sjd, "of_tokens", lambda law, tokens: torch.ones_like(tokens, dtype=torch.float32))
    assert not world.sampled(registry.get("sjd"), 3, Guidance(2.0)).as_expected


def test_more_places_than_the_grid_has_leave_fewer_codes() -> None:
    world = World((2, 3), 3)
    assert world.small_enough(registry.get("raster")) == world
    two = world.small_enough(registry.get("ctf"))  # a coarse and a fine token at each position
    assert two == World((2, 3), 2)
    (line,) = exact_lines([world], ["ctf"], [], 2.0, None, 1)[:1]
    assert line.world == two
    assert line.cells()[0] == "2x3, 2 codes"
    assert "predicts whole groups" in str(line.why), "and not that the world is too large"
    with pytest.raises(UserError, match="18 places of 2 codes hold 262,144 images: too many"):
        World((3, 3), 2).loss(registry.get("ctf"), OWN, 0, None, None)


def test_the_command_lists_branches_and_samples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lossiness", "--strategies", "jacobi", "--grid", "2x2", "--networks", "1"]) == 0
    out = capsys.readouterr().out
    assert out.count("every branch") == 2  # without guidance and with it
    assert out.count("4096 images in batches of 4096") == 2
    assert out.count("lossless: holds") == 4


def test_a_false_claim_fails_the_command(monkeypatch, capsys) -> None:
    monkeypatch.setattr(type(registry.get("arpg")), "lossless", True)
    (line, _) = exact_lines([SQUARE], ["arpg"], [], 2.0, 2, 1)[:2]
    assert not line.holds
    assert main(["lossiness", "--strategies", "arpg", "--orders", "--grid", "2x2", "--networks", "1"]) == 1
    assert "lossless: BROKEN" in capsys.readouterr().out


def test_a_claim_without_a_figure_is_not_tested(capsys) -> None:
    (line, _) = exact_lines([SQUARE], ["raster"], [], 2.0, 3, 1)
    assert line.holds is None
    assert line.cells()[-1].startswith("lossless: NOT TESTED, undefined: steps = 3")
    # Raster takes four steps here, ARPG two to four: one line of figures is enough.
    arguments = ["lossiness", "--grid", "2x2", "--steps", "3", "--networks", "1", "--orders", "--strategies"]
    assert main([*arguments, "raster", "arpg"]) == 0
    out = capsys.readouterr().out
    assert out.count("NOT TESTED") == 2
    assert "holds" not in out
    assert main([*arguments, "sjd", "raster"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "none of 4 lines has a figure; the first: steps = 3: strategy 'sjd'" in error


class Deaf(Raster):
    """Claims to be lossless, and always conditions on code 0."""

    def decode(self, network, plan, rows):
        inner = super().decode(network, plan, rows)
        ask = next(inner)
        while True:
            tokens = yield ask
            try:
                ask = inner.send(torch.zeros_like(tokens))
            except StopIteration:
                return


def test_a_decode_that_ignores_its_tokens_is_found() -> None:
    network = SQUARE.network(Raster(), 0)
    plan = Raster().plan(SQUARE.grid, None, Streams(0, (0,)))
    found = compare_joints(*joints(network, Deaf(), plan, 0), plan.sizes)
    assert found.total_variation > 0.01


@pytest.mark.parametrize("name", TRAINED)
def test_the_trait_sequential_conditionals(name: str) -> None:
    """Each place's distribution hears the place just before it, exactly where the strategy says so."""
    strategy = registry.get(name)
    world = World((4, 4), 5)
    network = world.network(strategy, 0)
    plan = strategy.plan(world.grid, strategy.allowed_steps(world.grid)[-1], Streams(0, (0,)))
    places, generator = plan.places, torch.Generator().manual_seed(0)
    tokens = torch.randint(5, (1, places), generator=generator)
    order = torch.as_tensor(plan.order).reshape(1, places)
    lesson, label = Lesson(order, (1,) * places), torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        plain = strategy.taught_logits(network, tokens, label, lesson)
        heard = []
        for place in range(1, places):
            other = tokens.clone()
            other[0, order[0, place - 1]] = (other[0, order[0, place - 1]] + 1) % 5
            changed = strategy.taught_logits(network, other, label, lesson)
            heard.append(bool((changed - plain)[0, place].abs().max() > 1e-5))
    assert all(heard) is strategy.sequential_conditionals


def test_guidance_keeps_the_plans_clock() -> None:
    """Only the grouping may differ: each place keeps the scale that the plan's own clock gives it."""
    strategy = registry.get("arpg")
    network = SQUARE.network(strategy, 2)
    plan = strategy.arrange(SQUARE.grid, np.arange(4), (1, 1, 1, 1))
    slow = replace(plan, progress=np.zeros(4))
    tokens, labels = torch.tensor([[0, 1, 2, 0]]), torch.zeros(1, dtype=torch.int64)
    unguided = sequential_log_probabilities(network, strategy, plan, labels, tokens)
    frozen = sequential_log_probabilities(network, strategy, slow, labels, tokens, Guidance(3.0, "linear"))
    assert torch.allclose(unguided, frozen, atol=1e-6)
    moving = sequential_log_probabilities(network, strategy, plan, labels, tokens, Guidance(3.0, "linear"))
    assert not torch.allclose(unguided, moving, atol=1e-3)


def test_halton_order_is_the_published_one() -> None:
    firsts = {4: [9, 6, 12, 1, 11, 4, 14, 3], 8: [34, 21, 48, 11, 46, 25, 60, 7]}
    for side, first in firsts.items():
        order = halton((side, side))
        assert order[:8].tolist() == first
        assert sorted(order) == list(range(side * side))
    assert halton((16, 16))[:4].tolist() == [133, 74, 193, 39]


def test_variants_are_the_options_that_change_a_plan() -> None:
    assert [label for label, _ in variants("lpd")] == ["LPD"]  # random is a rule
    assert [label for label, _ in variants("arpg")] == ["ARPG", "ARPG (schedule cosine)"]  # not prefill
    assert [label for label, _ in variants("raster")] == ["Raster"]


@pytest.mark.parametrize("rule", RULES)
def test_order_rules_change_the_order_alone(rule: str) -> None:
    strategy = registry.get("lpd")
    plan = ordered_plan(strategy, (4, 4), 6, Streams(0, (0, 1)), rule)
    assert plan.sizes == strategy.sizes((4, 4), 6)
    assert plan.places == 16
    with pytest.raises(UserError, match="fixed order"):
        ordered_plan(registry.get("raster"), (4, 4), None, Streams(0, (0,)), rule)


# Estimates --------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(small_zoo):
    def make(**settings):
        settings = {"threads": 1, "zoo": str(small_zoo)} | settings
        return load(prepare(normalised(Cell(**settings))))

    return make


def test_the_estimate_agrees_with_the_enumeration(tiny) -> None:
    """The same network, order and groups: the mean over samples is the exact KL(q || p) by step."""
    strategy, world = registry.get("arpg"), World((2, 2), 3)
    network = world.network(strategy, 4)
    guidance = Guidance(1.5, "linear")
    plan = strategy.arrange(world.grid, halton(world.grid), (2, 2))
    exact = compare_joints(*joints(network, strategy, plan, 0, guidance), plan.sizes)
    subject = tiny(strategy="arpg", steps=2)
    cell = replace(subject.prepared.cell, steps=2)
    prepared = replace(
        subject.prepared, cell=cell, config=replace(network.config, classes=1), guidance=guidance
    )
    found = estimate(replace(subject, prepared=prepared, network=network), 6000, "halton")
    assert found.sizes == plan.sizes
    _, low, high = found.total
    assert low < exact.kl_bits < high
    half = (high - low) / 2
    assert half < 0.2 * exact.kl_bits
    for step, mean in zip(exact.steps, found.bits.mean(axis=0), strict=True):
        assert mean == pytest.approx(step.kl_bits, abs=1.5 * half)


def test_single_tokens_lose_nothing_and_groups_do(tiny) -> None:
    single = estimate(tiny(strategy="raster", guidance=2.0), 4)
    assert single.bits.shape == (4, 64)
    assert np.abs(single.bits).max() < 1e-3
    grouped = estimate(tiny(strategy="lpd", steps=8, guidance=2.0, temperature=0.7), 4)
    assert grouped.bits.shape == (4, 8)
    assert np.abs(grouped.bits[:, 0]).max() < 1e-4  # the first group holds one token
    assert grouped.bits.std() > 0.01


def test_what_cannot_be_judged_says_why(tiny) -> None:
    with pytest.raises(Undefined, match="top_k and top_p"):
        estimate(tiny(strategy="arpg", steps=4, top_k=3), 2)
    with pytest.raises(Undefined, match="distributions of the method's own"):
        estimate(tiny(strategy="halton", steps=4, options={"last_sharpness": 1.2}), 2)
    with pytest.raises(Undefined, match="whole groups"):
        estimate(tiny(strategy="par"), 2)


def test_cells_say_how_many_images_are_judged() -> None:
    assert normalised(Cell("lpd")).lossiness_images == 200
    assert normalised(Cell("lpd", images=8)).lossiness_images == 8
    assert normalised(Cell("lpd", lossiness_images=0)).lossiness_images == 0
    assert normalised(Cell("lpd", network="lpd-l-256")).lossiness_images == 0
    assert normalised(Cell("lpd", network="lpd-l-256", lossiness_images=5)).lossiness_images == 5
    assert normalised(Cell("real", lossiness_images=7)).lossiness_images == 0
    assert normalised(Cell("lpd")).key != normalised(Cell("lpd", lossiness_images=0)).key


# The command ------------------------------------------------------------------------------------------------


def test_the_command_lists_worlds_and_reasons(capsys) -> None:
    names = ["raster", "par", "arpg"]
    arguments = ["--strategies", *names, "--orders", "halton", "--grid", "2x2", "--networks", "2"]
    assert main(["lossiness", *arguments]) == 0
    out = capsys.readouterr().out
    assert out.count("lossless: holds") == 2  # without guidance and with it
    assert "undefined: the network of 'par'" in out
    assert "halton" in out
    assert "Means over 2 random networks" in out


def test_the_command_compares_orders_of_a_stored_network(capsys, small_zoo) -> None:
    arguments = ["--orders", "raster", "locality", "--images", "3", "--zoo", str(small_zoo), "--threads", "1"]
    assert main(["lossiness", "strategy=arpg,steps=6,guidance=2", *arguments]) == 0
    out = capsys.readouterr().out
    assert "bits lost per image" in out
    assert "the first group of a locality order holds one position" in out
    assert "zoo/arpg itself" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--strategies", "lpdd"], ["unknown strategy 'lpdd'", "did you mean 'lpd'"]),
        (["--orders", "halten"], ["unknown order 'halten'", "did you mean 'halton'"]),
        (["--grid", "2by2"], ["--grid 2by2", "2x3"]),
        (["--grid", "8x8"], ["--grid 8x8", "too many"]),
        (["--codes", "1"], ["--codes 1", "at least 2"]),
        (["--networks", "0"], ["--networks 0", "at least 1"]),
        (["strategy=real"], ["unknown strategy 'real'"]),
        (["strategy=par", "--zoo", "ZOO"], ["whole groups"]),
    ],
)
def test_mistakes_are_one_line(capsys, small_zoo, arguments, words) -> None:
    assert main(["lossiness", *(str(small_zoo) if a == "ZOO" else a for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for word in words:
        assert word in error


def test_a_plan_needs_one_order() -> None:
    strategy = registry.get("arpg")
    network = SQUARE.network(strategy, 0)
    plan = strategy.plan(SQUARE.grid, 2, Streams(0, (0, 1)))
    with pytest.raises(ValueError, match="one order for all images"):
        joints(network, strategy, plan, 0)
    large = Plan((4, 5), np.arange(20), (1,) * 20)
    with pytest.raises(ValueError, match="over 131072"):
        joints(network, strategy, large, 0)


@pytest.mark.parametrize(
    ("sizes", "text"),
    [((1,) * 64, "64 x 1"), ((1, 1, 2), "2 x 1 + 2"), ((1, 3, 1), "1 + 3 + 1"), ((), "")],
)
def test_group_sizes_are_printed_as_runs(sizes, text) -> None:
    assert printed_sizes(sizes) == text


def test_more_than_a_dozen_steps_are_folded() -> None:
    assert by_step(np.ones((1, 12))) == " ".join(["1.00"] * 12)
    assert by_step(np.ones((1, 13))) == "1-2: 2.00 " + " ".join(f"{step}: 1.00" for step in range(3, 14))
    folded = by_step(np.ones((5, 64))).split()
    assert folded[::2] == ["1-6:", "7-12:", "13-18:", "19-24:", *folded[8:-2:2], "60-64:"]
    assert folded[1::2] == ["6.00±0.00"] * 4 + ["5.00±0.00"] * 8
