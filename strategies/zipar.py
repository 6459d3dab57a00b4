"""ZipAR: rows grow side by side, each a few tokens ahead of the one below (He et al., arXiv 2412.04062)."""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from backbones.config import NetworkConfig
from backbones.transformer import View
from backbones.uploading import upload
from pardec.errors import UserError
from strategies.decoding.base import TrainingFree
from strategies.decoding.decode import Rows
from strategies.decoding.plan import Plan
from strategies.decoding.requests import Ask, Decoding
from strategies.decoding.streams import Streams
from strategies.raster import RasterNetwork


@lru_cache(maxsize=64)
def step_of(grid: tuple[int, int], window: int) -> np.ndarray:
    """Step that generates each position, int64 [h, w]: row 0 one by one, each further row ``window`` steps
    after the one above; a window of a whole row is raster decoding (section 1)."""
    height, width = grid
    row, column = np.arange(height)[:, None], np.arange(width)[None]
    return np.where(row == 0, column, width + (row - 1) * min(window, width) + column)


@dataclass(frozen=True)
class Fed:
    """The inputs of one step, in the order of their rows: ``token``, the position whose token is fed (-1: the
    class), and ``at``, the position where it stands (-1: before all), int64 [n]. The first ``unasked``
    predict nothing."""

    token: np.ndarray
    at: np.ndarray
    unasked: int


@lru_cache(maxsize=64)
def inputs(grid: tuple[int, int], window: int) -> tuple[Fed, ...]:
    """What each step is fed (sections 2 and 4)."""
    step, (height, width) = step_of(grid, window), grid
    position = np.arange(height * width).reshape(grid)
    fed = []
    for now in range(int(step.max()) + 1):
        # The last token of a row whose successor began with a stand-in takes that one's place.
        over = [row for row in range(1, height - 1) if step[row, -1] == now - 1 and step[row + 1, 0] < now]
        pairs = [(position[row, -1], position[row, -1]) for row in over]
        for row, column in zip(*np.nonzero(step == now), strict=True):
            before = position[row, column] - 1  # in raster order: the input that predicts this position
            known = before < 0 or step.flat[before] < now
            # A stand-in: the latest token two rows above the one that starts.
            source = before if known else position[row - 2, np.flatnonzero(step[row - 2] < now)[-1]]
            pairs.append((source, before))
        token, at = np.array(pairs).T
        fed.append(Fed(token, at, len(over)))
    return tuple(fed)


Empty = Literal["attend", "mask"]


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # kept beyond the decode that first asks for it
def fed_on(
    grid: tuple[int, int], window: int, empty: Empty, device: torch.device
) -> list[tuple[Tensor, ...]]:
    """Of each step on the device: cache slots int64 [n], positions whose tokens are fed int64 [n], and what
    they see, bool [n, S]: slots up to their own, all or the filled."""
    filled, steps = np.zeros(grid[0] * grid[1], dtype=bool), []
    for fed in inputs(grid, window):
        slots = 1 + fed.at
        filled[slots] = True
        seen = np.arange(slots.max() + 1) <= slots[:, None]
        if empty == "mask":
            seen &= filled[: seen.shape[1]]
        steps.append(tuple(upload(values, device) for values in (slots, fed.token, seen)))
    return steps


@dataclass(frozen=True)
class ZipAR(TrainingFree[RasterNetwork]):
    name: ClassVar[str] = "zipar"
    title: ClassVar[str] = "ZipAR"
    paper: ClassVar[str] = "2412.04062"
    base: ClassVar[str] = "raster"

    window: int = 8
    """Tokens that a row is ahead of the one below."""
    empty_slots: Empty = "attend"
    """Published: places between that are still empty count in the softmax, with key and value zero."""

    def __post_init__(self) -> None:
        if self.window < 1:
            raise UserError(f"option 'window' of strategy 'zipar' is {self.window}; at least 1 is needed")

    @property
    def empty_context(self) -> bool:  # type: ignore[override]
        return self.empty_slots == "attend"

    def sizes(self, grid: tuple[int, int], steps: int, given: int = 0) -> tuple[int, ...]:
        return tuple(np.bincount(step_of(grid, self.window).ravel()).tolist())

    def orders(
        self, grid: tuple[int, int], sizes: tuple[int, ...], streams: Streams, known: np.ndarray
    ) -> np.ndarray:
        return step_of(grid, self.window).argsort(axis=None, kind="stable")

    def arrange(
        self, grid: tuple[int, int], order: np.ndarray, sizes: tuple[int, ...], given: int = 0
    ) -> Plan:
        # The interval's counter starts anew, guided, after row 0, and counts tokens before a step.
        starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
        count = np.where(starts < grid[1], np.maximum(starts - 1, 0), starts - grid[1])
        return Plan(grid, order, sizes, given, count=count)

    def cache_shape(self, config: NetworkConfig) -> tuple[int, int]:
        return config.trunk.depth, config.places

    def decode(self, network: RasterNetwork, plan: Plan, rows: Rows) -> Decoding:
        device = network.device
        cache = network.cache(len(rows), *self.cache_shape(network.config))
        phases = network.phases(torch.arange(plan.places, device=device))  # slot s: before position s
        tokens = torch.zeros(len(rows), plan.places, dtype=torch.int64, device=device)
        steps = fed_on(plan.grid, self.window, self.empty_slots, device)
        for at, (slots, tokens_fed, mask) in zip(plan.groups(), steps, strict=True):
            if at.start == 0:
                x = network.class_embedding(rows.labels).unsqueeze(1)  # [R, 1, d]
            else:
                x = network.token_embedding(tokens[:, tokens_fed])  # [R, n, d]
            here = None if phases is None else phases[slots]
            view = View(slots=slots[None], mask=mask, reach=mask.shape[-1])
            logits = network(x, here, view, cache, asked=at.stop - at.start)
            tokens[:, rows.order[0, at]] = yield Ask(logits, at)
