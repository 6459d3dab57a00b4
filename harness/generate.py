"""A cell's network at work: loaded once, then batches of images with the time of every phase."""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from backbones.checkpoints import CheckpointError
from backbones.tokenizers import Tokenizer, load_tokenizer
from backbones.transformer import Network, initialise
from harness import zoo
from harness.cell import RANDOM
from harness.data import to_uint8
from harness.prepare import Prepared, dtype_of
from strategies.decoding.decode import Commit, Decoded, decode
from strategies.decoding.plan import Plan
from strategies.decoding.sampling import StreamSampler

PHASES = ("plan", "prefill", "decode", "detokenize", "total")


class NotFinite(FloatingPointError):
    """Logits that are NaN or infinite: the cell's result is invalid."""


@dataclass(frozen=True)
class Clock:
    """Seconds, read after the device has finished everything that was asked of it."""

    wait: Callable[[], None]

    @classmethod
    def of(cls, device: torch.device) -> "Clock":
        if device.type == "cuda":
            return cls(lambda: torch.cuda.synchronize(device))
        return cls(lambda: None)

    def now(self) -> float:
        self.wait()
        return time.perf_counter_ns() / 1e9


@dataclass(frozen=True)
class Subject:
    """What is measured: a prepared cell with its network and tokenizer on their device."""

    prepared: Prepared
    network: Network
    tokenizer: Tokenizer
    device: torch.device
    clock: Clock

    def labels(self, images: Sequence[int]) -> Tensor:
        """The class of each image of the run: its index modulo the classes."""
        classes = self.prepared.config.classes
        return torch.tensor([image % classes for image in images], device=self.device)


@dataclass(frozen=True)
class Batch:
    """What one batch gave: pixels uint8 [B, 3, H, W] on the CPU, and the seconds of each phase.

    ``prefill`` ends with the first commit and ``decode`` is the rest of the loop, so plan, prefill, decode
    and detokenize follow one another and ``total`` spans them all.
    """

    images: tuple[int, ...]
    pixels: Tensor
    plan: Plan
    decoded: Decoded
    seconds: dict[str, float]


@dataclass(frozen=True)
class CheckedSampler(StreamSampler):
    """Draws as usual, and raises ``NotFinite`` instead of drawing from broken logits."""

    def draw(self, logits: Tensor, noise: Tensor) -> Tensor:
        if not torch.isfinite(logits).all():
            raise NotFinite("logits are NaN or infinite")
        return super().draw(logits, noise)


def load(prepared: Prepared) -> Subject:
    """Read the weights; CheckpointError where they don't fit, UserError where they are missing."""
    cell = prepared.cell
    device = torch.device(cell.device)
    network = prepared.strategy.network(prepared.config)
    if cell.checkpoint == RANDOM:
        initialise(network, torch.Generator().manual_seed(cell.seed))
    else:
        _, _, state = zoo.load_zoo(cell.network, cell.zoo)
        try:
            network.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise CheckpointError(f"network '{cell.network}': {' '.join(str(error).split())}") from None
    broken = [name for name, tensor in network.state_dict().items() if not torch.isfinite(tensor).all()]
    if broken:
        raise NotFinite(f"weight '{broken[0]}' is NaN or infinite")
    network.to(device, dtype_of(cell)).eval().requires_grad_(False)
    tokenizer = load_tokenizer(zoo.shared_file("tokenizer", cell.zoo)).to(device)
    if (tokenizer.codes, tokenizer.grid) != (prepared.config.codes, prepared.config.grid):
        raise CheckpointError(
            f"network '{cell.network}' has {prepared.config.codes} codes on a grid {prepared.config.grid}, "
            f"the tokenizer {tokenizer.codes} on {tokenizer.grid}"
        )
    return Subject(prepared, network, tokenizer, device, Clock.of(device))


@contextmanager
def collector_paused() -> Iterator[None]:
    """No garbage collection inside; what is due is collected before."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@torch.inference_mode()
def run_batch(subject: Subject, images: Sequence[int], check: bool = False) -> Batch:
    """Generate the images of these indices; ``check`` looks at all logits, which takes time of its own."""
    prepared, cell, clock = subject.prepared, subject.prepared.cell, subject.clock
    kind = CheckedSampler if check else StreamSampler
    first_commit: list[float] = []

    def on_commit(commit: Commit) -> None:
        if not first_commit:
            first_commit.append(clock.now())

    with collector_paused():
        start = clock.now()
        plan = prepared.plan(images)
        planned = clock.now()
        decoded = decode(
            subject.network,
            prepared.strategy,
            plan,
            subject.labels(images),
            kind(prepared.streams(images), cell.temperature, cell.top_k, cell.top_p),
            prepared.guidance,
            observe=on_commit,
        )
        ended = clock.now()
        pixels = detokenize(subject, decoded.tokens)
        finished = clock.now()
    first = first_commit[0]
    spans = (planned - start, first - planned, ended - first, finished - ended, finished - start)
    seconds = dict(zip(PHASES, spans, strict=True))
    return Batch(tuple(images), pixels.cpu(), plan, decoded, seconds)


def detokenize(subject: Subject, tokens: Tensor) -> Tensor:
    """Tokens [B, N] -> uint8 [B, 3, H, W] on the subject's device."""
    return to_uint8(subject.tokenizer.decode(tokens.unflatten(1, subject.tokenizer.grid)))


@dataclass
class Gallery:
    """What is kept of a run besides its numbers: all images, the order, and how one image appeared."""

    pixels: list[Tensor] = field(default_factory=list)
    steps: list[np.ndarray] = field(default_factory=list)
    film: np.ndarray | None = None

    def add(self, subject: Subject, batch: Batch) -> None:
        self.pixels.append(batch.pixels)
        self.steps.append(np.atleast_2d(batch.plan.step_of_position()))
        if self.film is None:
            self.film = film_of(subject, batch)

    def step_of_position(self, grid: tuple[int, int]) -> np.ndarray:
        """[h, w]: int16, or float32 means where every image has its own order."""
        steps = np.concatenate(self.steps)
        if (steps == steps[0]).all():
            return steps[0].reshape(grid).astype(np.int16)
        return steps.mean(axis=0).reshape(grid).astype(np.float32)


GREY = 127


@torch.inference_mode()
def film_of(subject: Subject, batch: Batch) -> np.ndarray:
    """The first image of a batch as it appears: uint8 [steps + 1, H, W, 3], unwritten places grey."""
    tokenizer = subject.tokenizer
    height, width = tokenizer.image_size
    black = tokenizer.encode(-torch.ones(1, 3, height, width, device=subject.device))
    tokens = black.flatten(1)[0].clone()  # [N]
    order = np.atleast_2d(batch.plan.order)[0]
    written = torch.zeros(len(order), dtype=torch.bool, device=subject.device)
    states, masks = [tokens.clone()], [written.clone()]
    for commit in batch.decoded.trace:
        places = torch.from_numpy(order[commit.places]).to(subject.device)
        tokens[places], written[places] = commit.tokens[0], True
        states.append(tokens.clone())
        masks.append(written.clone())
    frames = detokenize(subject, torch.stack(states))  # [F, 3, H, W]
    grid = torch.stack(masks).unflatten(1, tokenizer.grid)  # [F, h, w]
    rows, columns = height // grid.shape[1], width // grid.shape[2]
    shown = grid.repeat_interleave(rows, dim=1).repeat_interleave(columns, dim=2).unsqueeze(1)  # [F, 1, H, W]
    return torch.where(shown, frames, torch.full_like(frames, GREY)).permute(0, 2, 3, 1).cpu().numpy()
