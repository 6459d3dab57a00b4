"""What fuzzing found, each kept as the smallest input that showed it."""

import dataclasses
import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.checkpoints import CheckpointError, read_checkpoint
from harness.cli import main
from harness.images.codes import Codes
from harness.images.pictures import read_image
from harness.images.shards import Shards
from harness.quality.adm import read_adm
from harness.train import tune
from harness.weights import zoo
from pardec.errors import UserError
from reports import tables
from reports.artifacts import load_artifacts, load_cost, load_edits
from reports.site import write_report
from results import arrays
from results.schema import row_to_json
from results.store import load_rows
from tests.backbones.published_files import save_legacy
from tests.fuzz.files import bomb, npz
from tests.fuzz.guard import harmless
from tests.fuzz.targets import TARGETS
from tests.reports.synthetic_rows import sweep_rows

_ROW = sweep_rows()[5]
_RUN = b'{"cell": {"images": 3}, "identity": {}}'


def changed_row(**changes: Any) -> bytes:
    return json.dumps(json.loads(row_to_json(_ROW)) | changes).encode() + b"\n"


def changed_card(**changes: Any) -> bytes:
    return json.dumps(json.loads((zoo.SHIPPED / "lpd.json").read_text()) | changes).encode()


def changed_manifest(**changes: Any) -> Callable[[bytes], bytes]:
    return lambda seed: json.dumps(json.loads(seed) | changes).encode()


NETWORK = json.loads((zoo.SHIPPED / "lpd.json").read_text())["network"]
TURNS = {"reference": "0" * 16, "batch": 1, "seconds": [1.0], "reference_seconds": [1.0, 2.0]}
FINDINGS: dict[str, tuple[str, bytes | Callable[[bytes], bytes]]] = {
    "a sweep's name that leaves the results folder": (
        "sweep-file",
        b'[sweep]\nname = "../x"\n[grid]\nstrategy="lpd"',
    ),
    "a grid of a billion cells": (
        "sweep-file",
        b"[grid]\nstrategy='lpd'\n"
        + b"\n".join(b"%s = %a" % (key, list(range(1, 1001))) for key in (b"batch", b"images", b"seed")),
    ),
    "a guidance that is no number": ("sweep-file", b"[grid]\nstrategy = 'lpd'\nguidance = nan"),
    "options that no JSON holds": ("sweep-file", b"[grid]\nstrategy = 'lpd'\noptions = {a = 1979-05-27}"),
    "a label that a terminal obeys": ("sweep-file", b'[grid]\nstrategy = "lpd"\nlabel = "\\u001b[2J"'),
    "tables nested too deeply": ("sweep-file", b"a = " + b"[" * 5000),
    "a whole number that no float holds": ("rows", changed_row(latency_s=10**400)),
    "JSON nested too deeply": ("rows", b"[" * 100_000 + b"\n"),
    "batch sizes that are none": ("report", changed_row(peak_bytes_by_batch={"x": 1.0})),
    "times in turn of unequal length": ("row-tables", changed_row(turns=TURNS)),
    "times in turn of nothing": (
        "row-tables",
        changed_row(turns=TURNS | {"seconds": [1.0], "reference_seconds": [0]}),
    ),
    "a metric without a margin": (
        "row-tables",
        changed_row(quality={"x": {"value": 1, "low": 0, "high": 2, "n": 9, "reference": None}}),
    ),
    "an interval that overflows": ("row-tables", changed_row(throughput_interval=[-1e308, 1e308])),
    "a negative throughput": ("report", changed_row(throughput_images_per_s=-5.0)),
    "a prediction that no float holds": ("cost", json.dumps({"card": "a", "tokens_s": 10**400}).encode()),
    "a rate that is no number": (
        "device-cards",
        b"[a]\ntitle='a'\nhardware=[]\nsource='s'\nlaunch_s=1e-6\n"
        b"bandwidth_bytes_per_s=1e9\nproduct_flops_per_s={float32=nan}",
    ),
    "a card with a grid of one side": ("zoo-card", changed_card(network=NETWORK | {"grid": [8]})),
    "a card without parameters": ("zoo-card", changed_card(parameters="many")),
    "seconds that no float holds": ("benchmark-json", b'{"a": [' + b"9" * 400 + b"]}"),
    "a run's account that is no JSON": ("shards-run", b"\x80"),
    "a run's account of another kind": ("shards-run", b'{"cell": 1.5, "identity": "x"}'),
    "a run's account without its images": ("shards-run", b"{}"),
    "a manifest of a billion chunks": ("code-manifest", changed_manifest(classes=[["a", 10**12]], chunk=1)),
    "a manifest of half a grid": ("code-manifest", changed_manifest(grid=[4])),
    "a manifest whose grid is text": ("code-manifest", changed_manifest(grid=["4", "4"])),
    "a manifest whose codes are text": ("code-manifest", changed_manifest(codes="8")),
    "rates that no float holds": (
        "selftest-json",
        b'{"started_at": 1, "threads": 1, "environment": {"host_cpu": 1, '
        b'"torch": 1}, "rates": [{"name": 1, "flagged": 1, "n": 1, "low": '
        + b"9" * 400
        + b', "high": 1, "most": null, "least": null, "met": true}]}',
    ),
    "an archive over several disks": (
        "checkpoint",
        b"tPK\x06\x07" + struct.pack("<LQL", 0, 0, 2) + b"PK\x05\x06" + bytes(18),
    ),
    "a header that is no JSON": ("weights", lambda seed: seed.replace(rb"{\"kind", rb"[\"kind", 1)),
    "an array header that never ends": (
        "adm-reference",
        lambda seed: damaged(seed, b"{'descr'", b"((((((((("),
    ),
    "a damaged deflated member": ("adm-reference", lambda seed: seed[:60] + b"\xff" * 8 + seed[68:]),
    "an array of objects": ("image-shard", npz(tokens=np.array([[None]] * 2))),
    "an array of no dimension": ("image-shard", npz(tokens=np.array(3))),
    "a shard that is no archive": ("image-shard", b"torn"),
    "an array that claims more than follows": (
        "codes",
        lambda seed: damaged(seed, b"(3,)", b"(9999999999,)"),
    ),
    "codes that are no archive": ("codes", b"PK\x03\x04 torn"),
    "a code shard's endless header": ("code-shard", lambda seed: seed.replace(b"{'descr'", b"(((((((((")),
    "a plug-in in no encoding": ("plug-in", lambda seed: b"# coding: latin-1\n# \x80\n" + seed),
    "a plug-in that ends the process": ("plug-in", b"raise SystemExit(3)"),
}


def damaged(archive: bytes, old: bytes, new: bytes) -> bytes:
    """An npz in whose members ``old`` was replaced, packed again."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as before, zipfile.ZipFile(out, "w") as after:
        for name in before.namelist():
            after.writestr(name, before.read(name).replace(old, new))
    return out.getvalue()


@pytest.mark.parametrize("finding", FINDINGS)
def test_what_was_found_is_refused_in_one_line(finding: str, tmp_path: Path) -> None:
    name, data = FINDINGS[finding]
    if callable(data):
        (tmp_path / "seeds").mkdir()
        seed = TARGETS[name].seeds(tmp_path / "seeds")[0]
        data = data(seed)
        assert data != seed
    TARGETS[name].run(data, tmp_path)


def test_an_eps_that_calls_itself_png_runs_no_program(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png", "EPS")
    with harmless(tmp_path), pytest.raises(UserError, match="can't be decoded"):
        read_image(tmp_path / "x.png", None)


def png_header(width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(bytes(10))
    chunks = (
        struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in (head, body)
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("side", [9000, 12_000, 2**31 - 1])
def test_an_image_that_claims_to_be_enormous_is_not_unpacked(side: int, tmp_path: Path, recwarn: Any) -> None:
    (tmp_path / "x.png").write_bytes(png_header(side, side))
    with harmless(tmp_path), pytest.raises(UserError, match=r"x\.png' can't be decoded"):
        read_image(tmp_path / "x.png", None)


BOMBED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "reference": ("mu", read_adm),
    "codes": ("codes", Codes.load),
    "shard": ("tokens", lambda path: Shards(path.parent, 2).tokens()),
    "edits": ("images", lambda path: load_edits(path.parent.parent)),
}


@pytest.mark.parametrize("reader", BOMBED)
def test_a_bomb_is_not_unpacked(reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight megabytes in eight thousand bytes of file, refused by the sizes that the archive states."""
    monkeypatch.setattr(arrays, "UNSUSPECTED_BYTES", 1 << 20)
    name, read = BOMBED[reader]
    (tmp_path / "artifacts").mkdir()
    file = {"shard": "shard-00000000-00000002.npz", "edits": "editing-x.npz"}.get(reader, "x.npz")
    path = tmp_path / "artifacts" / file
    path.write_bytes(bomb(name, 8))
    with pytest.raises(UserError, match=r"8,388,7\d\d bytes of arrays in"):
        read(path)


class Canary:
    """A pickle of it makes a file where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.fspath(self.path),)


@pytest.mark.parametrize("save", [torch.save, save_legacy], ids=["archive", "legacy"])
@pytest.mark.parametrize("values", [False, True])
def test_a_checkpoint_runs_no_code(save: Callable[..., None], values: bool, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    save({"model": {"a": torch.zeros(2)}, "extra": Canary(canary)}, tmp_path / "x.pth")
    with harmless(tmp_path), pytest.raises(CheckpointError, match=r"wants to run|broken pickle"):
        read_checkpoint(tmp_path / "x.pth", values)
    assert not canary.exists()
    pickle.loads(pickle.dumps(Canary(canary)))  # noqa: S301
    assert canary.exists()  # it does sing where a pickle is trusted


@pytest.mark.parametrize("target", ["adm-reference", "artifacts", "codes", "image-shard"])
def test_arrays_run_no_code(target: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    held = np.array([Canary(canary)], dtype=object)
    names = ("arr_0", "mu", "sigma", "codes", "labels", "tokens", "images", "samples", "strategy")
    TARGETS[target].run(npz(**dict.fromkeys(names, held)), tmp_path)
    assert not canary.exists()


@pytest.mark.parametrize(
    "path", ["../secret/x.npz", "{absolute}/secret/x.npz", "artifacts/link/x.npz", "a" * 300, "\0"]
)
def test_a_row_names_no_file_outside_the_results(path: str, tmp_path: Path) -> None:
    results, secret = tmp_path / "results", tmp_path / "secret"
    (results / "artifacts").mkdir(parents=True)
    secret.mkdir()
    (results / "artifacts" / "link").symlink_to(secret)
    np.savez(secret / "x.npz", samples=np.zeros((1, 4, 4, 3), np.uint8))
    place = path.replace("{absolute}", str(tmp_path))
    row = dataclasses.replace(_ROW, artifacts={"samples": place, "cost": place})
    with harmless(results, secret):
        found = load_artifacts(row, results)
        assert load_cost(row, results) is None
    assert found.samples is None
    assert len(found.problems) == 1


@pytest.mark.usefixtures("quick_figures")
def test_edits_of_another_folder_write_into_none(tmp_path: Path) -> None:
    results = tmp_path / "a" / "results"
    (results / "artifacts").mkdir(parents=True)
    (results / "rows.jsonl").write_bytes(changed_row(artifacts={}))
    pictures = np.zeros((1, 1, 4, 4, 3), np.uint8)
    edits = {"caption": np.array("c"), "labels": np.array(["a"]), "heads": np.array(["b"])}
    np.savez(
        results / "artifacts" / "editing-x.npz", images=pictures, strategy=np.array("../../../x"), **edits
    )
    with harmless(results):
        write_report(results)
    assert (results / "report" / "figures" / "editing----------x.png").is_file()


def test_tune_writes_no_card_outside_the_zoo(tmp_path: Path) -> None:
    (tmp_path / "zoo").mkdir()
    for name in ("lpd.json", "lpd.safetensors"):
        (tmp_path / name).write_bytes((zoo.SHIPPED / name).read_bytes())
    before = (tmp_path / "lpd.json").read_bytes()
    rows = [dataclasses.replace(_ROW, network="zoo/../lpd", guidance=scale) for scale in (1.0, 2.0)]
    with pytest.raises(UserError, match="expected zoo/NAME or zoo/marks/NAME"):
        tune.record(rows, tmp_path / "zoo")
    assert (tmp_path / "lpd.json").read_bytes() == before


def test_an_interval_wider_than_a_float_is_printed() -> None:
    assert tables.with_interval(0.0, -1e308, 1e308)


def test_rows_that_nothing_can_have_measured_are_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(changed_row(latency_s=1e300))
    with pytest.raises(UserError, match=f"{_ROW.cell}: key 'latency_s' holds 1e\\+300"):
        load_rows(tmp_path)


def test_a_recorded_row_of_odd_values_is_explained_in_one_line(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "rows.jsonl").write_bytes(changed_row(dtype="float3"))
    assert main(["explain", _ROW.cell, "--results", str(tmp_path)]) == 2
    assert "dtype" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["sweep", "x" * 5000],
        ["claims", "--results", "\udcff"],
        ["explain", "strategy=\x1b[2J"],
        ["sample", "strategy=lpd", "--per-class", str(10**9)],
        ["sample", "strategy=lpd", "--scale", str(10**9)],
        ["explain", f"strategy=lpd,threads={10**9}"],
        ["explain", f"strategy=lpd,images={10**12}"],
        ["explain", f"strategy=lpd,batch={10**12}"],
        ["explain", f"strategy=lpd,steps={10**9}"],
        ["list", "--plugin", "exits.py"],
    ],
)
def test_odd_words_are_one_printable_line(
    words: list[str], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("exits.py").write_text("raise SystemExit(3)\n", encoding="utf-8")
    assert main(words) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line[:-1].isprintable()
