"""What the decodes of a cell amounted to, image by image, where images go at their own pace."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from strategies.decoding.decode import Decoded
from strategies.decoding.plan import Plan

Counters = Mapping[str, NDArray[Any]]
OF_IMAGES = ("steps", "drafted", "kept", "forwards", "tokens_processed")
"""A number for each image: forwards and tokens through the networks are those of its batch."""
OF_POSITIONS = ("tested", "accepted")
"""How often drafts of each position were tested, and accepted; absent where no drafts are tested."""


def counters_of(decoded: Decoded) -> dict[str, NDArray[Any]]:
    """The counters of one batch: [B] each, and int32 [B, N] by position."""
    images = len(decoded.tokens)
    found = {
        "steps": decoded.steps_of_image,
        "drafted": decoded.drafted,
        "kept": decoded.kept,
    }
    arrays: dict[str, NDArray[Any]] = {name: one.cpu().numpy() for name, one in found.items()}
    arrays["forwards"] = np.full(images, decoded.forwards)
    arrays["tokens_processed"] = np.full(images, decoded.tokens_processed)
    for role, count in decoded.counts.items():
        for name in ("forwards", "tokens_processed"):
            arrays[_of_role(name, role)] = np.full(images, getattr(count, name))
    if decoded.tested is not None and decoded.accepted is not None:
        arrays["tested"] = decoded.tested.cpu().numpy().astype(np.int32)
        arrays["accepted"] = decoded.accepted.cpu().numpy().astype(np.int32)
    return arrays


def _of_role(name: str, role: str) -> str:
    return f"{name} of {role}"


@dataclass
class Counts:
    """Counters of batches or shards, in any order; each image counts once."""

    plan: Plan | None = None
    parts: list[Counters] = field(default_factory=list)

    def add(self, plan: Plan, counters: Counters) -> None:
        self.plan = plan
        self.parts.append(counters)

    def _all(self, name: str) -> NDArray[Any]:
        return np.concatenate([part[name] for part in self.parts])

    @property
    def wasted_share(self) -> float | None:
        """Share of the drafted places whose draws were not kept; None without drafts, and where a plan says
        the steps: a masked network draws every place at every step, and no forward the less for it."""
        if self.plan is not None and self.plan.steps is not None:
            return None
        drafted = self._all("drafted").sum()
        return float(1 - self._all("kept").sum() / drafted) if drafted else None

    @property
    def by_position(self) -> dict[str, NDArray[np.int64]]:
        """Of all images, ``drafts_tested`` and ``drafts_accepted`` [h, w]; empty where none are tested."""
        if self.plan is None or any(name not in part for part in self.parts for name in OF_POSITIONS):
            return {}
        grid = self.plan.grid
        return {f"drafts_{name}": self._all(name).sum(axis=0).reshape(grid) for name in OF_POSITIONS}

    def of_role(self, role: str, name: Literal["forwards", "tokens_processed"]) -> float:
        """A count of one network, the mean as that of all."""
        return _whole_if_so(self._all(_of_role(name, role)).mean())

    def fields(self) -> dict[str, Any]:
        """Those of the row: means over images, their least and most steps, and what bounds these."""
        assert self.plan is not None, "no decode at all"
        steps, tests = self._all("steps"), self.by_position
        tested = int(tests["drafts_tested"].sum()) if tests else 0
        return {
            "steps": _whole_if_so(steps.mean()),
            "steps_least": int(steps.min()),
            "steps_most": int(steps.max()),
            "steps_bound": self.plan.most_steps if self.plan.steps is None else None,
            "forwards": _whole_if_so(self._all("forwards").mean()),
            "tokens_processed": _whole_if_so(self._all("tokens_processed").mean()),
            "draft_tokens": None if self.wasted_share is None else float(self._all("drafted").mean()),
            "drafts_tested": float(tested / len(steps)) if tested else None,
            "accepted_share": float(tests["drafts_accepted"].sum() / tested) if tested else None,
        }


def _whole_if_so(value: float) -> float:
    return int(value) if value == int(value) else float(value)
