"""A cell's network at work: loaded once, then batches of images with the time of every phase."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from backbones.checkpoints import CheckpointError, load_published, read_checkpoint, tell_choice
from backbones.empty import with_memory
from backbones.first_weights import initialise
from backbones.graphs import CUDAGraphs
from backbones.networks import Networks
from backbones.products import pack
from backbones.tokenizers import Tokenizer
from backbones.transformer import Network, Trunk
from backbones.weights import load_half
from harness.cell.cell import RANDOM, Cell
from harness.images.pixels import cell_tokenizer, detokenize, film_of
from harness.images.stores import ImageStore, cut
from harness.machine.clock import Clock, collector_paused
from harness.subject.compiled import NOTHING_RECORDED, Recorded, compile_trunks, record_decodes, record_passes
from harness.subject.prepare import Prepared, dtype_of
from harness.subject.race import RACED, Race
from harness.subject.tokenizers import zoo_tokenizer
from harness.weights import zoo
from harness.weights.empty import on_meta
from harness.weights.finite import check_finite
from pardec.errors import UserError
from strategies.decoding import presets, registry
from strategies.decoding.decode import Decoded, decode
from strategies.decoding.meter import by_role
from strategies.decoding.networks import network_of
from strategies.decoding.plan import Plan
from strategies.decoding.trace import Committed, of_image, step_of_position

PHASES = ("plan", "prefill", "decode", "detokenize", "total")


@dataclass(frozen=True)
class Subject:
    """What is measured: a prepared cell with its network and tokenizer on their device."""

    prepared: Prepared
    network: Network | Networks
    tokenizer: Tokenizer | None
    """None for a published network without one: its tokens stay tokens."""
    device: torch.device
    clock: Clock
    recorded: Recorded = NOTHING_RECORDED
    """Passes recorded so far, where the cell asks for that."""
    weights_taken: str | None = None
    """Which state dict of a published file, ``model`` or ``ema``; None where it holds one, bare."""

    def labels(self, images: Sequence[int]) -> Tensor:
        """The class of each image of the run: its index modulo the classes."""
        classes = self.prepared.config.classes
        return torch.tensor([image % classes for image in images], device=self.device)


@dataclass(frozen=True)
class Batch:
    """What one batch gave: pixels uint8 [B, 3, H, W] on the CPU (None without a tokenizer), and the seconds
    of each phase.

    ``prefill`` ends with the first commit and ``decode`` is the rest of the loop, so plan, prefill, decode
    and detokenize follow one another and ``total`` spans them all.
    """

    images: tuple[int, ...]
    pixels: Tensor | None
    plan: Plan
    decoded: Decoded
    seconds: dict[str, float]

    @property
    def codes(self) -> Tensor:
        """Of the images, int64 [B, N]."""
        return self.decoded.tokens[:, self.plan.codes_from :]


def load(prepared: Prepared) -> Subject:
    """Read the weights; CheckpointError where they don't fit, UserError where they are missing."""
    cell = prepared.cell
    device = torch.device(cell.device)
    network = _empty_network(prepared, device)
    weights_taken = _fill(network, prepared)
    tokenizer = cell_tokenizer(cell, prepared.config, zoo_tokenizer(cell))
    _lend(tokenizer, network, cell)
    check_finite(network, f"network '{cell.network}': weight")
    if cell.products == "packed":
        places = prepared.strategy.places(prepared.config.grid)
        pack(network, prepared.rows(cell.batch) * math.ceil(places / (cell.steps or places)))
    if tokenizer is not None:
        check_finite(tokenizer, f"network '{cell.network}': tokenizer weight")
        tokenizer.to(device)
    if prepared.strategy.reads_code_vectors:
        network.code_vectors = _code_vectors(cell, tokenizer)
    for part in network.modules():
        if isinstance(part, Trunk):
            part.by_parts = cell.attention == "parts"
    if cell.compile:
        compile_trunks(network)
    recorded = NOTHING_RECORDED
    if cell.cuda_graphs:
        recorder = CUDAGraphs(device)
        recorded = record_decodes(recorder) if cell.one_graph else record_passes(network, recorder)
    return Subject(prepared, network, tokenizer, device, Clock.of(device), recorded, weights_taken)


def _empty_network(prepared: Prepared, device: torch.device) -> Network | Networks:
    """The network in its final precision, its parameters still to be filled.

    Built without memory first: a float32 copy of a network that runs in bfloat16 never exists.
    """
    network = on_meta(prepared.strategy, prepared.config)
    own = (one for one in by_role(network).values() if not one.reads_tokenizer)
    if any(
        True for one in own for _ in one.buffers()
    ):  # computed at construction, so they can't be left empty
        network = (
            network_of(prepared.strategy, prepared.config).to(device).in_precision(dtype_of(prepared.cell))
        )
    else:
        network = with_memory(network.in_precision(dtype_of(prepared.cell)), device)
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def _code_vectors(cell: Cell, tokenizer: Tokenizer | None) -> Tensor:
    found = None if tokenizer is None else tokenizer.vectors()
    if found is None:
        raise UserError(
            f"strategy '{cell.strategy}' compares the vectors of codes, and the cell's tokenizer has none"
        )
    return found.float()


def _fill(network: Network | Networks, prepared: Prepared) -> str | None:
    """Give the networks their weights; the names of those that were taken from files of several."""
    cell = prepared.cell
    if cell.checkpoint == RANDOM:
        generator = torch.Generator().manual_seed(cell.seed)
        for one in by_role(network).values():
            initialise(one, generator)
        return None
    if not cell.roles:
        return _fill_from(network, cell.checkpoint or cell.network, cell, cell.network)
    of_preset = presets.preset_info(cell.network).networks if cell.is_published else {}
    taken = {
        role: _fill_from(one, cell.roles[role], cell, of_preset.get(role, ""))
        for role, one in by_role(network).items()
    }
    return ", ".join(f"{role}: {name}" for role, name in taken.items() if name) or None


def _fill_from(network: nn.Module, source: str, cell: Cell, preset: str) -> str | None:
    """source: a published file of the shapes of ``preset``, our own of training at scale, or a network of the
    zoo."""
    path = Path(source)
    if cell.is_published and not presets.is_trained(preset):
        keys = registry.by_family(presets.preset_info(preset).family).keys
        found = read_checkpoint(path, weights=cell.weights)
        if cell.weights is None:
            tell_choice(found, path)
        load_published(network, found.tensors, keys, str(path))
        return found.taken
    state = load_half(path if cell.is_published else zoo.read_card(source, cell.zoo).weights).tensors
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"network '{source}': {' '.join(str(error).split())}") from None
    return None


def _lend(tokenizer: Tokenizer | None, network: Network | Networks, cell: Cell) -> None:
    """Give the networks what decoding reads of the tokenizer; UserError where trained ones have none."""
    for one in by_role(network).values():
        if one.reads_tokenizer and tokenizer is None and cell.checkpoint != RANDOM:
            raise UserError(
                f"network '{cell.network}' decodes through its tokenizer: it needs tokenizer_checkpoint"
            )
        try:
            one.borrow(tokenizer)
        except ValueError as error:
            raise CheckpointError(f"network '{cell.network}' and its tokenizer: {error}") from None


@dataclass(frozen=True)
class Given:
    """What every image of a batch keeps: the raster positions [M], and tokens [N] of which those are read."""

    positions: np.ndarray
    tokens: Tensor


@torch.inference_mode()
def run_batch(
    subject: Subject,
    images: Sequence[int],
    given: Given | None = None,
    after_step: Callable[[], None] | None = None,
    keep_drafts: bool = False,
) -> Batch:
    """Generate the images of these indices, around given tokens if there are some."""
    prepared, cell, clock = subject.prepared, subject.prepared.cell, subject.clock
    if prepared.undecided:
        name = prepared.undecided[0]
        raise UserError(f"{name} = 'auto' is chosen by a sweep; expected a number here")
    first_commit: list[float] = []

    def on_commit(commit: Committed) -> None:
        if not first_commit:
            first_commit.append(clock.now())
        if after_step is not None:
            after_step()

    with collector_paused():
        start = clock.now()
        plan = prepared.plan(images, None if given is None else given.positions)
        planned = clock.now()
        decoded = decode(
            subject.network,
            prepared.strategy,
            plan,
            subject.labels(images),
            prepared.sampler(images),
            prepared.guidance,
            known=None if given is None else given.tokens.to(subject.device).expand(len(images), -1),
            observe=on_commit,
            keep_drafts=keep_drafts,
            drawing=subject.recorded.drawing,
            running=subject.recorded.running,
        )
        ended = clock.now()
        pixels = (
            None
            if subject.tokenizer is None
            else detokenize(subject.tokenizer, decoded.tokens[:, plan.codes_from :], cell.evaluation_size)
        )
        finished = clock.now()
    first = first_commit[0]
    spans = (planned - start, first - planned, ended - first, finished - ended, finished - start)
    seconds = dict(zip(PHASES, spans, strict=True))
    return Batch(tuple(images), None if pixels is None else pixels.cpu(), plan, decoded, seconds)


@dataclass
class Gallery:
    """What is kept of a run besides its numbers: all images, the order, and how one image appeared."""

    pixels: list[Tensor] = field(default_factory=list)
    """Of every batch, uint8 [B, 3, H, W]; empty where a store has them."""
    step_of_position: np.ndarray | None = None
    """int16 [h, w]: the first image's order; a mean over images that each have their own shows nothing."""
    film: np.ndarray | None = None
    """Of the first image; none of random weights taken once, for it would take as long as their decode."""
    race: Race = field(default_factory=Race)
    by_position: dict[str, np.ndarray] = field(default_factory=dict)
    """``drafts_tested`` and ``drafts_accepted`` [h, w], of all images; empty where no drafts are tested."""
    store: ImageStore | None = None
    """Where images and tokens go instead of memory."""
    _digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    @property
    def tokens_sha256(self) -> str:
        """Hash of the tokens of all images so far, [images, N] int64 little-endian in raster order."""
        if self.store is None:
            return self._digest.hexdigest()
        digest = hashlib.sha256()
        for tokens in self.store.shards.parts("tokens"):
            digest.update(tokens.astype("<i8").tobytes())
        return digest.hexdigest()

    def batches(self, cell: Cell) -> Iterator[range]:
        """The images of every batch to be made, in order: all, or what a store doesn't have yet.

        The batches of the raced images are always among them, since no store has their orders and film.
        """
        if self.store is None:
            yield from cut(range(cell.images), cell.batch)
            return
        first = [images for images in cut(range(cell.images), cell.batch) if images.start < RACED]
        yield from first
        yield from (images for images in self.store.batches() if images not in first)

    def add(self, subject: Subject, batch: Batch, counters: Mapping[str, np.ndarray] | None = None) -> None:
        """counters: of the batch's images, to stand beside them."""
        if self.store is None:
            self._digest.update(batch.codes.cpu().numpy().astype("<i8").tobytes())
        else:
            images = range(batch.images[0], batch.images[-1] + 1)
            self.store.add(images, batch.codes, batch.pixels, counters)
        if self.step_of_position is None:
            steps = step_of_position(of_image(batch.decoded.trace, 0), batch.decoded.order[:1])
            # Of two maps: labels are decoded in an order of their own; the codes follow all at once.
            self.step_of_position = batch.plan.picture(steps[0].cpu().numpy()).astype(np.int16)
        self.race.add(batch.images, batch.plan, batch.decoded)
        if batch.pixels is None or subject.tokenizer is None:
            return
        if self.store is None:
            self.pixels.append(batch.pixels)
        cell = subject.prepared.cell
        if self.film is None and not (cell.once and cell.checkpoint == RANDOM):
            self.film = film_of(
                subject.tokenizer, batch.decoded.order, batch.decoded.trace, batch.plan.codes_from
            )
