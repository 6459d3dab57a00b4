"""pardec inspect: every family told apart by its shapes, and one line for every file that is no network."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from backbones.checkpoints import Checkpoint, CheckpointError
from backbones.published_tokenizers import tokenizer_info, tokenizer_names
from backbones.tokenizers.published import build_tokenizer, tokenizer_by_family, tokenizer_families
from harness.cli import main
from harness.sweep.process import ROOT
from harness.weights.empty import on_meta
from harness.weights.inspection import identify, inspect_file
from strategies.decoding import registry
from strategies.decoding.presets import preset, preset_info, preset_names
from strategies.decoding.registry import by_family
from tests.backbones.published_files import published, save_legacy, to_published
from tests.replays.common import read_golden

RECORDINGS = [
    path
    for path in sorted((Path(__file__).parents[2] / "goldens").glob("*.safetensors"))
    if any(f"-{kind}-" in path.stem for kind in ("decode", "loss", "tokenizer"))
]
"""Those that carry weights."""


@pytest.fixture(scope="module")
def llamagen():
    return published("llamagen").state()


def store(state, folder, name="weights.pt"):
    path = folder / name
    (save_file if path.suffix == ".safetensors" else torch.save)(state, path)
    return path


# Whole files -----------------------------------------------------------------------------------------------


PARTS = {"var_wo_ddp.": "var", "drafter.": "var", "refiner.": "var", "vae_local.": "vq-var"}
"""Recordings of several modules: the start of a module's keys, and the family of its file."""


def files_of(golden):
    """(family, weights, config) of each file that the recording's weights would be published in."""
    whole = "tokenizer" in golden.path.stem
    starts = [one for one in PARTS if any(key.startswith(one) for key in golden.weights)]
    for start in starts:
        if PARTS[start] == "vq-var" and not whole:
            continue  # the quantiser alone
        part = {key.removeprefix(start): w for key, w in golden.weights.items() if key.startswith(start)}
        yield PARTS[start], part, golden.config | golden.config.get(start.removesuffix("."), {})
    if not starts:
        known = {*registry.families(), *tokenizer_families()}
        owner = golden.family if golden.family in known else owner_of(golden.family)
        yield owner, golden.weights, golden.config


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
def test_every_recorded_network_is_told_by_its_shapes(recording, tmp_path):
    for family, weights, config in files_of(read_golden(recording)):
        path = store({k: v.contiguous() for k, v in weights.items()}, tmp_path)
        if family == "var" and len(config["patch_nums"]) != 10:
            # A table of positions does not say of which maps it is.
            with pytest.raises(CheckpointError, match="which no published sides have"):
                inspect_file(path)
            continue
        found = inspect_file(path)
        assert found.complete, found.verdict()
        assert (found.families, found.presets) == ((family,), ())
        sizes = ("vocab_size", "codebook_size", "vqgan_vocab_size", "V")
        codes = next(config[key] for key in sizes if key in config)
        assert found.facts["codes"] == f"{codes:,}"
        for depth in ("n_layer", "num_hidden_layers", "decoder_depth", "depth"):
            if depth in config:
                assert found.facts["network"].startswith(f"depth {config[depth]}, ")


def owner_of(name: str) -> str:
    """The family of the networks that a training-free strategy decodes."""
    base = registry.get(name).base
    return next(found.family for found in registry.families().values() if found.strategy == base)


def test_there_are_recordings_of_every_family():
    recorded = {family for path in RECORDINGS for family, _, _ in files_of(read_golden(path))}
    assert recorded == {*registry.families(), *tokenizer_families()}


def as_checkpoint(network, keys):
    return Checkpoint(to_published(network, keys), "safetensors", (), "")


ONE_OF_EACH = [
    *("llamagen-b-256", "llamagen-3b-384", "par-xl-4x-384", "par-b-16x-256"),
    *("rar-b", "rar-xxl", "lpd-l-512", "arpg-xl", "maskgit-s-384"),
]


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_published_sizes_are_named(name):
    strategy, config, info = preset(name)
    keys = by_family(info.family).keys
    found = identify(as_checkpoint(on_meta(strategy, config), keys), Path(name))
    assert found.complete
    assert found.families == (info.family,)
    assert found.parameters == info.parameters
    alike = [other for other in preset_names() if preset_info(other).title == info.title]
    shows_grid = info.family in ("rar", "lpd", "maskgit")
    assert list(found.presets) == ([name] if shows_grid else alike)
    assert f"heads {config.trunk.heads}" in found.facts["network"]
    assert info.tokenizer in found.facts["needs"]
    assert f"{info.image_size}x{info.image_size}" in found.facts["needs"]
    assert "labels 0 to 999" in found.facts["needs"]


@pytest.mark.parametrize("name", tokenizer_names())
def test_published_tokenizers_are_named(name):
    info = tokenizer_info(name)
    with torch.device("meta"):
        tokenizer = build_tokenizer(name, (16, 16))
    found = identify(as_checkpoint(tokenizer, tokenizer_by_family(info.family).keys), Path(name))
    assert (found.families, found.presets, found.complete) == ((info.family,), (name,), True)
    assert found.facts["tokenizer"] == f"{info.stride} x {info.stride} pixels a code"


def test_what_shapes_do_not_show_is_said(llamagen, tmp_path):
    facts = inspect_file(store(llamagen, tmp_path)).facts
    assert facts["grid"] == "not shown by shapes"
    assert facts["network"] == "depth 2, width 32, MLP width 96, heads not shown by shapes"
    assert "a tokenizer of 11 codes, which none of the published ones has" in facts["needs"]


def test_grouped_heads_and_odd_mlp_widths_are_measured(tmp_path):
    naming = by_family("llamagen")
    names = {"n_layer": 3, "dim": 48, "n_head": 6, "n_kv_head": 2, "multiple_of": 8, "vocab_size": 20}
    strategy, config = naming.configure({**naming.defaults, **names, "ffn_dim_multiplier": 1.3})
    network = strategy.network(config)
    found = inspect_file(store(to_published(network, naming.keys), tmp_path))
    assert found.complete
    assert found.facts["network"].startswith(f"depth 3, width 48, MLP width {config.trunk.mlp_width}, ")
    assert "keys of fewer heads (16 wide together)" in found.facts["network"]


@pytest.mark.parametrize(
    ("wrap", "wrapper", "prefix"),
    [
        (lambda state: state, None, None),
        (lambda state: {"model": state, "optimizer": {}, "steps": 1}, "model", None),
        (lambda state: {"model": {"module": state}}, "model.module", None),
        (lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}}, "state_dict", "module."),
        (lambda state: {f"_orig_mod.module.{k}": v for k, v in state.items()}, None, "_orig_mod.module."),
        (
            lambda state: {f"module.{k}": v for k, v in state.items()} | {"n_averaged": torch.tensor(3)},
            *(None, "module. (beside n_averaged)"),
        ),
        (
            lambda state: {
                "model": {k.replace("layers.0.", "layers.0._orig_mod."): v for k, v in state.items()}
            },
            *("model", "_orig_mod. (within names)"),
        ),
    ],
)
@pytest.mark.parametrize("save", [torch.save, save_legacy])
def test_wrapper_and_prefix_are_named(llamagen, tmp_path, wrap, wrapper, prefix, save):
    path = tmp_path / "weights.bin"
    save(wrap(llamagen), path)
    found = inspect_file(path)
    assert found.complete
    assert (found.wrapper, found.prefix) == (wrapper, prefix)
    assert found.form == ("torch archive" if save is torch.save else "torch legacy file")


def test_types_are_counted(llamagen, tmp_path):
    half = {k: v.bfloat16() if v.dim() > 1 else v for k, v in llamagen.items()}
    found = inspect_file(store(half, tmp_path, "weights.safetensors"))
    assert found.dtypes == {"bfloat16": 13, "float32": 5}
    assert found.complete


def test_values_stay_on_disk(tmp_path):
    """Files of 96 MB, inspected in a process that may not take half of one."""
    state = {key: value.clone() for key, value in published("arpg").state().items()}
    state["embeddings.weight"] = torch.zeros(750_000, 32)
    save_legacy(state, tmp_path / "legacy.bin")
    for name in ("archive.pt", "plain.safetensors"):
        store(state, tmp_path, name)
    code = (
        "import sys, resource; from pathlib import Path\n"
        "from harness.weights.inspection import inspect_file\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for name in sys.argv[1:]:\n"
        "    before = peak(); found = inspect_file(Path(name)); assert found.complete\n"
        "    assert peak() - before < 48_000, (name, peak() - before)"
    )
    files = sorted(map(str, tmp_path.iterdir()))
    assert len(files) == 3
    subprocess.run([sys.executable, "-c", code, *files], cwd=ROOT, check=True)


# Broken files ----------------------------------------------------------------------------------------------


class Bomb:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def changed(state, **changes):
    """A copy with some tensors replaced, or left out where the change is None; ``__`` stands for a dot."""
    named = {key.replace("__", "."): value for key, value in changes.items()}
    return {key: value for key, value in {**state, **named}.items() if value is not None}


W2 = "layers.1.feed_forward.w2.weight"
BROKEN = {
    "truncated": (2, "truncated or damaged torch archive"),
    "truncated-legacy": (2, "truncated or damaged torch legacy file"),
    "empty": (2, "not a checkpoint file: empty (0 bytes)"),
    "text": (2, 'a text that begins "this is no checkpoint'),
    "pickle-bomb": (2, "refused, the pickle wants to run"),
    "wrong-family": (2, "of no known family: 2 tensors, the first is 'conv1.weight'"),
    "missing-key": (1, "llamagen, but not complete: 1 missing: 'norm.weight' [32]"),
    "transposed": (1, f"1 of another shape: '{W2}' [96, 32] (transposed) instead of [32, 96]"),
    "wrong-dtype": (1, "1 of another type: 'norm.weight' int64 instead of a float"),
    "extra-wrapper": (
        2,
        "bare or under model, module, state_dict, model_state_dict; tensors stand under 'weights.model'",
    ),
    "unknown-prefix": (2, "without 'net.' before every key it would be llamagen"),
    "wrong-vocabulary": (1, "1 of another shape: 'output.weight' [12, 32] instead of [11, 32]"),
    "extra-key": (1, "1 extra: 'layers.0.more.weight'"),
    "no-square": (2, "as rar: 'pos_embed' shows 15 places, which is no square grid"),
    "missing-file": (2, "no such file"),
}


def write_broken(kind, path, llamagen, marker):
    states = {
        "wrong-family": {"conv1.weight": torch.zeros(4, 3), "fc.bias": torch.zeros(4)},
        "missing-key": changed(llamagen, norm__weight=None),
        "transposed": llamagen | {W2: llamagen[W2].T.contiguous()},
        "wrong-dtype": llamagen | {"norm.weight": torch.zeros(32, dtype=torch.int64)},
        "extra-wrapper": {"weights": {"model": llamagen}},
        "unknown-prefix": {f"net.{key}": value for key, value in llamagen.items()},
        "wrong-vocabulary": llamagen | {"output.weight": torch.zeros(12, 32)},
        "extra-key": llamagen | {"layers.0.more.weight": torch.zeros(2)},
        "pickle-bomb": {"model": llamagen, "args": Bomb(marker)},
    }
    if kind in states:
        torch.save(states[kind], path)
    elif kind.startswith("truncated"):
        (save_legacy if "legacy" in kind else torch.save)(llamagen, path)
        path.write_bytes(path.read_bytes()[:-7])
    elif kind == "no-square":
        rar = published("rar").state()
        torch.save(rar | {"pos_embed": rar["pos_embed"][:, 1:]}, path)
    elif kind != "missing-file":
        path.write_bytes({"empty": b"", "text": b"this is no checkpoint\n" * 50}[kind])


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_answered_in_one_line(kind, llamagen, tmp_path, capsys):
    path, marker = tmp_path / "weights.pt", tmp_path / "executed"
    write_broken(kind, path, llamagen, marker)
    status, text = BROKEN[kind]
    assert main(["inspect", str(path)]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"pardec: {path}: ")
    assert text in captured.err
    assert not marker.exists()


def test_the_bomb_would_have_worked(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "executed")))  # noqa: S301
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("family", ["llamagen", "par", "rar", "lpd", "arpg"])
def test_any_missing_key_is_found_and_the_family_kept(family, tmp_path):
    """Whatever one tensor shows alone is taken from the published sizes, so that it is named as missing."""
    state = published(family).state()
    for key in state:
        if family == "par" and key.startswith("spe_tok"):
            continue  # without its transition table it is a complete network of another family
        rest = {name: value for name, value in state.items() if name != key}
        found = identify(Checkpoint(rest, "torch archive", (), ""), Path("file"))
        assert found.families == (family,), key
        assert any(entry.startswith(f"'{key}' ") for entry in found.differences.missing), key


def test_many_differences_are_counted_and_all_listed_on_demand(llamagen, tmp_path, capsys):
    path = store({k: v for k, v in llamagen.items() if "norm" not in k}, tmp_path)
    assert main(["inspect", str(path), "--all"]) == 1
    captured = capsys.readouterr()
    assert captured.out.count("missing: 'layers.") == 4
    assert "5 missing: 'layers.0.attention_norm.weight' [32]" in captured.err
    assert "and 2 more" in captured.err


def test_a_complete_network_is_printed_with_all_that_is_known(llamagen, tmp_path, capsys):
    path = store({"model": llamagen}, tmp_path)
    assert main(["inspect", str(path)]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["family"] == "llamagen"
    assert lines["preset"] == "none"
    assert lines["wrapper"] == "model"
    assert lines["parameters"] == f"{sum(value.numel() for value in llamagen.values()):,}"
    assert lines["classes"] == "3"


def test_several_states_in_a_file_are_named(llamagen, tmp_path, capsys):
    average = {key: value + 1 for key, value in llamagen.items() if key != "norm.weight"}
    path = store({"model": llamagen, "ema": average}, tmp_path)
    assert main(["inspect", str(path)]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["weights"] == "'model' of 'model', 'ema' (other values); --weights ema chooses"
    assert main(["inspect", str(path), "--weights", "ema"]) == 1
    error = capsys.readouterr().err
    assert "1 missing: 'norm.weight' [32]; weights: 'ema' of 'ema', 'model' (other values)" in error
    assert main(["inspect", str(path), "--weights", "emma"]) == 2
    assert "no weights 'emma': did you mean 'ema'?" in capsys.readouterr().err


def test_families_that_fit_equally_are_all_named(llamagen):
    """One tensor that only PAR has and one that only RandAR has: each would have one too many."""
    table, vector = "spe_tok_embeddings.special_embeddings.weight", "pos_instruct_embeddings"
    state = llamagen | {table: torch.zeros(3, 32), vector: torch.zeros(1, 32)}
    found = identify(Checkpoint(state, "torch archive", (), ""), Path("file"))
    assert found.families == ("par", "randar")
    assert found.verdict().startswith("file: par or randar, but not complete: 1 extra")
