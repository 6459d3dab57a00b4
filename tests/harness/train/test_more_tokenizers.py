"""Codes one level off, vectors moved to where features are, and the runs that use them."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones.tokenizers import load_tokenizer
from backbones.tokenizers.fsq import FSQConfig, FSQTokenizer, Quantiser
from backbones.tokenizers.multiscale import MultiScaleConfig, MultiScaleQuantiser
from backbones.weights import save_half
from harness.images.codes import generator_of
from harness.train.more_tokenizers import Reviver, neighbours, train_multiscale, train_robust
from pardec.hashing import file_sha256

LEVELS = st.lists(st.integers(2, 9), min_size=1, max_size=4).map(tuple)


@given(LEVELS, st.integers(0, 2**20))
@settings(max_examples=30, deadline=None)
def test_a_wrong_code_is_one_level_off_in_one_channel(levels, seed):
    quantiser = Quantiser(levels)
    generator = generator_of(seed)
    codes = torch.randint(math.prod(levels), (3, 6, 6), generator=generator)
    wrong = neighbours(codes, quantiser, 1.0, generator)
    assert 0 <= wrong.min() <= wrong.max() < math.prod(levels)
    top = torch.tensor([level - 1 for level in levels]).view(1, -1, 1, 1)
    apart = ((quantiser.values(wrong) - quantiser.values(codes)) / 2 * top).round()  # in levels
    assert set(apart.abs().sum(1).flatten().tolist()) <= {0.0, 1.0}


def test_share_of_wrong_codes_is_uniform_up_to_the_most():
    codes = torch.randint(32, (400, 16, 16), generator=generator_of(0))
    wrong = neighbours(codes, Quantiser((8, 4)), 0.3, generator_of(1))
    shares = (wrong != codes).flatten(1).float().mean(1)
    assert shares.max() < 0.42
    assert shares.mean() == pytest.approx(0.15, abs=0.02)
    assert torch.equal(neighbours(codes, Quantiser((8, 4)), 0.0, generator_of(1)), codes)


def test_idle_vectors_move_to_what_was_asked_for():
    quantiser = MultiScaleQuantiser(12, 2, (1, 2))
    with torch.no_grad():
        quantiser.codebook.weight.fill_(100.0)
    reviver = Reviver(quantiser, seed=0)
    features = torch.randn(4, 2, 2, 2, generator=generator_of(0))
    with torch.no_grad():
        residuals = torch.cat(
            [wanted.flatten(2).mT.flatten(0, 1) for wanted, *_ in quantiser.steps(features)]
        )
    reviver.see(features)
    assert all((vector == residuals).all(1).any() for vector in quantiser.codebook.weight)
    assert reviver.used.sum() == 0
    reviver.see(features)
    assert reviver.used.sum() == 4 * 5


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from tests.harness.images.test_idx_files import write_split

    folder = tmp_path_factory.mktemp("idx")
    write_split(folder, "train", 60)
    write_split(folder, "t10k", 40)
    return f"idx:{folder}"


def test_robust_decoder_keeps_the_codes(data, tmp_path):
    torch.manual_seed(0)
    tokenizer = FSQTokenizer(FSQConfig((8, 4), patch=2, encoder_width=4, decoder_width=4))
    plain = tmp_path / "tokenizer.safetensors"
    save_half(
        tokenizer,
        plain,
        {"kind": "fsq", "levels": [8, 4], "patch": 2, "encoder_width": 4, "decoder_width": 4},
    )
    path = train_robust(tmp_path, plain, data, steps=2)
    before, after = load_tokenizer(plain), load_tokenizer(path)
    same = {name: torch.equal(value, after.state_dict()[name]) for name, value in before.state_dict().items()}
    assert all(equal for name, equal in same.items() if name.startswith("encoder"))
    assert not all(equal for name, equal in same.items() if name.startswith("decoder"))
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["encoder_of_sha256"] == file_sha256(plain)
    assert card["weights"]["sha256"] == file_sha256(path)


def test_multiscale_run_writes_what_is_read_again(data, tmp_path):
    config = MultiScaleConfig(codes=8, width=2, sides=(1, 4, 16), encoder_width=4, decoder_width=4)
    path = train_multiscale(tmp_path, data, steps=3, config=config)
    card = json.loads(path.with_suffix(".json").read_text())
    assert load_tokenizer(path).config == config
    assert card["places"] == 1 + 16 + 256
    assert card["codes"] == 8
    assert set(card["reconstruction"]) == {"train", "held-out"}
