"""The published tokenizers: authors' keys and counts, strict loading, codes that depend on one image."""

import subprocess
import sys

import pytest
import torch
from published_files import save_legacy, to_published
from torch.nn import functional as F

from backbones.checkpoints import CheckpointError
from backbones.published_tokenizers import tokenizer_info, tokenizer_names
from backbones.tokenizers import vq
from backbones.tokenizers.published import (
    build_tokenizer,
    load_published_tokenizer,
    random_tokenizer,
    tokenizer_by_family,
    tokenizer_families,
)
from backbones.transformer import parameter_count
from harness.sweep.process import ROOT
from strategies.decoding.contract.recording import randomise
from strategies.decoding.contract.requirements import TOLERANCE
from strategies.decoding.presets import preset, preset_info, preset_names

SMALL = {
    "vq-llamagen": {"ch": 32, "num_res_blocks": 1, "encoder_ch_mult": [1, 2, 1], "decoder_ch_mult": [2, 1, 1],
                    "z_channels": 8, "codebook_size": 40, "codebook_embed_dim": 4},
    "vq-maskgit": {"hidden_channels": 32, "num_res_blocks": 1, "channel_mult": [1, 2, 1], "z_channels": 6,
                   "codebook_size": 40},
}  # fmt: skip
COUNTED = {
    "vq-llamagen": (71_883_403, 29_298_176, 42_449_795, 343),
    "vq-llamagen-f8": (70_109_835, 28_559_232, 41_415_171, 299),
    "vq-maskgit": (54_515_587, 23_775_104, 30_478_339, 168),
}
"""Parameters of the whole, of the encoder, of the decoder, and tensors, without the training log."""


def small(family, size=(8, 12), seed=0, **changes):
    published = tokenizer_by_family(family)
    tokenizer = published.build({**SMALL[family], **changes}, size).eval()
    randomise(tokenizer, seed)
    return tokenizer.requires_grad_(False)


@pytest.fixture(params=SMALL)
def family(request):
    return request.param


def images(count, size=(8, 12), seed=3):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# What is published -----------------------------------------------------------------------------------------


def test_every_tokenizer_is_listed_and_no_other():
    assert set(tokenizer_names()) == {*COUNTED, "vq-var"}  # whose own tests count it
    assert {tokenizer_info(name).family for name in tokenizer_names()} == set(tokenizer_families())


@pytest.mark.parametrize("name", COUNTED)
def test_counted_parameters(name):
    info = tokenizer_info(name)
    with torch.device("meta"):
        tokenizer = build_tokenizer(name, (16, 24))
    counts = [parameter_count(part) for part in (tokenizer, tokenizer.encoder, tokenizer.decoder)]
    assert (*counts, len(tokenizer.state_dict())) == COUNTED[name]
    assert info.parameters == counts[0]
    assert (tokenizer.codes, tokenizer.grid) == (info.codes, (16, 24))
    assert tokenizer.image_size == (16 * info.stride, 24 * info.stride)


def shapes(name):
    with torch.device("meta"):
        tokenizer = build_tokenizer(name, (16, 16))
    state = to_published(tokenizer, tokenizer_by_family(tokenizer_info(name).family).keys)
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def residual_shapes(prefix, inputs, outputs, bias=True):
    found = {f"{prefix}.norm1": (inputs,), f"{prefix}.norm2": (outputs,)}
    found |= {
        f"{prefix}.conv1": (outputs, inputs, 3, 3), f"{prefix}.conv2": (outputs, outputs, 3, 3),
    }  # fmt: skip
    weights = {f"{key}.weight": shape for key, shape in found.items()}
    biased = found if bias else {f"{prefix}.norm1": (inputs,), f"{prefix}.norm2": (outputs,)}
    return weights | {f"{key}.bias": shape[:1] for key, shape in biased.items()}


def biased(shapes):
    return {f"{key}.weight": shape for key, shape in shapes.items()} | {
        f"{key}.bias": shape[:1] for key, shape in shapes.items()
    }


def attention_shapes(prefix, width):
    projections = {f"{prefix}.{name}": (width, width, 1, 1) for name in ("q", "k", "v", "proj_out")}
    return biased({f"{prefix}.norm": (width,), **projections})


def llamagen_shapes(mult):
    widths, last = [128 * m for m in mult], len(mult) - 1
    found = {"quantize.embedding.weight": (16384, 8)}
    found |= biased({
        "encoder.conv_in": (128, 3, 3, 3), "encoder.norm_out": (512,), "encoder.conv_out": (256, 512, 3, 3),
        "decoder.conv_in": (512, 256, 3, 3), "decoder.norm_out": (128,), "decoder.conv_out": (3, 128, 3, 3),
        "quant_conv": (8, 256, 1, 1), "post_quant_conv": (256, 8, 1, 1),
    })  # fmt: skip
    for half, order, blocks, rescale in (
        ("encoder", widths, 2, "downsample"),
        ("decoder", widths[::-1], 3, "upsample"),
    ):
        before = 128 if half == "encoder" else 512
        for mid in (0, 2):
            found |= residual_shapes(f"{half}.mid.{mid}", 512, 512)
        found |= attention_shapes(f"{half}.mid.1", 512)
        for level, width in enumerate(order):
            prefix = f"{half}.conv_blocks.{level}"
            for j in range(blocks):
                found |= residual_shapes(f"{prefix}.res.{j}", width if j else before, width)
                if level == (last if half == "encoder" else 0):
                    found |= attention_shapes(f"{prefix}.attn.{j}", width)
            if before != width:
                found |= biased({f"{prefix}.res.0.nin_shortcut": (width, before, 1, 1)})
            if level < last:
                found |= biased({f"{prefix}.{rescale}.conv": (width, width, 3, 3)})
            before = width
    return found


def maskgit_shapes():
    widths = [128, 128, 256, 256, 512]
    found = {"quantize.embedding.weight": (1024, 256), "encoder.conv_in.weight": (128, 3, 3, 3)}
    found |= biased({
        "encoder.norm_out": (512,), "encoder.conv_out": (256, 512, 1, 1), "decoder.conv_in": (512, 256, 3, 3),
        "decoder.norm_out": (128,), "decoder.conv_out": (3, 128, 3, 3),
    })  # fmt: skip
    for half, name in (("encoder", "down"), ("decoder", "up")):
        for j in range(2):
            found |= residual_shapes(f"{half}.mid.{j}", 512, 512, bias=False)
            for i, width in enumerate(widths):
                neighbour = max(i - 1, 0) if half == "encoder" else min(i + 1, 4)
                before = width if j else widths[neighbour]
                found |= residual_shapes(f"{half}.{name}.{i}.block.{j}", before, width, bias=False)
                if before != width:
                    found[f"{half}.{name}.{i}.block.{j}.nin_shortcut.weight"] = (width, width, 1, 1)
                if half == "decoder" and i:
                    found |= biased({f"decoder.up.{i}.upsample_conv": (width, width, 3, 3)})
    return found


def test_keys_and_shapes_are_the_published_ones():
    assert shapes("vq-llamagen") == llamagen_shapes([1, 1, 2, 2, 4])
    assert shapes("vq-llamagen-f8") == llamagen_shapes([1, 2, 2, 4])
    assert shapes("vq-maskgit") == maskgit_shapes()


def test_every_network_names_the_tokenizer_of_its_codes():
    for name in preset_names():
        info, (_, config, _) = preset_info(name), preset(name)
        tokenizer = tokenizer_info(info.tokenizer)
        assert tokenizer.codes == config.codes
        assert tuple(side * tokenizer.stride for side in config.grid) == (info.image_size,) * 2
    used = {preset_info(name).family: preset_info(name).tokenizer for name in preset_names()}
    assert {family for family, name in used.items() if name == "vq-maskgit"} == {"rar"}
    assert used.items() >= {(family, "vq-llamagen") for family in ("llamagen", "par", "lpd", "arpg")}


def test_facts_need_no_torch():
    code = (
        "import sys; from backbones.published_tokenizers import tokenizer_info; "
        "print(tokenizer_info('vq-maskgit').file, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["maskgit-vqgan-imagenet-f16-256.bin", "False"]


# Files -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_presets(monkeypatch):
    """The published names stand for small tokenizers, so that files are small."""

    def build(name, grid):
        stride = 4
        published = tokenizer_by_family(tokenizer_info(name).family)
        return published.build(SMALL[published.family], (grid[0] * stride, grid[1] * stride))

    monkeypatch.setattr("backbones.tokenizers.published.build_tokenizer", build)


def published_state(family, seed=0):
    """A small tokenizer's weights under the authors' keys, the training log of LlamaGen's among them."""
    state = to_published(small(family, seed=seed), tokenizer_by_family(family).keys)
    return state | ({"quantize.codebook_used": torch.zeros(65536)} if family == "vq-llamagen" else {})


@pytest.mark.parametrize("save", [torch.save, save_legacy], ids=["archive", "legacy"])
def test_files_in_the_published_layout_load(small_presets, family, tmp_path, save):
    state = published_state(family)
    if family == "vq-llamagen":
        path = tmp_path / "vq_ds16_c2i.pt"
        save({"model": state, "steps": 3, "optimizer": {"lr": 0.1}}, path)
    else:
        path = tmp_path / "maskgit-vqgan-imagenet-f16-256.bin"
        save(state, path)
    loaded, expected = load_published_tokenizer(family, (2, 3), path), small(family)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    codes = torch.arange(12).view(2, 2, 3)
    assert torch.equal(loaded.decode(codes), expected.decode(codes))
    assert torch.equal(loaded.encode(images(2)), expected.encode(images(2)))


def refused(family, path):
    with pytest.raises(CheckpointError) as caught:
        load_published_tokenizer(family, (2, 3), path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    return str(caught.value)


def test_files_that_do_not_fit_are_refused_in_one_line(small_presets, family, tmp_path):
    path = tmp_path / "weights.pt"
    state = published_state(family)
    for key in [*list(state)[::40], "quantize.embedding.weight", "decoder.conv_out.bias"]:
        torch.save({"model": {name: tensor for name, tensor in state.items() if name != key}}, path)
        assert f"key '{key}' is missing" in refused(family, path)
    torch.save(state | {"loss.logvar": torch.zeros(1)}, path)
    assert "key 'loss.logvar' belongs to nothing" in refused(family, path)
    torch.save(state | {"quantize.embedding.weight": state["quantize.embedding.weight"][:-1]}, path)
    assert "key 'quantize.embedding.weight' has shape (39, " in refused(family, path)
    (other,) = set(SMALL) - {family}
    torch.save(published_state(other), path)
    refused(family, path)
    path.write_text("no weights")
    assert "not a checkpoint file: a text that begins" in refused(family, path)
    assert "no such file" in refused(family, tmp_path / "none.pt")


def test_a_file_of_another_stride_is_refused(tmp_path):
    path = tmp_path / "vq_ds8_c2i.pt"
    with torch.device("meta"):
        state = to_published(
            build_tokenizer("vq-llamagen-f8", (2, 2)), tokenizer_by_family("vq-llamagen").keys
        )
    # Shapes alone matter here: every tensor is one number, shown at its size.
    torch.save({"model": {key: torch.zeros(1).expand(value.shape) for key, value in state.items()}}, path)
    with pytest.raises(CheckpointError, match=r"vq_ds8_c2i.pt: key 'encoder.conv_blocks"):
        load_published_tokenizer("vq-llamagen", (2, 2), path)


def test_random_weights_belong_to_their_seed(small_presets, family):
    before = torch.random.get_rng_state()
    codes = torch.arange(6).view(1, 2, 3)
    first, again, other = (random_tokenizer(family, (2, 3), seed).decode(codes) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.isfinite(first).all()
    assert float(first.std()) > 0.01


# Images and codes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COUNTED)
def test_round_trip_at_the_published_sizes(name):
    tokenizer = random_tokenizer(name, (2, 3), 0)
    stride = tokenizer_info(name).stride
    batch = images(1, (2 * stride, 3 * stride))
    codes = tokenizer.encode(batch)
    assert (codes.shape, codes.dtype) == ((1, 2, 3), torch.int64)
    assert 0 <= int(codes.min()) <= int(codes.max()) < tokenizer.codes
    assert tokenizer.decode(codes).shape == batch.shape


def test_an_image_does_not_depend_on_its_batch(family):
    tokenizer, batch = small(family), images(5)
    codes = tokenizer.encode(batch)
    assert len(codes.unique()) > 5
    assert torch.equal(codes, torch.cat([tokenizer.encode(image[None]) for image in batch]))
    alone = torch.cat([tokenizer.decode(grid[None]) for grid in codes])
    torch.testing.assert_close(tokenizer.decode(codes), alone, atol=TOLERANCE, rtol=0)


def test_other_sizes_than_the_stated_one_work(family):
    tokenizer = small(family)
    assert tokenizer.encode(images(1, (16, 4))).shape == (1, 4, 1)
    assert tokenizer.decode(torch.zeros(1, 4, 1, dtype=torch.int64)).shape == (1, 3, 16, 4)


def test_sizes_that_the_stride_does_not_divide_are_refused(family):
    with pytest.raises(ValueError, match=r"image size \(8, 10\) is not divisible by the stride 4"):
        small(family, (8, 10))


def test_codes_are_found_by_distance_over_any_number_of_vectors(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 5, 7, 9, generator=generator)
    codebook = torch.randn(33, 5, generator=generator)
    vectors = latents.permute(0, 2, 3, 1).reshape(-1, 5)
    expected = torch.cdist(vectors.double(), codebook.double()).argmin(1).view(2, 7, 9)
    for rows in (1024, 10, 1):
        monkeypatch.setattr(vq, "LOOKUP_ROWS", rows)
        assert torch.equal(vq.nearest_codes(latents, codebook), expected)
    # Whole numbers, whose distances are exact: of equal ones the first counts.
    whole, rows = latents.mul(3).round(), codebook.mul(3).round()
    first = torch.cdist(whole.permute(0, 2, 3, 1).reshape(-1, 5), rows).square().round().argmin(1)
    assert torch.equal(vq.nearest_codes(whole, torch.cat([rows, rows])), first.view(2, 7, 9))
    assert torch.equal(vq.code_vectors(expected, codebook)[1, :, 2, 3], codebook[expected[1, 2, 3]])


def test_the_length_of_a_code_vector_matters_only_without_normalisation():
    for normalised in (True, False):
        tokenizer = small("vq-llamagen", codebook_l2_norm=normalised)
        batch, codes = images(2), torch.arange(12).view(2, 2, 3)
        before = tokenizer.encode(batch), tokenizer.decode(codes)
        tokenizer.codebook.weight[::2] *= 7
        same = (
            torch.equal(tokenizer.encode(batch), before[0]),
            torch.allclose(tokenizer.decode(codes), before[1], atol=1e-4),
        )
        assert same == (normalised, normalised)


def test_maskgit_sees_images_between_0_and_1():
    tokenizer, batch = small("vq-maskgit"), images(2)
    seen = []
    tokenizer.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    tokenizer.encode(batch)
    torch.testing.assert_close(seen[0], batch / 2 + 0.5)
    tokenizer.decoder.register_forward_hook(lambda module, inputs, output: seen.append(output))
    decoded = tokenizer.decode(torch.zeros(1, 2, 3, dtype=torch.int64))
    torch.testing.assert_close(decoded, seen[1] * 2 - 1)


def test_downsampling_pads_right_and_bottom():
    """A weight on the last tap alone reads the pixel two to the right and below: the pad at the far edge."""
    tokenizer = small("vq-llamagen")
    layer = tokenizer.encoder.conv_blocks[0].rescale
    layer.conv.weight.zero_()
    layer.conv.bias.zero_()
    layer.conv.weight[0, 0, 2, 2] = 1.0
    x = torch.arange(1.0, 17.0).view(1, 1, 4, 4).expand(1, 32, 4, 4)
    assert layer(x)[0, 0].tolist() == [[11.0, 0.0], [0.0, 0.0]]
    assert torch.equal(F.pad(x, (0, 1, 0, 1))[0, 0, 2::2, 2::2], layer(x)[0, 0])
