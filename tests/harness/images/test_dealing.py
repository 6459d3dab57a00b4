"""Who makes which images: every image once, as the processes themselves deal them, and nothing written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cli import main
from harness.images.dealing import fleet, processes_of, ranges
from harness.images.shards import Shards, Share
from harness.machine.distributed import Launch
from pardec.errors import UserError

CELL = "strategy=raster,checkpoint=random,batch=2"


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 200), st.integers(1, 30))
def test_every_image_falls_to_one_process(tmp_path_factory, machines, each, images, length):
    shards = Shards(tmp_path_factory.getbasetemp() / "none", images)
    processes = fleet(machines, each, "cuda")
    made = [image for one in processes for chunk in shards.missing(length, one.share) for image in chunk]
    assert sorted(made) == list(range(images))
    assert [one.share for one in processes] == [
        Share(rank, machines * each) for rank in range(machines * each)
    ]
    assert len({(one.machine, one.device) for one in processes}) == machines * each


def test_processes_are_those_of_the_flag_or_of_torchrun_or_of_the_shard():
    alone, many = Launch(), Launch(rank=3, size=8, local_rank=3, local_size=4)
    assert [(one.machine, one.device) for one in processes_of("2x2", None, alone, "cuda")] == [
        (0, "cuda:0"),
        (0, "cuda:1"),
        (1, "cuda:0"),
        (1, "cuda:1"),
    ]
    assert processes_of(None, None, many, "cuda") == fleet(2, 4, "cuda")
    (one,) = processes_of(None, Share(1, 3), alone, "cpu")
    assert (one.share, one.machine, one.device) == (Share(1, 3), None, "cpu")
    assert processes_of(None, None, alone, "cuda:2")[0].device == "cuda:2"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("8", None, Launch(), "cpu"), "--processes '8': expected machines x processes on each, e.g. 2x8"),
        (("0x8", None, Launch(), "cpu"), "--processes '0x8': expected"),
        (("2x8", Share(0, 2), Launch(), "cpu"), "--shard says already"),
        (("2x8", None, Launch(size=4), "cpu"), "torchrun says already"),
        (("2x8", None, Launch(), "cuda:1"), "8 processes of a machine on device 'cuda:1'"),
    ],
)
def test_mistakes_are_named(arguments, said):
    with pytest.raises(UserError, match=said):
        processes_of(*arguments)


def test_long_lists_of_images_are_cut():
    chunks = [range(start, start + 10) for start in range(0, 50, 10)]
    assert ranges(chunks) == "0-9, 10-19, 20-29 and 2 more"
    assert ranges(chunks[:1]) == "0-9"


def generate(small_zoo, out, *words):
    return main(["generate", CELL, "--zoo", str(small_zoo), "--images", "6", "--out", str(out), *words])


def test_a_dry_run_says_what_is_left_for_whom_and_writes_nothing(small_zoo, tmp_path, capsys):
    out = tmp_path / "images"
    assert generate(small_zoo, out, "--chunk", "2", "--dry-run", "--processes", "1x2") == 0
    text = capsys.readouterr().out
    assert not out.exists()
    assert "0 of 6 images" in text
    assert "0-1, 4-5" in text
    assert generate(small_zoo, out, "--chunk", "2", "--shard", "1/2") == 0
    before = sorted(out.iterdir())
    capsys.readouterr()
    assert generate(small_zoo, out, "--chunk", "2", "--dry-run", "--processes", "1x2") == 0
    text = capsys.readouterr().out
    assert "2 of 6 images" in text
    assert "0-1, 4-5" in text
    assert "2-3" not in text
    assert sorted(out.iterdir()) == before


def test_a_dry_run_plans_for_gpus_that_are_elsewhere(small_zoo, tmp_path, capsys):
    words = ("--dry-run", "--processes", "2x2", "--device", "cuda", "--cuda-graphs")
    assert generate(small_zoo, tmp_path / "images", *words) == 0
    text = capsys.readouterr().out
    assert text.count("cuda:1") == 2
    assert "cache MB" in text


def test_the_first_of_torchruns_processes_shows_the_plan(small_zoo, tmp_path, capsys, monkeypatch):
    started = {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "1"}
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    said = []
    for rank in ("0", "3"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", str(int(rank) % 2))
        assert generate(small_zoo, tmp_path / "images", "--dry-run") == 0
        said.append(capsys.readouterr().out)
    assert all(f"{rank}/4" in said[0] for rank in range(4))
    assert said[1] == ""


def test_processes_are_only_shown(small_zoo, tmp_path, capsys):
    assert generate(small_zoo, tmp_path / "images", "--processes", "2x2") == 2
    assert "--processes '2x2': only with --dry-run" in capsys.readouterr().err
    assert not (tmp_path / "images").exists()
