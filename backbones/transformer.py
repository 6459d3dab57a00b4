"""The shared trunk: a stack of pre-norm transformer blocks described by one ``TrunkConfig``.

The same classes are the small controlled trunk and every published network. A trunk knows no strategy: what
it is told is which rows to process, with which phases, and how far each row sees (``View``).
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.cache import KVCache, LayerCache
from backbones.config import NetworkConfig, TrunkConfig
from backbones.positions import rotary_table, rotate
from backbones.taught_attention import Tile, attend_taught, causal_tiles, tiles_of


@dataclass(frozen=True)
class View:
    """How far the fed rows see.

    Teacher forcing: ``causal``, or a boolean ``mask`` [n, m] or [R, 1, n, m] (True: may attend), or neither
    (everything). Decoding: the rows are written to cache slots from ``start`` on, and each run (rows, keys)
    of ``runs`` sees the first ``keys`` slots, or ``mask`` says so slot by slot; without both all rows see
    everything filled.
    """

    start: int = 0
    causal: bool = False
    mask: Tensor | None = None
    runs: tuple[tuple[int, int], ...] | None = None


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps): statistics in float32, cast back, then scaled."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float32:
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        return F.rms_norm(x.float(), self.weight.shape, None, self.eps).type_as(x) * self.weight


def make_norm(config: TrunkConfig) -> nn.Module:
    if config.norm == "rms":
        return RMSNorm(config.width, config.norm_eps)
    return nn.LayerNorm(config.width, eps=config.norm_eps)


def attend(queries: Tensor, keys: Tensor, values: Tensor, view: View, dropout: float = 0.0) -> Tensor:
    """Softmax attention of queries [R, H, n, D] over keys and values [R, Hkv, m, D]; returns [R, H, n, D].

    Runs are attended to one by one, which needs no mask: a run reads just the slots that it may see.
    """
    groups = queries.shape[1] // keys.shape[1]
    if groups > 1:
        keys, values = keys.repeat_interleave(groups, dim=1), values.repeat_interleave(groups, dim=1)
    exact = queries.device.type == "cpu" and queries.dtype == torch.float32
    decoding = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    if exact and decoding and view.mask is None and not view.causal:
        product = attend_by_products
    else:
        product = attend_fused
    if view.runs is None or len(view.runs) == 1:
        return product(queries, keys, values, view, dropout)
    parts, done = [], 0
    for rows, reach in view.runs:
        part = queries[:, :, done : done + rows]
        parts.append(product(part, keys[:, :, :reach], values[:, :, :reach], view, dropout))
        done += rows
    return torch.cat(parts, dim=2)


def attend_fused(queries: Tensor, keys: Tensor, values: Tensor, view: View, dropout: float) -> Tensor:
    """The framework's fused attention; a pass that is taught in bfloat16 on the CPU goes by tiles."""
    if keys.requires_grad and keys.device.type == "cpu" and not dropout:
        tiles = None if queries.dtype != torch.bfloat16 else taught_tiles(queries, view)
        if tiles is not None:
            return attend_taught(queries, keys, values, tiles)
    if keys.requires_grad and keys.device.type == "cpu":
        # The CPU's bfloat16 attention gradient takes 3.5 times as long as the float32 one.
        queries, keys, values = queries.float(), keys.float(), values.float()
    casting = not queries.is_meta and torch.is_autocast_enabled(queries.device.type)
    with torch.autocast(queries.device.type, enabled=False) if casting else nullcontext():
        return F.scaled_dot_product_attention(queries, keys, values, view.mask, dropout, view.causal)


def taught_tiles(queries: Tensor, view: View) -> tuple[Tile, ...] | None:
    """Tiles of one view of all rows; None where it is no plain mask."""
    if view.causal:
        return causal_tiles(queries.shape[2])
    return None if view.mask is None or view.mask.ndim != 2 else tiles_of(view.mask)


def attend_by_products(queries: Tensor, keys: Tensor, values: Tensor, view: View, dropout: float) -> Tensor:
    """Two batched products: in float32 up to 3 times as fast as the fused CPU kernel, or as fast, by machine.

    In bfloat16 the fused kernel takes 0.25 to 0.9 of their time (Xeon, 1 to 13 queries, 32 to 256 keys).
    """
    scores = torch.baddbmm(
        queries.new_empty(1),
        queries.flatten(0, 1),
        keys.flatten(0, 1).transpose(1, 2),
        beta=0,
        alpha=queries.shape[-1] ** -0.5,
    )  # [R*H, n, m]
    return torch.bmm(scores.softmax(dim=-1), values.flatten(0, 1)).unflatten(0, queries.shape[:2])


class Attention(nn.Module):
    """Self-attention with one fused projection, or cross-attention that projects only its queries."""

    def __init__(self, config: TrunkConfig, kind: Literal["self", "cross"]) -> None:
        super().__init__()
        self.heads, self.shared_heads, self.head_width = config.heads, config.shared_heads, config.head_width
        if kind == "cross":
            self.query = nn.Linear(config.width, config.width, bias=config.bias)
        else:
            rows = (self.heads + 2 * self.shared_heads) * self.head_width
            self.qkv = nn.Linear(config.width, rows, bias=config.bias)
        self.out = nn.Linear(config.width, config.width, bias=config.bias)
        self.qk_norm = config.qk_norm
        if config.qk_norm:
            self.q_norm = nn.LayerNorm(self.head_width, eps=config.norm_eps)
            self.k_norm = nn.LayerNorm(self.head_width, eps=config.norm_eps)
        self.dropout = config.dropout.attention

    def project(self, x: Tensor, phases: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [R, H, n, D], keys and values [R, Hkv, n, D] of x [R, n, d], normalised and rotated."""
        qkv = self.qkv(x).unflatten(-1, (-1, self.head_width))  # [R, n, H + 2 Hkv, D]
        qk, values = qkv.split([self.heads + self.shared_heads, self.shared_heads], dim=2)
        if self.qk_norm:
            qk = torch.cat([self.q_norm(qk[:, :, : self.heads]), self.k_norm(qk[:, :, self.heads :])], dim=2)
        if phases is not None:
            qk = rotate(qk, phases)
        queries, keys = qk.split([self.heads, self.shared_heads], dim=2)
        return queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)

    def forward(
        self,
        x: Tensor,
        phases: Tensor | None,
        view: View,
        cache: LayerCache | None,
        shared: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        if shared is not None:
            queries = self.query(x).unflatten(-1, (-1, self.head_width))  # [R, n, H, D]
            queries = queries if phases is None else rotate(queries, phases)
            queries = queries.transpose(1, 2)  # [R, H, n, D]
            keys, values = shared
        else:
            queries, keys, values = self.project(x, phases)
            if cache is not None:
                keys, values = cache.extend(view.start, keys, values)
        mixed = attend(queries, keys, values, view, self.dropout if self.training else 0.0)
        return self.out(mixed.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """SwiGLU with gate and value in one product, or GELU (erf)."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.gated = config.mlp == "swiglu"
        hidden = config.mlp_width
        self.up = nn.Linear(config.width, 2 * hidden if self.gated else hidden, bias=config.bias)
        self.down = nn.Linear(hidden, config.width, bias=config.bias)
        self.dropout = config.dropout.hidden

    def forward(self, x: Tensor) -> Tensor:
        up = self.up(x)
        if self.gated:
            gate, value = up.chunk(2, dim=-1)
            return self.down(F.silu(gate) * value)
        return self.down(F.dropout(F.gelu(up), self.dropout, self.training))


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
        if modulation is None:
            x = x + self.drop(self.attention(self.norm1(x), phases, view, cache, shared))
            return x + self.drop(self.mlp(self.norm2(x)))
        # Order of the six parts as published: shift, scale, gate of attention, then of the MLP.
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation.chunk(6, dim=-1)
        attended = self.attention(modulate(self.norm1(x), shift_a, scale_a), phases, view, cache, shared)
        x = x + gate_a * self.drop(attended)
        return x + gate_m * self.drop(self.mlp(modulate(self.norm2(x), shift_m, scale_m)))

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.training and self.dropout else x


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift


def run_blocks(
    blocks: Sequence[nn.Module],
    x: Tensor,
    phases: Tensor | None,
    view: View,
    caches: Sequence[LayerCache] | None = None,
    shared: tuple[Tensor, Tensor] | None = None,
    modulations: Sequence[Tensor] | None = None,
) -> Tensor:
    """Consecutive blocks of a trunk, with the caches and modulations of these; else as ``Trunk.forward``."""
    for at, block in enumerate(blocks):
        cache = None if caches is None else caches[at]
        modulation = None if modulations is None else modulations[at]
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

    def forward(
        self,
        x: Tensor,
        phases: Tensor | None,
        view: View,
        cache: KVCache | None = None,
        shared: tuple[Tensor, Tensor] | None = None,
        modulations: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Rows x [R, n, d] -> [R, n, d].

        phases: complex64 [n, 1, D/2] or [R, n, 1, D/2]. cache: written at view.start. shared: keys and
        values [R, H, m, D] of a cross-attending trunk. modulations: of adaLN, [R, n, 6d] for each block.
        """
        blocks = list(self.blocks)
        for first in range(0, len(blocks), self.at_once):
            part = slice(first, first + self.at_once)
            caches = None if cache is None else cache.layers[part]
            modulated = None if modulations is None else modulations[part]
            x = self.run(blocks[part], x, phases, view, caches, shared, modulated)
        return x

    def modulations(self, condition: Tensor) -> list[Tensor]:
        """[R, n, 6d] for each block, from adaLN's SiLU'd vectors [R, n, d].

        Apart from the pass they belong to, for they need no input of it: a decode makes those of many steps
        at once and so reads these weights, a third of the network's, as seldom.
        """
        return [block.modulation(condition) for block in self.blocks]  # type: ignore[operator]


class Network(nn.Module):
    """What the networks of all strategies share: the phase table, caches, initial weights."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self._kept: dict[tuple[int, int, int | None], KVCache] | None = None

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def phases(self, rows: Tensor) -> Tensor | None:
        """Phases of table rows [n] or [R, n] (0: prefix, 1 + p: position p): [..., n, 1, D/2]."""
        trunk = self.config.trunk
        if trunk.positions != "rotary":
            return None
        table = rotary_table(self.config.grid, trunk.head_width, trunk.rotary_base, rows.device)
        return table[rows].unsqueeze(-2)

    def cache(self, rows: int, slots: int, layers: int | None = None) -> KVCache:
        made = None if self._kept is None else self._kept.get((rows, slots, layers))
        if made is None:
            made = KVCache(self.config.trunk, rows, slots, self.dtype, self.device, layers)
        if self._kept is not None:
            self._kept[rows, slots, layers] = made
        return made

    def keep_caches(self) -> None:
        """Give every later decode of one shape the same cache: its address is fixed, and one decode runs at a
        time."""
        self._kept = {}

    def drop_embedded(self, x: Tensor) -> Tensor:
        rate = self.config.trunk.dropout.embedding
        return F.dropout(x, rate, self.training) if self.training and rate else x


def initialise(network: nn.Module, generator: torch.Generator, std: float = 0.02) -> None:
    """N(0, std^2) for weights, tables and learned vectors; zero biases; unit norms; a zero output head."""
    for name, parameter in network.named_parameters():
        owner = network.get_submodule(name.rpartition(".")[0])
        with torch.no_grad():
            if isinstance(owner, RMSNorm | nn.LayerNorm):
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            elif name.endswith("bias") or name.startswith("head."):
                parameter.zero_()
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
