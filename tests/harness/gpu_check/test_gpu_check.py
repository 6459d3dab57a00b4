"""gpu-check on the CPU: its order and time, what each check sees, and that it fails where it should."""

import json
import shutil
import warnings
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import torch

from backbones.graphs import Repeats
from backbones.positions import rotary_table
from backbones.uploading import upload
from harness.cli import main
from harness.gpu_check import decodes, recordings, suite
from harness.gpu_check.check import Bench, Check, Finding, NotHere, run_checks
from harness.gpu_check.waits import waits_of
from harness.subject.compiled import NOTHING_RECORDED, record_passes
from strategies.decoding import registry
from strategies.decoding.contract.recording import subject
from strategies.nar import sources_of
from strategies.zipar import fed_on
from tests.backbones.test_graphs import BakedPasses

CPU = torch.device("cpu")
BENCH = Bench(CPU)


def passing(bench):
    return Finding(True, {"worst": 0.5})


def breaking(bench):
    raise RuntimeError("CUDA error: an illegal address")


def absent(bench):
    raise NotHere("no such thing here")


def test_checks_run_in_order_while_their_time_lasts():
    now = iter(range(0, 1000, 10))
    asked = [
        Check("a", "", 30, passing),
        Check("b", "", 500, passing),
        Check("c", "", 5, breaking),
        Check("d", "", 5, absent),
        Check("e", "", 40, passing),
    ]
    found = list(run_checks(asked, BENCH, 90, lambda: float(next(now))))
    assert [(one.name, one.state) for one in found] == [
        ("a", "pass"),
        ("b", "not run"),
        ("c", "fail"),
        ("d", "not run"),
        ("e", "not run"),
    ]
    assert found[1].reason == "out of time: takes about 500 s, 60 s are left"
    assert "illegal address" in found[2].reason
    assert found[3].reason == "no such thing here"
    assert found[4].reason.startswith("out of time")


@pytest.mark.parametrize(
    ("dtype", "families"),
    [
        (torch.bfloat16, ("par", "lpd", "var")),
        pytest.param(torch.bfloat16, recordings.FAMILIES, marks=pytest.mark.slow),
        pytest.param(torch.float32, recordings.FAMILIES, marks=pytest.mark.slow),
    ],
)
def test_recordings_are_replayed_for_every_family(pytestconfig, monkeypatch, dtype, families):
    monkeypatch.setattr(recordings, "FAMILIES", families)
    bench = Bench(CPU, pytestconfig.getoption("--goldens"))
    found = recordings.replay_on(bench, dtype)
    assert found.passed, found.reason
    assert set(families) <= set(found.figures)
    assert found.figures["recordings"] >= 3 * len(families)
    worst = max(float(found.figures[family]) for family in families)
    assert 0 < worst < found.figures["bound"]


def test_a_device_that_computes_otherwise_fails(pytestconfig, monkeypatch):
    bench = Bench(CPU, pytestconfig.getoption("--goldens"))
    monkeypatch.setattr(recordings, "FAMILIES", ("par",))
    right = torch.nn.functional.silu
    monkeypatch.setattr(torch.nn.functional, "silu", lambda x, **_: right(x) * 1.01)
    found = recordings.replay_on(bench, torch.float32)
    assert not found.passed
    assert "par-loss-n4-8x8 is off by" in found.reason


def test_broken_numbers_are_never_near_recorded_ones():
    recorded = torch.ones(2, 3)
    for found in (torch.full((2, 3), float("nan")), torch.ones(2, 2)):
        assert recordings.largest(found, recorded) == float("inf")
        assert recordings.relative(found, recorded) == float("inf")


def test_without_recordings_they_are_not_replayed(tmp_path):
    with pytest.raises(NotHere, match="--goldens"):
        recordings.replay_on(BENCH, torch.float32)
    with pytest.raises(NotHere, match="holds no recordings of llamagen"):
        recordings.replay_on(Bench(CPU, tmp_path), torch.float32)


def test_recordings_of_some_families_are_judged_and_the_others_named(pytestconfig, tmp_path, monkeypatch):
    name = "par-loss-n4-8x8.safetensors"
    shutil.copy(pytestconfig.getoption("--goldens") / name, tmp_path)
    monkeypatch.setattr(recordings, "FAMILIES", ("par", "lpd", "nar"))
    bench = Bench(CPU, tmp_path)
    found = recordings.replay_on(bench, torch.float32)
    assert (found.passed, found.reason) == (True, "no recordings of lpd, nar")
    assert found.figures["recordings"] == 1
    right = torch.nn.functional.silu
    monkeypatch.setattr(torch.nn.functional, "silu", lambda x, **_: right(x) * 1.01)
    found = recordings.replay_on(bench, torch.float32)
    assert not found.passed
    assert "par-loss-n4-8x8 is off by" in found.reason
    assert found.reason.endswith("; no recordings of lpd, nar")


def test_recorded_passes_are_held_to_eager_ones():
    found = decodes.recorded_tokens(replace(BENCH, recorder=BakedPasses), ("lpd", "var"))
    assert found.passed
    assert found.figures["flipped"] == 0
    assert found.figures["graphs"] > 4


GRAPHS = {
    "raster": (2, 512),
    "rar": (2, 512),
    "par": (4, 134),
    "lpd": (14, 174),
    "arpg": (26, 258),
    "randar": (17, 174),
    "code": (20, 20),
    "ctf": (4, 514),
    "halton": (10, 172),
    "maskgit": (2, 174),
    "nar": (32, 62),
    "token-shuffle": (2, 128),
    "var": (20, 20),
    "zipar": (6, 288),
}
"""Of strategies whose steps are planned: recordings of a decode of 16x16 places, and its passes and draws."""


FEW = ("lpd", "nar", "token-shuffle")


@pytest.mark.parametrize("names", [FEW, pytest.param(tuple({*GRAPHS} - {*FEW}), marks=pytest.mark.slow)])
def test_few_recordings_serve_a_decode(names):
    found = decodes.graphs_of(BENCH, names)
    assert found.passed, found.reason
    assert found.figures == {"bytes": 0} | {
        name: f"{GRAPHS[name][0]} for {GRAPHS[name][1]} passes and draws" for name in names
    }
    assert set(GRAPHS) | set(DECLARED) == set(registry.BUILT_IN)


class Stale(BakedPasses):
    """Passes that are never replayed."""

    def record(self, run):
        return (lambda: None), run()


def test_passes_that_are_not_replayed_are_found():
    found = decodes.recorded_tokens(replace(BENCH, recorder=Stale), ("lpd",))
    assert not found.passed
    assert "lpd" in found.reason


def test_whole_decodes_are_held_to_eager_ones():
    found = decodes.whole_decodes(replace(BENCH, recorder=BakedPasses), ("lpd", "maskgit"))
    assert found.passed, found.reason
    # Batches of two and of three images; what MaskGIT writes is chosen while it decodes.
    assert (found.figures["strategies"], found.figures["graphs"]) == (1, 2)
    found = decodes.whole_decodes(replace(BENCH, recorder=Stale), ("lpd", "par"))
    assert not found.passed


def test_where_nothing_can_be_recorded_or_compared_it_says_so():
    with pytest.raises(NotHere, match="CPU itself"):
        decodes.tokens_of_cpu(BENCH)


def test_flips_are_counted_by_image_up_to_a_bound():
    tokens = torch.arange(12).view(3, 4)
    other = tokens.clone()
    other[1, 2:] = 0
    assert decodes.flipped(other, tokens) == 1
    assert decodes._finding(Counter(lpd=2, var=0), 8, 2, "the CPU's").passed
    failed = decodes._finding(Counter(lpd=2, var=1), 8, 2, "the CPU's")
    assert failed.reason == "3 images differ from the CPU's, 2 may: lpd 2, var 1"


def test_host_waits_are_seen_where_they_happen():
    there = torch.arange(6.0, device=CPU)
    numbers = there.numpy()

    def waits(work):
        def whole():
            values = torch.zeros(6, device=CPU)
            work(values)

        return sum(waits_of(whole, CPU).values())

    assert waits(lambda x: x.tolist()) == 1
    assert waits(lambda x: (x + 1).sum().item()) == 1
    assert waits(lambda x: bool(x.any())) == 1
    assert waits(lambda x: x.cpu().numpy()) == 1
    assert waits(lambda x: int(x[0])) == 1
    assert waits(lambda x: x[x > 0]) == 1
    assert waits(lambda x: x.nonzero()) == 1
    assert waits(lambda x: torch.as_tensor(numbers, device=CPU)) == 1
    assert waits(lambda x: x.copy_(torch.ones(6))) == 1
    assert waits(lambda x: upload(numbers, CPU).sum()) == 0
    assert waits(lambda x: torch.where(x > 0, x, 0).sum()) == 0
    assert waits(lambda x: torch.arange(3).tolist()) == 0  # the host's own
    assert waits(lambda x: upload(numbers, CPU).tolist()) == 1


def test_on_cuda_its_own_debug_mode_tells(monkeypatch):
    modes = ["default"]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[0])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def work():
        assert modes[-1] == "warn"
        for text in (
            "called a synchronizing CUDA operation",
            "something else",
            "called a synchronizing CUDA operation",
        ):
            warnings.warn_explicit(text, UserWarning, str(suite.__file__), 7)

    assert waits_of(work, torch.device("cuda")) == {"harness/gpu_check/suite.py:7": 2}
    assert modes[-1] == "default"


DECLARED = {"gsd": 2, "jacobi": 2, "sjd": 2, "sjd-mc": 2.5, "sjd-gs": 3}
"""Strategies that decide while decoding: most waits for each step."""


TABLES = (sources_of, rotary_table, fed_on)
"""Kept from decode to decode; what another test has kept is none of this device's to the stand-in."""


@pytest.mark.parametrize("read_every", [1, 2, 4])
def test_speculative_decoders_wait_as_often_as_they_are_told(read_every):
    case = subject(registry.get("sjd", window=4, read_every=read_every))
    run = partial(decodes.decoded, case, CPU, (0, 1))
    steps = run().steps
    waits = waits_of(run, CPU)
    asked = sum(count for place, count in waits.items() if "speculation" in place)
    assert asked == -(-steps // read_every)  # once more than there are windows, for the end


SHORT = ("raster", "lpd", "zipar", "halton", "sjd")
"""Their decodes are watched in the quick set too."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in SHORT)) for name in registry.BUILT_IN]
)
def test_only_strategies_that_decide_wait_in_a_step(name):
    for table in TABLES:
        table.cache_clear()
    found = decodes.waits_in(name, CPU)
    assert found.as_declared, found
    assert found.decides == (name in DECLARED)
    assert found.per_step <= DECLARED.get(name, 0)
    assert found.decides == (found.per_step > 0)
    if name not in DECLARED:
        assert found.most[1] <= 6


def test_tables_of_earlier_checks_are_no_waits():
    case = subject(registry.get("nar"))
    decodes.decoded(case, CPU, (0, 1))  # keeps its tables, made while nothing played the device
    found = decodes.host_waits(BENCH, ("nar",))
    assert found.passed, found.reason


@pytest.mark.parametrize(
    "name",
    [
        "lpd",
        "nar",
        "zipar",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("raster", "rar", "arpg", "token-shuffle")),
    ],
)
def test_a_recorded_decode_waits_no_more_than_an_eager_one(name):
    for table in TABLES:
        table.cache_clear()
    waits = []
    for recorder in (None, Repeats):
        case = subject(registry.get(name))
        recorded = NOTHING_RECORDED if recorder is None else record_passes(case.network, recorder())
        run = partial(decodes.decoded, case, CPU, (0, 1), None, recorded)
        waits_of(run, CPU)
        waits.append(sum(waits_of(run, CPU).values()))
    assert waits[1] == waits[0] <= 6


def test_a_wait_in_every_step_is_found(monkeypatch):
    monkeypatch.setattr("strategies.zipar.fed_on", fed_on.__wrapped__)
    monkeypatch.setattr(
        "strategies.zipar.upload", lambda values, device: torch.as_tensor(values, device=device)
    )
    found = decodes.host_waits(BENCH, ("raster", "zipar"))
    assert not found.passed
    assert "zipar waits" in found.reason
    assert "strategies/zipar.py" in found.reason
    assert "raster" not in found.reason


def test_the_command_writes_rows_and_a_page(tmp_path, monkeypatch, capsys):
    asked = (Check("a", "one", 1, passing), Check("b", "two", 1, absent), Check("c", "three", 1e9, passing))
    monkeypatch.setattr("harness.commands.gpu_check_run.checks", lambda device: asked)
    out = tmp_path / "here" / "check.jsonl"
    assert main(["gpu-check", "--device", "cpu", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["check"], row["state"]) for row in rows] == [
        ("a", "pass"),
        ("b", "not run"),
        ("c", "not run"),
    ]
    assert rows[0]["figures"] == {"worst": 0.5}
    assert rows[0]["environment"]["torch"] == torch.__version__
    page = out.with_suffix(".md").read_text()
    assert "| a: one | pass | worst 0.5 |" in page
    assert "no such thing here" in page
    assert "out of time" in capsys.readouterr().out


def test_a_failed_check_is_the_exit_status(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "harness.commands.gpu_check_run.checks", lambda device: (Check("a", "", 1, breaking),)
    )
    assert main(["gpu-check", "--device", "cpu", "--out", str(tmp_path / "x.jsonl")]) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--device", "tpu"], "device 'tpu': expected cpu, cuda or cuda:N"),
        (["--device", "cpu", "--minutes", "0"], "--minutes 0: expected a number above 0"),
        (["--device", "cpu", "--minutes", "nan"], "--minutes nan: expected a number above 0"),
        (["--device", "cpu", "--goldens", "nowhere"], "--goldens 'nowhere': no such folder"),
        (["--device", "cpu", "--out", "page.md"], "--out 'page.md': expected the name of a JSON Lines file"),
    ],
)
def test_mistakes_end_in_one_line(capsys, words, said):
    assert main(["gpu-check", *words]) == 2
    assert said in capsys.readouterr().err


def test_the_driver_is_read_from_its_own_file(tmp_path):
    file = tmp_path / "version"
    file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.1  Mon\nGCC version: 12\n")
    assert suite.driver(file) == "NVIDIA UNIX x86_64 Kernel Module  570.1  Mon"
    assert suite.driver(tmp_path / "none") is None
