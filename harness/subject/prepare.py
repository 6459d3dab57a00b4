"""From a cell to what runs: strategy, configuration and guidance, checked before anything is computed."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backbones.checkpoints import read_checkpoint
from backbones.config import NetworkConfig
from backbones.products import can_pack
from backbones.published_tokenizers import tokenizer_info
from backbones.transformer import parameter_count
from harness.cell.cell import RANDOM, ZOO_PREFIX, Cell
from harness.machine.cards import card_here
from harness.weights import zoo
from harness.weights.empty import on_meta
from harness.weights.fetch import folders, locate
from pardec.errors import UserError, unknown
from pardec.file_forms import unopenable
from results.rules import TUNED, is_number
from results.settings import SCHEDULES
from strategies.decoding import presets, registry
from strategies.decoding.base import Strategy
from strategies.decoding.guidance import Guidance
from strategies.decoding.plan import Plan
from strategies.decoding.sampling import DeclaredAcceptance, StreamSampler
from strategies.decoding.streams import Streams


@dataclass(frozen=True)
class Prepared:
    """A cell that can run."""

    cell: Cell
    strategy: Strategy
    config: NetworkConfig
    guidance: Guidance | None
    undecided: tuple[str, ...] = ()
    """Options of the strategy that are left to measurement: until then it can be planned, but not run."""

    def plan(self, images: Iterable[int], known: np.ndarray | None = None) -> Plan:
        """The plan of these images; known: raster positions [M] whose tokens are given."""
        return self.strategy.plan(self.config.grid, self.cell.steps, self.streams(images), known)

    def streams(self, images: Iterable[int]) -> Streams:
        return Streams(self.cell.seed, tuple(images))

    def sampler(self, images: Iterable[int]) -> StreamSampler:
        cell, streams = self.cell, self.streams(images)
        if cell.acceptance is None:
            return StreamSampler(streams, cell.temperature, cell.top_k, cell.top_p)
        return DeclaredAcceptance(
            streams, cell.temperature, cell.top_k, cell.top_p, acceptance=cell.acceptance
        )

    def rows(self, batch: int) -> int:
        """Rows of the network's batch: both halves of guidance."""
        return batch * (1 if self.guidance is None else 2)


def load_plugins(paths: Iterable[str]) -> None:
    for path in paths:
        registry.add_plugin(Path(path))


@dataclass(frozen=True)
class Source:
    """Where a cell's network comes from."""

    network: str
    strategy: Strategy
    config: NetworkConfig
    parameters: int
    """As its card or its publication says."""
    title: str
    roles: Mapping[str, str] = field(default_factory=dict)
    """Of several networks: as ``Cell.roles``."""


def prepare(cell: Cell, around_given: bool = False) -> Prepared:
    """Everything that can be known of a cell without its weights; UserError for what can't be.

    around_given: whether its images are drawn around given tokens, however many those will be.
    """
    load_plugins(cell.plugin)
    check_device(cell.device, cell.dtype)
    if cell.is_published and cell.checkpoint is None:
        cell = with_files(cell)
    if cell.guidance == TUNED:
        cell = _tuned(cell)
    if cell.cuda_graphs and torch.device(cell.device).type != "cuda":
        raise UserError(f"cuda_graphs = true on device '{cell.device}': expected cuda or cuda:N")
    if cell.one_graph and not cell.cuda_graphs:
        raise UserError("one_graph = true: expected cuda_graphs = true with it")
    packable = can_pack(torch.device(cell.device), dtype_of(cell))
    if cell.products == "auto":
        cell = dataclasses.replace(cell, products="packed" if packable else "plain")
    if cell.products == "packed" and not packable:
        raise UserError(
            f"products 'packed' with dtype '{cell.dtype}' on device '{cell.device}': expected float32 or "
            "bfloat16 on a CPU whose torch has oneDNN"
        )
    if cell.attention == "auto":
        card = card_here(cell.device, cell.threads)
        cell = dataclasses.replace(cell, attention=card.attention if card else "mask")
    source = _published(cell) if cell.is_published else _stored(cell)
    strategy, config = source.strategy, source.config
    if cell.acceptance is not None and not strategy.tests_drafts:
        raise UserError(f"acceptance: strategy '{cell.strategy}' tests no drafts against random numbers")
    if strategy.reads_code_vectors and cell.is_published and cell.tokenizer_checkpoint is None:
        raise UserError(
            f"strategy '{cell.strategy}' compares the vectors of codes: it needs tokenizer_checkpoint = "
            f"'{RANDOM}' or a path"
        )
    guidance = None
    if cell.scale is not None:
        guidance = Guidance(
            cell.scale,
            cell.guidance_schedule,  # type: ignore[arg-type]
            cell.guidance_power,
            cell.guidance_interval,
        )
        if not config.null_class:
            raise UserError(f"network '{source.network}' has no null class, so guidance must be false")
    left = tuple(name for name in strategy.timed_options if cell.options.get(name) == registry.AUTO)
    prepared = Prepared(cell, strategy, config, guidance, left)
    if around_given:
        check_takes_given(strategy)
    try:
        plan = prepared.plan([0], np.zeros(1, dtype=np.int64) if around_given else None)
        parameters = parameter_count(on_meta(strategy, config))
    except ValueError as error:
        raise UserError(f"strategy '{cell.strategy}': {error}") from None
    if cell.one_graph and plan.opened:
        raise UserError(
            f"one_graph = true: strategy '{cell.strategy}' decides while decoding; without it each of its "
            "passes is recorded"
        )
    if parameters != source.parameters:
        raise UserError(
            f"options {dict(cell.options)} need a network of {parameters:,} parameters, but "
            f"'{source.network}' has {source.parameters:,}"
        )
    label = cell.label or default_label(source.title, cell)
    whole = dataclasses.replace(
        cell, network=source.network, roles=dict(source.roles), steps=plan.steps, label=label
    )
    return dataclasses.replace(prepared, cell=whole)


def check_takes_given(strategy: Strategy) -> None:
    """UserError for a strategy of a fixed order, naming those that take given tokens."""
    if not strategy.any_order:
        able = ", ".join(sorted(name for name in registry.loadable() if registry.get(name).any_order))
        raise UserError(
            f"strategy '{strategy.name}' has a fixed order and takes no given tokens; valid: {able}"
        )


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
    strategy = registry.get(cell.strategy, **{**_known(own, card.options), **cell.options})
    config = (
        _joined(card.network, {role: one.network for role, one in cards.items()}) if roles else card.network
    )
    parameters = sum(one.content["parameters"] for one in cards.values())
    return Source(network, strategy, config, parameters, strategy.title, roles)


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
    return card


def _joined(last: NetworkConfig, configs: Mapping[str, NetworkConfig]) -> NetworkConfig:
    """The last network's configuration with those of the others; UserError where they differ in the image."""
    for role, config in configs.items():
        for key in ("codes", "classes", "grid", "null_class"):
            if getattr(config, key) != getattr(last, key):
                raise UserError(
                    f"role '{role}' has {key} = {getattr(config, key)}, the last network {getattr(last, key)}"
                )
    return dataclasses.replace(last, others=tuple(configs.items())[:-1])


def _tuned(cell: Cell) -> Cell:
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
    published = {field.name: getattr(strategy, field.name) for field in dataclasses.fields(strategy)}
    strategy = registry.get(cell.strategy, **{**_known(own, published), **cell.options})
    title = info.title if own.name == info.strategy else f"{info.title}, {own.title}"
    return Source(cell.network, strategy, config, info.parameters, title, roles)


def _known(strategy: Strategy, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a network that the strategy has too."""
    valid = {field.name for field in dataclasses.fields(strategy)}
    return {name: value for name, value in options.items() if name in valid}


def check_counts(prepared: Prepared) -> None:
    """UserError for a cell whose steps would follow from the content of random weights."""
    cell, strategy = prepared.cell, prepared.strategy
    if strategy.decides_steps and cell.checkpoint == RANDOM and cell.acceptance is None:
        declare = " or a declared share of accepted drafts, e.g. acceptance = 0.7"
        raise UserError(
            f"strategy '{strategy.name}' decides its steps by the content, of which random weights tell "
            f"nothing: it needs trained weights{declare if strategy.tests_drafts else ''}"
        )


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


def check_tokenizer(cell: Cell) -> None:
    """UserError where the cell's tokens would stay tokens: a published network without its tokenizer."""
    if cell.is_published and cell.tokenizer_checkpoint is None:
        info = tokenizer_info(presets.preset_info(cell.network).tokenizer)
        raise UserError(
            f"network '{cell.network}' gives tokens and no images without tokenizer_checkpoint = "
            f"'{RANDOM}' or the path of {info.file} ({info.files})"
        )


def default_label(title: str, cell: Cell) -> str:
    """The title of strategy or network and the options that make the cell special."""
    options = ", ".join(f"{name} {value}" for name, value in sorted(cell.options.items()))
    return f"{title} ({options})" if options else title


def check_device(device: str, dtype: str) -> None:
    """UserError for a device that torch doesn't know or this machine doesn't have."""
    try:
        kind = torch.device(device)
    except RuntimeError:
        raise UserError(f"device '{device}': expected cpu, cuda or cuda:N") from None
    if kind.type not in ("cpu", "cuda"):
        raise UserError(f"device '{device}': expected cpu, cuda or cuda:N")
    if kind.type == "cuda" and (kind.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device '{device}': this machine has {torch.cuda.device_count()} CUDA devices")
    if kind.type == "cpu" and dtype == "float16":
        raise UserError("dtype 'float16' needs a CUDA device; on the CPU: float32, bfloat16")


def dtype_of(cell: Cell) -> torch.dtype:
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[cell.dtype]
