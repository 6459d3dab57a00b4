"""Training at scale: the number of processes changes nothing, kills cost nothing, mistakes are one line."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from backbones.config import Dropout, NetworkConfig, TrunkConfig
from harness.cli import main
from harness.images.code_shards import CodeShards
from harness.machine.distributed import Group
from harness.sweep.process import ROOT
from harness.train import at_scale, recipes
from harness.train.at_scale import Job, begin_with, network_of, share_weights
from harness.train.log import LogFile, Speed
from harness.train.trainer import Trainer, parts_of
from pardec.errors import UserError
from pardec.hashing import file_sha256
from strategies.decoding import registry
from tests.backbones.published_files import published
from tests.harness.small_codes import INFO, write_codes

TRUNK = TrunkConfig(depth=2, width=32, heads=2, mlp_width=64, dropout=Dropout(residual=0.1))
CONFIG = NetworkConfig(TRUNK, 8, 3, (4, 4))
RECIPE = recipes.Recipe(
    steps=8,
    batch=8,
    warmup_steps=2,
    averaging=0.0,
    streams="by_step",
    log_every=3,
    validate_every=4,
    precision="float32",
)


ON_GRID = [name for name in registry.trained() if registry.get(name).tokenizer == "tokenizer"]
"""The others learn on the maps of a tokenizer of their own."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_codes(tmp_path_factory.mktemp("codes"))


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    info = dataclasses.replace(INFO, crops="centre", variants=1)
    return write_codes(tmp_path_factory.mktemp("held-out"), info, seed=1)


def trainer(path, name: str = "raster", accumulation: int = 1, **changes) -> Trainer:
    recipe = dataclasses.replace(RECIPE, **changes)
    vectors = torch.eye(CONFIG.codes)
    return Trainer(registry.get(name), CONFIG, recipe, path, accumulation=accumulation, code_vectors=vectors)


def weights(run: Trainer) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in run.kept.state_dict().items()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def told(path, kind: str) -> list[dict]:
    """Entries of a log without what time decides."""
    entries = [entry for entry in LogFile(path / "log.jsonl").entries() if entry["kind"] == kind]
    return [
        {k: v for k, v in entry.items() if k not in ("images_per_s", "tflops_per_s")} for entry in entries
    ]


# What a step teaches -----------------------------------------------------------------------------------


def test_an_epoch_visits_every_image_once_and_the_next_in_another_order(folder):
    codes, nothing = CodeShards.open(folder, seed=3), torch.Generator()
    images, variants = zip(*(codes.choose(8, step, nothing) for step in range(15)), strict=True)
    visits = torch.cat(images)  # 4 epochs of 30
    for epoch in visits.split(30):
        assert epoch.sort().values.tolist() == list(range(30))
    assert visits[:30].tolist() != visits[30:60].tolist()
    assert 0.3 < torch.cat(variants).float().mean() < 0.7
    again = torch.cat([codes.choose(24, step, nothing)[0] for step in range(5)])
    assert torch.equal(again, visits)  # the global sample index decides, not the batch
    other = CodeShards.open(folder, seed=4).choose(30, 0, nothing)[0]
    assert not torch.equal(other, visits[:30])


@pytest.mark.parametrize("name", ON_GRID)
def test_what_a_step_teaches_depends_on_seed_and_step_alone(tmp_path, folder, name):
    codes, run, late = CodeShards.open(folder), trainer(tmp_path, name), trainer(tmp_path, name)
    for _ in range(3):
        run.train_step(codes)
    late.step = 3
    a, b = run.draw(codes), late.draw(codes)
    assert torch.equal(a.images, b.images)
    assert torch.equal(a.labels, b.labels)
    assert torch.equal(a.lesson.order, b.lesson.order)
    assert a.lesson.sizes == b.lesson.sizes
    shown = (a.lesson.shown, b.lesson.shown)
    assert torch.equal(*shown) if name == "maskgit" else shown == (None, None)


@pytest.mark.parametrize(("name", "registers"), [("maskgit", 1), ("rar", 0)])
def test_a_published_trunk_comes_with_its_own_registers(name, registers):
    trunk = {"maskgit": "maskgit-t", "rar": "rar-b"}[name]
    codes = 16384 if name == "maskgit" else 1024
    info = dataclasses.replace(INFO, codes=codes, grid=(16, 16))
    job = Job(name, trunk, Path("codes"), None, Path("run"))
    strategy, config = network_of(job, info, recipes.preset("common"))
    assert (strategy.name, config.registers) == (name, registers)
    if name == "maskgit":
        with pytest.raises(UserError, match="needs a trunk with positions"):
            network_of(dataclasses.replace(job, strategy="raster"), info, recipes.preset("common"))


def test_processes_deal_the_rows_of_a_batch_among_them():
    dealt = [range(24)[part] for rank in range(2) for part in parts_of(24, Group(rank, 2), 3)]
    assert [len(part) for part in dealt] == [4] * 6
    assert sorted(row for part in dealt for row in part) == list(range(24))


@pytest.mark.parametrize("name", ON_GRID)
def test_accumulated_micro_batches_equal_one_batch(tmp_path, folder, name):
    codes = CodeShards.open(folder)
    config = dataclasses.replace(CONFIG, trunk=TRUNK.with_dropout(Dropout()))
    losses = []
    for accumulation in (1, 4):
        run = Trainer(
            registry.get(name),
            config,
            RECIPE,
            tmp_path / str(accumulation),
            accumulation=accumulation,
            code_vectors=torch.eye(config.codes),
        )
        for _ in range(8):
            run.train_step(codes)
        losses.append(run.window.take())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


# Cut runs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "averaging"), [("rar", 0.0), ("lpd", 0.9)])
def test_a_run_that_was_cut_equals_an_undisturbed_one_to_its_log(tmp_path, folder, held_out, name, averaging):
    codes, validation = CodeShards.open(folder), CodeShards.open(held_out)
    whole = trainer(tmp_path / "whole", name, averaging=averaging)
    whole.run(codes, validation, quiet=True)
    cut = tmp_path / "cut"
    first = trainer(cut, name, averaging=averaging, save_every_s=-1.0)
    original, first.save = first.save, lambda: None

    def save_at_five() -> None:
        if first.step == 5:
            original()

    first.save = save_at_five
    first.run(codes, validation, until=7, quiet=True)  # saved at 5, killed after 7
    with (cut / "log.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    second = trainer(cut, name, averaging=averaging)
    assert second.resume()
    assert second.step == 5
    second.run(codes, validation, quiet=True)
    assert same(weights(second), weights(whole))
    assert told(cut, "train") == told(tmp_path / "whole", "train")
    assert told(cut, "validation") == told(tmp_path / "whole", "validation")
    assert [entry["step"] for entry in told(cut, "start")] == [0, 5]
    assert [entry["step"] for entry in told(cut, "train")] == [3, 4, 6, 8]


def test_training_has_dropout(tmp_path, folder):
    codes = CodeShards.open(folder)
    with_dropout, without = trainer(tmp_path), trainer(tmp_path)
    without.network.eval()
    for run in (with_dropout, without):
        for _ in range(2):  # the head is zero before
            run.train_step(codes)
    assert not same(weights(with_dropout), weights(without))


def test_every_step_and_rows_have_dropout_of_their_own(tmp_path, folder):
    def seeds(run):
        found, loss = [], run._loss
        run._loss = lambda *given: found.append(torch.initial_seed()) or loss(*given)
        for _ in range(2):
            run.train_step(CodeShards.open(folder))
        return found

    alone, second = trainer(tmp_path, accumulation=2), trainer(tmp_path)
    second.parts = parts_of(8, Group(1, 2), 1)  # as the second of two processes
    of_alone = seeds(alone)
    assert len(set(of_alone)) == 4
    assert seeds(second) == of_alone[1::2]


# The command -------------------------------------------------------------------------------------------


def command(folder, held_out, out, *flags: str) -> list[str]:
    return [
        *("train", "--strategy", "rar", "--trunk", "controlled", "--codes", str(folder)),
        *("--validation", str(held_out), "--runs", str(out), "--batch", "8", "--log-every", "1"),
        *("--precision", "float32", "--rate", "5e-4", "--threads", "1", *flags),
    ]


def start(arguments: list[str], processes: int) -> subprocess.Popen[str]:
    """The command in a process of its own, or in several under torchrun."""
    launcher = [sys.executable, "-m"]
    if processes > 1:
        launcher += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    return subprocess.Popen(
        [*launcher, "harness.cli", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def curve(out) -> list[float]:
    return [entry["loss"] for entry in told(out / "rar-controlled", "train")]


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(tmp_path, folder, held_out):
    # At four times this rate one process that accumulates two micro-batches drifts by 1e-2 as well: training
    # amplifies rounding.
    flags = ("--steps", "50", "--no-dropout", "--average", "0.9", "--validate-every", "25")
    two = start(command(folder, held_out, tmp_path / "two", *flags), 2)
    assert main(command(folder, held_out, tmp_path / "one", *flags)) == 0
    out, error = two.communicate(timeout=120)
    assert two.returncode == 0, error
    assert out.count("rar.safetensors") == 1
    one, shared = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert len(one) == len(shared) == 50
    assert one[-1] < 0.7 * one[0]
    assert shared == pytest.approx(one, rel=1e-4)
    a, b = (told(tmp_path / name / "rar-controlled", "validation") for name in ("one", "two"))
    assert [entry["loss"] for entry in b] == pytest.approx([entry["loss"] for entry in a], rel=1e-4)
    card = json.loads((tmp_path / "two" / "rar-controlled" / "rar.json").read_text())
    assert card["processes"] == 2
    assert card["steps_trained"] == 50
    assert card["trained_on"]["images"] == 30


def kill_after(process: subprocess.Popen[str], out, step: int) -> None:
    """SIGKILL, to the launcher and the processes it started, once the log has come to a step."""
    path, end = out / "rar-controlled" / "log.jsonl", time.monotonic() + 120
    while time.monotonic() < end:
        if path.is_file() and len(path.read_text().splitlines()) > step:
            break
        time.sleep(0.02)
    for pid in [process.pid, *children(process.pid)]:
        os.kill(pid, signal.SIGKILL)
    process.communicate()


def children(pid: int) -> list[int]:
    """Linux: those of torchrun are sessions of their own."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    return [int(child) for child in found]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_ends_like_an_undisturbed_one(tmp_path, folder, held_out, processes):
    """With dropout, a moving average and real signals."""
    flags = ("--steps", "60", "--average", "0.9", "--validate-every", "20", "--save-every", "0")

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    undisturbed = start(command(folder, held_out, whole, *flags), processes)
    _, error = undisturbed.communicate(timeout=120)
    assert undisturbed.returncode == 0, error
    for step in (7, 31):
        kill_after(start(command(folder, held_out, cut, *flags), processes), cut, step)
    last = start(command(folder, held_out, cut, *flags), processes)
    _, error = last.communicate(timeout=120)
    assert last.returncode == 0, error
    assert curve(cut) == curve(whole)
    files = [out / "rar-controlled" / "rar.safetensors" for out in (whole, cut)]
    assert same(load_file(files[0]), load_file(files[1]))
    starts = told(cut / "rar-controlled", "start")
    assert len(starts) == 3
    assert starts[-1]["step"] > 20


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--strategy", "rarr"], "did you mean 'rar'"),
        (["--trunk", "lamagen-b"], "unknown trunk 'lamagen-b': did you mean 'llamagen-b'"),
        (["--trunk", "llamagen-b"], "8 codes of tokenizer 'fsq', but trunk 'llamagen-b' has the vocabulary"),
        (["--recipe", "rarr"], "unknown recipe 'rarr': did you mean 'rar'"),
        (["--codes", "nowhere"], "no manifest.json (make it: pardec encode)"),
        (["--validation", "nowhere"], "no manifest.json"),
        (["--accumulation", "3"], "batch 8 can't be dealt evenly to 1 processes of 3 micro-batches"),
        (["--batch", "0"], "--batch 0: expected at least 1"),
        (["--average", "1"], "expected a decay"),
        (["--precision", "float8"], "unknown precision"),
        (["--rate", "0"], "--rate 0.0: expected a number above 0"),
        (["--rate", "nan"], "--rate nan: expected a number above 0"),
        (["--peak-tflops", "0"], "--peak-tflops 0.0: expected a number above 0"),
        (["--option", "order=random"], "--option: --trunk takes none"),
        (["--size", "small"], "--size: --trunk takes none"),
        (["--most", "1"], "--most: --trunk takes none"),
        (["--data", "fashion"], "--data: --trunk takes none"),
        (["--all"], "one strategy"),
    ],
)
def test_mistakes_are_one_line(folder, held_out, tmp_path, capsys, flags, words):
    assert main([*command(folder, held_out, tmp_path), *flags]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_codes_must_fit_the_trunk_and_each_other(tmp_path, held_out, folder, capsys):
    published = dataclasses.replace(INFO, codes=16384, tokenizer="vq-llamagen")
    wrong_grid = write_codes(tmp_path / "grid", published)
    assert main([*command(wrong_grid, wrong_grid, tmp_path), "--trunk", "llamagen-b"]) == 2
    assert "a grid of 4x4, but trunk 'llamagen-b' is for 16x16 or 24x24" in capsys.readouterr().err
    assert main(command(folder, wrong_grid, tmp_path)) == 2
    assert "tokenizer differs" in capsys.readouterr().err
    classes = dataclasses.replace(INFO, classes=(("ant", 10), ("bat", 10), ("cat", 10)))
    assert main(command(folder, write_codes(tmp_path / "classes", classes), tmp_path)) == 2
    assert "other classes" in capsys.readouterr().err


def test_flags_of_scale_need_a_trunk_and_so_do_processes(capsys, monkeypatch):
    assert main(["train", "rar", "--batch", "8"]) == 2
    assert "--batch needs --trunk" in capsys.readouterr().err
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "x", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert main(["train", "rar"]) == 2
    assert "under torchrun needs --trunk" in capsys.readouterr().err


def test_another_run_does_not_resume_but_other_habits_do(folder, held_out, tmp_path, capsys):
    run = command(folder, held_out, tmp_path, "--steps", "2")
    assert main(run) == 0
    assert main([*run, "--log-every", "5", "--save-every", "60"]) == 0
    others = write_codes(tmp_path / "others", dataclasses.replace(INFO, listing_sha256="9" * 64), seed=2)
    for flags, differing in (
        (["--rate", "0.5"], "recipe"),
        (["--no-dropout"], "network"),
        (["--codes", str(others)], "codes_sha256"),
    ):
        assert main([*run, *flags]) == 2
        error = capsys.readouterr().err
        assert f"another recipe, trunk, tokenizer or data set ({differing} differ); choose" in error


# A published start --------------------------------------------------------------------------------------


def lpd_on(grid, path) -> Trainer:
    case = published("lpd")
    config = dataclasses.replace(case.network.config, grid=grid)
    return Trainer(case.strategy, config, RECIPE, path)


def test_a_run_begins_with_a_published_network(tmp_path):
    case = published("lpd")
    torch.save({"model": case.state()}, tmp_path / "lpd.pth")
    run = lpd_on((4, 4), tmp_path)
    begin_with(run, tmp_path / "lpd.pth")
    assert same(run.network.state_dict(), case.network.state_dict())


def test_all_processes_begin_with_the_first_ones_weights(tmp_path, monkeypatch):
    run, shared = trainer(tmp_path), []
    monkeypatch.setattr(
        torch.distributed, "broadcast", lambda tensor, source: shared.append((tensor, source))
    )
    share_weights(run, Group())
    assert not shared
    share_weights(run, Group(1, 2))
    given = [(tensor.data_ptr(), source) for tensor, source in shared]
    assert given == [(parameter.data_ptr(), 0) for parameter in run.network.parameters()]


def test_lpds_positions_are_fitted_to_a_larger_grid(tmp_path):
    """Inside by the cubic convolution of a = -0.75, between the columns 1 and 2 of four."""
    case = published("lpd")
    state = case.state()
    columns = torch.tensor([3.0, -1.0, 4.0, 1.0]).repeat(4)
    state["pos_embed"] = torch.cat(
        [state["pos_embed"][:, :1], columns[None, :, None].repeat(1, 1, 32)], dim=1
    )
    torch.save(state, tmp_path / "lpd.pth")
    run = lpd_on((8, 8), tmp_path)
    begin_with(run, tmp_path / "lpd.pth")
    table = run.network.positions[0].detach()
    assert torch.equal(table[0], state["pos_embed"][0, 0])
    cells = table[1:].unflatten(0, (8, 8))
    near, far = lambda x: 1.25 * x**3 - 2.25 * x**2 + 1, lambda x: -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
    weights = torch.tensor([far(1.25), near(0.25), near(0.75), far(1.75)])
    inside = torch.stack([weights @ columns[:4], weights.flip(0) @ columns[:4]])
    assert torch.allclose(cells[:, 3:5, 0], inside, atol=1e-5)
    assert torch.allclose(cells, cells[:1, :, :1], atol=1e-5)
    other = {key: value for key, value in run.network.state_dict().items() if key != "positions"}
    assert same(other, {key: case.network.state_dict()[key] for key in other})


def test_a_run_is_bound_to_its_start(folder, tmp_path, monkeypatch, capsys):
    """One step at a rate of nothing leaves what it began with; without the file the run doesn't go on."""
    case = published("lpd")
    torch.save(case.state(), tmp_path / "lpd.pth")
    monkeypatch.setattr(at_scale, "network_of", lambda *asked: (case.strategy, case.network.config))
    run = ["train", "lpd", "--trunk", "controlled", "--codes", str(folder), "--runs", str(tmp_path)]
    run += ["--batch", "8", "--steps", "2", "--rate", "1e-12", "--threads", "1", "--average", "0.5"]
    assert main([*run, "--start-from", str(tmp_path / "lpd.pth")]) == 0
    found = load_file(tmp_path / "lpd-controlled" / "lpd.safetensors")
    expected = case.network.state_dict()
    assert all(torch.allclose(found[key].float(), one, atol=1e-3) for key, one in expected.items())
    told_of = json.loads((tmp_path / "lpd-controlled" / "lpd.json").read_text())
    assert told_of["start_sha256"] == file_sha256(tmp_path / "lpd.pth")
    capsys.readouterr()
    assert main(run) == 2
    assert "(start_sha256 differ)" in capsys.readouterr().err


def test_a_start_that_does_not_fit_is_one_line(folder, held_out, tmp_path, capsys):
    run = command(folder, held_out, tmp_path, "--steps", "1")
    assert main([*run, "--start-from", str(tmp_path / "none.pth")]) == 2
    assert "none.pth': no such file" in capsys.readouterr().err
    torch.save(published("lpd").state(), tmp_path / "lpd.pth")
    assert main([*run, "--start-from", str(tmp_path / "lpd.pth")]) == 2
    error = capsys.readouterr().err
    assert "is none of those that its files hold; take a trunk of 'rar'" in error
    assert "Traceback" not in error


# Recipes -----------------------------------------------------------------------------------------------


def test_recipes_are_the_papers_own():
    """Steps and rates as the papers state them, for ImageNet's 1,281,167 images."""
    images = 1_281_167
    made = {name: preset.recipe(images) for name, preset in recipes.presets().items()}
    assert made["rar"].steps == pytest.approx(250_000, rel=2e-3)
    assert made["rar"].warmup_steps == pytest.approx(62_500, rel=2e-3)
    assert made["arpg"].steps == pytest.approx(500_000, rel=2e-3)
    assert made["randar"].steps == pytest.approx(360_000, rel=1e-3)
    assert made["randar"].warmup_steps == pytest.approx(50_000, rel=1e-3)
    lpd = made["lpd"]
    assert lpd.rate_at(lpd.warmup_steps) == lpd.rate_at(lpd.steps * 8 // 9 - 1) == 8e-4
    assert lpd.rate_at(lpd.steps - 1) == pytest.approx(1e-5, rel=1e-3)
    assert lpd.clip_norm == 3.0
    raster = made["raster"]
    assert raster.rate_at(0) == raster.rate_at(raster.steps - 1) == 1e-4
    assert made["par"].rate_at(made["par"].steps - 1) < 1e-8
    nar = made["nar"]
    rates = [nar.rate_at(int(share * nar.steps)) for share in (0, 0.49, 0.51, 0.66, 0.67, 0.83, 0.84)]
    assert rates == pytest.approx([1e-4, 1e-4, 2e-5, 2e-5, 4e-6, 4e-6, 8e-7])
    assert all(recipe.streams == "by_step" and recipe.averaging == 0 for recipe in made.values())
    assert set(recipes.presets()) >= {"common", *registry.FIRST}


def test_another_batch_scales_the_rate_and_other_steps_the_warm_up():
    base = recipes.preset("arpg")
    plain, half = base.recipe(1_000_000), base.recipe(1_000_000, batch=512)
    assert half.rate == plain.rate / 2
    assert half.steps == 2 * plain.steps
    short = base.recipe(1_000_000, steps=plain.steps // 10)
    assert short.warmup_steps == pytest.approx(plain.warmup_steps / 10, abs=1)


def test_rar_decays_no_table(tmp_path):
    recipe = dataclasses.replace(RECIPE, undecayed=recipes.preset("rar").undecayed)
    run = Trainer(registry.get("rar"), CONFIG, recipe, tmp_path)
    decayed = {id(parameter) for parameter in run.optimiser.param_groups[0]["params"]}
    names = {name for name, parameter in run.network.named_parameters() if id(parameter) in decayed}
    assert "head.weight" in names
    assert "trunk.blocks.0.attention.qkv.weight" in names
    assert not names & {"embeddings.weight", "target_positions"}


def test_speed_counts_steps_and_no_pauses(monkeypatch):
    now = iter([0.0, 2.0, 10.0, 12.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    speed = Speed(flops_per_image=5e9, peak_flops_per_s=1.2e12)
    speed.add(8)
    speed.pause()
    speed.start()
    speed.add(8)
    speed.pause()
    figures = speed.take()
    assert figures["images_per_s"] == 4.0
    assert figures["tflops_per_s"] == pytest.approx(3 * 5e9 * 4 / 1e12)
    assert figures["mfu"] == pytest.approx(0.05)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path, folder, capsys):
    run = ["train", "raster", "--trunk", "controlled", "--codes", str(folder), "--runs", str(tmp_path)]
    run += ["--batch", "8", "--steps", "8", "--rate", "1e30", "--threads", "1", "--log-every", "1"]
    assert main(run) == 2
    error = capsys.readouterr().err
    assert "the loss is nan at step" in error
    assert "; choose another --runs and a smaller --rate (with --trunk) or another --seed" in error
    assert not (tmp_path / "raster-controlled" / "run.pt").exists()
