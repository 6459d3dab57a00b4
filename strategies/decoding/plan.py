"""A plan says which places are decoded at which step: data, without torch, to print, draw, store, check."""

from dataclasses import dataclass

import numpy as np

from strategies.decoding.streams import Streams


@dataclass(frozen=True, eq=False)
class Plan:
    """Which positions of a grid are generated at which step.

    order: raster position generated at each place, int64 [N], or [B, N] where it differs by image.
    sizes: group sizes of the steps; they sum to N - given.
    given: how many leading places hold known tokens (inpainting).
    progress: what a guidance schedule reads, float64 [N], by place, in 0..1.
    count: what a guidance interval reads, int64 [N], by place.
    """

    grid: tuple[int, int]
    order: np.ndarray
    sizes: tuple[int, ...]
    given: int = 0
    progress: np.ndarray = None  # type: ignore[assignment]
    count: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        places = self.grid[0] * self.grid[1]
        if self.order.shape[-1] != places or self.order.ndim > 2:
            raise ValueError(f"order of shape {self.order.shape} does not fit a grid of {places} positions")
        if not (np.sort(self.order, axis=-1) == np.arange(places)).all():
            raise ValueError("order is not a permutation of the grid's positions")
        if any(size < 1 for size in self.sizes) or sum(self.sizes) != places - self.given:
            raise ValueError(
                f"group sizes {self.sizes} must be positive and sum to {places - self.given}, "
                f"not {sum(self.sizes)}"
            )
        if self.progress is None:
            object.__setattr__(self, "progress", np.arange(places) / places)
        if self.count is None:
            object.__setattr__(self, "count", np.maximum(np.arange(places) - 1, 0))

    @property
    def places(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def steps(self) -> int:
        return len(self.sizes)

    def groups(self) -> list[slice]:
        """The places of every step, in order."""
        ends = self.given + np.cumsum(self.sizes)
        return [slice(int(end - size), int(end)) for end, size in zip(ends, self.sizes, strict=True)]

    def step_of_position(self) -> np.ndarray:
        """Step that writes each raster position, -1 where it is given: int64 [N], or [B, N]."""
        step_of_place = np.concatenate(
            [np.full(self.given, -1), np.repeat(np.arange(self.steps), self.sizes)]
        )
        step = np.empty_like(self.order)
        np.put_along_axis(step, self.order, np.broadcast_to(step_of_place, self.order.shape), axis=-1)
        return step


def after_step_progress(sizes: tuple[int, ...], given: int = 0) -> np.ndarray:
    """Share of the unknown places generated after the step of each place (ARPG's clock), float64 [N]."""
    ends = np.cumsum(sizes, dtype=np.int64)
    return np.concatenate([np.zeros(given), np.repeat(ends / sum(sizes), sizes) if sizes else []])


def before_step_progress(sizes: tuple[int, ...], given: int = 0) -> np.ndarray:
    """Share of the unknown places generated before the step of each place (RandAR's clock), float64 [N]."""
    starts = np.cumsum(sizes, dtype=np.int64) - sizes
    return np.concatenate([np.zeros(given), np.repeat(starts / sum(sizes), sizes) if sizes else []])


def random_orders_after(known: np.ndarray, grid: tuple[int, int], streams: Streams) -> np.ndarray:
    """Known positions [M], then a uniform permutation of the others per image: int64 [B, N]."""
    orders = streams.permutations(grid[0] * grid[1])
    free = ~np.isin(orders, known)
    others = orders[free].reshape(len(orders), -1)
    return np.concatenate([np.broadcast_to(known, (len(orders), len(known))), others], axis=1)


def known_first(orders: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Orders [B, N] with the known positions moved to the front; both parts keep their order."""
    unknown = ~np.isin(orders, known)
    return np.take_along_axis(orders, np.argsort(unknown, axis=1, kind="stable"), axis=1)
