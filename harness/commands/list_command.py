"""pardec list: strategies, networks and sweeps, with one line each."""

import argparse

from backbones.published_tokenizers import tokenizer_info, tokenizer_names
from harness.cell import sweep_file
from harness.cell.cell import ZOO_PREFIX
from harness.commands.common import add_plugin_flag, add_zoo_flag
from harness.weights import zoo
from strategies.decoding import presets, registry

SUMMARY = "list strategies, networks and sweeps"


def add_arguments(command: argparse.ArgumentParser) -> None:
    add_zoo_flag(command)
    add_plugin_flag(command)


def run(options: argparse.Namespace) -> int:
    for path in options.plugin:
        registry.add_plugin(path)
    strategies = [(name, registry.describe(name)) for name in registry.names()]
    _section("strategies", [*strategies, *registry.faults()])
    _section(
        "networks (ours, trained)",
        [(ZOO_PREFIX + name, _describe(name, options.zoo)) for name in zoo.names(options.zoo)],
    )
    _section("networks (published)", [(name, _published(name)) for name in presets.preset_names()])
    _section("tokenizers (published)", [(name, _tokenizer(name)) for name in tokenizer_names()])
    titles = [
        (name, sweep_file.title_of(sweep_file.SHIPPED / f"{name}.toml")) for name in sweep_file.shipped()
    ]
    _section("sweeps", titles)
    return 0


def _section(title: str, lines: list[tuple[str, str]]) -> None:
    print(title)
    width = max((len(name) for name, _ in lines), default=0)
    for name, text in lines:
        print(f"  {name:<{width}}  {text}")
    if not lines:
        print("  none yet: pardec train --all")


def _describe(name: str, folder: object) -> str:
    card = zoo.read_card(ZOO_PREFIX + name, folder)  # type: ignore[arg-type]
    trunk, grid = card.network.trunk, card.network.grid
    trained = card.content.get("steps_trained")
    return (
        f"{card.content['parameters'] / 1e6:.2f} M parameters, {trunk.depth} x {trunk.width}, "
        f"{grid[0]}x{grid[1]} grid, {card.network.codes} codes"
        + (f", {trained:,} training steps" if trained else "")
        + (f", training seed {card.training_seed}" if card.training_seed else "")
    )


def _published(name: str) -> str:
    info = presets.preset_info(name)
    return (
        f"{info.title}, {info.strategy}, {info.parameters / 1e6:,.0f} M parameters, {info.image_size} px, "
        f"file {' and '.join(file or 'not published' for _, file in info.parts().values())}"
    )


def _tokenizer(name: str) -> str:
    info = tokenizer_info(name)
    return (
        f"{info.title}, {info.codes:,} codes, {info.stride} pixels a code, "
        f"{info.parameters / 1e6:,.0f} M parameters, file {info.file}"
    )
