"""Resolution extrapolation: images of twice the side from a network that never saw such a grid (RandAR)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from backbones.tokenizers import Tokenizer
from harness.images.pixels import images_at_a_time, whole_bytes
from harness.subject.subject import Subject
from pardec.errors import UserError
from strategies.decoding.decode import decode
from strategies.decoding.sampling import StreamSampler
from strategies.randar import RandARNetwork
from strategies.zero_shot.randar import (
    Extrapolation,
    extrapolate,
    large_orders,
    require_randar,
    small_orders,
)


def settings_of(subject: Subject, context_guidance: float) -> Extrapolation:
    """The cell's guidance and step request for both passes, as published; UserError where that can't be."""
    prepared = subject.prepared
    guidance, cell = prepared.guidance, prepared.cell
    require_randar(prepared.strategy)
    if guidance is not None and (guidance.schedule == "power-cosine" or guidance.interval >= 0):
        raise UserError("resolution extrapolation takes a constant or linear guidance schedule, no interval")
    scale = 1.0 if guidance is None else guidance.scale
    first = scale if guidance is None or guidance.schedule == "constant" else guidance.start
    steps = cell.steps or prepared.config.places
    return Extrapolation(steps, (first, scale), (context_guidance, context_guidance))


@torch.inference_mode()
def enlarge(subject: Subject, images: Sequence[int], settings: Extrapolation) -> tuple[Tensor, Tensor]:
    """Images of these indices at the network's own resolution and at twice that, uint8 [B, 3, H, W] and
    [B, 3, 2H, 2W] on the CPU; the large one keeps the small one's tokens at its even cells.
    """
    batch, tokenizer = subject.prepared.cell.batch, subject.tokenizer
    assert tokenizer is not None
    small, large = [], []
    for start in range(0, len(images), batch):
        drawn = _tokens(subject, images[start : start + batch], settings)
        small.append(_pixels(tokenizer, drawn[0], 1))
        large.append(_pixels(tokenizer, drawn[1], 2))
    return torch.cat(small), torch.cat(large)


def _tokens(subject: Subject, images: Sequence[int], settings: Extrapolation) -> tuple[Tensor, Tensor]:
    """Tokens of one batch, [B, N] and [B, 4N]."""
    prepared, network = subject.prepared, subject.network
    strategy, cell, grid = require_randar(prepared.strategy), prepared.cell, prepared.config.grid
    assert isinstance(network, RandARNetwork)
    labels, streams = subject.labels(images), prepared.streams(images)
    plan = settings.plan(grid, large_orders(grid, streams))
    first = strategy.arrange(grid, small_orders(grid, plan.order), strategy.sizes(grid, settings.steps))
    filters = (cell.temperature, cell.top_k, cell.top_p)
    small = decode(
        network, strategy, first, labels, StreamSampler(streams, *filters), prepared.guidance
    ).tokens
    # Position p of the large grid is another place than p of the small one: it has noise of its own.
    sampler = StreamSampler(streams, *filters, stream="twice the side")
    guidance = settings.guidance(plan.given, streams)
    enlarged = network.enlarged(settings.boundary)
    return small, extrapolate(enlarged, strategy, plan, labels, small, sampler, guidance).tokens


def _pixels(tokenizer: Tokenizer, tokens: Tensor, times: int) -> Tensor:
    """Tokens of a grid of so many ``times`` the tokenizer's sides as images on the CPU, a few at a time."""
    rows, columns = tokenizer.grid
    codes = tokens.unflatten(1, (times * rows, times * columns))
    parts = codes.split(max(1, images_at_a_time(tokenizer) // times**2))
    return torch.cat([whole_bytes(tokenizer.decode(part)).cpu() for part in parts])
