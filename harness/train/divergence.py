"""Where training has come to nothing: asked before a state is saved over one that could go on."""

import math
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from harness.weights.finite import is_finite
from pardec.errors import UserError


@dataclass(frozen=True)
class Watch:
    """Over one run; ``remedy`` is what its user can do."""

    folder: Path
    remedy: str

    def loss(self, step: int, value: float) -> None:
        """UserError for a loss that is no number."""
        if not math.isfinite(value):
            raise self._came_to_nothing(step, f"the loss is {value}")

    def weights(self, step: int, network: nn.Module) -> None:
        """UserError for a weight that is no number."""
        if not all(map(is_finite, network.state_dict().values())):
            raise self._came_to_nothing(step, "a weight is NaN or infinite")

    def _came_to_nothing(self, step: int, how: str) -> UserError:
        return UserError(f"{self.folder}: {how} at step {step}; {self.remedy}")
