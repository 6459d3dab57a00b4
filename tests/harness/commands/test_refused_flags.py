"""Flags that would be left unread are refused on one line; memory that runs out is one, too."""

import pytest
import torch

from harness.cli import main
from harness.commands import lossiness_run
from harness.lossiness.estimate import estimate

LPD = "strategy=lpd,steps=6,guidance=2"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lossiness", LPD, "--codes", "3"], "--codes 3: only without CELL"),
        (["lossiness", LPD, "--grid", "2x2", "2x3"], "--grid 2x2 2x3: only without CELL"),
        (["lossiness", LPD, "--networks", "5"], "--networks 5: only without CELL"),
        (["lossiness", LPD, "--strategies", "par"], "--strategies par: only without CELL"),
        (["lossiness", LPD, "--steps", "0"], "--steps: steps = 0: expected a whole number"),
        (["lossiness", "--images", "5"], "--images 5: only with CELL"),
        (["sweep", LPD, "--device-card", "h200"], "--device-card 'h200': only with --dry-run"),
        (["explain", LPD, "--acceptance", "0.5"], "--acceptance 0.5: only with --device-card"),
    ],
)
def test_a_flag_that_would_be_left_unread_is_refused(capsys, small_zoo, tmp_path, arguments, words):
    results = ["--results", str(tmp_path / "none")] if arguments[0] == "sweep" else []
    assert main([*arguments, *results, "--zoo", str(small_zoo)]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "none").exists()


def test_steps_and_guidance_stand_in_place_of_the_cells(capsys, small_zoo, monkeypatch):
    judged = []

    def judge(subject, *rest):
        judged.append((subject.prepared.cell.steps, subject.prepared.guidance.scale))
        return estimate(subject, *rest)

    monkeypatch.setattr(lossiness_run, "estimate", judge)
    few = ["--orders", "--images", "2", "--zoo", str(small_zoo), "--threads", "1"]
    assert main(["lossiness", LPD, *few]) == 0
    assert main(["lossiness", LPD, *few, "--steps", "10", "--guidance", "3.5"]) == 0
    assert judged == [(6, 2.0), (10, 3.5)]
    assert "10 steps, guidance 3.5: mean of 2 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
@pytest.mark.parametrize("command", ["sample", "generate", "lossiness", "likelihood", "explain"])
def test_memory_that_runs_out_is_one_line(capsys, monkeypatch, command, error):
    def fail(options):
        raise error

    monkeypatch.setattr(f"harness.commands.{command}_run.{command}", fail)
    assert main([command, LPD, *(["--out", "here"] if command == "generate" else [])]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"pardec: out of memory ({type(error).__name__}")
    assert "--batch" in line
    assert line.count("\n") == 1


def test_other_errors_stay_what_they_are(monkeypatch):
    def fail(options):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr("harness.commands.explain_run.explain", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        main(["explain", LPD])
