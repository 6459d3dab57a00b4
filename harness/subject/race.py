"""When the first images got their tokens, and which draws did not stay: what a report replays as a race."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from strategies.decoding.decode import Decoded
from strategies.decoding.plan import Plan
from strategies.decoding.trace import Committed, Drafted, places_of, step_of_position

RACED = 10
"""Images kept: one of each class where labels go round."""


@dataclass
class Race:
    """What is kept of the first images, batch by batch."""

    steps: list[np.ndarray] = field(default_factory=list)
    lost: list[np.ndarray] = field(default_factory=list)

    @property
    def images(self) -> int:
        return sum(map(len, self.steps))

    def wants(self, images: Sequence[int]) -> bool:
        """Whether these images are among the first that it still lacks."""
        return images[0] == self.images < RACED

    def add(self, images: Sequence[int], plan: Plan, decoded: Decoded) -> None:
        """Keep what is wanted of a batch: of a canvas with labels, these; of several scales, the last."""
        if not self.wants(images):
            return
        count, places = min(len(images), RACED - self.images), plan.grid[0] * plan.grid[1]
        steps = step_of_position(decoded.trace, decoded.order)[:count]  # [n, N]
        start = 0 if plan.codes_from else steps.shape[1] - places
        # What a masked decoder draws everywhere and covers again was never a draft.
        lost = draws_lost(decoded, count if plan.sizes is None else 0)
        lost[:, 2] -= start
        lost = lost[(lost[:, 2] >= 0) & (lost[:, 2] < places)]
        lost[:, 0] += self.images
        seen = steps[:, start : start + places].unflatten(1, plan.grid)
        self.steps.append(seen.cpu().numpy().astype(np.int16))
        self.lost.append(lost)

    def arrays(self) -> dict[str, np.ndarray]:
        """steps_of_images: int16 [n, h, w]; lost_draws: int16 [m, 3], as ``draws_lost``; nothing if empty."""
        if not self.steps:
            return {}
        return {"steps_of_images": np.concatenate(self.steps), "lost_draws": np.concatenate(self.lost)}


def draws_lost(decoded: Decoded, count: int) -> np.ndarray:
    """Draws of ``count`` images that their step did not write: (image, step, position), int16 [m, 3].

    Rejected drafts, and those that no test reached.
    """
    places = decoded.order.shape[1]
    drawn, kept = (_touched(entries, decoded, count) for entries in (decoded.drafts, decoded.trace))
    steps, images, at = (drawn & ~kept)[:, :, :places].nonzero(as_tuple=True)
    positions = decoded.order.cpu()[images, at]
    return torch.stack([images, steps, positions], dim=1).numpy().astype(np.int16)


def _touched(entries: Sequence[Committed | Drafted], decoded: Decoded, count: int) -> Tensor:
    """bool [K, count, N + 1]: the places of the entries of each step; the last column is no place."""
    batch, places = decoded.order.shape
    touched = torch.zeros(decoded.steps, count, places + 1, dtype=torch.bool)
    for entry in entries:
        at = places_of(entry, batch, places)[:count].cpu()
        touched[entry.step].scatter_(1, at, torch.ones_like(at, dtype=torch.bool))
    return touched
