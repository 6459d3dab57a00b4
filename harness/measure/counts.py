"""What the decodes of a cell amounted to, image by image, where images go at their own pace."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from strategies.decoding.decode import Count, Decoded
from strategies.decoding.plan import Plan


@dataclass
class Counts:
    """Counters of all batches so far; they stay on the device until they are asked for."""

    plan: Plan | None = None
    steps: list[Tensor] = field(default_factory=list)
    drafted: list[Tensor] = field(default_factory=list)
    kept: list[Tensor] = field(default_factory=list)
    forwards: list[tuple[int, int]] = field(default_factory=list)
    """(images, forward calls) of each batch."""
    tokens: list[tuple[int, int]] = field(default_factory=list)
    """(images, tokens through the networks per image) of each batch."""
    roles: list[tuple[int, Mapping[str, Count]]] = field(default_factory=list)
    """(images, counts of every network by its role) of each batch."""

    def add(self, plan: Plan, decoded: Decoded) -> None:
        images = len(decoded.tokens)
        self.plan = plan
        self.steps.append(decoded.steps_of_image)
        self.drafted.append(decoded.drafted)
        self.kept.append(decoded.kept)
        self.forwards.append((images, decoded.forwards))
        self.tokens.append((images, decoded.tokens_processed))
        self.roles.append((images, decoded.counts))

    @property
    def wasted_share(self) -> float | None:
        """Share of the drafted places whose draws were not kept; None without drafts, and where a plan says
        the steps: a masked network draws every place at every step, and no forward the less for it."""
        if self.plan is not None and self.plan.steps is not None:
            return None
        drafted, kept = (torch.cat(one).sum().item() for one in (self.drafted, self.kept))
        return 1 - kept / drafted if drafted else None

    def of_role(self, role: str, name: Literal["forwards", "tokens_processed"]) -> float:
        """A count of one network, the mean as that of all."""
        return _mean([(images, getattr(counts[role], name)) for images, counts in self.roles])

    def fields(self) -> dict[str, Any]:
        """Those of the row: means over images, their least and most steps, and what bounds these."""
        assert self.plan is not None, "no decode at all"
        steps = torch.cat(self.steps)
        wasted = self.wasted_share
        drafts = None if wasted is None else torch.cat(self.drafted).double().mean().item()
        return {
            "steps": _whole_if_so(steps.double().mean().item()),
            "steps_least": int(steps.min()),
            "steps_most": int(steps.max()),
            "steps_bound": self.plan.most_steps if self.plan.steps is None else None,
            "forwards": _mean(self.forwards),
            "tokens_processed": _mean(self.tokens),
            "draft_tokens": drafts,
            "accepted_share": None if wasted is None else 1 - wasted,
        }


def _mean(counted: list[tuple[int, int]]) -> float:
    """Over images."""
    return _whole_if_so(
        sum(images * count for images, count in counted) / sum(images for images, _ in counted)
    )


def _whole_if_so(value: float) -> float:
    return int(value) if value == int(value) else value
