"""VAR's multi-scale tokenizer: the published quantiser's recording, its rules, and its file."""

import pytest
import torch

from backbones.tokenizers import load_tokenizer
from backbones.tokenizers.multiscale import (
    SIDES,
    MultiScaleConfig,
    MultiScaleTokenizer,
    filter_of,
)
from backbones.weights import save_half

FILTERS = {
    3: (0, 2, 3),
    4: (0, 1, 2, 3),
    5: (0, 1, 2, 2, 3),
    6: (0, 0, 1, 2, 3, 3),
    7: (0, 0, 1, 2, 2, 3, 3),
    8: (0, 0, 1, 1, 2, 2, 3, 3),
    9: (0, 0, 1, 1, 2, 2, 2, 3, 3),
    10: (0, 0, 1, 1, 1, 2, 2, 3, 3, 3),
    11: (0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 3),
    12: (0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3),
    13: (0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3),
    14: (0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3),
}
"""Which residual convolution follows each scale, by the number of scales (VAR's code)."""


@pytest.mark.parametrize("scales", FILTERS)
def test_filters_are_dealt_as_published(scales):
    assert tuple(filter_of(scale, scales, 4) for scale in range(scales)) == FILTERS[scales]


@pytest.fixture
def small():
    torch.manual_seed(0)
    config = MultiScaleConfig(
        codes=16, width=4, sides=(1, 2, 4), image_size=(8, 8), encoder_width=8, decoder_width=8
    )
    tokenizer = MultiScaleTokenizer(config)
    torch.nn.init.normal_(tokenizer.quantiser.codebook.weight, std=0.3)
    return tokenizer


def test_shapes(small):
    images = torch.rand(3, 3, 8, 8) * 2 - 1
    codes = small.encode(images)
    assert codes.shape == (3, 21)
    assert small.code_shape == (21,)
    assert small.grid == (4, 4)
    assert small.decode(codes).shape == images.shape
    assert sum(side * side for side in SIDES) == 680


def test_inputs_of_a_scale_are_the_sum_before_it_shrunk(small):
    quantiser = small.quantiser
    features = torch.randn(2, 4, 4, 4)
    steps = list(quantiser.steps(features))
    fed = quantiser.inputs(quantiser.encode(features))
    assert fed.shape == (2, 20, 4)
    first = steps[0][3]
    torch.testing.assert_close(fed[:, :4], quantiser.shrunk(first, 1).flatten(2).transpose(1, 2))
    torch.testing.assert_close(fed[:, 4:], steps[1][3].flatten(2).transpose(1, 2))


def test_what_learns_gets_a_gradient(small):
    for name, parameter in small.named_parameters():
        if "second.weight" in name:  # zero at first, which hides what is behind them
            torch.nn.init.normal_(parameter, std=0.1)
    rebuilt, distance = small.taught(small.encoder(torch.rand(2, 3, 8, 8) * 2 - 1))
    (rebuilt.square().mean() + distance).backward()
    for name, parameter in small.named_parameters():
        if "quantiser.filters" in name and int(name.split(".")[2]) not in small.quantiser.filter_of:
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_file_is_read_again(small, tmp_path):
    from dataclasses import asdict

    path = tmp_path / "multiscale.safetensors"
    save_half(small, path, {"kind": "multiscale", **asdict(small.config)})
    loaded = load_tokenizer(path)
    assert isinstance(loaded, MultiScaleTokenizer)
    assert loaded.config == small.config


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sides": (1, 3, 2)}, "must ascend"),
        ({"image_size": (8, 16)}, "no square"),
        ({"image_size": (16, 16)}, "twice the last side"),
    ],
)
def test_impossible_configurations_are_refused(change, expected):
    settings = {"sides": (1, 2, 4), "image_size": (8, 8)} | change
    with pytest.raises(ValueError, match=expected):
        MultiScaleConfig(**settings)
