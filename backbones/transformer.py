"""The shared trunk: a stack of pre-norm transformer blocks described by one ``TrunkConfig``.

The same classes are the small controlled trunk and every published network. A trunk knows no strategy: what
it is told is which rows to process, with which phases, and how far each row sees (``View``).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.attention import Attention, View
from backbones.cache import KVCache, LayerCache
from backbones.config import NetworkConfig, TrunkConfig
from backbones.positions import rotary_table


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps): statistics in float32, cast back, then scaled."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype.itemsize >= torch.float32.itemsize:
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        return F.rms_norm(x, self.weight.shape, None, self.eps) * self.weight


def make_norm(config: TrunkConfig) -> nn.Module:
    if config.norm == "rms":
        return RMSNorm(config.width, config.norm_eps)
    return nn.LayerNorm(config.width, eps=config.norm_eps, elementwise_affine=config.norm == "layer")


class MLP(nn.Module):
    """SwiGLU with gate and value in one product, or GELU (erf, or its tanh form)."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.gated = config.mlp == "swiglu"
        hidden = config.mlp_width
        self.up = nn.Linear(config.width, 2 * hidden if self.gated else hidden, bias=config.bias)
        self.down = nn.Linear(hidden, config.width, bias=config.bias)
        self.dropout = config.dropout.hidden
        self.approximate = "tanh" if config.mlp == "gelu-tanh" else "none"

    def forward(self, x: Tensor) -> Tensor:
        up = self.up(x)
        if self.gated:
            gate, value = up.chunk(2, dim=-1)
            hidden = F.silu(gate) * value
        else:
            hidden = F.gelu(up, approximate=self.approximate)
        return self.down(F.dropout(hidden, self.dropout) if self.training and self.dropout else hidden)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); with adaLN both branches are shifted, scaled, gated."""

    def __init__(self, config: TrunkConfig, kind: Literal["self", "cross"]) -> None:
        super().__init__()
        self.norm1, self.norm2 = make_norm(config), make_norm(config)
        self.attention = Attention(config, kind)
        self.mlp = MLP(config)
        self.dropout = config.dropout.residual
        if config.conditioning == "adaln":
            self.modulation = nn.Linear(config.width, 6 * config.width)

    def forward(
        self,
        x: Tensor,
        phases: Tensor | None,
        view: View,
        cache: LayerCache | None = None,
        shared: tuple[Tensor, Tensor] | None = None,
        modulation: Tensor | None = None,
    ) -> Tensor:
        """[R, n, d] of x [R, n, d], or of the rows that the view asks for."""
        if modulation is None:
            attended = self.attention(self.norm1(x), phases, view, cache, shared)
            x = of_last(x, view.asked) + self.drop(attended)
            return x + self.drop(self.mlp(self.norm2(x)))
        # Order of the six parts as published: shift, scale, gate of attention, then of the MLP.
        shift, scale = modulation.chunk(6, dim=-1)[:2]
        attended = self.attention(modulate(self.norm1(x), shift, scale), phases, view, cache, shared)
        gate_a, shift, scale, gate_m = of_last(modulation, view.asked).chunk(6, dim=-1)[2:]
        x = torch.addcmul(of_last(x, view.asked), gate_a, self.drop(attended))
        return torch.addcmul(x, gate_m, self.drop(self.mlp(modulate(self.norm2(x), shift, scale))))

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.training and self.dropout else x


def of_last(x: Tensor, asked: int | None) -> Tensor:
    """The last ``asked`` rows of x [R, n, d], or all."""
    return x if asked is None else x[:, -asked:]


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, x, 1 + scale)


def run_blocks(
    blocks: Sequence[Callable[..., Tensor]],
    x: Tensor,
    phases: Tensor | None,
    view: View,
    caches: Sequence[LayerCache] | None = None,
    shared: tuple[Tensor, Tensor] | None = None,
    modulations: Sequence[Tensor] | None = None,
    last: View | None = None,
) -> Tensor:
    """Consecutive blocks of a trunk, with the caches and modulations of these; else as ``Trunk.forward``.

    last: what the last of them sees, where that is not what the others do.
    """
    for at, block in enumerate(blocks):
        cache = None if caches is None else caches[at]
        modulation = None if modulations is None else modulations[at]
        if last is not None and at == len(blocks) - 1:
            view = last
        x = block(x, phases, view, cache, shared, modulation)
    return x


class Trunk(nn.Module):
    """``depth`` blocks of one kind; a cross-attending one reads one shared key/value pair in every block."""

    def __init__(
        self, config: TrunkConfig, depth: int | None = None, kind: Literal["self", "cross"] = "self"
    ) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config, kind) for _ in range(depth or config.depth))
        self.run: Callable[..., Tensor] = run_blocks
        """Runs up to ``at_once`` consecutive blocks; compiling replaces both."""
        self.at_once = len(self.blocks)
        self.called: list[Callable[..., Tensor]] | None = None
        """The blocks as functions, while a decode calls them directly."""
        self.by_parts = False
        """Whether rows that see different numbers of slots are attended by parts, not behind a mask."""
        self.tap: int | None = None
        """After how many blocks another head reads the rows."""

    def forward(
        self,
        x: Tensor,
        phases: Tensor | None,
        view: View,
        cache: KVCache | None = None,
        shared: tuple[Tensor, Tensor] | None = None,
        modulations: Sequence[Tensor] | None = None,
        asked: int | None = None,
    ) -> Tensor:
        """Rows x [R, n, d] -> [R, n, d], or [R, asked, d] where only the last ``asked`` rows are read; of a
        trunk with a tap [R, .., 2d]: the rows after block ``tap``, then the last ones.

        phases: complex64 [n, 1, D/2] or [R, n, 1, D/2]. cache: written where the view says. shared: keys and
        values [R, H, m, D] of a cross-attending trunk. modulations: of adaLN, [R, n, 6d] for each block.
        """
        if cache is not None:
            view = view.placed(x, cache.slots, cache.unit, self.by_parts)
        last: View | None = None
        # The fused kernel's causal mask has as many rows as keys.
        if asked is not None and asked != x.shape[1] and not view.causal:
            last = view.of_last(asked)
        blocks, tapped = self.called or list(self.blocks), x
        for part in self.parts():
            caches = None if cache is None else cache.layers[part]
            modulated = None if modulations is None else modulations[part]
            at_end = last if part.stop == len(blocks) else None
            x = self.run(blocks[part], x, phases, view, caches, shared, modulated, at_end)
            if part.stop == self.tap:
                tapped = x
        x = of_last(x, asked)
        return x if self.tap is None else torch.cat([of_last(tapped, asked), x], dim=-1)

    def parts(self) -> list[slice]:
        """Which blocks are run in one go; a tap ends one."""
        ends = {*range(self.at_once, len(self.blocks), self.at_once), len(self.blocks), self.tap or 0} - {0}
        return [slice(first, last) for first, last in pairwise([0, *sorted(ends)])]

    def modulations(self, condition: Tensor) -> list[Tensor]:
        """[R, n, 6d] for each block, from adaLN's SiLU'd vectors [R, n, d].

        Apart from the pass they belong to, for they need no input of it: a decode makes those of many steps
        at once and so reads these weights, a third of the network's, as seldom.
        """
        return [block.modulation(condition) for block in self.blocks]  # type: ignore[operator]


class Network(nn.Module):
    """What the networks of all strategies share: the phase table, caches, initial weights."""

    takes_registers: ClassVar[bool] = False

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        if config.registers and not self.takes_registers:
            raise ValueError(f"{type(self).__name__} has no registers, asked for {config.registers}")
        self.config = config
        self.code_vectors: Tensor | None = None
        """What the tokenizer decodes each code to, float32 [V, c]; handed over by whoever has both, to
        strategies that read it."""
        self._kept: dict[tuple[int, int, int], KVCache] | None = None
        self._unit: Callable[[KVCache], int] | None = None

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @property
    def single_precision(self) -> tuple[str, ...]:
        """Submodules that compute in float32 in a network of any precision, as a method's authors have it."""
        return ()

    def in_precision(self, dtype: torch.dtype) -> Self:
        """This network in ``dtype``, but for its ``single_precision`` parts."""
        self.to(dtype)
        for name in self.single_precision:
            self.get_submodule(name).float()
        return self

    def phases(self, rows: Tensor) -> Tensor | None:
        """Phases of table rows [n] or [R, n] (0: prefix, 1 + p: position p): [..., n, 1, D/2]."""
        trunk = self.config.trunk
        if trunk.positions != "rotary":
            return None
        table = rotary_table(self.config.grid, trunk.head_width, trunk.rotary_base, rows.device)
        return table[rows].unsqueeze(-2)

    def cache(self, rows: int, layers: int, slots: int) -> KVCache:
        """A cache for ``rows`` rows of ``slots`` zero slots in each of ``layers``."""
        made = None if self._kept is None else self._kept.get((rows, layers, slots))
        if made is not None:
            made.clear()
            return made
        made = KVCache(self.config.trunk, rows, slots, self.dtype, self.device, layers)
        if self._kept is not None:
            self._kept[rows, layers, slots] = made
            made.unit = None if self._unit is None else self._unit(made)
        return made

    reads_tokenizer: ClassVar[bool] = False
    """Whether decoding reads weights of the tokenizer: they are buffers here, neither counted nor stored."""

    def borrow(self, tokenizer: nn.Module | None) -> None:
        """Take those weights from the tokenizer, or fixed values where there is none; here there are none."""

    def keep_caches(self, unit: Callable[[KVCache], int] | None = None) -> None:
        """Give every later decode of one shape the same cache: its address is fixed, and one decode runs at a
        time. unit: of how many slots recorded passes read multiples, by the cache."""
        self._kept, self._unit = {}, unit

    def drop_embedded(self, x: Tensor) -> Tensor:
        rate = self.config.trunk.dropout.embedding
        return F.dropout(x, rate, self.training) if self.training and rate else x


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
