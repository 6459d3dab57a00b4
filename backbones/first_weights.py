"""How the weights of a network begin: alike for all on the controlled tier, at scale as its paper has it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import Tensor, nn

from backbones.attention import LOG_FIRST
from backbones.transformer import RMSNorm


@dataclass(frozen=True)
class FirstWeights:
    """Norms begin at one, biases at zero, the factors of cosine attention at 4; tables and vectors are drawn
    from N(0, std^2)."""

    std: float = 0.02
    linear: Literal["normal", "xavier"] = "normal"
    """Matrices of linear layers: N(0, std^2), or uniform within sqrt(6 / (inputs + outputs))."""
    parts: Mapping[str, int] = field(default_factory=dict)
    """Linear layers (name with wildcards) of which the published network has so many in place of one."""
    zeros: tuple[str, ...] = ("head.*",)
    """Parameters (names with wildcards) that begin at zero."""


ALIKE = FirstWeights()
"""Those of the controlled tier; also LlamaGen's, PAR's, RandAR's, ARPG's and NAR's own."""


def initialise(network: nn.Module, generator: torch.Generator, first: FirstWeights = ALIKE) -> None:
    """Fill every parameter of a network."""
    for name, parameter in network.named_parameters():
        owner = network.get_submodule(name.rpartition(".")[0])
        with torch.no_grad():
            if isinstance(owner, RMSNorm | nn.LayerNorm):
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            elif name.endswith("bias") or any(fnmatchcase(name, pattern) for pattern in first.zeros):
                parameter.zero_()
            elif name.endswith("log_factor"):
                parameter.fill_(LOG_FIRST)
            elif isinstance(owner, nn.Linear) and first.linear == "xavier":
                _draw_xavier(parameter, _parts_of(name, first), generator)
            else:
                in_place = parameter.is_cpu and parameter.dtype == torch.float32
                drawn = parameter if in_place else torch.empty(parameter.shape)
                parameter.copy_(drawn.normal_(0.0, first.std, generator=generator))


def _parts_of(name: str, first: FirstWeights) -> int:
    return next((count for pattern, count in first.parts.items() if fnmatchcase(name, pattern)), 1)


def _draw_xavier(matrix: Tensor, parts: int, generator: torch.Generator) -> None:
    outputs, inputs = matrix.shape
    bound = math.sqrt(6 / (inputs + outputs // parts))
    matrix.copy_(torch.empty(matrix.shape).uniform_(-bound, bound, generator=generator))
