"""Targets that read binary files: checkpoints, weights, arrays, images, and plug-ins."""

import dataclasses
import hashlib
import io
import json
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from backbones.checkpoints import read_checkpoint
from backbones.tokenizers import Tokenizer, load_tokenizer
from backbones.tokenizers.fsq import FSQConfig, FSQTokenizer
from backbones.weights import HEADER, load_half
from harness.images.code_shards import CodeShards
from harness.images.codes import Codes
from harness.images.pictures import read_image
from harness.images.shards import Shards, flipped
from harness.quality.adm import check_adm, read_adm
from harness.quality.classifiers import load_features
from harness.subject.editing import read_edit
from harness.weights.inspection import inspect_file
from reports.artifacts import load_artifacts, load_edits
from results.schema import Row
from strategies.decoding import registry
from tests.backbones.published_files import published, save_legacy
from tests.fuzz.target import target, write
from tests.harness.small_codes import write_codes
from tests.reports.synthetic_rows import sweep_rows

SUFFIXES = {b"s": ".safetensors", b"t": ".pth"}
"""First byte of a checkpoint input -> the file's suffix."""


def _checkpoints(folder: Path) -> list[bytes]:
    state = {key: value.half() for key, value in published("lpd").state().items()}
    small = {"tok_embeddings.weight": torch.zeros(4, 2), "norm.weight": torch.ones(2)}
    seeds = [b"s" + save(state), b"s" + save(small)]
    for content in ({"model": small}, small):
        for store in (torch.save, save_legacy):
            store(content, folder / "seed.pth")
            seeds.append(b"t" + (folder / "seed.pth").read_bytes())
    return seeds


@target(
    "checkpoint",
    _checkpoints,
)
def checkpoint(data: bytes, folder: Path) -> None:
    path = write(folder, f"x{SUFFIXES.get(data[:1], '.bin')}", data[1:])
    read_checkpoint(path, with_values=False)
    inspect_file(path)
    read_checkpoint(path)


def _tokenizers(folder: Path) -> list[bytes]:
    tokenizer = FSQTokenizer(FSQConfig(encoder_width=2, decoder_width=2))
    config = {"kind": "fsq", **dataclasses.asdict(tokenizer.config)}
    return [save(tokenizer.state_dict(), metadata={HEADER: json.dumps(config)})]


@target(
    "weights",
    _tokenizers,
    ('"kind": "fsq"', '\\"architecture\\"', "null", "-1", "1e9", "[]", "{}", "99999999"),
)
def weights(data: bytes, folder: Path) -> None:
    path = write(folder, "x.safetensors", data)
    load_half(path)
    for load in (load_tokenizer, load_features):
        try:
            load(path)
        except Exception as error:
            if type(error).__name__ not in ("UserError", "CheckpointError"):
                raise


def npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def _references(folder: Path) -> list[bytes]:
    images = np.zeros((5, 8, 8, 3), np.uint8)
    statistics = {"mu": np.zeros(12), "sigma": np.eye(12)}
    return [npz(arr_0=images), npz(arr_0=images, **statistics), npz(**statistics), objects()]


def objects() -> bytes:
    """An npz of an array of objects, which only a pickle can hold."""
    return npz(arr_0=np.array([{"a": 1}], dtype=object), samples=np.array([None, {}], dtype=object))


_NPY = (
    "'descr': '|O'",
    "'shape': (9999999999,)",
    "'fortran_order': True",
    "\x93NUMPY\x02\x00",
    "(0,)",
    "(-1,)",
)


@target("adm-reference", _references, _NPY)
def adm_reference(data: bytes, folder: Path) -> None:
    path = write(folder, "x.npz", data)
    check_adm(path, 12, 6)
    read_adm(path)


@lru_cache(maxsize=1)
def _row() -> Row:
    return sweep_rows()[3]


def _artifacts(folder: Path) -> list[bytes]:
    pictures = np.zeros((2, 4, 4, 3), np.uint8)
    bits = np.zeros((2, 3), np.float32)
    known = npz(
        step_of_position=np.zeros((2, 2)),
        film=pictures,
        samples=pictures,
        classes=np.arange(2),
        lossiness_bits=bits,
    )
    edits = npz(
        images=pictures[None, :, :, :, :],
        strategy=np.array("lpd"),
        caption=np.array("c"),
        labels=np.array(["a"]),
        heads=np.array(["b", "c"]),
    )
    return [known, edits, objects()]


@target("artifacts", _artifacts, _NPY)
def artifacts(data: bytes, folder: Path) -> None:
    place = folder / "artifacts"
    place.mkdir(exist_ok=True)
    write(place, "editing-x.npz", data)
    row = dataclasses.replace(_row(), artifacts={"samples": "artifacts/editing-x.npz"})
    load_artifacts(row, folder)
    load_edits(folder)


def _codes(folder: Path) -> list[bytes]:
    return [npz(codes=np.zeros((2, 3, 4), np.uint8), labels=np.zeros(3, np.int64)), objects()]


@target("codes", _codes, _NPY)
def codes(data: bytes, folder: Path) -> None:
    Codes.load(write(folder, "x.npz", data))


def _code_shards(folder: Path) -> list[bytes]:
    return [(write_codes(folder / "codes") / "codes-00000000-00000008.npy").read_bytes()]


@target("code-shard", _code_shards, _NPY)
def code_shard(data: bytes, folder: Path) -> None:
    place = folder / "codes"
    if not place.is_dir():
        write_codes(place)
    write(place, "codes-00000000-00000008.npy", data)
    CodeShards.open(place, verify=False)


def _image_shards(folder: Path) -> list[bytes]:
    return [npz(tokens=np.zeros((2, 4), np.int32), images=np.zeros((2, 3, 4, 4), np.uint8)), objects()]


@target("image-shard", _image_shards, _NPY)
def image_shard(data: bytes, folder: Path) -> None:
    write(folder, "shard-00000000-00000002.npz", data)
    shards = Shards(folder, 2)
    flipped(shards, shards)
    list(shards.parts("images"))


@lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer:
    return load_tokenizer()


def _images(folder: Path) -> list[bytes]:
    shades = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    seeds = []
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        out = io.BytesIO()
        Image.fromarray(shades).save(out, kind)
        seeds.append(out.getvalue())
    eps = io.BytesIO()
    Image.fromarray(shades).save(eps, "EPS")
    return [*seeds, eps.getvalue()]


@target("image", _images, ("IHDR", "IDAT", "\x7f\xff\xff\xff"))
def image(data: bytes, folder: Path) -> None:
    path = write(folder, "x.png", data)
    read_image(path, 8)
    mask = folder / "mask.png"
    if not mask.is_file():
        shades = np.zeros((32, 32), np.uint8)
        shades[:16] = 255
        Image.fromarray(shades).save(mask)
    read_edit(_tokenizer(), path, mask)


def _plugins(folder: Path) -> list[bytes]:
    root = Path(__file__).parents[2]
    template = (root / "harness/commands/templates/strategy.py.txt").read_text()
    return [
        (root / "tests/plugins/spiral.py").read_bytes(),
        template.replace("@NAME@", "mine").replace("@TITLE@", "Mine").encode(),
    ]


@target(
    "plug-in",
    _plugins,
    ("raise SystemExit", "name = 3", "\x00", "(" * 300),
)
def plugin(data: bytes, folder: Path) -> None:
    before = dict(registry._plugins)
    # A name of its own for every content: a module is imported once.
    path = write(folder, f"plugin_{hashlib.sha256(data).hexdigest()}.py", data)
    try:
        name = registry.add_plugin(path)
        registry.describe(name)
        registry.get(name)
    finally:
        registry._plugins.clear()
        registry._plugins.update(before)
        path.unlink()


def bomb(name: str = "arr_0", megabytes: int = 4096) -> bytes:
    """A small npz whose one array unpacks to gigabytes."""
    header = io.BytesIO()
    shape = (megabytes << 20,)
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    out = io.BytesIO()
    with (
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(f"{name}.npy", "w", force_zip64=True) as file,
    ):
        file.write(header.getvalue())
        for _ in range(megabytes):
            file.write(bytes(1 << 20))
    return out.getvalue()
