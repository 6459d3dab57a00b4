"""Training: a run cut anywhere equals an undisturbed one, one budget for all, and what the cards say."""

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from backbones.config import Dropout, NetworkConfig, TrunkConfig
from harness.cell.cell import Cell
from harness.cli import main
from harness.commands import train_run
from harness.sweep.job import taught
from harness.train.trainer import CodesInMemory, Recipe, Trainer, card
from harness.weights import zoo
from pardec.errors import UserError
from strategies.decoding import registry

TRUNK = TrunkConfig(depth=2, width=32, heads=2, mlp_width=64, dropout=Dropout(residual=0.1))
CONFIG = NetworkConfig(TRUNK, 8, 3, (4, 4))
VECTORS = torch.tensor([0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0])[:, None]
RECIPE = Recipe(steps=12, batch=4, warmup_steps=4, validate_every=4, averaging=0.9)


def codes(images: int = 24, variants: int = 2, seed: int = 0, name: str = "raster") -> CodesInMemory:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % 3
    noise = torch.randint(2, (variants, images, registry.get(name).places(CONFIG.grid)), generator=generator)
    return CodesInMemory((2 * labels[:, None] + noise).to(torch.uint8), labels)


def trainer(folder, name: str = "raster", **changes) -> Trainer:
    recipe = dataclasses.replace(RECIPE, **changes)
    return Trainer(registry.get(name), CONFIG, recipe, folder, code_vectors=VECTORS)


def state(made: Trainer) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in made.averaged.module.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def trained(*quick):
    """Strategies that have networks of their own; all but the named ones in the slow set."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name not in quick)) for name in registry.trained()]


@pytest.mark.parametrize("name", trained("raster", "var"))
def test_a_run_that_was_cut_equals_an_undisturbed_one(tmp_path, name):
    whole = trainer(tmp_path / "whole", name)
    whole.run(codes(name=name), codes(seed=1, name=name), quiet=True)
    for until in (3, 8, 12):
        piece = trainer(tmp_path / "pieces", name)
        assert piece.resume() == (until > 3)
        torch.rand(5)  # whatever else the process draws
        piece.run(codes(name=name), codes(seed=1, name=name), until=until, quiet=True)
    assert piece.step == whole.step == 12
    assert equal(state(piece), state(whole))
    assert [entry for entry in piece.log.validation if entry[0] != 3] == whole.log.validation
    assert [step for step, _ in whole.log.validation] == [4, 8, 12]


def test_seeds_decide_everything(tmp_path):
    made = []
    for seed in (0, 0, 1):
        run = trainer(tmp_path / str(len(made)), seed=seed)
        run.run(codes(), codes(seed=1), until=4, quiet=True)
        made.append(state(run))
    assert equal(made[0], made[1])
    assert not equal(made[0], made[2])


@pytest.mark.parametrize("name", trained("raster"))
def test_every_strategy_learns_what_labels_tell(tmp_path, name):
    """Two codes of eight are possible once the label is known: the loss falls from log 8 towards log 2."""
    run = trainer(tmp_path, name, steps=80, batch=16, rate=5e-3, warmup_steps=5, validate_every=40)
    before = run.validate(codes(60, name=name))
    run.run(codes(60, name=name), codes(60, seed=1, name=name), quiet=True)
    # A zero head knows nothing; NAR's second one is not zeroed.
    predictions = 2 if name == "ctf" else 1  # of each code: its label, then itself
    assert before * predictions == pytest.approx(math.log(8), abs=1e-3 if name != "nar" else 0.02)
    assert run.log.validation[-1][1] * predictions < 1.2


def test_what_is_kept_are_the_averaged_weights(tmp_path):
    run = trainer(tmp_path, averaging=0.5)
    parameter = run.network.head.weight
    data, expected = codes(), parameter.detach().clone()
    for step in range(3):
        run.train_step(data)
        expected = parameter.detach().clone() if step == 0 else expected.lerp(parameter.detach(), 0.5)
    assert torch.allclose(run.averaged.module.head.weight, expected, atol=1e-7)


def test_a_step_is_the_recipe_s_and_the_average_is_validated(tmp_path):
    run = trainer(tmp_path, clip_norm=1e-3)
    for step in range(2):
        run.train_step(codes())
        assert [group["lr"] for group in run.optimiser.param_groups] == [run.recipe.rate_at(step)] * 2
    assert [group["weight_decay"] for group in run.optimiser.param_groups] == [RECIPE.weight_decay, 0.0]
    norm = torch.cat([weight.grad.flatten() for weight in run.network.parameters()]).norm()
    assert float(norm) == pytest.approx(1e-3, rel=1e-2)
    with torch.no_grad():
        run.averaged.module.head.weight.zero_()
        run.network.head.weight.normal_()
    assert run.validate(codes()) == pytest.approx(math.log(8), abs=1e-3)


def test_the_rate_rises_then_falls_to_nothing():
    recipe = Recipe(steps=100, warmup_steps=10, rate=2.0)
    rates = [recipe.rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == pytest.approx(2.0)
    assert rates[55] == pytest.approx(1.0)
    assert rates[99] < 0.001
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_labels_are_dropped_in_training_and_never_in_validation(tmp_path, monkeypatch):
    run = trainer(tmp_path, label_drop=1.0)
    seen = []
    original = type(run.strategy).loss

    def watch(self, network, tokens, labels, lesson):
        seen.append(labels.clone())
        return original(self, network, tokens, labels, lesson)

    monkeypatch.setattr(type(run.strategy), "loss", watch)
    run.train_step(codes())
    run.validate(codes())
    assert (seen[0] == CONFIG.classes).all()
    assert (torch.cat(seen[1:]) < CONFIG.classes).all()


def test_a_run_of_something_else_does_not_resume(tmp_path):
    def again(name="raster", config=CONFIG, recipe=RECIPE, codes="a"):
        strategy = registry.get("rar", anneal_start=0.25) if name == "rar, annealed" else registry.get(name)
        return Trainer(strategy, config, recipe, tmp_path, code_vectors=VECTORS, made_of={"codes": codes})

    again("rar").run(codes(), codes(), until=2, quiet=True)
    assert again("rar").resume()
    assert again("rar", recipe=dataclasses.replace(RECIPE, log_every=7, save_every_s=1.0)).resume()
    others = {
        "recipe": again("rar", recipe=dataclasses.replace(RECIPE, rate=1.0)),
        "network": again("rar", config=dataclasses.replace(CONFIG, classes=4)),
        "network ": again("rar", config=dataclasses.replace(CONFIG, trunk=TRUNK.with_dropout(Dropout()))),
        "strategy": again("rar, annealed"),
        "strategy ": again("raster"),
        "codes": again("rar", codes="b"),
    }
    for what, other in others.items():
        with pytest.raises(
            UserError, match=rf"trunk, tokenizer or data set \({what.strip()} differ\); choose"
        ):
            other.resume()
    state = torch.load(tmp_path / "run.pt", weights_only=True)
    del state["content"]
    torch.save(state, tmp_path / "run.pt")
    with pytest.raises(UserError, match="is a run of an older pardec, or none; choose another --runs"):
        again("rar").resume()
    (tmp_path / "run.pt").write_bytes(b"torn")
    with pytest.raises(UserError, match="can't be read as a saved run"):
        again("rar").resume()
    assert not trainer(tmp_path / "empty").resume()


def test_weights_that_are_no_numbers_replace_no_saved_state(tmp_path):
    run = trainer(tmp_path, save_every_s=-1.0)
    run.run(codes(), codes(), until=2, quiet=True)
    with torch.no_grad():
        run.network.head.weight[0] = float("inf")
    with pytest.raises(UserError, match="a weight is NaN or infinite at step 3; choose another --runs and a"):
        run.run(codes(), codes(), quiet=True)
    again = trainer(tmp_path)
    assert again.resume()
    assert again.step == 2
    assert again.network.head.weight.isfinite().all()


def test_a_kill_while_saving_leaves_the_state_before(tmp_path, monkeypatch):
    run = trainer(tmp_path)
    run.run(codes(), codes(), until=2, quiet=True)

    def torn(state, file):
        file.write(b"half a state")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(KeyboardInterrupt):
        run.run(codes(), codes(), until=3, quiet=True)
    again = trainer(tmp_path)
    assert again.resume()
    assert again.step == 2


def test_the_card_tells_how_the_weights_were_made(tmp_path):
    run = trainer(tmp_path, "lpd")
    run.run(codes(), codes(), quiet=True)
    told = json.loads(json.dumps(card(run, {"command": "pardec train lpd"})))
    assert told["steps_trained"] == told["recipe"]["steps"] == 12
    assert told["parameters"] == sum(p.numel() for p in run.network.parameters())
    assert [step for step, _ in told["validation_loss"]] == [4, 8, 12]
    assert told["seconds"] >= 0
    assert told["command"] == "pardec train lpd"


def write_images(folder, side=(32, 32), classes=10, seed=0) -> str:
    rng = np.random.default_rng(seed)
    for label in range(classes):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        for image in range(2):
            pixels = rng.integers(0, 256, (*side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / str(label) / f"{image}.png")
    return f"imagefolder:{folder}"


@pytest.mark.parametrize(
    ("what", "side", "said"),
    [
        ("tokenizer", (30, 32), "image size (30, 32) is not divisible by 4"),
        ("features", (32, 64), "images of 64x32, but the tokenizer in"),
        ("judge", (64, 64), "images of 64x64, but the tokenizer in"),
        ("multiscale", (32, 64), "images of 64x32, but the multi-scale tokenizer takes 32x32 pixels"),
        ("raster", (64, 64), "images of 64x64, but tokenizer"),
    ],
)
def test_images_that_do_not_fit_are_one_line(small_zoo, tmp_path, capsys, what, side, said):
    shutil.copy(small_zoo / "tokenizer.safetensors", tmp_path)
    data = write_images(tmp_path / "images", side)
    arguments = ["train", what, "--steps", "1", "--threads", "1", "--out", str(tmp_path), "--data", data]
    assert main([*arguments, "--runs", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "?size=S crops and resizes all" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("code", "label", "places", "said"),
    [
        (64, 9, 64, "code 64; expected 0 to 63"),
        (-1, 9, 64, "code -1; expected 0 to 63"),
        (63, 10, 64, "label 10; expected 0 to 9"),
        (63, 9, 49, "49 codes an image, the grid has 64"),
    ],
)
def test_codes_that_do_not_fit_are_one_line(small_zoo, tmp_path, capsys, code, label, places, said):
    codes = np.zeros((1, 20, places), np.int64)
    codes[0, -1, -1] = code
    np.savez(tmp_path / "codes.npz", codes=codes, labels=np.full(20, label))
    arguments = ["train", "raster", "--steps", "1", "--out", str(small_zoo), "--runs", str(tmp_path / "runs")]
    arguments += ["--data", write_images(tmp_path / "images"), "--codes", str(tmp_path / "codes.npz")]
    assert main(arguments) == 2
    assert f"--codes '{tmp_path / 'codes.npz'}': {said}\n" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "words",
    [["raster"], ["multiscale"], ["robust"], ["--all"], ["multiscale", "--data", "imagefolder:images"]],
)
def test_what_is_trained_on_the_cpu_alone_takes_no_other_device(words, tmp_path, capsys):
    assert main(["train", *words, "--device", "cuda", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "--device cuda: " in error
    assert "is trained on the CPU; expected cpu" in error
    assert error.count("\n") == 1


def test_all_of_an_image_folder_takes_a_device(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(train_run, "check_device", lambda device, dtype: asked.append(device))
    monkeypatch.setattr(train_run, "_train", lambda target, folder, options: tmp_path)
    words = ["--data", write_images(tmp_path / "images"), "--device", "cuda", "--out", str(tmp_path / "zoo")]
    assert main(["train", "--all", *words]) == 0
    assert asked == ["cuda"]


def test_all_that_the_sweeps_decode_is_trained(monkeypatch):
    """Networks of another size among them, which some strategy decodes beside those of the trunk."""
    monkeypatch.setattr(registry, "_plugins", {})  # of other tests
    assert train_run._sizes_of_roles() == {"small": ["var"]}


def test_a_folder_without_a_tokenizer_takes_what_it_lacks_from_the_shipped_zoo(small_zoo, tmp_path):
    for role in ("tokenizer", "features", "judge", "multiscale"):
        assert zoo.shared_file(role, tmp_path) == zoo.SHIPPED / f"{role}.safetensors"
    shutil.copy(small_zoo / "judge.safetensors", tmp_path)
    assert zoo.shared_file("judge", tmp_path) == tmp_path / "judge.safetensors"
    assert zoo.shared_file("features", tmp_path) == zoo.SHIPPED / "features.safetensors"
    with pytest.raises(UserError, match=f"tokenizer: no file .*pardec train tokenizer --out {tmp_path}"):
        zoo.own_file("tokenizer", tmp_path)
    shutil.copy(zoo.SHIPPED / "robust.safetensors", tmp_path)
    assert zoo.shared_file("tokenizer", tmp_path) == zoo.SHIPPED / "tokenizer.safetensors"
    shutil.copy(small_zoo / "tokenizer.safetensors", tmp_path)
    with pytest.raises(UserError, match=f"features: no file .*pardec train features --out {tmp_path}"):
        zoo.shared_file("features", tmp_path)


def test_the_command_trains_resumes_and_stores(tmp_path, small_zoo, capsys):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "codes.npz", codes=rng.integers(0, 64, (1, 20, 64)), labels=np.arange(20) % 10)
    out = tmp_path / "zoo"
    out.mkdir()
    for name in ("tokenizer.safetensors", "tokenizer.json"):
        if (small_zoo / name).is_file():
            (out / name).write_bytes((small_zoo / name).read_bytes())
    data = write_images(tmp_path / "images")
    arguments = ["train", "raster", "--steps", "2", "--threads", "1", "--out", str(out), "--data", data]
    arguments += ["--codes", str(tmp_path / "codes.npz"), "--runs", str(tmp_path / "runs")]
    assert main(arguments) == 0
    first = load_file(out / "raster.safetensors")
    assert main(arguments) == 0  # finished before: stored again, not trained again
    assert equal(first, load_file(out / "raster.safetensors"))
    told = json.loads((out / "raster.json").read_text())
    assert told["steps_trained"] == 2
    assert told["trained_on"]["name"] == data
    assert {tensor.dtype for tensor in first.values()} == {torch.float16}
    capsys.readouterr()
    assert main([*arguments[:2], "--steps", "3", *arguments[4:]]) == 2
    assert "another recipe" in capsys.readouterr().err
    assert main([*arguments, "--data", write_images(tmp_path / "others", seed=1)]) == 2
    assert "data set (held_out_sha256, train_sha256 differ)" in capsys.readouterr().err
    assert equal(first, load_file(out / "raster.safetensors"))
    assert main([*arguments, "--data", write_images(tmp_path / "few", classes=9)]) == 2
    assert "--codes" in capsys.readouterr().err  # of ten classes
    assert main([*arguments, "--again"]) == 0
    assert (tmp_path / "runs" / "raster" / "run-before.pt").is_file()
    assert main([*arguments, "--seed", "1"]) == 0  # another network beside the first
    assert not equal(first, load_file(out / "raster-seed1.safetensors"))
    assert equal(first, load_file(out / "raster.safetensors"))
    cells = [Cell("raster", network=f"zoo/{name}", zoo=str(out)) for name in zoo.names(out)]
    assert [taught(cell)["training_seed"] for cell in cells] == [0, 1]
    untrained = Cell("raster", network="zoo/raster-seed1", zoo=str(out), checkpoint="random")
    assert taught(untrained) == {}


def test_a_missing_network_of_another_seed_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(UserError, match=r"make it with: pardec train lpd --seed 12 --out "):
        zoo.read_card("zoo/lpd-seed12", tmp_path)
    with pytest.raises(UserError, match=r"no file .*; valid: none$"):
        zoo.read_card("zoo/lpd-seedling", tmp_path)
