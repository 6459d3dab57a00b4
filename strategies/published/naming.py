"""What a family says about its authors' files: names, keys and settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from backbones.checkpoints import KeyMap
from backbones.config import NetworkConfig
from backbones.shapes import Measured, Shapes
from strategies.decoding.guidance import Guidance

if TYPE_CHECKING:
    from strategies.decoding.base import Strategy


@dataclass(frozen=True)
class Setting:
    """How published samples are drawn."""

    guidance: Guidance | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    steps: int | None = None


@dataclass(frozen=True)
class Published:
    """The authors' naming of one family.

    keys: their state dict onto our modules. configure: their hyper-parameters -> strategy and network
    config. setting: their sampling arguments -> ours. measure: shapes of their files -> their
    hyper-parameters; it raises CheckpointError where nothing shows one of them.
    """

    strategy: str
    """Name of the strategy that decodes these networks."""
    family: str
    keys: KeyMap
    configure: "Callable[[Mapping[str, Any]], tuple[Strategy, NetworkConfig]]"
    setting: Callable[[Mapping[str, Any]], Setting]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Hyper-parameters that a published configuration leaves out."""
    measure: Callable[[Shapes], Measured] | None = None
    regridded: Callable[[Mapping[str, Tensor], tuple[int, int]], Mapping[str, Tensor]] | None = None
    """Their state dict, of another grid, for a network of this one, where their training goes on so."""
