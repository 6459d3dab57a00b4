"""Cells of a GPU that is another machine's: finished, listed and sent from one that has none."""

import pytest
import torch

from harness.cell.cell import Cell, normalised
from harness.cli import main
from harness.subject import pins, prepare
from harness.sweep.elsewhere import foreseen, is_elsewhere, preparable
from harness.sweep.find import find_cell
from harness.sweep.sweep import sweep_cells
from pardec.errors import UserError


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


def cell(zoo, **settings) -> Cell:
    return normalised(Cell("lpd", steps=6, zoo=str(zoo), threads=1, **settings))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"dtype": "float16"},
        {"products": "auto", "attention": "auto"},
        {"cuda_graphs": True, "one_graph": True},
    ],
)
def test_a_cell_is_finished_as_where_its_device_is(small_zoo, monkeypatch, settings):
    asked = cell(small_zoo, device="cuda", **settings)
    with pytest.raises(UserError, match="has 0 CUDA devices"):
        pins.finished(asked)
    found = foreseen(asked)
    for room in (pins, prepare):  # as on a machine that has the device, and no card of it
        monkeypatch.setattr(room, "check_device", lambda device, dtype: None)
    monkeypatch.setattr(prepare, "card_here", lambda device, threads: None)
    assert found == pins.finished(asked)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"products": "packed"}, "products 'packed' with dtype 'float32' on device 'cuda'"),
        ({"attention": "parts", "cuda_graphs": True}, "attention = 'parts' with cuda_graphs = true"),
        ({"one_graph": True}, "one_graph = true: expected cuda_graphs = true"),
    ],
)
def test_what_no_such_device_can_have_is_refused_here(small_zoo, settings, said):
    with pytest.raises(UserError, match=said):
        foreseen(cell(small_zoo, device="cuda", **settings))


def test_a_key_of_a_listing_is_found_where_there_is_no_gpu(small_zoo, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[grid]\nstrategy = "lpd"\nsteps = 6\nthreads = 1\nproducts = "auto"\n')
    changes = {"zoo": str(small_zoo), "device": "cuda"}
    (listed,) = sweep_cells(str(path), overrides=changes, finish=foreseen).cells
    assert find_cell(f"{path}:{listed.key}", changes, None).device == "cuda"


def test_cells_of_devices_that_are_here_are_as_ever(small_zoo, monkeypatch):
    asked = cell(small_zoo, products="auto")
    assert not is_elsewhere(asked)
    assert preparable(asked) is asked
    assert foreseen(asked) == pins.finished(asked)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = [is_elsewhere(cell(small_zoo, device=name)) for name in ("cuda", "cuda:1", "cuda:2", "cudas")]
    assert found == [False, False, True, False]


def test_a_sweep_for_ray_is_listed_where_there_is_no_gpu(small_zoo, capsys):
    words = ["sweep", "strategy=par,guidance=2", "--zoo", str(small_zoo), "--device", "cuda", "--dry-run"]
    assert main(words) == 2
    assert "has 0 CUDA devices" in capsys.readouterr().err
    for dtype in ("float16", "bfloat16"):
        ray = [*words, "--executor", "ray", "--dtype", dtype]
        assert main(ray) == 0
        out = capsys.readouterr().out
        assert "a GPU" in out
        assert "predicted hours: the device is another machine's; name its card with --device-card" in out
        assert main([*ray, "--device-card", "h200"]) == 0
        assert " once on h200, " in capsys.readouterr().out


def test_a_dry_run_of_images_lists_half_precision(small_zoo, tmp_path, capsys):
    words = ["generate", "strategy=par,dtype=float16,device=cuda", "--zoo", str(small_zoo), "--dry-run"]
    assert main([*words, "--out", str(tmp_path), "--processes", "1x2"]) == 0
    out = capsys.readouterr().out
    assert "cuda:0" in out
    assert "cuda:1" in out


def test_a_sweep_takes_how_its_cells_are_finished(small_zoo):
    flags = {"zoo": str(small_zoo), "device": "cuda"}
    (found,) = sweep_cells("strategy=lpd,steps=6", overrides=flags, finish=foreseen).cells
    assert (found.device, found.steps, bool(found.pins)) == ("cuda", 6, True)
