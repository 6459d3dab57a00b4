"""The command line: quick to answer, one line for every mistake, and one small sweep from file to report."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.cli import COMMANDS, main
from harness.sweep.process import ROOT
from reports.artifacts import load_artifacts
from results.store import load_rows
from tests.quick_figures import quick_figures  # noqa: F401

HEAVY = ("torch", "pandas", "matplotlib", "scipy", "torchvision")
IMPORTS = """
import sys
from harness.cli import main
for words in {calls}:
    try:
        main(words)
    except SystemExit:
        pass
    print("\\nHEAVY", [name for name in {heavy} if name in sys.modules])
"""


def heavy_imports(*calls: list[str]) -> list[str]:
    """What has been imported after each of the calls, all in one new process."""
    code = IMPORTS.format(heavy=HEAVY, calls=calls)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^HEAVY (.*)$", done.stdout, re.MULTILINE)
    assert len(found) == len(calls)
    return found


def test_help_and_list_import_nothing_heavy():
    calls = [["--help"], ["list"], ["sweep", "--help"], ["train", "--help"], ["fetch"]]
    assert heavy_imports(*calls) == ["[]"] * len(calls)


def test_report_and_compare_import_no_torch(tmp_path):
    """One after the other in one process, so that torch names the one that brought it."""
    folder = str(tmp_path)
    calls = [["report", "--results", folder], ["compare", folder, folder], ["claims"]]
    assert [("torch" in names) for names in heavy_imports(*calls)] == [False] * 3


def test_list_names_strategies_networks_and_sweeps(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for name in ("quick", "zoo/lpd", "llamagen-l-256", "vq-maskgit", "randar"):
        assert name in out


def test_help_of_lossiness_says_what_it_does_without_arguments_and_that_it_takes_minutes(capsys):
    with pytest.raises(SystemExit):
        main(["lossiness", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "Without arguments: every strategy on tiny random networks" in told
    assert re.search(r"takes minutes, nearly all for the speculative strategies", told)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a user's mistake."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("pardec: ")
    assert error.count("\n") == 1
    return error


def test_an_unknown_command_names_the_nearest(capsys):
    assert "did you mean 'sweep'" in fails(capsys, "sweeep")


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_flag_is_one_line(capsys, command):
    line = fails(capsys, command, "a", "b", "--nonsense")
    assert f"pardec {command} --help" in line or "--nonsense" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["report", "--results", "{tmp}/none"], ["none", "no such file or folder"]),
        (["report", "--results", "{tmp}"], ["no result rows"]),
        (["compare", "{tmp}/a", "{tmp}/b"], ["a'", "no such file or folder"]),
        (["sweep", "quikc"], ["unknown sweep 'quikc'", "did you mean 'quick'"]),
        (["sweep", "{tmp}/empty.toml"], ["empty.toml' is empty"]),
        (["sweep", "quick", "--zoo", "{tmp}"], ["no file", "pardec train"]),
        (["sweep", "quick", "--dtype", "float3"], ["--dtype", "float32"]),
        (["sweep", "quick", "--batch", "0"], ["--batch", "at least 1"]),
        (["sweep", "quick", "--batch", "many"], ["--batch", "many"]),
        (["sweep", "quick", "--plugin", "{tmp}/p.py"], ["p.py", "no such file"]),
        (["sweep", "quick", "--seed", str(2**63)], ["--seed", str(2**63), f"at most {2**63 - 1:,}"]),
        (["sweep", "quick", "--seed", str(-(2**63) - 1)], ["--seed", f"at least {-(2**63):,}"]),
        (["sweep", "quick", "--seed", "-1"], ["--seed", "at least 0", f"at most {2**63 - 1:,}"]),
        (["sweep", "quick", "--images", str(10**9)], ["--images", "at most 100,000,000"]),
        (["train", "lpd", "--seed", str(2**63)], ["--seed", f"at most {2**63 - 1:,}"]),
        (["train", "lpd", "--trunk", "controlled", "--seed", str(2**64)], [f"at most {2**63 - 1:,}"]),
        (["generate", "strategy=lpd", "--out", "{tmp}/x", "--seed", str(2**63)], [f"at most {2**63 - 1:,}"]),
        (["explain", f"strategy=lpd,seed={2**63}"], [f"seed = {2**63}", f"at most {2**63 - 1:,}"]),
        (["explain", f"strategy=lpd,top_k={2**63}"], [f"top_k = {2**63}", f"at most {2**63 - 1:,}"]),
        (["explain", "strategy=lpd", "--image", str(10**30)], ["--image", f"at most {2**63 - 1:,}"]),
        (["lossiness", "--guidance", "nan"], ["--guidance", "expected a number"]),
        (["sample", "strategy=randar", "--context-guidance", "inf"], ["--context-guidance", "a number"]),
        (["explain", "lpdx"], ["settings like lpd,steps=10"]),
        (["explain", "strategy=lpdd"], ["unknown strategy 'lpdd'"]),
        (["explain", "strategy=lpd,ordr=random"], ["unknown key 'ordr'", "did you mean 'order'"]),
        (["explain", "0123456789abcdef"], ["0 cells"]),
        (["train"], ["--all", "raster"]),
        (["train", "lpdd"], ["unknown training target 'lpdd'", "did you mean 'lpd'"]),
        (["train", "lpd", "--steps", "0"], ["--steps 0", "at least 1"]),
        (
            ["train", "lpd", "--out", "{tmp}", "--data", "idx:{tmp}"],
            ["has no file train-images-idx3-ubyte.gz"],
        ),
        (["train", "robust", "--data", "imagefolder:x"], ["unknown training target 'robust'"]),
        (["train", "lpd", "--data", "imagefolder:x", "--most", "2"], ["--most", "have marks"]),
        (["train", "lpd", "--data", "fashion", "--most", "3"], ["--most 3", "1, 2, 4, 8"]),
        (["train", "lpd", "--data", "fashion", "--steps", "9"], ["--steps", "from mark to mark", "--most"]),
        (["train", "lpd", "--data", "mnist"], ["data 'mnist'", "replaced by", "fashion"]),
        (["sweep", "strategy=lpd,data=mnist"], ["data 'mnist'", "replaced by", "fashion"]),
        (["sweep", "strategy=real,data=mnist"], ["data 'mnist'", "replaced by", "fashion"]),
        (["explain", "strategy=lpd,data=mnist"], ["data 'mnist'", "replaced by", "fashion"]),
    ],
)
def test_mistakes_are_one_line_and_exit_2(capsys, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.toml").write_text("")
    error = fails(capsys, *(argument.replace("{tmp}", str(tmp_path)) for argument in arguments))
    for word in words:
        assert word in error


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("steps = 65\nstrategy = 'lpd'", ["mine.toml", "steps = 65", "2 to 64"]),
        ("steps = 1\nstrategy = 'lpd'", ["steps = 1", "2 to 64"]),
        ("steps = 20\nstrategy = 'par'", ["steps = 20", "exactly 19"]),
        ("strategy = 'lpd'\noptions = {ordr = 'random'}", ["unknown option 'ordr'", "did you mean 'order'"]),
        ("strategy = 'par'\noptions = {regions = 16}", ["parameters", "zoo/par"]),
        ("strategy = 'par'\noptions = {regions = 5}", ["'regions' of strategy 'par' is 5", "perfect square"]),
        ("strategy = 'lpd'\nnetwork = 'zoo/lqd'", ["zoo/lqd", "no file"]),
        ("strategy = 'lpd'\nnetwork = 'lpd-l'", ["unknown network 'lpd-l'", "did you mean 'lpd-l-"]),
        ("strategy = 'lpd'\nnetwork = 'zoo/arpg'", ["trained for strategy 'arpg', not 'lpd'"]),
        ("strategy = 'lpd'\ndevice = 'gpu'", ["device 'gpu'", "cuda"]),
        ("strategy = 'lpd'\ndevice = 'cuda:99'", ["device 'cuda:99'", "this machine has"]),
    ],
)
def test_cells_that_cannot_run_stop_the_sweep_before_it_starts(capsys, tmp_path, small_zoo, settings, words):
    sweep = tmp_path / "mine.toml"
    sweep.write_text(f"[[include]]\n{settings}\n")
    results = tmp_path / "results"
    error = fails(capsys, "sweep", str(sweep), "--zoo", str(small_zoo), "--results", str(results))
    for word in [*words, "mine.toml"]:
        assert word in error
    assert not results.exists()


def test_a_folder_that_cannot_be_written(capsys, tmp_path, small_zoo):
    (tmp_path / "file").write_text("")
    target = str(tmp_path / "file" / "results")
    error = fails(
        capsys, "sweep", "quick", "-k", "strategy=real", "--zoo", str(small_zoo), "--results", target
    )
    assert "can't be written" in error


LISTED = str(Path(__file__).parents[1] / "listed.toml")


def test_dry_run_lists_cells_and_writes_nothing(capsys, tmp_path, small_zoo):
    arguments = ["sweep", LISTED, "--zoo", str(small_zoo), "--dry-run"]
    assert main([*arguments, "--results", str(tmp_path / "none")]) == 0
    out = capsys.readouterr().out
    assert "7 cells" in out
    assert "LPD, an order" in out
    assert not (tmp_path / "none").exists()


def test_conditions_given_apart_must_all_be_met(capsys, small_zoo):
    given = ["-k", "strategy=lpd|par", "-k", "steps>=10"]  # alone they select 5 and 4
    assert main(["sweep", LISTED, "--zoo", str(small_zoo), "--dry-run", *given]) == 0
    assert re.search(r"\b3 cells", capsys.readouterr().out)


def test_explain_draws_the_order(capsys, small_zoo):
    assert main(["explain", "strategy=par,guidance=2", "--zoo", str(small_zoo)]) == 0
    out = capsys.readouterr().out
    assert "1x4 4x15" in out
    assert "16  17  18  19  16  17  18  19" in out


def test_sample_writes_a_grid(capsys, tmp_path, small_zoo):
    from PIL import Image

    out = tmp_path / "grid.png"
    arguments = ["sample", "strategy=arpg,steps=4", "--zoo", str(small_zoo), "--out", str(out)]
    assert main([*arguments, "--classes", "3,7,8", "--per-class", "2", "--scale", "1"]) == 0
    with Image.open(out) as image:
        assert image.size == (64, 96)
    assert "no class 12" in fails(capsys, *arguments, "--classes", "12")


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "network"), [("par", "par-b-16x-256"), ("rar", "rar-s")])
def test_sample_of_a_published_size(tmp_path, strategy, network):
    """The whole way at full size: 111 and 133 M parameters, then 72 and 55 M of the tokenizers."""
    from PIL import Image

    out = tmp_path / "grid.png"
    arguments = ["sample", f"strategy={strategy},network={network}", "--random-weights", "--out", str(out)]
    assert main([*arguments, "--classes", "207", "--per-class", "1", "--scale", "1"]) == 0
    with Image.open(out) as image:
        assert image.size == (256, 256)
        assert len(image.getcolors(256 * 256)) > 1000


SWEEP = """
[sweep]
name = "small"
[defaults]
images = 40
batch = 20
threads = 1
[[include]]
strategy = ["lpd", "raster"]
[[exclude]]
strategy = "lpd"
steps = 3
"""


def test_a_small_sweep_from_file_to_report(capsys, tmp_path, small_zoo, quick_figures):  # noqa: F811
    """Real workers: a cell, and a cell whose weights are broken."""
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    for file in small_zoo.glob("*.*"):
        (zoo / file.name).write_bytes(file.read_bytes())
    broken = zoo / "raster.safetensors"
    tensors = load_file(broken)
    tensors["head.weight"][0, 0] = torch.nan
    save_file(tensors, broken, metadata={"pardec": json.dumps({})})
    sweep, results = tmp_path / "small.toml", tmp_path / "results"
    sweep.write_text(SWEEP)
    assert main(["sweep", str(sweep), "--zoo", str(zoo), "--results", str(results)]) == 1
    out = capsys.readouterr()
    assert "report: " in out.out
    assert (results / "report" / "report.html").is_file()
    rows = {row.strategy: row for row in load_rows(results)}
    assert {name: row.status for name, row in rows.items()} == {"lpd": "ok", "raster": "invalid"}
    assert "head.weight" in rows["raster"].reason
    lpd = rows["lpd"]
    assert lpd.steps == 64
    assert set(lpd.quality) >= {"fd_fashion@40", "fd_fashion_clean@40", "kid_fashion@40", "accuracy@40"}
    assert lpd.reference["n"] == 1000
    for value in (lpd.throughput_images_per_s, lpd.latency_s, lpd.flops_per_image, lpd.cache_bytes):
        assert value > 0
    assert (results / lpd.artifacts["trace"]).is_file()
    assert lpd.lossiness_bits["n"] == 40
    assert abs(lpd.lossiness_bits["value"]) < 1e-3  # one token a step
    beside = load_artifacts(lpd, results)
    assert beside.problems == ()
    assert beside.lossiness_bits.shape == (40, 64)
    assert len(lpd.quality_replicates["fd_fashion@40"]) == 20
    assert not list((results / "artifacts").glob(".*"))
    before = (results / "rows.jsonl").read_text().splitlines()[0]
    arguments = ["sweep", str(sweep), "--zoo", str(zoo), "--results", str(results), "--no-report"]
    assert main([*arguments, "-k", "strategy!=raster"]) == 0
    assert "1 done before" in capsys.readouterr().out
    assert (results / "rows.jsonl").read_text().splitlines()[0] == before
