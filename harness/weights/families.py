"""Every family of published files, networks and tokenizers: its keys, and what its shapes describe.

A family takes part by declaring how its shapes are measured (``Published.measure``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from backbones.checkpoints import CheckpointError, KeyMap
from backbones.config import NetworkConfig
from backbones.empty import without_memory
from backbones.published_tokenizers import TokenizerInfo, tokenizer_info, tokenizer_names
from backbones.shapes import Measured, Shapes
from backbones.tokenizers.published import build_tokenizer, tokenizer_by_family, tokenizer_families
from backbones.tokenizers.vq import PublishedTokenizer
from backbones.transformer import parameter_count
from harness.weights.empty import on_meta
from pardec.errors import UserError
from strategies.decoding import presets, registry
from strategies.decoding.base import Strategy
from strategies.published.naming import Published

LARGE = 4096
"""Pixels that every stride divides; building without memory costs the same at any size."""


@dataclass(frozen=True)
class Candidate:
    """The network of one family that a file's shapes describe, without memory.

    presets: published networks of exactly these shapes. facts: what else is known, for readers.
    """

    network: nn.Module
    presets: tuple[str, ...]
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Kind:
    """A family of published files: its keys, and how its shapes become a network."""

    family: str
    keys: KeyMap
    describe: Callable[[Shapes], Candidate]


def kinds() -> list[Kind]:
    """Every family whose files can be told by their shapes."""
    networks = [
        Kind(one.family, one.keys, partial(_network_of, one))
        for one in registry.families().values()
        if one.measure is not None
    ]
    tokenizers = [tokenizer_by_family(name) for name in tokenizer_families()]
    return networks + [Kind(one.family, one.keys, partial(_tokenizer_of, one)) for one in tokenizers]


def _network_of(published: Published, shapes: Shapes) -> Candidate:
    assert published.measure is not None  # by kinds()
    measured = published.measure(shapes)
    try:
        strategy, config = published.configure({**published.defaults, **measured.names})
    except UserError as error:
        raise CheckpointError(str(error)) from error
    config = replace(config, trunk=replace(config.trunk, mlp_width=_mlp_width(published.keys, shapes)))
    network = on_meta(strategy, config)
    twins = _twins(published.family, network)
    facts = _facts(strategy, config, measured, list(twins.values()))
    needs = _needs(published.family, config, "grid" in measured.unseen, twins)
    return Candidate(network, tuple(twins), facts | {"needs": needs})


def _mlp_width(keys: KeyMap, shapes: Shapes) -> int:
    """The hidden size, which the authors' hyper-parameters give only through a rounding rule."""
    entries = [theirs for ours, theirs in keys.names.items() if ours.endswith("mlp.down.weight")]
    return shapes.size(*((key, 1) for key in entries if isinstance(key, str)))


def _twins(family: str, network: nn.Module) -> dict[str, NetworkConfig]:
    """The family's presets of exactly the network's shapes, with their configurations."""
    found = {}
    for name in presets.preset_names():
        info = presets.preset_info(name)
        if (info.family, info.parameters) != (family, parameter_count(network)):
            continue
        strategy, config, _ = presets.preset(name)
        if _shapes(on_meta(strategy, config)) == _shapes(network):
            found[name] = config
    return found


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def _facts(
    strategy: Strategy,
    config: NetworkConfig,
    measured: Measured,
    twins: Sequence[NetworkConfig],
) -> dict[str, str]:
    trunk = config.trunk
    heads = _seen(str(trunk.heads), "heads", measured, [str(one.trunk.heads) for one in twins])
    if trunk.kv_heads is not None:
        shared = trunk.kv_heads * trunk.head_width
        heads += f", keys of fewer heads ({shared} wide together)"
    grid = "{}x{}".format(*config.grid)
    grids = ["{}x{}".format(*one.grid) for one in twins]
    facts = {
        "strategy": f"{strategy.name}, arXiv {strategy.paper}",
        "network": f"depth {trunk.depth}, width {trunk.width}, MLP width {trunk.mlp_width}, heads {heads}",
        "codes": f"{config.codes:,}",
        "classes": f"{config.classes:,}",
        "grid": _seen(grid, "grid", measured, grids),
    }
    return facts | dict(measured.facts)


def _seen(value: str, setting: str, measured: Measured, of_presets: Sequence[str]) -> str:
    """A setting that shapes may not show, and then the presets may."""
    if setting not in measured.unseen:
        return value
    known = " or ".join(dict.fromkeys(of_presets))
    return f"{known} (by preset; shapes don't show it)" if known else "not shown by shapes"


def _needs(family: str, config: NetworkConfig, any_grid: bool, twins: Mapping[str, NetworkConfig]) -> str:
    """What the network takes to make images: a tokenizer, its images' size, labels."""
    tokenizers = _tokenizers_for(family, config.codes, twins)
    speaks = " or ".join(f"tokenizer {one.name} ({one.file}, {one.files})" for one in tokenizers)
    parts = [speaks or f"a tokenizer of {config.codes:,} codes, which none of the published ones has"]
    grids = [one.grid for one in twins.values()] or ([] if any_grid else [config.grid])
    sizes = {(rows * one.stride, columns * one.stride) for rows, columns in grids for one in tokenizers}
    if sizes:
        parts.append(f"{' or '.join(f'{height}x{width}' for height, width in sorted(sizes))} pixels")
    return ", ".join([*parts, f"labels 0 to {config.classes - 1}"])


def _tokenizers_for(family: str, codes: int, twins: Mapping[str, NetworkConfig]) -> list[TokenizerInfo]:
    """The tokenizer of the presets, else of the family's, else any, if it has as many codes."""
    members = [info for info in map(presets.preset_info, presets.preset_names()) if info.family == family]
    named = [info.tokenizer for info in members if info.name in twins] or [one.tokenizer for one in members]
    for names in (dict.fromkeys(named), tokenizer_names()):
        found = [info for info in map(tokenizer_info, names) if info.codes == codes]
        if found:
            return found
    return []


def _tokenizer_of(published: PublishedTokenizer, shapes: Shapes) -> Candidate:
    measured = published.measure(shapes)
    with without_memory():
        tokenizer = published.build(measured.names, (LARGE, LARGE))
        twins = [
            name
            for name in tokenizer_names()
            if tokenizer_info(name).family == published.family
            and _shapes(build_tokenizer(name, (1, 1))) == _shapes(tokenizer)
        ]
    stride = LARGE // tokenizer.grid[0]
    facts = {
        "tokenizer": f"{stride} x {stride} pixels a code",
        "codes": f"{tokenizer.codes:,}",
        "needs": f"images whose sides are multiples of {stride} pixels",
    }
    return Candidate(tokenizer, tuple(twins), facts)
