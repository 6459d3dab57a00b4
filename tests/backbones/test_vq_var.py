"""VAR's tokenizer: its maps, what written maps look like, its file, and what is lent of it to a network."""

from dataclasses import replace

import pytest
import torch

from backbones.checkpoints import CheckpointError, load_published, read_state_dict
from backbones.shapes import Shapes
from backbones.tokenizers.multiscale import MultiScaleQuantiser, lend, sides_for
from backbones.tokenizers.published import build_tokenizer, tokenizer_by_family
from backbones.tokenizers.vq import initialise_tokenizer
from backbones.tokenizers.vq_var import VQVAR, VQVARConfig
from backbones.transformer import parameter_count
from harness.weights.inspection import inspect_file
from tests.backbones.published_files import published, to_published

SMALL = VQVARConfig(mult=(1, 2), width=32, blocks=1, codes=13, code_width=4, image_size=(8, 8))


@pytest.fixture(scope="module")
def tokenizer():
    made = VQVAR(SMALL)
    initialise_tokenizer(made, torch.Generator().manual_seed(0))
    return made.requires_grad_(False).eval()


def test_images_become_maps_from_small_to_large(tokenizer):
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    codes = tokenizer.encode(images)
    assert codes.shape == (2, *tokenizer.code_shape) == (2, 1 + 4 + 9 + 16)
    assert tokenizer.decode(codes).shape == (2, 3, 8, 8)
    assert tokenizer.grid == (4, 4)


def test_unwritten_maps_add_nothing(tokenizer):
    codes = torch.arange(30)[None] % 13
    written = torch.zeros(1, 30, dtype=torch.bool)
    written[:, :5] = True
    quantiser = tokenizer.quantiser
    full = tokenizer.decode_written(codes, torch.ones_like(written))
    assert torch.equal(full, tokenizer.decode(codes))
    part = quantiser.decode(codes, written)
    small = [
        quantiser.enlarged(quantiser.codebook(one).permute(0, 3, 1, 2), k)
        for k, one in enumerate(quantiser.maps(codes)[:2])
    ]
    assert torch.allclose(part, small[0] + small[1], atol=1e-6)
    other = codes.clone()
    other[:, 5:] = 0
    assert torch.equal(tokenizer.decode_written(other, written), tokenizer.decode_written(codes, written))


def test_sides_follow_the_size_of_the_image():
    assert VQVAR(replace(SMALL, image_size=(32, 32))).quantiser.sides == sides_for(16)
    with pytest.raises(ValueError, match="gives a grid \\(4, 4\\), the last side is 5"):
        VQVAR(replace(SMALL, sides=(1, 5)))


def test_counted_parameters_are_the_published_ones():
    with torch.device("meta"):
        made = build_tokenizer("vq-var", (16, 16))
    parts = [
        parameter_count(one) for one in (made, made.encoder, made.decoder, made.quantiser, made.quant_conv)
    ]
    assert parts == [108_948_355, 44_107_872, 64_653_923, 168_064, 9_248]


def test_its_file_is_told_and_loaded_strictly(tokenizer, tmp_path):
    keys = tokenizer_by_family("vq-var").keys
    state = to_published(tokenizer, keys) | {"quantize.ema_vocab_hit_SV": torch.zeros(10, 13)}
    torch.save(state, tmp_path / "vae.pth")
    found = inspect_file(tmp_path / "vae.pth")
    assert (found.families, found.complete) == (("vq-var",), True)
    again = VQVAR(SMALL)
    load_published(again, read_state_dict(tmp_path / "vae.pth"), keys, "vae.pth")
    assert all(torch.equal(one, tokenizer.state_dict()[name]) for name, one in again.state_dict().items())
    del state["quantize.quant_resi.qresi_ls.2.bias"]
    with pytest.raises(CheckpointError, match=r"'quantize.quant_resi.qresi_ls.2.bias' is missing"):
        load_published(again, state, keys, "vae.pth")


def test_a_networks_file_is_told_by_its_shapes(tmp_path):
    case = published("var")
    state = case.state() | {"lvl_1L": torch.zeros(1, 30), "attn_bias_for_masking": torch.zeros(1, 1, 30, 30)}
    state |= {f"blocks.{i}.attn.zero_k_bias": torch.zeros(32) for i in range(2)}
    torch.save(state, tmp_path / "var.pth")
    found = inspect_file(tmp_path / "var.pth")
    assert (found.families, found.complete) == (("var",), True)
    assert found.facts["grid"] == "4x4"
    assert "heads 4" in found.facts["network"]


BUFFERS = {
    "lvl_1L": torch.tensor([[0] + 4 * [1] + 9 * [2] + 16 * [3]]),
    "attn_bias_for_masking": torch.zeros(1, 1, 30, 30),
    "blocks.1.attn.zero_k_bias": torch.zeros(32),
}
for first, last in ((0, 1), (1, 5), (5, 14)):
    BUFFERS["attn_bias_for_masking"][..., first:last, last:] = float("-inf")


def test_buffers_of_a_networks_file_are_what_follows_from_its_sides():
    case = published("var")
    load_published(case.empty(), case.state() | BUFFERS, case.keys, "var.pth")
    for key, tensor in BUFFERS.items():
        with pytest.raises(CheckpointError, match=f"'{key}' is not what follows from the network"):
            load_published(case.empty(), case.state() | {key: tensor + 1}, case.keys, "var.pth")


def test_sides_that_no_published_network_has_are_refused():
    from strategies.published.var import measure

    with pytest.raises(CheckpointError, match="31 places of 4 maps"):
        measure(Shapes({"pos_1LC": (1, 31, 8), "lvl_embed.weight": (4, 8), "pos_start": (1, 1, 8)}))


def test_what_is_lent_is_the_tokenizers_and_stays_float32(tokenizer):
    quantiser = MultiScaleQuantiser(13, 4, (1, 2, 3, 4)).bfloat16()
    lend(quantiser, tokenizer.quantiser)
    assert not list(quantiser.parameters())
    assert not quantiser.state_dict()
    assert quantiser.codebook.weight.dtype == torch.float32
    codes = torch.arange(30)[None] % 13
    assert torch.equal(quantiser.decode(codes), tokenizer.quantiser.decode(codes))
    with pytest.raises(ValueError, match=r"'codebook.weight' is \[13, 4\], expected \[12, 4\]"):
        lend(MultiScaleQuantiser(12, 4, (1, 2)), tokenizer.quantiser)
