"""Published cells decode to pixels, through the command line and the worker, on small networks."""

import hashlib
import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from backbones import published_tokenizers
from backbones.tokenizers.published import load_published_tokenizer, random_tokenizer, tokenizer_by_family
from harness.cell.cell import Cell, normalised
from harness.cli import main
from harness.images import pixels
from harness.images.data import to_uint8
from harness.images.pixels import detokenize, film_of, shown_steps
from harness.images.shards import Shards
from harness.measure import measure
from harness.subject.pins import finished, pins
from harness.subject.prepare import prepare
from harness.subject.subject import load, run_batch
from harness.sweep.job import measure_cell
from harness.sweep.messages import Channel
from harness.sweep.process import Outcome
from harness.sweep.row import make_row
from pardec.errors import NotFinite
from strategies.decoding import presets
from strategies.decoding.contract.recording import randomise
from strategies.decoding.registry import by_family
from tests.backbones.published_files import to_published
from tests.harness.small_published import NETWORKS, cell, row_of, small_presets  # noqa: F401

# The command line ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", NETWORKS)
def test_sample_of_a_published_network_with_random_weights(family, tmp_path):
    from PIL import Image

    out = tmp_path / "grid.png"
    text = f"strategy={family},network=small-{family}"
    arguments = ["sample", text, "--random-weights", "--per-class", "2", "--scale", "1", "--threads", "1"]
    assert main([*arguments, "--out", str(out)]) == 0
    with Image.open(out) as image:
        assert image.size == (16, 24)
        assert np.asarray(image).std() > 1


def weights(family: str, folder) -> dict[str, str]:
    """Files in the authors' layouts: the network bare, the tokenizer under ``model``."""
    strategy, config, info = presets.preset(f"small-{family}")
    network = strategy.network(config)
    randomise(network)
    keys = by_family(info.family).keys
    torch.save(to_published(network, keys), folder / "network.bin")
    tokenizer = random_tokenizer(info.tokenizer, config.grid, 5)
    keys = tokenizer_by_family(published_tokenizers.tokenizer_info(info.tokenizer).family).keys
    torch.save({"model": to_published(tokenizer, keys)}, folder / "tokenizer.pt")
    return {
        "checkpoint": str(folder / "network.bin"),
        "tokenizer_checkpoint": str(folder / "tokenizer.pt"),
    }


@pytest.mark.parametrize("family", NETWORKS)
def test_generated_images_are_the_tokens_decoded_by_the_file(family, tmp_path):
    files = weights(family, tmp_path)
    text = ",".join([f"strategy={family},network=small-{family}", *(f"{k}={v}" for k, v in files.items())])
    out = tmp_path / "shards"
    arguments = ["generate", text, "--images", "5", "--batch", "2", "--threads", "1", "--out", str(out)]
    assert main([*arguments, "--png", str(tmp_path / "png")]) == 0
    shards = Shards.read(out)
    name = presets.preset_info(f"small-{family}").tokenizer
    tokenizer = load_published_tokenizer(name, (4, 4), tmp_path / "tokenizer.pt")
    expected = to_uint8(tokenizer.decode(torch.from_numpy(shards.tokens()).long().view(-1, 4, 4)))
    found = torch.from_numpy(np.concatenate(list(shards.parts("images"))))
    assert found.shape == (5, 3, 8, 8)
    assert float(found.float().std()) > 1
    assert int((found.int() - expected.int()).abs().max()) <= 1  # batches round differently
    assert len(list((tmp_path / "png").iterdir())) == 5


def refused(capsys, *arguments: str) -> str:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_mistakes_are_one_line(capsys, tmp_path, small_zoo):
    files = weights("par", tmp_path)
    network = f"strategy=par,network=small-par,checkpoint={files['checkpoint']}"
    sample = ("--threads", "1", "--out", str(tmp_path / "x.png"))
    error = refused(capsys, "sample", network, *sample)
    for word in ("small-par", "tokenizer_checkpoint", "'random'", "small-llamagen.pt", "https://hub/"):
        assert word in error
    error = refused(
        capsys, "generate", network, "--out", str(tmp_path / "out"), "--png", str(tmp_path / "png")
    )
    assert "gives tokens and no images" in error
    assert not (tmp_path / "out").exists()
    missing = f"{network},tokenizer_checkpoint=nowhere.pt"
    for command in ("sample", "generate"):
        assert "'nowhere.pt': no such file" in refused(capsys, command, missing, *sample)
    wrong = f"{network},tokenizer_checkpoint={files['checkpoint']}"
    assert "network.bin: key 'encoder.conv_in.weight' is missing" in refused(capsys, "sample", wrong, *sample)
    ours = f"strategy=lpd,tokenizer_checkpoint={files['tokenizer_checkpoint']}"
    error = refused(capsys, "sample", ours, "--zoo", str(small_zoo), *sample)
    assert "tokenizer of its own" in error


def test_random_weights_leave_the_tokenizer_of_the_zoo_alone(tmp_path, small_zoo):
    out = str(tmp_path / "x.png")
    arguments = ["sample", "strategy=lpd,steps=4", "--zoo", str(small_zoo), "--random-weights", "--out", out]
    assert main([*arguments, "--per-class", "1", "--classes", "0"]) == 0
    assert normalised(Cell("lpd", tokenizer_checkpoint="random")) == normalised(Cell("lpd"))
    assert cell().tokenizer_checkpoint == "random"


# Rows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", NETWORKS)
def test_a_sweep_of_a_published_network_gives_images_and_the_reason_for_no_quality(
    family, tmp_path, monkeypatch
):
    row = row_of(cell(family), tmp_path, monkeypatch)
    assert (row.status, row.tier, row.checkpoint) == ("ok", "published", "random")
    assert row.tokenizer == f"{NETWORKS[family]} (random weights)"
    assert row.phases_s["detokenize"] > 0
    assert row.quality is None
    assert row.unmeasured["quality"].startswith("no reference: it takes --reference FILE")
    with np.load(tmp_path / row.artifacts["samples"]) as file:
        assert file["samples"].shape == (3, 8, 8, 3)
        assert file["classes"].tolist() == [0, 1, 2]
        assert file["film"].shape == (row.steps + 1, 8, 8, 3)


def test_one_pass_times_every_number_once_and_says_so(tmp_path, monkeypatch):
    chosen = finished(cell("par", images=2, batch=2, once=True))
    calls = []
    real = measure.run_batch
    monkeypatch.setattr(
        measure, "run_batch", lambda *args, **named: calls.append((args[1], *named)) or real(*args, **named)
    )
    found = measure_cell(chosen, tmp_path, Channel(io.BytesIO()))
    row = make_row(chosen, Outcome("ok", None, found, 1.0), "2026-01-01T00:00:00Z")
    # The second one is for the memory alone, tidied after each step.
    assert calls == [(range(2), "keep_drafts"), (range(2), "after_step")]
    assert (row.throughput_repeats, row.throughput_interval, row.latency_s) == (1, None, None)
    assert list(row.throughput_by_batch) == ["2"]
    assert row.steady is False
    for name in ("throughput_interval", "latency_s"):
        assert "taken once" in row.unmeasured[name]
    again = row_of(cell("par", images=2, batch=2), tmp_path, monkeypatch)
    counted = ("steps", "forwards", "tokens_processed", "flops_per_image", "cache_bytes", "tokens_sha256")
    for name in counted:
        assert getattr(row, name) == getattr(again, name), name


def test_images_are_resized_while_they_are_float(tmp_path, monkeypatch):
    row = row_of(cell("par", evaluation_size=6), tmp_path, monkeypatch)
    with np.load(tmp_path / row.artifacts["samples"]) as file:
        assert file["samples"].shape == (3, 6, 6, 3)
    subject = load(prepare(finished(cell("par"))))
    tokens = torch.arange(16)[None] % 11
    image = subject.tokenizer.decode(tokens.unflatten(1, subject.tokenizer.grid))
    expected = to_uint8(F.interpolate(image, size=(6, 6), mode="bicubic"))
    assert torch.equal(detokenize(subject.tokenizer, tokens, 6), expected)
    assert torch.equal(detokenize(subject.tokenizer, tokens, 8), detokenize(subject.tokenizer, tokens))


def test_without_a_tokenizer_tokens_stay_tokens_and_the_row_says_so(tmp_path, monkeypatch):
    row = row_of(cell(tokenizer_checkpoint=None), tmp_path, monkeypatch)
    assert (row.status, row.tokenizer, row.quality) == ("ok", "none", None)
    assert row.phases_s["detokenize"] is None
    for name in ("quality", "phases_s.detokenize"):
        assert "tokens stay tokens" in row.unmeasured[name]
    assert "samples" not in row.artifacts


def test_a_tokenizer_file_is_named_and_pinned(tmp_path):
    chosen = cell(**weights("par", tmp_path))
    assert pins(chosen)["tokenizer"] == hashlib.sha256((tmp_path / "tokenizer.pt").read_bytes()).hexdigest()
    assert make_row(chosen, Outcome("error", "x", {}, 1.0), "").tokenizer == "small-llamagen"


def test_broken_weights_of_a_tokenizer_are_invalid(tmp_path):
    files = weights("par", tmp_path)
    state = torch.load(files["tokenizer_checkpoint"], weights_only=True)
    state["model"]["decoder.conv_out.bias"][0] = torch.nan
    torch.save(state, files["tokenizer_checkpoint"])
    with pytest.raises(NotFinite, match=r"tokenizer weight 'decoder\.conv_out\.bias'"):
        load(prepare(cell(**files)))


# A few at a time -------------------------------------------------------------------------------------------


def test_images_are_decoded_a_few_at_a_time(monkeypatch):
    tokenizer = random_tokenizer("small-llamagen", (4, 4), 0)
    tokens = torch.randint(11, (7, 16), generator=torch.Generator().manual_seed(0))
    whole = detokenize(tokenizer, tokens)
    sizes = []
    decode = tokenizer.decode
    monkeypatch.setattr(tokenizer, "decode", lambda codes: sizes.append(len(codes)) or decode(codes))
    monkeypatch.setattr(pixels, "PIXELS", 3 * 64 + 5)
    parts = detokenize(tokenizer, tokens)
    assert sizes == [3, 3, 1]
    assert int((parts.int() - whole.int()).abs().max()) <= 1
    monkeypatch.setattr(pixels, "PIXELS", 1)
    assert pixels.images_at_a_time(tokenizer) == 1


def test_a_film_of_large_images_is_short_and_ends_with_the_whole_image(monkeypatch):
    subject = load(prepare(cell("rar")))
    batch = run_batch(subject, [0, 1])
    monkeypatch.setattr(pixels, "PIXELS", 6 * 64)
    film = film_of(subject.tokenizer, batch.decoded.order, batch.decoded.trace)
    assert film.shape == (6, 8, 8, 3)
    assert int(np.abs(film[-1].astype(int) - batch.pixels[0].permute(1, 2, 0).numpy()).max()) <= 1
    grey = [(frame == pixels.GREY).all(axis=2).sum() for frame in film]
    assert sorted(grey, reverse=True) == grey
    assert grey[0] > 30


@pytest.mark.parametrize("steps", [1, 5, 20, 256])
@pytest.mark.parametrize("frames", [4, 6, 8])
def test_frames_are_spread_over_the_steps(steps, frames):
    shown = shown_steps(steps, frames)
    assert len(shown) == min(steps + 1, frames)
    assert sorted(set(shown)) == shown
    assert shown[-1] == steps
    if steps + 1 <= frames:
        assert shown[0] == 0
