"""Published files in, our modules out: every layout, and one clear line for everything else."""

import gzip
import io
import os
import pickle
import tarfile
import zipfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from published_files import FAMILIES, published, save_legacy
from safetensors.torch import save_file

from backbones.checkpoints import CheckpointError, KeyMap, load_published, read_checkpoint, read_state_dict
from backbones.weights import load_half

DEPTH, WIDTH, HIDDEN, CODES, CLASSES, PLACES = 2, 32, 96, 11, 3, 16
SWIGLU = HIDDEN  # int(2 * 4 * 32 / 3) = 85, rounded up to a multiple of 32


@pytest.fixture(scope="module", params=FAMILIES)
def case(request):
    return published(request.param)


@pytest.fixture(scope="module")
def llamagen():
    return published("llamagen")


def load(case, path):
    """A fresh network filled from a file through the public loader."""
    network = case.empty()
    load_published(network, read_state_dict(path), case.keys, path.name)
    return network


def refused(case, path):
    """The one line with which a file is refused."""
    with pytest.raises(CheckpointError) as caught:
        load(case, path)
    text = str(caught.value)
    assert "\n" not in text
    assert path.name in text
    return text


# Layouts ---------------------------------------------------------------------------------------------------


def numbered(pattern, depth=DEPTH):
    return [pattern.replace("{i}", str(i)) for i in range(depth)]


def expected_shapes(family):
    """Keys and shapes as the authors' files have them."""
    d, V, C, N, F = WIDTH, CODES, CLASSES, PLACES, SWIGLU
    if family in ("llamagen", "par", "randar"):
        shapes = {
            "cls_embedding.embedding_table.weight": (C + 1, d), "tok_embeddings.weight": (V, d),
            "norm.weight": (d,), "output.weight": (V, d),
        }  # fmt: skip
        block = {
            "attention.wqkv": (3 * d, d), "attention.wo": (d, d), "feed_forward.w1": (F, d),
            "feed_forward.w3": (F, d), "feed_forward.w2": (d, F), "attention_norm": (d,), "ffn_norm": (d,),
        }  # fmt: skip
        shapes |= {f"layers.{i}.{k}.weight": v for i in range(DEPTH) for k, v in block.items()}
        own = {"par": {"spe_tok_embeddings.special_embeddings.weight": (3, d)},
               "randar": {"pos_instruct_embeddings": (1, d)}}  # fmt: skip
        return shapes | own.get(family, {})
    if family == "var":
        shapes = {
            "class_emb.weight": (C + 1, d), "word_embed.weight": (d, 4), "word_embed.bias": (d,),
            "lvl_embed.weight": (4, d), "pos_start": (1, 1, d), "pos_1LC": (1, 30, d),
            "head_nm.ada_lin.1.weight": (2 * d, d), "head_nm.ada_lin.1.bias": (2 * d,),
            "head.weight": (V, d), "head.bias": (V,),
        }  # fmt: skip
        block = {
            "attn.mat_qkv.weight": (3 * d, d), "attn.q_bias": (d,), "attn.v_bias": (d,),
            "attn.scale_mul_1H11": (1, 4, 1, 1), "attn.proj.weight": (d, d), "attn.proj.bias": (d,),
            "ffn.fc1.weight": (4 * d, d), "ffn.fc1.bias": (4 * d,), "ffn.fc2.weight": (d, 4 * d),
            "ffn.fc2.bias": (d,), "ada_lin.1.weight": (6 * d, d), "ada_lin.1.bias": (6 * d,),
        }  # fmt: skip
        return shapes | {f"blocks.{i}.{k}": v for i in range(DEPTH) for k, v in block.items()}
    if family == "rar":
        h, head = 64, d // 4
        shapes = {
            "cls_token": (1, 1, d), "pos_embed": (1, N + 1024, d), "target_aware_pos_embed": (1, N + 1024, d),
            "timesteps_embeddings": (1, N + 100, d), "embeddings.weight": (V + C + 2, d),
            "adaln_before_head.adaLN_modulation.1.weight": (2 * d, d),
            "adaln_before_head.adaLN_modulation.1.bias": (2 * d,),
            "lm_head.weight": (V, d), "lm_head.bias": (V,),
        }  # fmt: skip
        block = {
            "norm1": (d,), "norm2": (d,), "attn.qkv": (3 * d, d), "attn.q_norm": (head,),
            "attn.k_norm": (head,), "attn.proj": (d, d), "mlp.fc1": (h, d), "mlp.fc2": (d, h),
            "adaLN_modulation.1": (6 * d, d),
        }  # fmt: skip
    elif family == "lpd":
        shapes = {
            "fake_latent": (1, d), "pos_embed": (1, N + 1, d), "mask_token": (1, 1, d),
            "class_emb.weight": (C, d), "token_emb.weight": (V, d), "z_proj_ln.weight": (d,),
            "z_proj_ln.bias": (d,), "norm.weight": (d,), "norm.bias": (d,), "head.weight": (V, d),
        }  # fmt: skip
        block = {
            "norm1": (d,), "norm2": (d,), "attn.qkv": (3 * d, d), "attn.proj": (d, d),
            "mlp.fc1": (4 * d, d), "mlp.fc2": (d, 4 * d),
        }  # fmt: skip
    elif family == "maskgit":
        attended, h = 3 * (d // 3), 256
        shapes = {
            "cls_emb.weight": (C + 1, d), "tok_emb.weight": (V + 1, d), "pos_emb.weight": (N, d),
            "reg_tokens.weight": (1, d),
            "last_norm.norm_final.weight": (d,), "last_norm.norm_final.bias": (d,),
            "last_norm.mlp.1.weight": (2 * d, d), "last_norm.mlp.1.bias": (2 * d,),
            "head.weight": (V + 1, d), "head.bias": (V + 1,),
        }  # fmt: skip
        block = {
            "mlp.1.weight": (6 * d, d), "mlp.1.bias": (6 * d,), "ln1.weight": (d,), "ln2.weight": (d,),
            "attn.wq.weight": (attended, d), "attn.wk.weight": (attended, d), "attn.wv.weight": (attended, d),
            "attn.wo.weight": (d, attended), "ff.w1.weight": (h, d), "ff.w3.weight": (h, d),
            "ff.w2.weight": (d, h),
        }  # fmt: skip
        return shapes | {f"transformer.layers.{i}.{k}": v for i in range(DEPTH) for k, v in block.items()}
    else:
        shapes = {
            "embeddings.weight": (V + C + 3, d), "layers.norm.weight": (d,), "layers.to_k.weight": (d, d),
            "layers.to_v.weight": (d, d), "norm.weight": (d,), "head.weight": (V, d),
        }  # fmt: skip
        ffn = {"ffn.w1": (F, d), "ffn.w3": (F, d), "ffn.w2": (d, F), "attn_norm": (d,), "ffn_norm": (d,)}
        for half, parts in (("self_dec", ("to_q", "to_k", "to_v", "proj")), ("cross_dec", ("to_q", "proj"))):
            block = ffn | {f"attn.{part}": (d, d) for part in parts}
            shapes |= {f"layers.{half}.{i}.{k}.weight": v for i in range(2) for k, v in block.items()}
        return shapes
    for i in range(DEPTH):
        shapes |= {f"blocks.{i}.{k}.weight": v for k, v in block.items()}
        shapes |= {f"blocks.{i}.{k}.bias": v[:1] for k, v in block.items()}
    return shapes


def test_keys_and_shapes_are_the_published_ones(case):
    assert {key: tuple(value.shape) for key, value in case.state().items()} == expected_shapes(case.family)


WRAPPINGS = {
    "bare": lambda state: state,
    "model": lambda state: {"model": state, "optimizer": {"lr": 0.1, "state": {}}, "steps": 7},
    "module": lambda state: {"module": state},
    "state_dict": lambda state: {"epoch": 3, "state_dict": state},
    "halton": lambda state: {
        "iter": 9,
        "global_epoch": 1,
        "model_state_dict": state,
        "optimizer_state_dict": {},
    },
    "nested": lambda state: {"model": {"module": state, "step": 1}},
    "options": lambda state: {"model": state, "args": Namespace(lr=1e-4, betas=(0.9, 0.95), name="x")},
    "training": lambda state: {"model": state, "optimizer": {}, "epoch": 1, "scaler": {}, "args": {"a": 1}},
    "distributed": lambda state: {f"module.{key}": value for key, value in state.items()},
    "compiled": lambda state: {"model": {f"_orig_mod.{key}": value for key, value in state.items()}},
    "both": lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
    "both-reversed": lambda state: {f"_orig_mod.module.{key}": value for key, value in state.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize(
    ("save", "suffix"), [(torch.save, ".pt"), (save_legacy, ".pt")], ids=["archive", "legacy"]
)
def test_wrapped_files_load(llamagen, tmp_path, wrapping, save, suffix):
    path = tmp_path / f"weights{suffix}"
    save(WRAPPINGS[wrapping](llamagen.state()), path)
    assert torch.equal(llamagen.logits(load(llamagen, path)), llamagen.logits(llamagen.network))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".safetensors", ".ckpt"])
def test_every_family_loads_from_every_kind_of_file(case, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    state = case.state()
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"model": state} if suffix == ".pth" else state, path)
    network = load(case, path)
    expected = case.logits(case.network)
    assert float((case.logits(case.empty()) - expected).abs().max()) > 0.1
    assert torch.equal(case.logits(network), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_converted(llamagen, tmp_path, dtype):
    path = tmp_path / "weights.pt"
    torch.save({key: value.to(dtype) for key, value in llamagen.state().items()}, path)
    network = load(llamagen, path)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert torch.allclose(llamagen.logits(network), llamagen.logits(llamagen.network), atol=0.2)


def test_loading_leaves_no_tie_to_the_file(llamagen, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(llamagen.state(), path)
    network = load(llamagen, path)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert torch.equal(llamagen.logits(network), llamagen.logits(llamagen.network))


def test_the_rotary_table_of_old_files_is_dropped_for_llamagen_only(tmp_path, case):
    path = tmp_path / "weights.pt"
    torch.save({**case.state(), "freqs_cis": torch.zeros(17, 4, 2)}, path)
    if case.family == "llamagen":
        load(case, path)
    else:
        assert "'freqs_cis' belongs to nothing" in refused(case, path)


# Files that are no checkpoints -----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"hello, this is no checkpoint\n" * 40, b"PK\x03\x04 nothing", bytes(range(256)) * 16],
)
def test_foreign_files(llamagen, tmp_path, suffix, content):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    refused(llamagen, path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_missing_files_and_folders(llamagen, tmp_path, suffix):
    assert "no such file" in refused(llamagen, tmp_path / f"none{suffix}")
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    assert "a folder; expected a file" in refused(llamagen, folder)
    (folder / "inside.bin").touch()
    assert "one in it: inside.bin" in refused(llamagen, folder)
    (tmp_path / f"link{suffix}").symlink_to(tmp_path / "gone")
    assert f"a link to '{tmp_path / 'gone'}', which isn't there" in refused(
        llamagen, tmp_path / f"link{suffix}"
    )
    os.mkfifo(tmp_path / f"pipe{suffix}")
    assert "no regular file" in refused(llamagen, tmp_path / f"pipe{suffix}")


@pytest.mark.parametrize("suffix", [".SAFETENSORS", ".safetensors", ".pt", ".bin", ""])
@pytest.mark.parametrize(
    ("save", "form"),
    [(save_file, "safetensors"), (torch.save, "torch archive"), (save_legacy, "torch legacy file")],
)
def test_the_first_bytes_tell_the_form_and_not_the_name(llamagen, tmp_path, save, form, suffix):
    path = tmp_path / f"weights{suffix}"
    save(llamagen.state(), path)
    assert read_checkpoint(path).form == form
    assert read_checkpoint(path, with_values=False).form == form
    assert torch.equal(llamagen.logits(load(llamagen, path)), llamagen.logits(llamagen.network))


def tar(content):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo("weights.pt")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def zipped(name):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"content")
    return file.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 1234567\n" % 0
FOREIGN = {
    "empty": (b"", "empty (0 bytes), as a failed download leaves it: get it again"),
    "zeros": (b"\0" * 5000, "nothing but zeros (5,000 bytes)"),
    "lfs": (LFS, "a pointer of Git LFS, not the file itself of 1,234,567 bytes: run 'git lfs pull'"),
    "annex": (b"/annex/objects/SHA256E-s99--aa.pt\n", "a pointer of git-annex"),
    "page": (b"\n <!DOCTYPE html><html><title>Sign\nin</title>", 'a web page called "Sign in"'),
    "old-page": (b"\xef\xbb\xbf<!-- x --><HTML lang='en'>", "a web page, not the file behind it"),
    "answer": (b'{"error":"Repository not found"}', 'a text that begins "{"error":"Repository not found"}"'),
    "xml": (b"<?xml version='1.0'?><Code>AccessDenied</Code>", "a text that begins"),
    "utf-8": ("Gewichte für später\n".encode() * 400, 'a text that begins "Gewichte für später'),
    "gzip": (gzip.compress(b"x" * 99), "packed by gzip: unpack it"),
    "tar": (tar(b"x" * 99), "a tar archive: unpack it"),
    "zip": (zipped("weights.pt"), "a zip archive of weights.pt; unpack it"),
    "npz": (zipped("arr_0.npy"), "NumPy arrays (.npz)"),
    "script": (zipped("net/constants.pkl"), "a TorchScript program"),
    "cut-zip": (zipped("archive/data.pkl")[:-9], "truncated or damaged torch archive"),
    "npy": (b"\x93NUMPY\x01\0" * 9, "a NumPy array"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" * 9, "an HDF5 file"),
    "pickle": (pickle.dumps({"a": 1}), "a plain pickle"),
    "picture": (b"\x89PNG\r\n\x1a\n" * 9, "a PNG picture"),
    "short": (b"\x01\x02", "truncated: 2 bytes"),
    "noise": (b"\x01\xff\x02\xfe" * 9, "of no known form: it begins with 01 ff 02 fe"),
}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_refused_for_what_it_is(llamagen, tmp_path, kind, suffix):
    path, (content, reason) = tmp_path / f"weights{suffix}", FOREIGN[kind]
    path.write_bytes(content)
    assert reason in refused(llamagen, path)
    with pytest.raises(CheckpointError) as caught:
        load_half(path)
    assert reason in str(caught.value)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_that_may_not_be_read_is_not_called_damaged(llamagen, tmp_path, monkeypatch, suffix):
    path = tmp_path / f"weights{suffix}"
    save_file(llamagen.state(), path)
    unpatched = Path.open

    def forbidden(self, *arguments, **options):
        if self == path:
            raise PermissionError(13, "Permission denied", str(path))
        return unpatched(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(CheckpointError) as caught:
        load_half(path)
    for text in (refused(llamagen, path), str(caught.value)):
        assert "permission denied" in text
        assert "truncated" not in text
        assert "damaged" not in text


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize(
    ("save", "suffix"),
    [(torch.save, ".pt"), (save_legacy, ".bin"), (save_file, ".safetensors")],
    ids=["archive", "legacy", "safetensors"],
)
def test_truncated_files(llamagen, tmp_path, save, suffix, share):
    path = tmp_path / f"weights{suffix}"
    save(llamagen.state(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: min(int(len(whole) * share), len(whole) - 1)])
    text = refused(llamagen, path)
    assert any(word in text for word in ("truncated", "empty"))
    assert "may run code" not in text


@pytest.mark.parametrize(
    ("save", "suffix"), [(torch.save, ".pt"), (save_legacy, ".bin"), (save_file, ".safetensors")]
)
def test_damaged_files_never_end_in_another_error(tmp_path, save, suffix):
    """Some bytes replaced near the start, where the structure is, or nothing but noise: read or refused."""
    path, rng = tmp_path / f"weights{suffix}", np.random.default_rng(0)
    save({"a": torch.zeros(3, 4), "b": torch.ones(2)}, path)
    whole, refusals = path.read_bytes(), 0
    for trial in range(150):
        damaged = np.frombuffer(whole, dtype=np.uint8).copy()
        damaged[rng.integers(0, min(len(whole), 800), size=3)] = rng.integers(0, 256, size=3)
        noise = b"\x80\x02" + rng.integers(40, 128, size=30, dtype=np.uint8).tobytes()
        path.write_bytes(noise if trial % 5 == 0 else damaged.tobytes())
        try:
            read_state_dict(path)
        except CheckpointError as error:
            refusals += 1
            assert "\n" not in str(error)  # noqa: PT017
    assert refusals > 30


def test_what_holds_no_tensors(llamagen, tmp_path):
    path = tmp_path / "weights.pt"
    for content in (
        {},
        [1, 2],
        torch.zeros(3),
        {"model": 3},
        {"weights": llamagen.state()},
        {1: torch.zeros(2)},
        "text",
        None,
    ):
        torch.save(content, path)
        assert (
            "expected tensors by name, bare or under model, module, state_dict, model_state_dict"
            in refused(llamagen, path)
        )


# States that do not fit ------------------------------------------------------------------------------------


def spoiled(case, tmp_path, changes):
    """A file in which some keys hold something else, or are not there."""
    state = case.state()
    for key, value in changes.items():
        if value is None:
            del state[key]
        else:
            state[key] = value(state[key]) if callable(value) else value
    path = tmp_path / "weights.pt"
    torch.save({"model": state}, path)
    return path


def told(case, network, state):
    with pytest.raises(CheckpointError) as caught:
        load_published(network, state, case.keys, "weights.pt")
    return str(caught.value)


def test_a_missing_key_is_named_with_its_shape(case):
    network, state = case.empty(), case.state()
    for key, shape in expected_shapes(case.family).items():
        text = told(case, network, {name: one for name, one in state.items() if name != key})
        assert f"key '{key}' is missing; expected shape {shape}" in text


def test_an_extra_key_is_named(case, tmp_path):
    text = refused(case, spoiled(case, tmp_path, {"layers.9.more.weight": torch.zeros(2)}))
    assert "key 'layers.9.more.weight' belongs to nothing" in text


def test_a_wrong_shape_is_named(case):
    network, state = case.empty(), case.state()
    for key, shape in expected_shapes(case.family).items():
        text = told(case, network, state | {key: state[key][..., :-1]})
        assert f"key '{key}' has shape {(*shape[:-1], shape[-1] - 1)}; expected {shape}" in text


def test_a_transposed_weight_is_refused(llamagen, tmp_path):
    key = "layers.1.feed_forward.w2.weight"
    text = refused(llamagen, spoiled(llamagen, tmp_path, {key: lambda value: value.T.contiguous()}))
    assert f"key '{key}' has shape (96, 32); expected (32, 96)" in text


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.uint8])
def test_a_wrong_type_is_refused(llamagen, tmp_path, dtype):
    path = spoiled(llamagen, tmp_path, {"norm.weight": lambda value: value.to(dtype)})
    assert f"key 'norm.weight' has type {dtype}; expected a float type" in refused(llamagen, path)


def test_another_family_is_refused(llamagen, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(published("arpg").state(), path)
    assert "is missing" in refused(llamagen, path)


def test_a_prefix_on_some_keys_only_is_an_error(llamagen, tmp_path):
    state = llamagen.state()
    state["module.norm.weight"] = state.pop("norm.weight")
    torch.save(state, tmp_path / "weights.pt")
    assert "'norm.weight' is missing" in refused(llamagen, tmp_path / "weights.pt")


def test_a_parameter_without_an_entry_in_the_key_map_is_a_bug():
    with pytest.raises(KeyError, match=r"no entry for 'norm\.weight'"):
        KeyMap({"head.weight": "head"}).sources("norm.weight")


# Files that want to run code -------------------------------------------------------------------------------


class Bomb:
    """What unpickling would turn into a shell command."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def plain_pickle(content, path):
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".safetensors"])
@pytest.mark.parametrize("save", [torch.save, save_legacy, plain_pickle])
@pytest.mark.parametrize("place", ["whole", "beside", "inside", "options"])
def test_nothing_in_a_file_is_executed(llamagen, tmp_path, suffix, save, place):
    marker, path = tmp_path / "executed", tmp_path / f"weights{suffix}"
    bomb, state = Bomb(marker), llamagen.state()
    content = {
        "whole": bomb,
        "beside": {"model": state, "optimizer": bomb},
        "inside": {**state, "extra": bomb},
        "options": {"model": state, "args": Namespace(lr=bomb)},
    }[place]
    save(content, path)
    refused(llamagen, path)
    assert not marker.exists()


def test_the_bomb_would_have_worked(tmp_path):
    marker = tmp_path / "executed"
    pickle.loads(pickle.dumps(Bomb(marker)))  # noqa: S301
    assert marker.exists()


def test_a_tied_tensor_with_values_of_its_own_is_refused(tmp_path):
    case = published("maskgit")
    text = refused(case, spoiled(case, tmp_path, {"head.weight": lambda value: value + 1}))
    assert "key 'head.weight' is not equal to 'tok_emb.weight'" in text
