"""Training from mark to mark: the schedule, the rule of its end, and that stopping changes nothing."""

import dataclasses
import json
import signal
import threading
from contextlib import suppress

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones.config import NetworkConfig, TrunkConfig
from backbones.tokenizers.multiscale import MultiScaleConfig, MultiScaleTokenizer
from harness.cell.cell import Cell
from harness.cli import main
from harness.machine.precision import product_type, type_name
from harness.machine.stopping import Stop
from harness.subject.prepare import prepare
from harness.train.learner import new_network
from harness.train.mark_recipe import MarkRecipe, goes_on, still_learning
from harness.train.mark_trainer import MarkTrainer, TaughtImages, optimisers_of, rows_of
from harness.train.tier import Material, claimed, promote, train_tier, trainer_of
from harness.weights import zoo
from pardec.errors import UserError
from strategies.decoding import registry
from tests.harness.train.every_mark import train_through_every_mark

RECIPE = MarkRecipe(base_images=40, marks=(1, 2, 4), batch=4, warmup_steps=3, validation_images=8)
CONFIG = NetworkConfig(TrunkConfig(2, 16, 2, 32), codes=8, classes=3, grid=(3, 3))


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return TaughtImages(
        torch.randint(0, 8, (48, 9), generator=generator, dtype=torch.uint8),
        torch.randint(0, 3, (48,), generator=generator),
    )


def trainer(folder, strategy="raster", recipe=RECIPE, made_of=None):
    return MarkTrainer(registry.get(strategy), CONFIG, recipe, folder, made_of or {}, compiled=False)


def train(run, images, mark, finished=lambda mark: None):
    run.train_to(mark, images, images, finished, say=lambda line: None)


def state(run):
    return {name: tensor.clone() for name, tensor in run.network.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_maps_that_the_tokenizer_has_not_are_refused_before_training():
    tokenizer = MultiScaleTokenizer(MultiScaleConfig(encoder_width=4, decoder_width=4))
    strategy = registry.get("var", scales="1 2 3 4 5 6 8 10 12 16")
    config = dataclasses.replace(CONFIG, grid=(16, 16))
    with pytest.raises(UserError, match="strategy 'var' and its tokenizer: maps of sides"):
        new_network(strategy, config, 0, None, tokenizer)


# Schedule ---------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 400), st.floats(0.05, 0.9))
def test_in_every_leg_the_rate_is_warmed_up_then_constant_then_falls_to_nothing(warmup, share):
    recipe = MarkRecipe(base_images=8000, warmup_steps=warmup, decay_share=share)
    begin = 0
    for end in map(recipe.end_of, recipe.marks):
        rates = [recipe.rate_share(step) for step in range(begin, end)]
        top = rates.index(max(rates))
        assert rates[: top + 1] == sorted(rates[: top + 1])
        assert rates[top:] == sorted(rates[top:], reverse=True)
        assert rates[0] == 1 / warmup
        assert rates[-1] <= 1 / ((end - begin) * share) * 1.01
        if warmup < (end - begin) * (1 - share):
            assert rates[top] == 1
            assert rates.count(1.0) >= (end - begin) * (1 - share) - warmup - 1
        begin = end


def test_marks_are_those_of_the_tier():
    recipe = MarkRecipe()
    assert [recipe.end_of(mark) * recipe.batch for mark in recipe.marks] == [
        50_000,
        100_000,
        200_000,
        400_000,
    ]
    assert [recipe.leg(step) for step in (0, 3124, 3125, 24_999)] == [
        (0, 3125), (0, 3125), (3125, 6250), (12_500, 25_000)
    ]  # fmt: skip
    assert [recipe.progress(step) for step in (0, 3125, 9375)] == [0, 0, 0.5]
    with pytest.raises(ValueError, match="beyond the last mark, step 25000"):
        recipe.leg(25_000)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ({}, 1),
        ({1: 1.0}, 2),
        ({1: 1.0, 2: 0.97}, 4),
        ({1: 1.0, 2: 0.985}, None),
        ({1: 1.0, 2: 1.1}, None),
        ({1: 1.0, 2: 0.9, 4: 0.8}, None),
    ],
)
def test_training_goes_on_while_the_last_doubling_taught_enough(losses, expected):
    assert RECIPE.next_mark(losses) == expected


def test_two_percent_are_of_the_loss_before():
    assert still_learning({1: 0.5, 2: 0.4899}, 0.02)
    assert not still_learning({2: 0.4901, 1: 0.5}, 0.02)


def test_every_pass_shows_every_image_once():
    recipe = dataclasses.replace(RECIPE, batch=5)
    for first in (0, 9):
        seen = torch.cat([rows_of(step, recipe, 48) for step in range(first, first + 9)])
        assert len(seen.unique()) == 45
    assert not torch.equal(rows_of(0, recipe, 48), rows_of(9, recipe, 48))
    with pytest.raises(UserError, match="larger than the training split"):
        rows_of(0, recipe, 4)


def test_muon_has_the_matrices_of_the_blocks_and_nothing_else():
    network = registry.get("arpg").network(CONFIG)
    muon, rest = optimisers_of(network, RECIPE)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    matrices = {names[id(parameter)] for parameter in muon.param_groups[0]["params"]}
    assert len(matrices) == 2 * 4
    assert all(".blocks." in name and name.endswith("weight") for name in matrices)
    others = {names[id(parameter)] for group in rest.param_groups for parameter in group["params"]}
    assert matrices | others == set(names.values())
    assert not matrices & others
    assert all(parameter.ndim < 2 for parameter in rest.param_groups[1]["params"])


def test_a_run_goes_on_where_all_that_was_stored_is_the_same():
    stored = {"recipe": {"rate": 1.0, "marks": [1, 2]}, "network": {"codes": 8}}
    assert goes_on(stored, stored)
    assert goes_on(stored, {**stored, "later": 1, "network": {"codes": 8, "later": None}})
    assert not goes_on(stored, {**stored, "network": {"codes": 9}})
    assert not goes_on(stored, {"recipe": stored["recipe"]})
    assert not goes_on(stored, {**stored, "recipe": 1.0})


# Runs -------------------------------------------------------------------------------------------------


def test_a_leg_begins_with_the_network_of_the_mark_and_nothing_else(tmp_path, images):
    run, other = trainer(tmp_path / "run"), trainer(tmp_path / "other", recipe=RECIPE)
    ends = {}
    train(run, images, 1, lambda mark: ends.update({mark: state(run)}))
    assert run.step == RECIPE.end_of(1) == 10
    assert not same(state(run), ends[1])  # rounded as a file would
    assert all(torch.equal(tensor, ends[1][name].half().float()) for name, tensor in state(run).items())
    other.begin_leg(ends[1], run.reached)
    for one in (run, other):
        one.train_step(images)
    assert same(state(run), state(other))


def test_what_a_lesson_is_told_of_progress_is_of_its_leg(tmp_path, images, monkeypatch):
    run, told = trainer(tmp_path, "rar"), []
    lesson = type(run.strategy).lesson

    def listen(strategy, batch, grid, generator, progress):
        told.append(progress)
        return lesson(strategy, batch, grid, generator, progress)

    monkeypatch.setattr(type(run.strategy), "lesson", listen)
    for _ in range(20):
        run.train_step(images)
    assert told == [step / 10 for step in range(10)] * 2


def test_a_step_is_the_recipe_s(tmp_path, images, monkeypatch):
    """Rates, decay, clipping, and labels dropped in training alone."""
    recipe = dataclasses.replace(RECIPE, label_drop=1.0, clip_norm=1e-3)
    run, seen = trainer(tmp_path, recipe=recipe), []
    loss = type(run.strategy).loss

    def listen(strategy, network, tokens, labels, lesson):
        seen.append(labels)
        return loss(strategy, network, tokens, labels, lesson)

    monkeypatch.setattr(type(run.strategy), "loss", listen)
    for step in range(2):
        run.train_step(images)
        rates = [group["lr"] for optimiser in run.optimisers for group in optimiser.param_groups]
        share = recipe.rate_share(step)
        assert rates == [recipe.matrix_rate * share, *[recipe.rate * share] * 2]
    decays = [group["weight_decay"] for optimiser in run.optimisers for group in optimiser.param_groups]
    assert decays == [recipe.weight_decay, recipe.weight_decay, 0.0]
    norm = torch.cat([weight.grad.flatten() for weight in run.network.parameters()]).norm()
    assert float(norm) == pytest.approx(1e-3, rel=1e-2)
    run.validate(images)
    assert (torch.cat(seen[:2]) == CONFIG.classes).all()
    assert (torch.cat(seen[2:]) < CONFIG.classes).all()


@pytest.mark.parametrize(
    "stop", [pytest.param(3, marks=pytest.mark.slow), 9, pytest.param(13, marks=pytest.mark.slow)]
)
def test_a_killed_run_goes_on_as_if_not(tmp_path, images, stop, monkeypatch):
    whole = trainer(tmp_path / "whole")
    for mark in (1, 2):
        train(whole, images, mark)

    class Killed(Exception):
        pass

    killed, steps = trainer(tmp_path / "killed"), []
    monkeypatch.setattr("harness.train.mark_trainer.SAVE_EVERY_S", 0.0)

    def step_or_die(data, step=killed.train_step):
        if len(steps) == stop:
            raise Killed
        steps.append(killed.step)
        return step(data)

    killed.train_step = step_or_die
    with suppress(Killed):
        for mark in (1, 2):
            train(killed, images, mark)
    assert len(steps) == stop
    again = trainer(tmp_path / "killed")
    assert again.resume()
    while (mark := RECIPE.next_mark(again.reached.marks)) is not None and mark <= 2:
        train(again, images, mark)
    assert same(state(whole), state(again))
    assert again.reached.marks == whole.reached.marks
    assert again.reached.curve == whole.reached.curve


def test_a_run_that_is_asked_to_stop_saves_and_ends(tmp_path, images):
    run, whole = trainer(tmp_path / "stopped"), trainer(tmp_path / "whole")
    stop = Stop()
    step = run.train_step

    def step_and_ask(data):
        stop.requested = run.step == 4
        return step(data)

    run.train_step = step_and_ask
    with pytest.raises(SystemExit, match="stopped at 20 images"):
        run.train_to(1, images, images, lambda mark: None, say=lambda line: None, stop=stop)
    again = trainer(tmp_path / "stopped")
    assert again.resume()
    assert again.step == 5
    for _ in range(5):
        whole.train_step(images)
    assert same(state(whole), state(again))


def test_a_run_refuses_another_recipe_and_what_is_no_run(tmp_path, images):
    run = trainer(tmp_path, made_of={"tokenizer_sha256": "one"})
    run.save()
    assert trainer(tmp_path, made_of={"tokenizer_sha256": "one"}).resume()
    others = (
        trainer(tmp_path, recipe=dataclasses.replace(RECIPE, matrix_rate=1e-3), made_of=run.made_of),
        trainer(tmp_path, strategy="par", made_of=run.made_of),
        trainer(tmp_path, made_of={"tokenizer_sha256": "another"}),
    )
    for other in others:
        with pytest.raises(UserError, match="another recipe, trunk, tokenizer or data set"):
            other.resume()
    state = torch.load(run.path, weights_only=True)
    torch.save({**state, "reached": {**state["reached"], "branches": {}}}, run.path)
    with pytest.raises(UserError, match="is a run of an older pardec"):
        trainer(tmp_path, made_of=run.made_of).resume()
    run.path.write_bytes(run.path.read_bytes()[:100])
    with pytest.raises(UserError, match="can't be read as a saved run"):
        trainer(tmp_path).resume()


def test_learning_that_comes_to_nothing_is_told(tmp_path, images, monkeypatch):
    monkeypatch.setattr("harness.train.mark_trainer.CURVE_STEPS", 1)
    run = trainer(tmp_path)
    with torch.no_grad():
        run.network.head.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="the loss is nan at step 1; look into the loss of strategy 'raster'"):
        train(run, images, 1)


def test_weights_that_are_no_numbers_replace_no_saved_state_and_no_mark(tmp_path, images, monkeypatch):
    monkeypatch.setattr("harness.train.mark_trainer.SAVE_EVERY_S", 0.0)
    run, finished = trainer(tmp_path), []
    step = run.train_step

    def break_at(last):
        def broken(data):
            loss = step(data)
            if run.step == last:
                with torch.no_grad():
                    run.network.head.weight[0] = float("inf")
            return loss

        return broken

    run.train_step = break_at(3)
    with pytest.raises(UserError, match=r"a weight is NaN or infinite at step 3; .* another --seed"):
        train(run, images, 1)
    assert run.resume()
    assert run.step == 2
    assert run.network.head.weight.isfinite().all()
    monkeypatch.setattr("harness.train.mark_trainer.SAVE_EVERY_S", 1e9)
    run.train_step = break_at(10)
    with pytest.raises(UserError, match="a weight is NaN or infinite at step 10"):
        train(run, images, 1, finished.append)
    assert finished == []


def test_the_pace_is_that_since_it_was_told_last(tmp_path, images, monkeypatch):
    monkeypatch.setattr("harness.train.mark_trainer.CURVE_STEPS", 5)
    monkeypatch.setattr("harness.train.mark_trainer.time.monotonic", map(float, range(10**6)).__next__)
    run, lines = trainer(tmp_path), []
    run.reached.seconds = 1e6  # of an earlier leg, on another machine
    run.train_to(1, images, images, lambda mark: None, say=lines.append)
    paces = [line.rpartition(", ")[2] for line in lines if "loss" in line and "images/s" in line]
    assert paces == ["4.0 images/s"] * 2  # four images a step, a second each


def test_a_network_learns(tmp_path):
    """Images that are one code each, by their class: the loss falls to nearly nothing."""
    labels = torch.arange(48) % 3
    images = TaughtImages(labels[:, None].expand(48, 9).to(torch.uint8).contiguous(), labels)
    run = trainer(tmp_path, recipe=dataclasses.replace(RECIPE, base_images=400, label_drop=0.0))
    train(run, images, 1)
    assert run.reached.marks[1] < 0.1


# The tier ---------------------------------------------------------------------------------------------


@pytest.fixture
def material(images):
    return Material(images, images, CONFIG, {"tokenizer_sha256": "t" * 64}, {"name": "small"})


def test_all_networks_reach_a_level_before_one_goes_on(tmp_path, material, monkeypatch):
    train_through_every_mark(monkeypatch)
    stored = []
    monkeypatch.setattr(
        "harness.train.tier.store_mark", lambda run, mark, *_: stored.append((run.strategy.name, mark))
    )
    train_tier(("raster", "nar"), RECIPE, material, tmp_path / "zoo", tmp_path / "runs")
    assert stored == [
        ("raster", 1), ("nar", 1), ("raster", 2), ("nar", 2), ("raster", 4), ("nar", 4)
    ]  # fmt: skip


def test_a_stop_at_the_end_of_a_network_begins_no_other(tmp_path, material, monkeypatch):
    monkeypatch.setattr("harness.train.mark_trainer.compile_taught", lambda network: False)
    stored = []

    def stopped_while_stored(run, mark, *_):
        stored.append(run.strategy.name)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("harness.train.tier.store_mark", stopped_while_stored)
    with pytest.raises(SystemExit, match="stopped after raster"):
        train_tier(("raster", "lpd"), RECIPE, material, tmp_path / "zoo", tmp_path / "runs")
    assert stored == ["raster"]


def test_the_zoo_keeps_the_last_mark_and_each_under_its_name(tmp_path, material, monkeypatch):
    monkeypatch.setattr("harness.train.mark_trainer.compile_taught", lambda network: False)
    folder, runs = tmp_path / "zoo", tmp_path / "runs"
    train_tier(("raster",), RECIPE, material, folder, runs, most=2)
    assert zoo.names(folder) == ["raster"]
    assert zoo.marks("raster", folder) == ["marks/raster-1x", "raster"]
    card = zoo.read_card("zoo/marks/raster-1x", folder)
    assert (card.strategy, card.training_seed, card.training_images) == ("raster", 0, 40)
    assert [row["images"] for row in card.learning["marks"]] == [40]
    assert card.network == CONFIG
    last = json.loads((folder / "raster.json").read_text())
    assert [row["mark"] for row in last["marks"]] == [1, 2]
    assert last["marks"][1]["images"] == last["images_trained"] == 80
    assert last["weights"]["file"] == "raster.safetensors"
    assert 0 <= last["near_certain"] <= 1
    assert trainer_of("raster", RECIPE, material, runs).reached.marks.keys() == {1, 2}


def test_a_run_goes_on_from_the_mark_of_a_zoo_as_from_its_own(tmp_path, material, monkeypatch):
    monkeypatch.setattr("harness.train.mark_trainer.compile_taught", lambda network: False)
    whole, later = tmp_path / "whole", tmp_path / "later"
    train_tier(("raster",), RECIPE, material, whole, tmp_path / "runs", most=2)
    train_tier(("raster",), RECIPE, material, later, tmp_path / "first", most=1)
    train_tier(("raster",), RECIPE, material, later, tmp_path / "lost", most=2)
    assert (whole / "raster.safetensors").read_bytes() == (later / "raster.safetensors").read_bytes()
    cards = [json.loads((folder / "raster.json").read_text()) for folder in (whole, later)]
    assert cards[0]["marks"] == cards[1]["marks"]
    assert cards[0]["train_loss"] == cards[1]["train_loss"]
    train_tier(("raster",), RECIPE, material, later, tmp_path / "again", most=1, again=True)
    assert trainer_of("raster", RECIPE, material, tmp_path / "again").reached.marks.keys() == {1}


def test_the_zoo_s_own_networks_are_of_one_budget(tmp_path, material, monkeypatch):
    monkeypatch.setattr("harness.train.mark_trainer.compile_taught", lambda network: False)
    always = lambda recipe, losses: next((mark for mark in recipe.marks if mark not in losses), None)  # noqa: E731
    monkeypatch.setattr(MarkRecipe, "next_mark", always)
    folder, runs = tmp_path / "zoo", tmp_path / "runs"

    def own():
        return {name: zoo.read_card(name, folder).mark for name in zoo.names(folder)}

    train_tier(("raster", "arpg"), RECIPE, material, folder, runs, most=1)
    seed = dataclasses.replace(RECIPE, seed=1)
    train_tier(("raster",), seed, material, folder, runs, most=1)
    assert own() == {"arpg": 1, "raster": 1, "raster-seed1": 1}
    trunk = dataclasses.replace(material.config.trunk, width=8)
    small = dataclasses.replace(
        material, size="small", config=dataclasses.replace(material.config, trunk=trunk)
    )
    train_tier(("arpg",), RECIPE, small, folder, runs, most=1)  # is compared with its like, and holds none up
    first = (folder / "raster.safetensors").read_bytes()
    train_tier(("raster",), RECIPE, material, folder, runs, most=4)
    assert own() == {"arpg": 1, "arpg-small": 1, "raster": 1, "raster-seed1": 1}
    assert zoo.marks("raster", folder) == ["raster", "marks/raster-2x", "marks/raster-4x"]
    train_tier(("arpg",), RECIPE, material, folder, runs, most=2)
    assert own() == {"arpg": 2, "arpg-small": 1, "raster": 2, "raster-seed1": 1}
    assert zoo.marks("raster", folder) == ["marks/raster-1x", "raster", "marks/raster-4x"]
    assert (folder / "marks/raster-1x.safetensors").read_bytes() == first
    card = json.loads((folder / "raster.json").read_text())
    assert (card["mark"], card["weights"]["file"]) == (2, "raster.safetensors")
    # Lost runs go on from the highest mark, wherever it stands.
    train_tier(("raster",), RECIPE, material, folder, tmp_path / "lost", most=4)
    assert zoo.marks("raster", folder)[-1] == "marks/raster-4x"
    # Where one learns no more, the others need not wait for it.
    monkeypatch.setattr(
        MarkRecipe, "next_mark", lambda recipe, losses: None if 2 in losses and 4 not in losses else 8
    )
    promote(folder)
    assert own() == {"arpg": 2, "arpg-small": 1, "raster": 4, "raster-seed1": 1}


def test_two_networks_hold_up_no_single_one(tmp_path, material, monkeypatch):
    monkeypatch.setattr("harness.train.mark_trainer.compile_taught", lambda network: False)
    always = lambda recipe, losses: next((mark for mark in recipe.marks if mark not in losses), None)  # noqa: E731
    monkeypatch.setattr(MarkRecipe, "next_mark", always)
    with_vectors = dataclasses.replace(material, code_vectors=torch.eye(material.config.codes))
    train_tier(("ctf",), RECIPE, with_vectors, tmp_path, tmp_path / "runs", most=1)
    train_tier(("raster",), RECIPE, material, tmp_path, tmp_path / "runs", most=2)
    cards = {name: zoo.read_card(name, tmp_path) for name in zoo.names(tmp_path)}
    assert {name: (card.mark, card.content["networks"]) for name, card in cards.items()} == {
        "ctf": (1, 2),
        "raster": (2, 1),
    }


def test_a_network_of_other_options_has_a_name_of_its_own(tmp_path, material, monkeypatch):
    monkeypatch.setattr("harness.train.mark_trainer.compile_taught", lambda network: False)
    other = dataclasses.replace(material, options={"anneal_start": 0.25})
    train_tier(("rar",), RECIPE, other, tmp_path, tmp_path / "runs", most=1)
    assert zoo.names(tmp_path) == ["rar-anneal_start0.25"]
    card = zoo.read_card("zoo/rar-anneal_start0.25", tmp_path)
    assert card.options["anneal_start"] == 0.25
    assert card.content["command"].endswith("--option anneal_start=0.25")
    assert card.content["products"] == type_name(product_type())
    cell = Cell("rar", network="zoo/rar-anneal_start0.25", zoo=str(tmp_path), batch=2, images=2)
    assert prepare(cell).strategy.anneal_start == 0.25


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rar", "--option", "anneal=1"], "unknown option 'anneal'"),
        (["rar", "--option", "anneal"], "'anneal' is no setting; expected KEY=VALUE"),
        (["--all", "--option", "clusters=4"], "--option: expected the name of a strategy"),
        (["judge", "--option", "clusters=4"], "--option: expected the name of a strategy"),
    ],
)
def test_options_are_of_one_strategy(words, message, tmp_path, capsys):
    assert main(["train", *words, "--out", str(tmp_path), "--runs", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_a_mark_of_another_run_is_no_beginning(tmp_path, material, monkeypatch):
    monkeypatch.setattr("harness.train.mark_trainer.compile_taught", lambda network: False)
    train_tier(("raster",), RECIPE, material, tmp_path, tmp_path / "runs", most=1)
    other = dataclasses.replace(material, made_of={"tokenizer_sha256": "u" * 64})
    with pytest.raises(
        UserError, match=r"raster\.safetensors' is of another recipe, trunk, tokenizer or data"
    ):
        trainer_of("raster", RECIPE, other, tmp_path / "lost", tmp_path)
    card = tmp_path / "raster.json"
    told = json.loads(card.read_text())
    card.write_text(json.dumps({**told, "marks": 3}))
    with pytest.raises(UserError, match=r"raster\.safetensors': not of a mark"):
        trainer_of("raster", RECIPE, material, tmp_path / "lost", tmp_path)


def test_a_run_is_one_process_s_at_a_time(tmp_path):
    found = []
    with claimed(tmp_path / "raster") as mine:
        assert mine

        def ask():
            with claimed(tmp_path / "raster") as theirs:
                found.append(theirs)

        other = threading.Thread(target=ask)
        other.start()
        other.join()
    assert found == [False]
    with claimed(tmp_path / "raster") as mine:
        assert mine
