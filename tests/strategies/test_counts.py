"""Parameters on one trunk: they differ by exactly what each method adds or removes."""

from dataclasses import replace

import pytest
import torch

from backbones.config import NetworkConfig, TrunkConfig, swiglu_width
from backbones.controlled import controlled_network
from backbones.transformer import parameter_count
from strategies.decoding import registry

WIDTH, DEPTH, CODES, CLASSES, PLACES = 128, 6, 64, 10, 64


def count(name: str, config: NetworkConfig) -> int:
    with torch.device("meta"):
        return parameter_count(registry.get(name).network(config))


@pytest.fixture(scope="module")
def counts():
    config = controlled_network(CODES, CLASSES, (8, 8))
    assert (config.trunk.width, config.trunk.depth) == (WIDTH, DEPTH)
    return {name: count(name, config) for name in registry.trained()}


def test_raster_by_formula(counts):
    hidden = swiglu_width(WIDTH, 32)
    blocks = DEPTH * (4 * WIDTH**2 + 3 * WIDTH * hidden + 2 * WIDTH)
    assert counts["raster"] == blocks + (CLASSES + 1) * WIDTH + 2 * CODES * WIDTH + WIDTH


@pytest.mark.parametrize(
    ("name", "difference"),
    [
        ("rar", PLACES * WIDTH + WIDTH),  # target-aware table; the mask row of its one embedding table
        ("par", 3 * WIDTH),  # transition tokens
        ("lpd", WIDTH),  # the query
        ("maskgit", WIDTH),  # the mask
        ("randar", WIDTH),  # the instruction
        ("arpg", -3 * 2 * WIDTH**2 + 2 * WIDTH**2 + WIDTH + 2 * WIDTH),
    ],
)
def test_differences(counts, name, difference):
    assert counts[name] - counts["raster"] == difference


def test_all_but_arpg_are_within_one_percent_and_arpg_is_four_to_eight_lighter(counts):
    for name in ("rar", "par", "lpd", "randar"):
        assert 1 <= counts[name] / counts["raster"] < 1.01
    assert 0.92 <= counts["arpg"] / counts["raster"] <= 0.96


@pytest.mark.parametrize(
    ("name", "changes", "setting"),
    [
        ("raster", {"positions": "learned"}, "positions"),
        ("par", {"positions": "learned"}, "positions"),
        ("arpg", {"positions": "learned"}, "positions"),
        ("randar", {"positions": "learned"}, "positions"),
        ("arpg", {"qk_norm": True}, "qk_norm"),
        ("rar", {"conditioning": "adaln"}, "positions"),
        ("maskgit", {"conditioning": "adaln"}, "positions"),
        ("maskgit", {"positions": "learned"}, "positions"),
        *(
            (name, {"conditioning": "adaln"}, "conditioning")
            for name in ("raster", "par", "lpd", "arpg", "randar")
        ),
    ],
)
def test_a_trunk_that_a_network_cannot_use_is_refused(name, changes, setting):
    config = controlled_network(CODES, CLASSES, (8, 8))
    with pytest.raises(ValueError, match=f"needs a trunk with {setting} = "):
        count(name, replace(config, trunk=replace(config.trunk, **changes)))


@pytest.mark.parametrize("name", [name for name in registry.trained() if name != "maskgit"])
def test_registers_that_a_network_has_not_are_refused(name):
    config = replace(controlled_network(CODES, CLASSES, (8, 8)), registers=1)
    with pytest.raises(ValueError, match="has no registers, asked for 1"):
        count(name, config)


@pytest.mark.parametrize("name", ["raster", "par", "rar", "lpd", "randar", "maskgit"])
def test_normalised_queries_and_keys_cost_four_vectors_of_a_head_in_every_block(name):
    config = controlled_network(CODES, CLASSES, (8, 8))
    more = count(name, replace(config, trunk=replace(config.trunk, qk_norm=True))) - count(name, config)
    assert more == DEPTH * 4 * config.trunk.head_width


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_grouped_heads_save_the_same_everywhere(heads):
    def config(kv_heads: int | None) -> NetworkConfig:
        trunk = TrunkConfig(depth=4, width=64, heads=4, mlp_width=128, kv_heads=kv_heads)
        return NetworkConfig(trunk, CODES, CLASSES, (8, 8))

    saved = 2 * 64 * 64 * (4 - heads) // 4
    for name in ("raster", "rar", "par", "lpd", "randar"):
        assert count(name, config(None)) - count(name, config(heads)) == 4 * saved
    assert count("arpg", config(None)) - count("arpg", config(heads)) == (2 + 1) * saved
