"""What a trunk and a network are made of: frozen, hashable, without torch.

One ``TrunkConfig`` describes the stack of transformer blocks that strategies share. A ``NetworkConfig`` adds
what the task brings: the code book, the classes and the grid. Everything a published network needs is a
setting here, so published and controlled networks are the same classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Dropout:
    """Drop probabilities in training; all zero in evaluation."""

    embedding: float = 0.0
    """After the embedded content sequence, prefix included."""
    attention: float = 0.0
    """On attention probabilities."""
    residual: float = 0.0
    """After the output projection of attention and after the last MLP product."""
    hidden: float = 0.0
    """On the hidden vector of an MLP, before its last product."""
    attended: float = 0.0
    """After the output projection of attention, beside ``residual``."""


@dataclass(frozen=True)
class TrunkConfig:
    """A stack of pre-norm transformer blocks."""

    depth: int
    width: int
    heads: int
    mlp_width: int
    kv_heads: int | None = None
    """Key/value heads; each serves heads / kv_heads consecutive query heads. None: as many as heads."""
    norm: Literal["rms", "layer", "plain"] = "rms"
    """``plain``: a LayerNorm without weight and bias."""
    norm_eps: float = 1e-5
    mlp: Literal["swiglu", "gelu", "gelu-tanh"] = "swiglu"
    bias: bool = False
    """Biases in attention and MLP products."""
    qk_norm: bool | Literal["rms"] = False
    """True: LayerNorm over the head dimension of queries and keys, shared by the heads. ``rms``: RMSNorm over
    the queries of all heads together, and over the keys, without weights."""
    cosine: bool = False
    """Queries and keys of unit length, their product times a learned factor of each head (VAR); of ``bias``
    the keys then have none."""
    positions: Literal["rotary", "learned"] = "rotary"
    rotary_base: float = 10_000.0
    conditioning: Literal["prefix", "adaln", "shared-adaln"] = "prefix"
    """``adaln``: every block is modulated by a per-position vector, beside the prefix. ``shared-adaln``: by
    one that the network makes for all blocks."""
    dropout: Dropout = Dropout()
    head_size: int | None = None
    """Channels of a head. None: the width, divided evenly."""

    def __post_init__(self) -> None:
        if self.head_size is None and self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}")
        if self.heads % self.shared_heads:
            raise ValueError(f"heads {self.heads} is not divisible by kv_heads {self.kv_heads}")
        if self.positions == "rotary" and self.head_width % 4:
            raise ValueError(f"2-D rotary positions need a head width divisible by 4, not {self.head_width}")

    @property
    def head_width(self) -> int:
        return self.head_size or self.width // self.heads

    @property
    def shared_heads(self) -> int:
        """Number of key/value heads."""
        return self.kv_heads or self.heads

    def require(self, owner: str, **settings: object) -> None:
        """Raise ValueError unless the settings are as given: what a network cannot use it must not ignore."""
        for name, value in settings.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"{owner} needs a trunk with {name} = {value!r}, not {getattr(self, name)!r}"
                )

    def with_dropout(self, dropout: Dropout) -> "TrunkConfig":
        return replace(self, dropout=dropout)


@dataclass(frozen=True)
class NetworkConfig:
    """A trunk and what it is dressed for: ``codes`` codes, ``classes`` labels, a grid (rows, columns)."""

    trunk: TrunkConfig
    codes: int
    classes: int
    grid: tuple[int, int]
    null_class: bool = True
    """Whether a label "no class" (id ``classes``) exists, as guidance needs."""
    registers: int = 0
    """Learned vectors beside the tokens, which attend and are attended to but predict nothing."""
    others: tuple[tuple[str, "NetworkConfig"], ...] = ()
    """Networks that decode together with this one, by role."""

    def of(self, role: str) -> "NetworkConfig":
        """The configuration of the network of a role: another's, or this one's where none is said."""
        return dict(self.others).get(role) or replace(self, others=())

    @property
    def places(self) -> int:
        return self.grid[0] * self.grid[1]


def network_config(values: Mapping[str, Any]) -> NetworkConfig:
    """The configuration that ``dataclasses.asdict`` and JSON made ``values`` of."""
    trunk = dict(values["trunk"])
    trunk["dropout"] = Dropout(**trunk["dropout"])
    rest = {key: value for key, value in values.items() if key not in ("trunk", "grid", "others")}
    others = tuple((role, network_config(one)) for role, one in values.get("others", ()))
    grid = (values["grid"][0], values["grid"][1])
    return NetworkConfig(TrunkConfig(**trunk), grid=grid, others=others, **rest)


def round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def swiglu_width(width: int, multiple_of: int, multiplier: float | None = None) -> int:
    """Hidden size of a SwiGLU MLP: two thirds of 4 x width, scaled, rounded up (LlamaGen, ARPG)."""
    hidden = int(2 * 4 * width / 3)
    if multiplier is not None:
        hidden = int(multiplier * hidden)
    return round_up(hidden, multiple_of)
