"""Where a cell's network comes from: a card of the zoo, or a published preset and its authors' files."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backbones.checkpoints import CheckpointError, read_checkpoint
from backbones.config import NetworkConfig
from backbones.published_tokenizers import tokenizer_info
from backbones.weights import read_header
from harness.cell.cell import RANDOM, ZOO_PREFIX, Cell
from harness.weights import zoo
from harness.weights.fetch import folders, locate
from pardec.errors import UserError, unknown
from pardec.file_forms import unopenable
from pardec.hashing import file_sha256
from results.rules import TUNED, is_number
from results.settings import SCHEDULES
from strategies.decoding import presets, registry
from strategies.decoding.base import Strategy


@dataclass(frozen=True)
class Source:
    """Where a cell's network comes from."""

    network: str
    strategy: Strategy
    config: NetworkConfig
    parameters: int
    """As its card or its publication says."""
    learned: Strategy
    """The strategy with the options that the network was trained with, whatever else the cell asks."""
    title: str
    roles: Mapping[str, str] = field(default_factory=dict)
    """Of several networks: as ``Cell.roles``."""


def source_of(cell: Cell) -> Source:
    """Of a cell whose files are found; UserError for a network that is another strategy's, or is missing."""
    return _published(cell) if cell.is_published else _stored(cell)


def _asked(cell: Cell) -> Strategy:
    """The cell's strategy on the base that it asks for, its other options aside."""
    return registry.get(
        cell.strategy, **{name: cell.options[name] for name in ("base",) if name in cell.options}
    )


def _own_network(cell: Cell) -> str:
    """The zoo's network of a strategy: of a training-free one, its base's; of several, the last one's."""
    own = _asked(cell)
    return ZOO_PREFIX + ([own.base or own.name, *own.roles.values()][-1])


def _stored(cell: Cell) -> Source:
    """A network of the zoo; a training-free strategy takes its base's unless told otherwise."""
    own = _asked(cell)
    roles = _role_networks(cell, own)
    network = [cell.network or _own_network(cell), *roles.values()][-1]
    cards = {role: _card(cell, own, name) for role, name in (roles or {"network": network}).items()}
    card = list(cards.values())[-1]
    if cell.checkpoint not in (None, RANDOM):
        raise UserError(
            f"network '{network}' has weights of its own: checkpoint must be absent or '{RANDOM}'"
        )
    for key in ("weights", "tokenizer_weights"):
        if getattr(cell, key) is not None:
            raise UserError(f"network '{network}' has one state of weights: {key} must be absent")
    if cell.tokenizer_checkpoint is not None:
        raise UserError(
            f"network '{network}' has a tokenizer of its own: tokenizer_checkpoint must be absent, not "
            f"'{cell.tokenizer_checkpoint}'"
        )
    strategy, learned = _strategies(cell, own, card.options)
    config = (
        _joined(card.network, {role: one.network for role, one in cards.items()}) if roles else card.network
    )
    parameters = sum(one.content["parameters"] for one in cards.values())
    return Source(network, strategy, config, parameters, learned, strategy.title, roles)


def _role_networks(cell: Cell, own: Strategy) -> dict[str, str]:
    """The network of every role, as the cell or the strategy says; UserError for a role that it hasn't."""
    for role in cell.roles:
        if not own.roles:
            raise UserError(f"roles: strategy '{own.name}' decodes one network; expected network = ...")
        if role not in own.roles:
            raise unknown("role", role, own.roles, f"strategy '{own.name}'")
    found = {role: ZOO_PREFIX + name for role, name in own.roles.items()} | dict(cell.roles)
    if found and cell.network not in ("", [*found.values()][-1]):
        raise UserError(f"network '{cell.network}': strategy '{own.name}' takes roles = ..., one of each")
    return found


def _card(cell: Cell, own: Strategy, network: str) -> zoo.Card:
    card = zoo.read_card(network, cell.zoo)
    if card.strategy not in (own.name, own.base):
        raise UserError(
            f"network '{network}' was trained for strategy '{card.strategy}', not '{cell.strategy}'"
        )
    if cell.checkpoint != RANDOM:
        _check_header(card)
    return card


def _check_header(card: zoo.Card) -> None:
    """UserError for a card that says another network than its weights: of both, these alone are pinned."""
    trunk = zoo.hash_of(card.content["network"]["trunk"])
    said = {**card.content, "trunk_hash": trunk}
    try:
        header = read_header(card.weights)
    except CheckpointError:
        return  # whoever loads them says so, of this cell alone
    for key, value in header.items():
        if said.get(key) != value:
            name, ours, theirs = _first_difference(key, said.get(key), value)
            raise UserError(
                f"network '{ZOO_PREFIX}{card.name}': its card says {name} = {ours!r:.80}, "
                f"its weights {theirs!r:.80}"
            )


def _first_difference(name: str, a: Any, b: Any) -> tuple[str, Any, Any]:
    """Where two values that differ do so: a name with dots, and what stands there in each."""
    if isinstance(a, dict) and isinstance(b, dict):
        key = next(key for key in {**b, **a} if a.get(key) != b.get(key))
        return _first_difference(f"{name}.{key}", a.get(key), b.get(key))
    return name, a, b


def _joined(last: NetworkConfig, configs: Mapping[str, NetworkConfig]) -> NetworkConfig:
    """The last network's configuration with those of the others; UserError where they differ in the image."""
    for role, config in configs.items():
        for key in ("codes", "classes", "grid", "null_class"):
            if getattr(config, key) != getattr(last, key):
                raise UserError(
                    f"role '{role}' has {key} = {getattr(config, key)}, the last network {getattr(last, key)}"
                )
    return dataclasses.replace(last, others=tuple(configs.items())[:-1])


def tuned(cell: Cell) -> Cell:
    """The cell with the guidance scale and its schedule that the card of its network records, of another seed
    or an earlier mark that of the first; UserError where there is none, or none of the cell's schedule."""
    network = cell.network or _own_network(cell)
    if cell.is_published:
        raise UserError(f"guidance = '{TUNED}': network '{network}' has no card; expected a number or false")
    scale, schedule = _recorded_scale(network, cell.zoo)
    if scale is None and zoo.first_of(network) != network:
        scale, schedule = _recorded_scale(zoo.first_of(network), cell.zoo)
    if scale is None:
        raise UserError(
            f"guidance = '{TUNED}': the card of network '{network}' records no scale; make it with: "
            "pardec sweep guidance, pardec tune"
        )
    if cell.guidance_schedule not in (Cell.guidance_schedule, schedule):
        raise UserError(
            f"guidance = '{TUNED}' with guidance_schedule '{cell.guidance_schedule}': the card of network "
            f"'{network}' records a scale for '{schedule}'"
        )
    return dataclasses.replace(cell, guidance=scale, guidance_schedule=schedule)


def _recorded_scale(network: str, folder: str | None) -> tuple[float | None, str]:
    """Guidance scale and schedule of a card, None where it records none."""
    try:
        found = zoo.read_card(network, folder).content["guidance"]
        scale, schedule = next(
            (one["guidance"], one["guidance_schedule"])
            for one in found["grid"]
            if one["guidance"] == found["chosen"]
        )
    except (LookupError, TypeError, StopIteration):
        return None, ""
    return (float(scale), schedule) if is_number(scale) and schedule in SCHEDULES else (None, "")


def with_files(cell: Cell) -> Cell:
    """A published network's cell with the files that are found for it, its tokenizer's too.

    Raises UserError where the network's own is not found.
    """
    info = presets.preset_info(cell.network)
    roles = dict(cell.roles)
    for role, (_, file) in info.parts().items():
        if role not in roles:
            roles[role] = str(_located(cell, info, file))
    own = {"roles": roles} if info.networks else {"checkpoint": roles["network"]}
    tokenizer = cell.tokenizer_checkpoint
    if tokenizer is None:
        speaks = locate(tokenizer_info(info.tokenizer).file, cell.checkpoints)
        tokenizer = None if speaks is None else str(speaks)
    return dataclasses.replace(cell, **own, tokenizer_checkpoint=tokenizer)


def _located(cell: Cell, info: presets.PresetInfo, file: str | None) -> Path:
    if presets.is_trained(info.name):
        return Path(info.name)
    searched = " or ".join(f"'{folder}'" for folder in folders(cell.checkpoints))
    found = None if file is None else locate(file, cell.checkpoints)
    if found is None:
        missing = f"no {file} in {searched}; get it with: pardec fetch {info.name}"
        why = "its authors published no file" if file is None else missing
        paths = "roles = paths" if info.networks else "a path"
        raise UserError(f"network '{cell.network}': {why}; or set checkpoint = '{RANDOM}' or {paths}")
    return found


def _published(cell: Cell) -> Source:
    """A published network, with the authors' file or random weights."""
    strategy, config, info = presets.preset(cell.network)
    own = _asked(cell)
    if info.strategy not in (own.name, own.base):
        raise UserError(f"network '{cell.network}' is for strategy '{info.strategy}', not '{cell.strategy}'")
    roles = {} if cell.checkpoint == RANDOM else dict(cell.roles)
    for role in cell.roles:
        if role not in info.networks:
            raise unknown("role", role, info.networks, f"network '{cell.network}'")
    if info.networks and cell.checkpoint not in (None, RANDOM):
        raise UserError(f"network '{cell.network}' is several: expected roles = ..., not checkpoint")
    for path, weights in (
        (cell.checkpoint, None if roles else cell.weights),
        *((path, cell.weights) for path in roles.values()),
        (cell.tokenizer_checkpoint, cell.tokenizer_weights),
    ):
        _check_file(path, weights, f"network '{cell.network}'")
    if presets.is_trained(cell.network):
        _check_codes(cell)
    published = {field.name: getattr(strategy, field.name) for field in dataclasses.fields(strategy)}
    strategy, learned = _strategies(cell, own, published)
    title = info.title if own.name == info.strategy else f"{info.title}, {own.title}"
    return Source(cell.network, strategy, config, info.parameters, learned, title, roles)


def _check_codes(cell: Cell) -> None:
    """UserError for a tokenizer of other weights than those whose codes the network learned."""
    learned = presets.trained_header(cell.network).get("tokenizer_sha256")
    if cell.tokenizer_checkpoint in (None, RANDOM):
        return
    found = file_sha256(Path(str(cell.tokenizer_checkpoint)))
    if found != learned:
        raise UserError(
            f"network '{cell.network}' learned codes of a tokenizer file with sha256 {learned}, but "
            f"'{cell.tokenizer_checkpoint}' has {found}"
        )


def _strategies(cell: Cell, own: Strategy, options: Mapping[str, Any]) -> tuple[Strategy, Strategy]:
    """The strategy as the cell asks for it, and with a network's own ``options``, those that it has too."""
    valid = {field.name for field in dataclasses.fields(own)}
    known = {name: value for name, value in options.items() if name in valid}
    asked, learned = ({**known, **cell.options}, {**cell.options, **known})
    return registry.get(cell.strategy, **asked), registry.get(cell.strategy, **learned)


def _check_file(path: str | None, weights: str | None, where: str) -> None:
    """UserError for a file that can't be opened, or holds other weights than are asked for."""
    if path in (None, RANDOM):
        if weights is not None:
            raise UserError(f"{where}: weights '{weights}' of no file; expected a checkpoint that holds them")
        return
    reason = unopenable(Path(str(path)))
    if reason is not None:
        raise UserError(f"{where}: '{path}': {reason}")
    if weights is not None:
        read_checkpoint(Path(str(path)), with_values=False, weights=weights)
