"""Weights that are no numbers, and numbers that overflow: one line and 2, or a row that is invalid."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.tokenizers import load_tokenizer
from harness.cell.cell import Cell, normalised
from harness.cli import main
from harness.machine.failures import classify
from harness.subject.pins import finished
from harness.sweep.job import measure_cell
from harness.sweep.messages import Channel
from harness.weights.finite import is_finite
from pardec.errors import NotFinite, UserError
from tests.backbones.published_files import to_published
from tests.harness.harmed import harmed_zoo
from tests.harness.small_published import small_presets  # noqa: F401

CELL = "strategy=arpg,steps=4,batch=4"


def commands(zoo, folder) -> dict[str, list[str]]:
    end = ["--zoo", str(zoo), "--threads", "1"]
    return {
        "sample": ["sample", CELL, "--out", str(folder / "out.png"), "--per-class", "1", *end],
        "generate": ["generate", CELL, "--images", "4", "--out", str(folder / "out"), *end],
        "lossiness": ["lossiness", CELL, "--images", "4", *end],
    }


def assert_one_line(capsys, *words: str) -> None:
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    for word in words:
        assert word in error


@pytest.mark.parametrize("command", ["sample", "generate", "lossiness"])
@pytest.mark.parametrize(
    ("name", "key"), [("arpg", "head"), ("tokenizer", "decoder"), ("tokenizer", "encoder")]
)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_one_line(small_zoo, tmp_path, capsys, command, name, key, value):
    zoo = harmed_zoo(small_zoo, tmp_path, name, key, value)
    assert main(commands(zoo, tmp_path)[command]) == 2
    assert_one_line(capsys, key, "is NaN or infinite")
    assert not list(tmp_path.glob("out/shard-*"))
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("name", ["features", "judge", "tokenizer"])
def test_a_sweep_does_not_begin_with_judges_that_are_no_numbers(small_zoo, tmp_path, name):
    zoo = harmed_zoo(small_zoo, tmp_path, name)
    with pytest.raises(UserError, match=rf"{name}\.safetensors': weight .* is NaN or infinite"):
        finished(normalised(Cell("raster", zoo=str(zoo))))


def encode(folder, *flags: str) -> int:
    (folder / "set" / "ant").mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "set" / "ant" / "0.png")
    arguments = ["encode", "--data", f"imagefolder:{folder / 'set'}", "--out", str(folder / "codes")]
    return main([*arguments, "--threads", "1", *flags])


@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_encode_refuses_weights_that_are_no_numbers(small_zoo, tmp_path, capsys, value):
    zoo = harmed_zoo(small_zoo, tmp_path, "tokenizer", "encoder", value)
    assert encode(tmp_path, "--tokenizer", "fsq", "--checkpoint", str(zoo / "tokenizer.safetensors")) == 2
    assert_one_line(capsys, "tokenizer.safetensors", "encoder", "is NaN or infinite")
    assert not (tmp_path / "codes").exists()


@pytest.mark.parametrize("name", ["small-llamagen", "small-maskgit"])
@pytest.mark.parametrize(
    ("value", "words"), [(torch.nan, "is NaN or infinite"), (3e38, "latents are not finite")]
)
def test_encode_refuses_published_weights_that_overflow(tmp_path, capsys, name, value, words):
    from backbones.published_tokenizers import tokenizer_info
    from backbones.tokenizers.published import random_tokenizer, tokenizer_by_family

    tokenizer = random_tokenizer(name, (4, 4), 0)
    last = tokenizer.encoder.conv_out.weight
    with torch.no_grad():
        last.fill_(value)
    state = to_published(tokenizer, tokenizer_by_family(tokenizer_info(name).family).keys)
    torch.save({"model": state}, tmp_path / "vq.pt")
    flags = ["--tokenizer", name, "--checkpoint", str(tmp_path / "vq.pt"), "--image-size", "8"]
    assert encode(tmp_path, *flags) == 2
    assert_one_line(capsys, words)
    assert not list(tmp_path.glob("codes/*.npy"))


def test_a_decoder_that_overflows_gives_no_black_image(small_zoo, tmp_path, capsys, monkeypatch):
    from backbones.tokenizers.fsq import FSQTokenizer

    decode = FSQTokenizer.decode
    monkeypatch.setattr(FSQTokenizer, "decode", lambda self, codes: decode(self, codes) * 3e38 * 10)
    for command in ("sample", "generate"):
        assert main(commands(small_zoo, tmp_path)[command]) == 2
        assert_one_line(
            capsys, "pixels of 4 of 4 images are NaN or infinite" if command == "generate" else "pixels"
        )
    assert not list(tmp_path.glob("out/shard-*"))
    cell = finished(normalised(Cell("arpg", steps=4, batch=4, images=4, zoo=str(small_zoo), threads=1)))
    with pytest.raises(NotFinite) as caught:
        measure_cell(cell, tmp_path, Channel(io.BytesIO()))
    status, reason = classify(caught.value)
    assert (status, reason.endswith("images are NaN or infinite")) == ("invalid", True)


def test_whole_weights_pass(small_zoo):
    load_tokenizer(small_zoo / "tokenizer.safetensors")
    finished(normalised(Cell("raster", zoo=str(small_zoo))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_one_element_that_is_no_number_is_found_wherever_it_stands(dtype, size):
    generator = torch.Generator().manual_seed(size)
    whole = torch.randn(size, generator=generator).to(dtype)
    assert is_finite(whole)
    for value in (torch.nan, torch.inf, -torch.inf):
        for place in {0, size // 2, size - 1}:
            broken = whole.clone()
            broken[place] = value
            assert not is_finite(broken)


def test_whole_numbers_and_nothing_are_finite():
    assert is_finite(torch.empty(0, 3))
    assert is_finite(torch.tensor([1, 2]))
    assert is_finite(torch.tensor(True))
