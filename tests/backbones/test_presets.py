"""Published networks: counted parameters and step counts are exactly the published ones."""

import re
import tomllib
from dataclasses import fields, replace

import pytest
import torch

from backbones.published_tokenizers import PRESETS, TokenizerInfo
from backbones.transformer import parameter_count
from pardec.errors import UserError
from strategies.decoding.presets import TABLES, preset, preset_info, preset_names
from strategies.decoding.registry import by_family
from strategies.decoding.streams import Streams

COUNTED = {
    **{f"llamagen-{size}-{image}": count for image in (256, 384) for size, count in {
        "b": 110_888_448, "l": 342_910_976, "xl": 774_699_520, "xxl": 1_410_972_672, "3b": 3_096_659_200,
        "1b": 1_199_616_000, "xxxl": 3_893_027_840, "7b": 6_614_589_440,
    }.items()},
    **{f"par-{size}-{regions}x-{image}": count for image in (256, 384, 512) for (size, regions), count in {
        ("b", 4): 110_890_752, ("b", 16): 110_899_968, ("l", 4): 342_914_048, ("l", 16): 342_926_336,
        ("xl", 4): 774_703_360, ("xl", 16): 774_718_720, ("xxl", 4): 1_410_977_280,
        ("xxl", 16): 1_410_995_712, ("3b", 4): 3_096_668_800, ("3b", 16): 3_096_707_200,
    }.items()},
    "rar-s": 133_344_256, "rar-b": 260_923_648, "rar-l": 461_668_352, "rar-xl": 955_425_024,
    "rar-xxl": 1_498_520_704,
    "lpd-l-256": 337_157_120, "lpd-l-512": 337_943_552, "lpd-xl-256": 751_947_520, "lpd-xl-512": 752_930_560,
    "lpd-xxl-256": 1_412_184_576, "lpd-xxl-512": 1_413_364_224,
    "arpg-l": 319_845_376, "arpg-xl": 718_997_760, "arpg-xxl": 1_302_449_664,
    "randar-l": 342_912_000, "randar-l-maskgit": 311_454_720, "randar-xl": 774_700_800,
    "randar-xxl": 1_410_974_208,
}  # fmt: skip
RAR_TENSORS = {"rar-b": 441, "rar-l": 441, "rar-xl": 585, "rar-xxl": 729}
SIDES = {256: 16, 384: 24, 512: 32}


def test_every_published_network_is_listed():
    elsewhere = {"maskgit", "nar", "var", "code", "ctf"}  # counted in tests of their own
    assert set(COUNTED) == {name for name in preset_names() if preset_info(name).family not in elsewhere}


@pytest.mark.parametrize("name", COUNTED)
def test_counted_parameters(name):
    strategy, config, info = preset(name)
    with torch.device("meta"):
        network = strategy.network(config)
    assert parameter_count(network) == info.parameters == COUNTED[name]
    assert not list(network.buffers())
    assert config.grid == (SIDES[info.image_size],) * 2
    assert strategy.name == info.strategy
    assert re.fullmatch(r"arXiv \d{4}\.\d{5}", info.paper)
    assert info.paper.endswith(strategy.paper)


@pytest.mark.parametrize(("name", "tensors"), RAR_TENSORS.items())
def test_published_tensor_counts(name, tensors):
    strategy, config, _ = preset(name)
    with torch.device("meta"):
        network = strategy.network(config)
    assert len(network.state_dict()) == tensors


@pytest.mark.parametrize("name", COUNTED)
def test_published_runs_can_be_planned(name):
    strategy, config, info = preset(name)
    naming = by_family(info.family)
    for run in info.runs:
        chosen = replace(strategy, **run.options)
        chosen.check_steps(config.grid, run.steps)
        sizes = chosen.sizes(config.grid, run.steps)
        assert (len(sizes), sum(sizes)) == (run.steps, config.places)
        setting = naming.setting(run.sampling)
        assert setting.temperature in (1.0, 1.02)
        assert (setting.top_k, setting.top_p) == (0, 1.0)
        if run.sampling:
            assert setting.guidance.scale > 1


STEPS = {
    **{f"llamagen-{size}-{image}": [SIDES[image] ** 2] for size in ("b", "l", "xl", "xxl", "3b")
       for image in (256, 384)},
    **{f"par-l-{n}x-{image}": [steps] for n, image, steps in [
        (4, 256, 67), (16, 256, 31), (4, 384, 147), (16, 384, 51), (4, 512, 259), (16, 512, 79)]},
    **{f"rar-{size}": [256] for size in ("b", "l", "xl", "xxl")},
    "lpd-l-256": [20, 32], "lpd-xl-256": [20, 32], "lpd-xxl-256": [20], "lpd-l-512": [48], "lpd-xl-512": [48],
    **{f"arpg-{size}": [16, 24, 32, 64, 128, 256] for size in ("l", "xl", "xxl")},
    **{f"randar-{size}": [88] for size in ("l", "l-maskgit", "xl", "xxl")},
}  # fmt: skip


@pytest.mark.parametrize(("name", "steps"), STEPS.items())
def test_published_step_counts(name, steps):
    strategy, config, info = preset(name)
    assert [run.steps for run in info.runs] == steps
    # The random order stands in for LPD's, whose draws cost more and do not bear on the count.
    chosen = replace(strategy, order="random") if info.family == "lpd" else strategy
    for count in steps:
        assert chosen.plan(config.grid, count, Streams(0, (0,))).steps == count


@pytest.mark.parametrize(
    ("name", "scale"),
    [("llamagen-b-256", 2.0), ("llamagen-b-384", 2.25), ("llamagen-3b-384", 1.65), ("par-xxl-4x-384", 1.435),
     ("rar-b", 16.0), ("rar-xxl", 8.0), ("lpd-l-256", 4.8), ("lpd-xl-512", 6.0), ("arpg-l", 7.8),
     ("randar-l", 3.4), ("randar-l-maskgit", 4.0), ("randar-xl", 4.0)],
)  # fmt: skip
def test_published_guidance(name, scale):
    info = preset_info(name)
    assert by_family(info.family).setting(info.runs[0].sampling).guidance.scale == scale


def test_published_shapes():
    trunk = preset("llamagen-3b-384")[1].trunk
    assert (trunk.head_width, trunk.mlp_width) == (100, 8704)
    widths = {
        name: preset(f"llamagen-{name}-256")[1].trunk.mlp_width for name in ("b", "l", "xl", "xxl", "7b")
    }
    assert widths == {"b": 2048, "l": 2816, "xl": 3584, "xxl": 4096, "7b": 11008}
    assert {preset(f"rar-{name}")[1].trunk.head_width for name in ("b", "l", "xl", "xxl")} == {48, 64, 80, 88}
    assert preset("par-3b-16x-384")[0].regions == 16
    assert preset("lpd-l-256")[1].trunk.norm_eps == 1e-6


def test_an_unknown_network_names_the_nearest():
    with pytest.raises(UserError, match="unknown network 'lamagen-l-256': did you mean 'llamagen-l-256'"):
        preset("lamagen-l-256")


def test_the_tables_hold_nothing_but_what_is_read():
    content = tomllib.loads(PRESETS.read_text(encoding="utf-8"))
    assert set(content) == {"tokenizer"}
    facts = {field.name for field in fields(TokenizerInfo)} - {"name", "names", "reported"} | {"config"}
    for tokenizer in content["tokenizer"].values():
        assert set(tokenizer) - {"reported"} == facts
    tables = [tomllib.loads(path.read_text(encoding="utf-8")) for path in TABLES.glob("*.toml")]
    assert all(set(table) == {"family", "preset"} for table in tables)
    assert {path.stem for path in TABLES.glob("*.toml")} == {
        name for table in tables for name in table["family"]
    }
    for family in (family for table in tables for family in table["family"].values()):
        assert set(family) - {"naming"} == {"strategy", "paper", "files", "licence", "tokenizer"}
    for model in (model for table in tables for model in table["preset"].values()):
        sizes = {key for key in model if key.isdigit()}
        assert set(model) - sizes <= {
            "title",
            "networks",
            "family",
            "tokenizer",
            "reported",
            "parameters",
            "config",
            "options",
        }
        for size in sizes:
            assert set(model[size]) <= {"config", "file", "files", "parameters", "settings"}
            for run in model[size].get("settings", ()):
                assert set(run) <= {"steps", "options", "sampling", "strategy"}


@pytest.mark.parametrize(
    ("family", "changes", "told"),
    [
        ("llamagen", {"block_size": 30}, "block_size = 30: expected a square"),
        ("arpg", {"block_size": 30}, "block_size = 30: expected a square"),
        ("par", {"ar_token_num": 9, "spe_token_num": 5}, "spe_token_num = 5: expected 8, ar_token_num - 1"),
    ],
)
def test_hyper_parameters_that_contradict_are_refused(family: str, changes: dict[str, int], told: str):
    declared = by_family(family)
    with pytest.raises(UserError, match=told):
        declared.configure({**declared.defaults, **changes})


def test_either_number_of_pars_tokens_says_the_other():
    declared = by_family("par")
    for told in ({"ar_token_num": 9}, {"spe_token_num": 8}):
        assert declared.configure({**declared.defaults, **told})[0].regions == 9
    assert declared.configure(declared.defaults)[0].regions == 4


@pytest.mark.parametrize(("interval", "counted"), [(None, -1), (-0.5, -1), (-1.0, -1), (2.5, 2), (0, 0)])
def test_llamagens_interval_is_a_float(interval: float | None, counted: int):
    found = by_family("llamagen").setting({"cfg_scale": 2.0, "cfg_interval": interval}).guidance
    assert found.interval == counted
