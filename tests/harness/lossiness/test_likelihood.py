"""Likelihoods of whole images: against enumeration and the loop, in mixtures, and by the command."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.cell.cell import Cell, normalised
from harness.cli import main
from harness.images.data import load_dataset
from harness.lossiness.conditionals import Undefined, decoded_log_probabilities
from harness.lossiness.likelihood import (
    Cost,
    cost,
    ensemble,
    image_log_probabilities,
    shown,
    why_undefined,
)
from harness.lossiness.worlds import OWN, RULES, World, ordered_plan
from harness.subject.prepare import prepare
from harness.subject.subject import load
from pardec.errors import UserError
from reports.tables import with_interval
from strategies.decoding import registry
from strategies.decoding.sampling import ForcedSampler
from strategies.decoding.streams import Streams
from tests.strategies.kinds import ByConfidence, Revising, TwoHeads

WORLD = World((2, 2), 3)


def has_a_likelihood(name: str) -> bool:
    strategy = registry.get(name)
    try:
        plan = strategy.plan(WORLD.grid, None, Streams(0, (0,)))
    except UserError:  # none on so small a grid
        return False
    whole = strategy.canvas(WORLD.network(strategy, 0), torch.zeros(1, 4, dtype=torch.int64))
    return why_undefined(strategy, plan) is None and whole.shape[1] == plan.places


EXACT = [name for name in registry.loadable() if has_a_likelihood(name)]


def all_images() -> torch.Tensor:
    return torch.cartesian_prod(*[torch.arange(3)] * 4).reshape(-1, 4)


def costs_of_all(strategy, rule, seed=2, steps=None):
    """Cost [3^4] of every image of the world, by an order that is the same for all."""
    plan = ordered_plan(strategy, WORLD.grid, steps, Streams(seed, (0,)), rule)
    images = all_images()
    found = image_log_probabilities(
        WORLD.network(strategy, seed), strategy, plan, torch.zeros(len(images), dtype=torch.int64), images
    )
    return Cost(rule, -found.numpy() / np.log(2) / 4)


def probabilities(found: Cost) -> np.ndarray:
    return np.exp2(-4 * found.bits)


def test_the_networks_that_have_a_likelihood() -> None:
    any_order = {"arpg", "lpd", "randar", "halton"}
    assert {"raster", "rar", "par", "nar", "token-shuffle", "ctf"} | any_order <= set(EXACT)
    assert not {"maskgit", "sjd"} & set(EXACT)


@pytest.mark.parametrize("name", EXACT)
def test_probabilities_of_all_images_sum_to_one_and_are_those_of_the_loop(name: str) -> None:
    strategy = registry.get(name)
    rules = [OWN, *RULES] if strategy.any_order else [OWN]
    for rule in rules:
        found = costs_of_all(strategy, rule)
        assert probabilities(found).sum() == pytest.approx(1, abs=1e-5)
    images, labels = all_images()[::7], torch.zeros(12, dtype=torch.int64)
    for steps in {strategy.allowed_steps(WORLD.grid)[0], strategy.allowed_steps(WORLD.grid)[-1]}:
        plan = strategy.plan(WORLD.grid, steps, Streams(2, (0,)))
        network = WORLD.network(strategy, 2)
        _, decoded = decoded_log_probabilities(
            network, strategy, plan, labels, ForcedSampler(strategy.canvas(network, images))
        )
        found = image_log_probabilities(network, strategy, plan, labels, images)
        assert torch.allclose(found, decoded.sum(dim=1), atol=1e-4)


def test_an_ensemble_is_the_mixture_of_its_orders() -> None:
    costs = [costs_of_all(registry.get("randar"), rule) for rule in ("raster", "hilbert", "spiral")]
    mixed = ensemble(costs, 4)
    assert mixed.order == "ensemble of 3"
    expected = np.mean([probabilities(one) for one in costs], axis=0)
    assert np.allclose(probabilities(mixed), expected, rtol=1e-9)
    assert probabilities(mixed).sum() == pytest.approx(1, abs=1e-5)
    best = np.min([one.bits for one in costs], axis=0)
    assert (mixed.bits <= best + np.log2(3) / 4 + 1e-9).all()
    assert (mixed.bits >= best - 1e-9).all()
    # Under any distribution of images it costs at most the mean of its orders.
    assert (mixed.bits <= np.mean([one.bits for one in costs], axis=0) + 1e-9).all()
    assert np.allclose(ensemble([costs[0]] * 5, 4).bits, costs[0].bits)


def test_an_ensemble_of_improbable_images_does_not_underflow() -> None:
    costs = [Cost("a", np.array([20.0])), Cost("b", np.array([21.0]))]
    assert ensemble(costs, 576).bits[0] == pytest.approx(20 + 1 / 576)


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        (registry.get("sjd"), "ask for 'raster'"),
        (ByConfidence(), "doesn't give what its decoder draws from"),
        (Revising(), "overwrites tokens"),
    ],
)
def test_decoders_without_one_say_why(strategy, words) -> None:
    assert words in str(why_undefined(strategy))
    plan = registry.get("raster").plan(WORLD.grid, None, Streams(0, (0,)))
    with pytest.raises(Undefined, match=words):
        image_log_probabilities(torch.nn.Module(), strategy, plan, torch.zeros(1), torch.zeros(1, 4))


def test_plans_without_one_say_why() -> None:
    strategy = TwoHeads()
    plan = strategy.plan(WORLD.grid, None, Streams(0, (0,)))
    for changed, words in (
        (replace(plan, opened=True), "chooses the places"),
        (replace(plan, order=np.arange(8), sizes=(8,), maps=((2, 2), (2, 2)), progress=None), "other tokens"),
    ):
        with pytest.raises(Undefined, match=words):
            image_log_probabilities(torch.nn.Module(), strategy, changed, torch.zeros(1), torch.zeros(1, 4))


# Held-out images --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(small_zoo):
    def make(**settings):
        return load(prepare(normalised(Cell(**{"threads": 1, "zoo": str(small_zoo)} | settings))))

    return make


def test_held_out_images_come_classes_in_turn(tiny) -> None:
    subject = tiny(strategy="raster")
    seen = shown(subject, 25)
    assert seen.tokens.shape == (25, 64)
    assert seen.labels[:20].tolist() == [*range(10)] * 2
    held_out = load_dataset("fashion", "held-out")
    assert seen.dataset.sha256 == held_out.sha256
    first = int((held_out.labels == 3).nonzero()[0])
    codes = subject.tokenizer.encode(held_out.images[first : first + 1].float() / 127.5 - 1).flatten()
    assert torch.equal(seen.tokens[3], codes)


def test_costs_are_those_of_single_images_in_their_own_orders(tiny) -> None:
    subject = tiny(strategy="randar", steps=20)
    seen = shown(subject, 53)
    found = cost(subject, seen, "random")
    assert found.bits.shape == (53,)
    streams = subject.prepared.streams([51])
    plan = ordered_plan(subject.prepared.strategy, (8, 8), 20, streams, "random")
    alone = image_log_probabilities(
        subject.network, subject.prepared.strategy, plan, seen.labels[51:52], seen.tokens[51:52]
    )
    assert found.bits[51] == pytest.approx(-float(alone) / np.log(2) / 64, abs=1e-4)
    assert found.mean[1] < found.mean[0] < found.mean[2]


def test_a_cost_against_another_is_paired() -> None:
    first, other = Cost("a", np.array([1.0, 2.0, 4.0])), Cost("b", np.array([1.5, 2.5, 4.4]))
    contrast = other.against(first)
    assert contrast.value == pytest.approx(1.4 / 3)
    assert contrast.low > 0
    assert Cost("a", np.array([1.0])).against(Cost("b", np.array([2.0]))) is None


def test_data_that_do_not_fit_are_named(tiny, tmp_path) -> None:
    from PIL import Image

    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(2):
            Image.new("RGB", (32, 32)).save(tmp_path / label / f"{number}.png")
    subject = tiny(strategy="raster", data=f"imagefolder:{tmp_path}")
    with pytest.raises(UserError, match="2 classes, network 'zoo/raster' 10"):
        shown(subject, 4)
    subject = tiny(strategy="raster", data=f"imagefolder:{tmp_path}?size=16")
    with pytest.raises(UserError, match="images of 16x16 pixels; expected 32x32"):
        shown(subject, 4)
    with pytest.raises(UserError, match="no tokenizer"):
        shown(replace(subject, tokenizer=None), 4)


# The command ------------------------------------------------------------------------------------------------


def test_the_command_prints_and_writes_every_network(capsys, small_zoo, tmp_path) -> None:
    out = tmp_path / "costs.jsonl"
    arguments = ["--zoo", str(small_zoo), "--threads", "1", "--images", "12", "--out", str(out)]
    assert main(["likelihood", *arguments, "--orders", "raster", "hilbert"]) == 0
    printed = capsys.readouterr().out
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line["network"], line["order"]) for line in lines] == [
        *(("zoo/arpg", order) for order in ("raster", "hilbert", "ensemble of 2")),
        *(("zoo/lpd", order) for order in ("raster", "hilbert", "ensemble of 2")),
        ("zoo/maskgit", "own"),
        ("zoo/par", "own"),
        *(("zoo/randar", order) for order in ("raster", "hilbert", "ensemble of 2")),
        ("zoo/rar", "own"),
        ("zoo/raster", "own"),
    ]
    for line in lines:
        if line["network"] == "zoo/maskgit":
            assert "chooses the places of a step" in line["undefined"]
            continue
        assert line["images"] == 12
        assert line["bits_per_token_low"] < line["bits_per_token"] < line["bits_per_token_high"]
        assert ("more_than_first" in line) is (line["order"] not in ("raster", "own"))
        ends = (line[f"bits_per_token{end}"] for end in ("", "_low", "_high"))
        assert with_interval(*ends) in printed
        assert len(line["weights_sha256"]) == len(line["held_out_sha256"]) == 64
    raster, hilbert, mixed = (line["bits_per_token"] for line in lines[:3])
    assert mixed <= (raster + hilbert) / 2
    assert lines[1]["more_than_first"] == pytest.approx(hilbert - raster)
    assert lines[1]["more_than_first_low"] < hilbert - raster < lines[1]["more_than_first_high"]


def test_steps_of_a_cell_are_those_judged(capsys, small_zoo) -> None:
    arguments = ["--zoo", str(small_zoo), "--threads", "1", "--images", "1", "--orders", "locality", "own"]
    assert main(["likelihood", "arpg,steps=9", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "undefined: order 'locality': the first group" in printed
    assert "ensemble of" not in printed
    assert "(n=1)" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--images", "0"], ["--images 0", "at least 1"]),
        (["--orders", "hilbet"], ["unknown order 'hilbet'", "did you mean 'hilbert'"]),
        (["--data", "fashoin"], ["fashoin", "did you mean 'fashion'"]),
        (["sjd"], ["ask for 'raster'"]),
        (["real"], ["'real'"]),
        (["arpg,guidance=2"], ["guidance = 2.0", "expected None", "the network's own"]),
        (["arpg,temperature=0.5"], ["temperature = 0.5"]),
        (["arpg,top_k=3"], ["top_k = 3"]),
        (["arpg,steps=9", "--orders", "locality"], ["the first group of a locality order"]),
        (["raster", "--out", "/no/such/folder/x.jsonl"], ["--out '/no/such/folder/x.jsonl'", "no folder"]),
    ],
)
def test_mistakes_are_one_line(capsys, small_zoo, arguments, words) -> None:
    machine = ["--zoo", str(small_zoo), "--threads", "1", "--images", "2"]
    assert main(["likelihood", *machine, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for word in words:
        assert word in error
