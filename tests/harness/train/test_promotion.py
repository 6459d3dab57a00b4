"""The zoo's networks from mark to mark: promoted whole whatever is killed, and runs that are begun anew."""

import dataclasses
import json
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch

from harness.train import tier
from harness.train.mark_trainer import TaughtImages
from harness.train.tier import Material, begin_anew, claimed, promote, train_tier, trainer_of
from harness.weights import zoo
from tests.harness.train.every_mark import train_through_every_mark
from tests.harness.train.test_marks import CONFIG, RECIPE


@pytest.fixture(scope="module")
def material():
    generator = torch.Generator().manual_seed(0)
    images = TaughtImages(
        torch.randint(0, 8, (48, 9), generator=generator, dtype=torch.uint8),
        torch.randint(0, 3, (48,), generator=generator),
    )
    return Material(images, images, CONFIG, {"tokenizer_sha256": "t" * 64}, {"name": "small"})


class Killed(BaseException):
    pass


def dies_after(monkeypatch, operations):
    """The next file of a zoo that is written or removed after so many is not."""
    left = [operations]

    def counted(work):
        def run(*args, **kwargs):
            if not left[0]:
                raise Killed
            left[0] -= 1
            return work(*args, **kwargs)

        return run

    for name in ("write_whole", "write_card"):
        monkeypatch.setattr(tier, name, counted(getattr(tier, name)))
    monkeypatch.setattr(Path, "unlink", counted(Path.unlink))


def zoo_files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*.*")
        if path.suffix in (".json", ".safetensors")
    }


@pytest.fixture
def unpromoted(tmp_path, material, monkeypatch):
    """A zoo of two networks of the first mark beside their second ones, and one as it is promoted."""
    train_through_every_mark(monkeypatch)
    monkeypatch.setattr(tier, "promote", lambda folder: None)
    folder, whole = tmp_path / "zoo", tmp_path / "whole"
    train_tier(("raster", "nar"), RECIPE, material, folder, tmp_path / "runs", most=2)
    shutil.copytree(folder, whole)
    monkeypatch.undo()
    promote(whole)
    assert zoo.marks("raster", whole) == ["marks/raster-1x", "raster"]
    return folder, zoo_files(whole)


def test_a_kill_between_any_two_files_loses_no_network(unpromoted, tmp_path, monkeypatch):
    folder, whole = unpromoted
    weights = {content for name, content in zoo_files(folder).items() if name.endswith(".safetensors")}
    for operations in range(1000):
        killed = tmp_path / f"killed after {operations}"
        shutil.copytree(folder, killed)
        try:
            with monkeypatch.context() as patch:
                dies_after(patch, operations)
                promote(killed)
            break
        except Killed:
            assert weights <= set(zoo_files(killed).values())
            assert zoo.names(killed) == ["nar", "raster"]  # whoever measures finds both
        for _ in range(2):
            promote(killed)
            assert {name: zoo_files(killed)[name] for name in whole} == whole
            assert zoo.marks("nar", killed) == ["marks/nar-1x", "nar"]
            assert zoo.marks("raster", killed) == ["marks/raster-1x", "raster"]
    assert operations > 10


def test_networks_that_are_marks_alone_become_the_zoo_s_own_again(unpromoted):
    folder, whole = unpromoted
    for end in ("json", "safetensors"):
        (folder / f"raster.{end}").rename(folder / "marks" / f"raster-1x.{end}")
    promote(folder)
    found = zoo_files(folder)
    card = json.loads(found["marks/raster-1x.json"])
    assert card["weights"]["file"] == "raster-1x.safetensors"
    assert found == whole


def test_a_mark_keeps_no_scale_but_that_of_its_last(unpromoted):
    folder, _ = unpromoted
    for name, scale in {"raster": 1.5, "marks/raster-2x": 2.0}.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"guidance": {"chosen": scale}}))
    promote(folder)
    assert zoo.read_card("raster", folder).content["guidance"] == {"chosen": 2.0}
    assert "guidance" not in zoo.read_card("marks/raster-1x", folder).content


def test_processes_that_promote_wait_for_each_other(unpromoted, monkeypatch):
    folder, whole = unpromoted
    at_work, together = [], []
    copy = tier._copy

    def watched(*args):
        at_work.append(args)
        together.append(len(at_work))
        time.sleep(0.01)
        copy(*args)
        at_work.pop()

    monkeypatch.setattr(tier, "_copy", watched)
    threads = [threading.Thread(target=promote, args=(folder,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(together) == {1}
    assert zoo_files(folder) == whole


# Runs that are begun anew ------------------------------------------------------------------------------


@pytest.fixture
def begun(tmp_path, material, monkeypatch):
    """A zoo whose raster network has reached the second mark, and its run."""
    monkeypatch.setattr("harness.train.mark_trainer.compile_taught", lambda network: False)
    folder, runs = tmp_path / "zoo", tmp_path / "runs"
    train_tier(("raster",), RECIPE, material, folder, runs, most=2)
    return folder, runs


def test_a_run_that_is_begun_anew_is_not_taken_up_and_is_kept(begun, material):
    folder, runs = begun
    before = (runs / "raster" / "run.pt").read_bytes()
    begin_anew(("raster",), RECIPE, material, runs)
    assert (runs / "raster" / "run-before.pt").read_bytes() == before
    run = trainer_of("raster", RECIPE, material, runs, folder)
    assert (run.step, run.reached.marks, run.anew) == (0, {}, True)


def test_a_run_that_was_begun_anew_goes_on_without_the_marks_of_the_zoo(begun, material):
    folder, runs = begun
    begin_anew(("raster",), RECIPE, material, runs)
    run = trainer_of("raster", RECIPE, material, runs, folder)
    for _ in range(3):
        run.train_step(material.train)
    run.save()
    assert trainer_of("raster", RECIPE, material, runs, folder).step == 3
    other = dataclasses.replace(material, made_of={"tokenizer_sha256": "u" * 64})
    begin_anew(("raster",), RECIPE, other, runs)  # whatever the zoo's were made of
    assert trainer_of("raster", RECIPE, other, runs, folder).step == 0


def test_a_run_that_was_begun_anew_replaces_marks_as_it_reaches_them(begun, material):
    folder, runs = begun
    before = zoo_files(folder)
    train_tier(("raster",), RECIPE, material, folder, runs, most=1, again=True)
    after = zoo_files(folder)
    assert zoo.marks("raster", folder) == ["marks/raster-1x", "raster"]
    assert after["raster.safetensors"] == before["raster.safetensors"]  # of the second mark
    assert zoo.read_card("raster", folder).mark == 2
    labels = (material.train.labels + 1) % 3
    changed = dataclasses.replace(material, train=TaughtImages(material.train.codes, labels))
    train_tier(("raster",), RECIPE, changed, folder, runs, most=2, again=True)
    new = zoo_files(folder)
    assert new["raster.safetensors"] != before["raster.safetensors"]
    assert new["marks/raster-1x.safetensors"] != before["marks/raster-1x.safetensors"]
    assert zoo.marks("raster", folder) == ["marks/raster-1x", "raster"]
    cards = [zoo.read_card(name, folder) for name in zoo.marks("raster", folder)]
    assert [card.mark for card in cards] == [1, 2]


def test_a_run_is_begun_anew_once_whatever_the_levels(begun, material, monkeypatch):
    folder, runs = begun
    stored = []
    monkeypatch.setattr(tier, "store_mark", lambda run, mark, *_: stored.append(mark))
    train_tier(("raster",), RECIPE, material, folder, runs, most=2, again=True)
    assert stored == [1, 2]


def test_what_another_process_trains_is_not_begun_anew(begun, material, capsys):
    _, runs = begun
    before = (runs / "raster" / "run.pt").read_bytes()
    with claimed(runs / "raster"):
        other = threading.Thread(target=begin_anew, args=(("raster",), RECIPE, material, runs))
        other.start()
        other.join()
    assert "raster: not begun anew, another process is training it" in capsys.readouterr().out
    assert (runs / "raster" / "run.pt").read_bytes() == before
