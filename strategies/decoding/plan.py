"""A plan says which places are decoded at which step: data, without torch, to print, draw, store, check."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Plan:
    """Which positions are generated at which step, or what bounds that where the strategy decides it.

    grid: of the image. order: position generated at each of P places, int64 [1 or B, P]; one row is for all
    images. sizes: group sizes of the steps; they sum to P - given. None where their number depends on the
    content.
    given: how many leading places hold known tokens (inpainting).
    progress: what a guidance schedule reads, float64 [P], by place, in 0..1.
    count: what a guidance interval reads, int64 [P], by place.
    maps: the maps of the canvas, whose positions follow one another; one, the grid, unless said otherwise
    (scales of next-scale prediction, coarse and fine codes).
    codes_from: position of the canvas from which on its tokens are the codes of the image; labels before it.
    opened: the places of a step are chosen while decoding; ``order`` then only numbers them.
    most_steps: a bound; the number of steps where it is known.
    most_visits: how often a place takes fresh numbers at most, where that is known: so many are made.
    """

    grid: tuple[int, int]
    order: np.ndarray
    sizes: tuple[int, ...] | None
    given: int = 0
    progress: np.ndarray = None  # type: ignore[assignment]
    count: np.ndarray = None  # type: ignore[assignment]
    maps: tuple[tuple[int, int], ...] = ()
    codes_from: int = 0
    opened: bool = False
    most_steps: int = 0
    most_visits: int | None = None

    def __post_init__(self) -> None:
        fill = object.__setattr__
        fill(self, "maps", self.maps or (self.grid,))
        fill(self, "order", np.atleast_2d(self.order))
        places = self.places
        if self.order.shape[-1] != places or self.order.ndim > 2:
            raise ValueError(f"order of shape {self.order.shape} does not fit a canvas of {places} positions")
        if not (np.sort(self.order, axis=-1) == np.arange(places)).all():
            raise ValueError("order is not a permutation of the canvas's positions")
        if self.sizes is None:
            fill(self, "opened", True)
            if not self.most_steps >= 1:
                raise ValueError("a plan without group sizes needs a bound on its steps")
        else:
            self._check_sizes(places)
            fill(self, "most_steps", len(self.sizes))
        if self.progress is None:
            fill(self, "progress", np.arange(places) / places)
        if self.count is None:
            fill(self, "count", np.maximum(np.arange(places) - 1, 0))

    def _check_sizes(self, places: int) -> None:
        least = 0 if self.opened else 1
        if any(size < least for size in self.sizes or ()) or sum(self.sizes or ()) != places - self.given:
            raise ValueError(
                f"group sizes {self.sizes} must be positive and sum to {places - self.given}, "
                f"not {sum(self.sizes or ())}"
            )

    @property
    def places(self) -> int:
        return sum(height * width for height, width in self.maps)

    @property
    def steps(self) -> int | None:
        """None where the content decides."""
        return None if self.sizes is None else len(self.sizes)

    def groups(self) -> list[slice]:
        """The places of every step, in order; ValueError where they are chosen while decoding."""
        if self.opened or self.sizes is None:
            raise ValueError("the places of a step are chosen while decoding: see the trace")
        ends = self.given + np.cumsum(self.sizes)
        return [slice(int(end - size), int(end)) for end, size in zip(ends, self.sizes, strict=True)]

    def step_of_position(self) -> np.ndarray:
        """Step that writes each position, -1 where it is given: int64 [1 or B, N]; ValueError as groups."""
        step = np.empty_like(self.order)
        of_place = np.full(self.places, -1)
        for index, at in enumerate(self.groups()):
            of_place[at] = index
        np.put_along_axis(step, self.order, np.broadcast_to(of_place, self.order.shape), axis=-1)
        return step

    def picture(self, values: np.ndarray) -> np.ndarray:
        """Values [N] by position as rows and columns: the first map where all are as large as the grid, else
        all maps side by side, a column apart, with -1 around them."""
        if all(one == self.grid for one in self.maps):
            return values[: self.grid[0] * self.grid[1]].reshape(self.grid)
        shown = np.full(
            (max(rows for rows, _ in self.maps), sum(columns + 1 for _, columns in self.maps)), -1
        )
        top = left = 0
        for rows, columns in self.maps:
            shown[:rows, left : left + columns] = values[top : top + rows * columns].reshape(rows, columns)
            top, left = top + rows * columns, left + columns + 1
        return shown[:, :-1]

    def steps_in_words(self) -> str:
        """E.g. ``20``, or ``at most 256, decided while decoding``."""
        return (
            str(self.steps)
            if self.sizes is not None
            else f"at most {self.most_steps}, decided while decoding"
        )


def after_step_progress(sizes: tuple[int, ...], given: int = 0) -> np.ndarray:
    """Share of the unknown places generated after the step of each place (ARPG's clock), float64 [N]."""
    ends = np.cumsum(sizes, dtype=np.int64)
    return np.concatenate([np.zeros(given), np.repeat(ends / sum(sizes), sizes) if sizes else []])


def before_step_progress(sizes: tuple[int, ...], given: int = 0) -> np.ndarray:
    """Share of the unknown places generated before the step of each place (RandAR's clock), float64 [N]."""
    starts = np.cumsum(sizes, dtype=np.int64) - sizes
    return np.concatenate([np.zeros(given), np.repeat(starts / sum(sizes), sizes) if sizes else []])


def known_before(orders: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Known positions [M] as they come, then the others of orders [B, N] in their order: int64 [B, N]."""
    free = ~np.isin(orders, known)
    others = orders[free].reshape(len(orders), -1)
    return np.concatenate([np.broadcast_to(known, (len(orders), len(known))), others], axis=1)


def known_first(orders: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Orders [B, N] with the known positions moved to the front; both parts keep their order."""
    unknown = ~np.isin(orders, known)
    return np.take_along_axis(orders, np.argsort(unknown, axis=1, kind="stable"), axis=1)
