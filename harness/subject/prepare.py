"""From a cell to what runs: strategy, configuration and guidance, checked before anything is computed."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from backbones.config import NetworkConfig
from backbones.products import can_pack
from backbones.published_tokenizers import tokenizer_info
from backbones.transformer import parameter_count
from harness.cell.cell import RANDOM, Cell
from harness.images.names import refuse_replaced
from harness.machine.cards import card_here
from harness.subject.sources import Source, source_of, tuned, with_files
from harness.weights.empty import on_meta
from pardec.errors import UserError
from results.rules import TUNED
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


def prepare(cell: Cell, around_given: bool = False) -> Prepared:
    """Everything that can be known of a cell without its weights; UserError for what can't be.

    around_given: whether its images are drawn around given tokens, however many those will be.
    """
    refuse_replaced(cell.data)
    load_plugins(cell.plugin)
    check_device(cell.device, cell.dtype)
    if cell.is_published and cell.checkpoint is None:
        cell = with_files(cell)
    if cell.guidance == TUNED:
        cell = tuned(cell)
    cell = on_device(cell)
    source = source_of(cell)
    strategy = source.strategy
    if cell.acceptance is not None and not strategy.tests_drafts:
        raise UserError(f"acceptance: strategy '{cell.strategy}' tests no drafts against random numbers")
    if strategy.reads_code_vectors and cell.is_published and cell.tokenizer_checkpoint is None:
        raise UserError(
            f"strategy '{cell.strategy}' compares the vectors of codes: it needs tokenizer_checkpoint = "
            f"'{RANDOM}' or a path"
        )
    left = tuple(name for name in strategy.timed_options if cell.options.get(name) == registry.AUTO)
    prepared = Prepared(cell, strategy, source.config, _guidance(cell, source), left)
    if around_given:
        check_takes_given(strategy)
    plan = _checked_plan(prepared, source, around_given)
    label = cell.label or default_label(source.title, cell)
    whole = dataclasses.replace(
        cell, network=source.network, roles=dict(source.roles), steps=plan.steps, label=label
    )
    return dataclasses.replace(prepared, cell=whole)


def on_device(cell: Cell) -> Cell:
    """The cell with what its device makes of settings left open; UserError for those that it can't have.

    Nothing is asked of the device, but for its card where ``attention`` is left open.
    """
    if cell.cuda_graphs and torch.device(cell.device).type != "cuda":
        raise UserError(f"cuda_graphs = true on device '{cell.device}': expected cuda or cuda:N")
    if cell.one_graph and not cell.cuda_graphs:
        raise UserError("one_graph = true: expected cuda_graphs = true with it")
    packable = can_pack(torch.device(cell.device), dtype_of(cell))
    products, attention = cell.products, cell.attention
    if products == "auto":
        products = "packed" if packable else "plain"
    if products == "packed" and not packable:
        raise UserError(
            f"products 'packed' with dtype '{cell.dtype}' on device '{cell.device}': expected float32 or "
            "bfloat16 on a CPU whose torch has oneDNN"
        )
    passes_recorded = cell.cuda_graphs and not cell.one_graph
    if attention == "parts" and passes_recorded:
        raise UserError(
            "attention = 'parts' with cuda_graphs = true: expected mask or auto, since recorded passes go "
            "behind a mask, or one_graph = true with it"
        )
    if attention == "auto":
        card = None if passes_recorded else card_here(cell.device, cell.threads)
        attention = card.attention if card else "mask"
    return dataclasses.replace(cell, products=products, attention=attention)


def _guidance(cell: Cell, source: Source) -> Guidance | None:
    """As the cell says; UserError where the network can't be guided."""
    if cell.scale is None:
        return None
    guidance = Guidance(
        cell.scale,
        cell.guidance_schedule,  # type: ignore[arg-type]
        cell.guidance_power,
        cell.guidance_interval,
    )
    if not source.config.null_class:
        raise UserError(f"network '{source.network}' has no null class, so guidance must be false")
    return guidance


def _checked_plan(prepared: Prepared, source: Source, around_given: bool) -> Plan:
    """A plan of the cell; UserError where there is none, or where it is none of the network's."""
    cell, strategy, grid = prepared.cell, prepared.strategy, prepared.config.grid
    try:
        plan = prepared.plan([0], np.zeros(1, dtype=np.int64) if around_given else None)
        maps = plan.maps
        if strategy != source.learned:
            maps = source.learned.plan(grid, None, prepared.streams([0])).maps
        parameters = parameter_count(on_meta(strategy, prepared.config))
    except ValueError as error:
        raise UserError(f"strategy '{cell.strategy}': {error}") from None
    if cell.one_graph and plan.opened:
        raise UserError(
            f"one_graph = true: strategy '{cell.strategy}' decides while decoding; without it each of its "
            "passes is recorded"
        )
    if plan.maps != maps:
        asked, learned = (" ".join(f"{rows}x{columns}" for rows, columns in one) for one in (plan.maps, maps))
        raise UserError(
            f"options {dict(cell.options)} decode maps of {asked}, but '{source.network}' was trained on "
            f"{learned}"
        )
    if parameters != source.parameters:
        raise UserError(
            f"options {dict(cell.options)} need a network of {parameters:,} parameters, but "
            f"'{source.network}' has {source.parameters:,}"
        )
    return plan


def check_takes_given(strategy: Strategy) -> None:
    """UserError for a strategy of a fixed order, naming those that take given tokens."""
    if not strategy.any_order:
        able = ", ".join(sorted(name for name in registry.loadable() if registry.get(name).any_order))
        raise UserError(
            f"strategy '{strategy.name}' has a fixed order and takes no given tokens; valid: {able}"
        )


def check_counts(prepared: Prepared) -> None:
    """UserError for a cell whose steps would follow from the content of random weights."""
    cell, strategy = prepared.cell, prepared.strategy
    if strategy.decides_steps and cell.checkpoint == RANDOM and cell.acceptance is None:
        declare = " or a declared share of accepted drafts, e.g. acceptance = 0.7"
        raise UserError(
            f"strategy '{strategy.name}' decides its steps by the content, of which random weights tell "
            f"nothing: it needs trained weights{declare if strategy.tests_drafts else ''}"
        )


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
