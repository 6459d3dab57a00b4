"""Finite scalar quantisation, the tokenizer's file, and the trained tokenizer of the zoo."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from backbones.checkpoints import CheckpointError
from backbones.tokenizers import load_tokenizer
from backbones.tokenizers.fsq import FSQConfig, FSQTokenizer, Quantiser
from backbones.weights import ZOO, save_half
from pardec.hashing import file_sha256

LEVELS = st.lists(st.integers(2, 9), min_size=1, max_size=4).map(tuple)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small convolutions lose more by waiting for a second thread than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@given(LEVELS)
@settings(max_examples=30, deadline=None)
def test_every_code_has_its_own_value_and_is_found_again(levels):
    quantiser = Quantiser(levels)
    codes = torch.arange(math.prod(levels)).view(1, 1, -1)
    values = quantiser.values(codes)  # [1, c, 1, codes]
    assert values.abs().max() == 1
    assert len(values[0, :, 0].T.unique(dim=0)) == math.prod(levels)
    _, found = quantiser(torch.atanh(values * (1 - 1e-3)))
    assert torch.equal(found, codes)


@given(LEVELS, st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_quantised_values_are_those_of_the_codes(levels, seed):
    quantiser = Quantiser(levels)
    latents = torch.randn(2, len(levels), 3, 3, generator=torch.Generator().manual_seed(seed)) * 2
    quantised, codes = quantiser(latents)
    assert codes.dtype == torch.int64
    assert 0 <= codes.min() <= codes.max() < math.prod(levels)
    torch.testing.assert_close(quantised, quantiser.values(codes), atol=1e-6, rtol=0)


def test_gradient_passes_the_rounding():
    latents = torch.tensor([[-0.4, 0.3]]).view(1, 2, 1, 1).requires_grad_()
    Quantiser((8, 8))(latents)[0].sum().backward()
    torch.testing.assert_close(latents.grad, 1 - latents.detach().tanh() ** 2)


@pytest.fixture
def small():
    torch.manual_seed(0)
    return FSQTokenizer(FSQConfig(levels=(3, 5), image_size=(16, 24), encoder_width=4, decoder_width=4))


def test_shapes_and_unequal_sides(small):
    images = torch.rand(3, 3, 16, 24) * 2 - 1
    codes = small.encode(images)
    assert (small.codes, small.grid, small.image_size) == (15, (4, 6), (16, 24))
    assert codes.shape == (3, 4, 6)
    assert small.decode(codes).shape == images.shape
    torch.testing.assert_close(small(images)[0], small.decode(codes), atol=1e-6, rtol=1e-6)


def test_a_code_sees_its_own_patch_only(small):
    images = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    changed = images.clone()
    changed[:, :, 4:8, 8:12] *= -1
    with torch.no_grad():
        difference = (small.encoder(images) != small.encoder(changed)).any(1)[0]  # [4, 6]
    assert difference.nonzero().tolist() == [[1, 2]]


def test_file_keeps_the_tokenizer_in_half_precision(small, tmp_path):
    path = tmp_path / "tokenizer.safetensors"
    config = {"kind": "fsq", "levels": [3, 5], "image_size": [16, 24], "encoder_width": 4, "decoder_width": 4}
    first = save_half(small, path, config)
    assert first == file_sha256(path) == save_half(small, path, config)
    loaded = load_tokenizer(path)
    for name, tensor in small.state_dict().items():
        assert loaded.state_dict()[name].dtype == torch.float32
        assert torch.equal(loaded.state_dict()[name], tensor.half().float())
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_unusable_files_are_named(small, tmp_path):
    path = tmp_path / "tokenizer.safetensors"
    with pytest.raises(CheckpointError, match="no such file"):
        load_tokenizer(path)
    save_half(small, path, {"kind": "fsq"})
    with pytest.raises(CheckpointError, match="size mismatch"):
        load_tokenizer(path)
    save_half(small, path, {"kind": "vq"})
    with pytest.raises(CheckpointError, match="holds 'vq'"):
        load_tokenizer(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_tokenizer(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="no 'pardec' entry"):
        load_tokenizer(path)


@pytest.fixture(scope="module")
def zoo():
    return load_tokenizer()


@pytest.fixture(scope="module")
def card():
    return json.loads((ZOO / "tokenizer.json").read_text())


def test_zoo_card_belongs_to_the_file(zoo, card):
    path = ZOO / "tokenizer.safetensors"
    assert card["weights"]["sha256"] == file_sha256(path)
    assert card["weights"]["bytes"] == path.stat().st_size < 8 * 2**20
    assert (card["codes"], tuple(card["grid"])) == (zoo.codes, zoo.grid) == (32, (16, 16))
    assert card["parameters"] == sum(p.numel() for p in zoo.parameters()) < 1_000_000


@pytest.mark.parametrize(
    ("images", "close_db"), [(1000, 0.3), pytest.param(10_000, 0.02, marks=pytest.mark.slow)]
)
def test_zoo_reconstructs_held_out_images_as_its_card_says(zoo, card, images, close_db):
    from harness.images.data import load_dataset
    from harness.train.tokenizer import reconstruction

    held_out = load_dataset("fashion", "held-out").first(images)
    found = reconstruction(zoo, held_out)
    assert found["psnr_db"] == pytest.approx(card["reconstruction"]["held-out"]["psnr_db"], abs=close_db)
    assert found["psnr_db"] > 28
    assert found["codes_used"] == 32
    # Codes near their full six bits would be noise to the networks that have to predict them.
    assert found["code_entropy_bits"] < 4


def test_variants_are_frozen_by_seed_and_variant(zoo):
    from dataclasses import replace

    from harness.images.codes import Codes, encode_variants
    from harness.images.data import load_dataset, to_float

    held_out = load_dataset("fashion", "held-out")
    few = replace(held_out, images=held_out.images[:20], labels=held_out.labels[:20])
    three, two = encode_variants(few, zoo, 3, seed=5), encode_variants(few, zoo, 2, seed=5)
    assert three.codes.dtype == "uint8"
    assert three.codes.shape == (3, 20, 256)
    assert (three.codes[:2] == two.codes).all()
    assert (three.codes[1] != three.codes[2]).any()
    assert (encode_variants(few, zoo, 2, seed=6).codes[1] != two.codes[1]).any()
    with torch.inference_mode():
        assert (zoo.encode(to_float(few.images)).flatten(1).numpy() == three.codes[0]).all()
    assert isinstance(three, Codes)
