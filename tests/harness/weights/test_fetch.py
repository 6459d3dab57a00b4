"""Published files: the registry, where they are looked for, and downloads through a stand-in of the hub."""

import argparse
import hashlib
import importlib
import shutil
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from harness.cell.cell import RANDOM, Cell
from harness.cli import main
from harness.subject.pins import finished
from harness.subject.sources import with_files
from harness.weights import download
from harness.weights.download import check, fetch
from harness.weights.fetch import PublishedFile, cache_folder, locate, published_file, published_files
from pardec.errors import UserError
from strategies.decoding.presets import preset_info, preset_names
from tests.backbones.published_files import published

FILE = "c2i_B_256.pt"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty default folder, so that no test sees this machine's."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("PARDEC_CHECKPOINTS", str(folder))
    return folder


class Transport(Exception):
    """What the hub's transport raises without a network."""


class HubError(Transport, OSError):
    pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that serves one file, and notes what was asked of it."""
    served = tmp_path / "served.pt"
    torch.save({"model": published("llamagen").state()}, served)
    module = types.ModuleType("huggingface_hub")
    module.errors = SimpleNamespace(HfHubHTTPError=HubError)
    module.asked, module.failure = [], None
    module.told = SimpleNamespace(
        size=served.stat().st_size, etag=hashlib.sha256(served.read_bytes()).hexdigest()
    )

    def hf_hub_download(repo_id, filename, *, local_dir):
        module.asked.append((repo_id, filename))
        if module.failure:
            raise module.failure
        return shutil.copy(served, Path(local_dir) / filename)

    module.hf_hub_download = hf_hub_download
    module.hf_hub_url = lambda repo_id, filename: f"hub/{repo_id}/{filename}"
    module.get_hf_file_metadata = lambda url: module.told
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return module


@pytest.fixture
def small(monkeypatch):
    """What the hub serves is tiny: taken for the published size."""
    checked = []
    monkeypatch.setattr(download, "check", lambda path, wanted: checked.append((path, wanted.name)))
    return checked


def test_the_registry_names_every_published_file():
    files = published_files()
    with_file = [name for name in preset_names() if preset_info(name).file]
    assert set(with_file) < set(files)
    assert {"vq-llamagen", "vq-maskgit"} <= set(files)
    for one in files.values():
        assert one.repository.count("/") == 1, one
        assert one.licence
        assert not one.repository.startswith("http")
    assert published_file("lpd-xl-512").repository == "mit-han-lab/lpd_xl_512"
    url = "https://huggingface.co/FoundationVision/LlamaGen/resolve/main/c2i_B_256.pt"
    assert published_file("llamagen-b-256").url == url
    assert len({(one.repository, one.file) for one in files.values()}) == len(files)


def test_the_list_needs_no_network_and_names_licences(capsys):
    assert main(["fetch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(published_files())
    assert any(line.startswith("rar-b ") and "yucornetto/RAR/rar_b.bin" in line for line in lines)
    assert all("licence: " in line and line.endswith("not here") for line in lines)


def test_a_download_lands_in_the_cache_and_is_checked(hub, small, cache, capsys):
    assert main(["fetch", "llamagen-b-256"]) == 0
    assert capsys.readouterr().out.strip() == str(cache / FILE)
    assert hub.asked == [("FoundationVision/LlamaGen", FILE)]
    assert small == [(cache / FILE, "llamagen-b-256")]
    fetch("llamagen-b-256")
    assert len(hub.asked) == 1, "what is there is not downloaded again"
    assert len(small) == 2, "but checked again"


def test_a_named_folder_is_searched_first_and_downloaded_into(hub, small, cache, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    assert fetch("llamagen-b-256", own) == own / FILE
    cache.mkdir()
    shutil.copy(own / FILE, cache / FILE)
    assert locate(FILE, own) == own / FILE
    assert locate(FILE) == cache / FILE
    (own / FILE).unlink()
    assert locate(FILE, own) == cache / FILE


@pytest.mark.parametrize(
    ("told", "text"),
    [({"size": 12}, "expected 12"), ({"etag": "ab" * 32}, "expected abababab"), ({"size": None}, None)],
)
def test_size_and_hash_are_verified(hub, small, cache, told, text):
    vars(hub.told).update(told)
    if text is None:
        assert fetch("llamagen-b-256").is_file()
        return
    with pytest.raises(UserError, match=text):
        fetch("llamagen-b-256")
    assert locate(FILE) is None
    assert small == []
    vars(hub.told).update(size=None, etag="of no hash")
    assert fetch("llamagen-b-256") == cache / FILE
    assert [path.name for path in cache.iterdir()] == [FILE]


def test_a_download_that_was_not_verified_is_verified_next_time(hub, small, cache, monkeypatch):
    def cut(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download, "file_sha256", cut)
        with pytest.raises(KeyboardInterrupt):
            fetch("llamagen-b-256")
    hub.told.etag = "ab" * 32
    with pytest.raises(UserError, match="expected abababab"):
        fetch("llamagen-b-256")
    assert locate(FILE) is None
    assert small == []


def test_what_the_hub_says_of_a_file_comes_first(hub, cache, monkeypatch, capsys):
    def unreachable(url):
        raise HubError("no route")

    monkeypatch.setattr(hub, "get_hf_file_metadata", unreachable)
    assert "(no route)" in one_line(capsys, "fetch", "llamagen-b-256")
    assert hub.asked == []
    assert locate(FILE) is None


def one_line(capsys, *arguments):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("pardec: ")
    assert error.count("\n") == 1
    return error


BY_HAND = "https://huggingface.co/FoundationVision/LlamaGen/resolve/main/c2i_B_256.pt and put it at "


@pytest.mark.parametrize("failure", [OSError("no route"), HubError("404"), Transport("refused\nby peer")])
def test_without_a_network_one_line_says_what_to_download_and_where_to(hub, cache, capsys, failure):
    hub.failure = failure
    error = one_line(capsys, "fetch", "llamagen-b-256")
    assert f"({' '.join(str(failure).split())})" in error
    assert BY_HAND + str(cache / FILE) in error


def test_without_the_library_one_line_says_how_to_get_it(monkeypatch, cache, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    error = one_line(capsys, "fetch", "llamagen-b-256")
    assert "pip install 'pardec[fetch]'" in error
    assert BY_HAND + str(cache / FILE) in error


def test_unknown_names_and_unpublished_files(capsys):
    assert "did you mean 'llamagen-b-256'" in one_line(capsys, "fetch", "llamagen-b-265")
    assert "published no file" in one_line(capsys, "fetch", "par-l-4x-384")
    assert "no such folder" in one_line(capsys, "fetch", "rar-b", "--checkpoints", "/nowhere/at/all")


def test_a_file_that_is_something_else_is_not_accepted(tmp_path):
    wanted = PublishedFile("llamagen-b-256", "", "", FILE, "")
    path = tmp_path / FILE
    state = published("llamagen").state()
    torch.save(state, path)
    with pytest.raises(UserError, match="is llamagen of no published size"):
        check(path, wanted)
    torch.save({key: value for key, value in state.items() if key != "norm.weight"}, path)
    with pytest.raises(UserError, match="1 missing"):
        check(path, wanted)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="remove it and fetch again"):
        check(path, wanted)


def test_the_default_folder(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("PARDEC_CHECKPOINTS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "pardec" / "checkpoints"


# Cells without a path ---------------------------------------------------------------------------------------

CELL = Cell("raster", network="llamagen-b-256", batch=1)


def test_a_cell_finds_its_files(cache, tmp_path):
    with pytest.raises(UserError, match=r"no c2i_B_256\.pt in .*; get it with: pardec fetch llamagen-b-256"):
        finished(CELL)
    cache.mkdir()
    (cache / FILE).write_bytes(b"cached")
    assert with_files(CELL).checkpoint == str(cache / FILE)
    own = tmp_path / "own"
    own.mkdir()
    (own / FILE).write_bytes(b"own")
    (own / "vq_ds16_c2i.pt").write_bytes(b"vq")
    cell = finished(Cell("raster", network="llamagen-b-256", batch=1, checkpoints=str(own)))
    assert cell.checkpoint == str(own / FILE)
    assert cell.tokenizer_checkpoint == str(own / "vq_ds16_c2i.pt")
    assert cell.pins["network"] == hashlib.sha256(b"own").hexdigest()


def test_the_key_of_a_found_file_is_that_of_its_content(cache, tmp_path):
    keys = []
    for folder, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / FILE).write_bytes(content)
        cell = Cell("raster", network="llamagen-b-256", batch=1, checkpoints=str(tmp_path / folder))
        keys.append(finished(cell).key)
    assert keys[0] == keys[1] != keys[2]


def test_random_weights_look_for_nothing(cache):
    cell = finished(Cell("raster", network="llamagen-b-256", batch=1, checkpoint=RANDOM))
    assert (cell.checkpoint, cell.tokenizer_checkpoint) == (RANDOM, None)


@pytest.mark.parametrize("command", ["sweep", "sample", "generate", "fetch"])
def test_every_command_that_needs_files_takes_the_folder(command):
    module = importlib.import_module(f"harness.commands.{command}_command")
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    assert "--checkpoints" in parser.format_help()


def test_sample_takes_weights_from_the_folder(tmp_path, capsys):
    (tmp_path / FILE).write_bytes(b"not a checkpoint")
    (tmp_path / "vq_ds16_c2i.pt").write_bytes(b"nor this")
    cell = "strategy=raster,network=llamagen-b-256,batch=1"
    error = one_line(capsys, "sample", cell, "--checkpoints", str(tmp_path), "--out", str(tmp_path / "a.png"))
    assert f"{tmp_path / FILE}: not a checkpoint file: a text" in error
