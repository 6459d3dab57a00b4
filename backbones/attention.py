"""Attention: who sees what (``View``), a fused projection, keys and values in the cache, one fused kernel."""

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.compiler import is_compiling

from backbones.cache import LayerCache
from backbones.config import TrunkConfig
from backbones.positions import rotate, rotate_
from backbones.taught_attention import Tile, attend_taught, causal_tiles, tiles_of

LOG_FIRST, LOG_MOST = math.log(4), math.log(100)
"""Bound of what cosine attention learns."""
Runs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class View:
    """How far the fed rows see, and in decoding which cache slots they are written to.

    Teacher forcing: ``causal``, or a boolean ``mask`` [n, m] or [R, 1, n, m] (True: may attend), or neither
    (everything).

    Decoding, all images at one pace: the n rows are written to slots from ``start`` on, and the slots up to
    there are read. Under ``causal`` each row sees the slots up to its own; each run (rows, keys) of ``runs``
    sees the first ``keys`` slots; ``mask``, as wide as what is read, says so slot by slot; without any of
    them all rows see everything filled.

    Decoding, each image at its own pace: ``start`` is int64 [R], or ``slots``, int64 [R, n] or [1, n], names
    them one by one. The first ``reach`` slots are read (None: all that there are), a bound known to the host,
    so that nothing waits for the device. Under ``start`` row i of image r sees slots 0 to start[r] + i, which
    must be filled; ``runs``, whose keys then count from start[r] on, or ``mask`` [n, S] or [R, 1, n, S] over
    the S slots read may say otherwise. ``slots`` always come with a mask, for what is filled the method alone
    knows: ``up_to(slots, S)`` lets every row see all slots up to its own, unfilled ones, zero in key and
    value, among them. Slots may be written again, and a cache is cut back by starting earlier.
    """

    start: int | Tensor = 0
    causal: bool = False
    mask: Tensor | None = None
    runs: Runs | None = None
    slots: Tensor | None = None
    reach: int | None = None
    asked: int | None = None
    """Only the last rows are computed, and ``mask`` is theirs; the others are just seen."""

    @property
    def at(self) -> int | Tensor:
        """Where keys and values go, as ``LayerCache.extend`` takes it."""
        return self.start if self.slots is None else self.slots

    def placed(self, x: Tensor, slots: int, unit: int | None = None, by_parts: bool = False) -> "View":
        """The same for rows x [R, n, d] and a cache of ``slots``, once for all blocks: the slots written out
        where images have a pace of their own, and what rows see as a mask that attention adds to its scores,
        or as none where that is all. unit: of ``fixed``, where passes are recorded. by_parts: runs, and rows
        under ``causal``, stay what they are where all images share one pace. ValueError where the view
        contradicts itself."""
        if unit is not None:
            return self.fixed(x, slots, unit).placed(x, slots)
        self._check()
        rows = x.shape[1]
        if not isinstance(self.start, int) or self.slots is not None:
            at, seen = self._at_own_pace(rows, slots)
        elif self.mask is not None:
            at, seen = None, self.mask
        else:
            runs = self.runs
            if by_parts and (self.causal or runs is not None):
                return View(self.start, causal=self.causal and rows > 1, runs=runs)
            if self.causal and rows > 1:
                runs = tuple((1, keys) for keys in range(self.start + 1, self.start + rows + 1))
            mask = None if runs is None else hidden(runs, self.start + rows, x.dtype, x.device)
            return View(self.start, mask=mask)
        if seen.dtype == torch.bool:
            seen = seen.new_zeros(seen.shape, dtype=x.dtype).masked_fill_(~seen, float("-inf"))
        return View(0 if at is not None else self.start, mask=seen, slots=at, reach=self.reach)

    def _check(self) -> None:
        """ValueError where several fields say what rows see, of which but one would be heard."""
        own_pace = self.slots is not None or isinstance(self.start, Tensor)
        if own_pace and (self.causal or (self.runs is not None and self.slots is not None)):
            raise ValueError("a view with slots of its own for each image takes a mask, not runs or causal")
        said = {"causal": self.causal, "runs": self.runs is not None, "a mask": self.mask is not None}
        if sum(said.values()) > 1:
            named = " and ".join(name for name, one in said.items() if one)
            raise ValueError(f"a view takes one of causal, runs and a mask, not {named}")

    def _at_own_pace(self, rows: int, slots: int) -> tuple[Tensor, Tensor]:
        """Slots [R, n] and the mask."""
        at, start = self.slots, self.start
        if isinstance(start, Tensor):
            if at is not None:
                raise ValueError("a view takes either start [R] or slots [R, n]")
            at = start[:, None] + torch.arange(rows, device=start.device)
        elif self.mask is None:
            raise ValueError("a view with slots needs a mask: what else is filled it can't know")
        assert at is not None
        if self.mask is not None:
            return at, self.mask
        last = at
        if self.runs is not None:
            assert isinstance(start, Tensor)
            parts = [(start + keys - 1)[:, None].expand(-1, rows) for rows, keys in self.runs]
            last = torch.cat(parts, dim=1)  # [R, n]
        return at, up_to(last, self.reach or slots)

    def fixed(self, x: Tensor, slots: int, unit: int) -> "View":
        """The same with all that changes from step to step in tensors, for rows x [R, n, d] and a cache of
        ``slots``: one recorded pass then serves all steps of a shape. A start that all images share becomes
        int64 [1], and what is read goes on to a multiple of ``unit`` slots, masked behind what is seen.

        IndexError for a slot that is not there.
        """
        self._check()
        rows, start, runs, filled = x.shape[1], self.start, self.runs, self.reach or slots
        if isinstance(start, int) and self.slots is None:
            filled = start + rows
            if filled > slots:
                raise IndexError(f"cache of {slots} slots asked to hold {filled}")
            if runs is not None:
                runs = tuple((fed, keys - start) for fed, keys in runs)
            elif not self.causal and self.mask is None and rows > 1:
                runs = ((rows, rows),)
            start = torch.full((1,), start, device=x.device)
        reach = min(slots, -(-filled // unit) * unit)
        mask = self.mask
        if mask is not None and mask.shape[-1] < reach:
            unseen = False if mask.dtype == torch.bool else float("-inf")
            mask = F.pad(mask, (0, reach - mask.shape[-1]), value=unseen)
        return View(start, mask=mask, runs=runs, slots=self.slots, reach=reach)

    def of_last(self, asked: int) -> "View":
        """The same where only the last ``asked`` rows are computed."""
        mask = None if self.mask is None else self.mask[..., -asked:, :]
        return replace(self, mask=mask, runs=last_runs(self.runs, asked), asked=asked)


def last_runs(runs: Runs | None, asked: int) -> Runs | None:
    """Of the last ``asked`` rows."""
    if runs is None:
        return None
    left, kept = asked, []
    for rows, keys in reversed(runs):
        if left > 0:
            kept.append((min(rows, left), keys))
        left -= rows
    return tuple(reversed(kept))


def up_to(slots: Tensor, reach: int) -> Tensor:
    """Mask by which a row at slot s sees slots 0 to s: bool [R, 1, n, reach] for int64 [R, n]."""
    return torch.arange(reach, device=slots.device) <= slots[:, None, :, None]


@lru_cache(maxsize=1024)
@torch.inference_mode(False)  # kept beyond the decode that first asks for it
def hidden(runs: Runs, read: int, dtype: torch.dtype, device: torch.device) -> Tensor | None:
    """What runs (rows, keys) add to their scores over ``read`` slots, [n, read]: -inf behind a row's keys;
    None where all see everything."""
    keys = torch.tensor([keys for rows, keys in runs for _ in range(rows)])
    behind = torch.arange(read) >= keys[:, None]
    if not behind.any():
        return None
    return torch.zeros(behind.shape, dtype=dtype).masked_fill_(behind, float("-inf")).to(device)


def attend(queries: Tensor, keys: Tensor, values: Tensor, view: View, dropout: float = 0.0) -> Tensor:
    """Softmax attention of queries [R, H, n, D] over keys and values [R, Hkv, m, D]; returns [R, n, H, D].

    By the framework's fused kernel.
    """
    groups = queries.shape[1] // keys.shape[1]
    if groups > 1:
        keys, values = keys.repeat_interleave(groups, dim=1), values.repeat_interleave(groups, dim=1)
    if torch.is_grad_enabled():
        return attend_in_training(queries, keys, values, view, dropout).transpose(1, 2)
    if view.runs is not None:
        return attend_by_runs(queries, keys, values, view.runs).transpose(1, 2)
    if view.causal and keys.shape[2] > queries.shape[2]:
        from torch.nn.attention.bias import causal_lower_right  # loads the compiler: where it is asked for

        below = causal_lower_right(queries.shape[2], keys.shape[2])
        return F.scaled_dot_product_attention(queries, keys, values, below).transpose(1, 2)
    # Laid out [R, n, H, D] by the CPU's kernel.
    mixed = F.scaled_dot_product_attention(queries, keys, values, view.mask, dropout, view.causal)
    return mixed.transpose(1, 2)


def attend_by_runs(queries: Tensor, keys: Tensor, values: Tensor, runs: Runs) -> Tensor:
    """A call for each run of rows, none of them behind a mask; [R, H, n, D]."""
    parts = queries.split([rows for rows, _ in runs], dim=2)
    mixed = [
        F.scaled_dot_product_attention(part, keys[:, :, :seen], values[:, :, :seen])
        for part, (_, seen) in zip(parts, runs, strict=True)
    ]
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=2)


def attend_in_training(queries: Tensor, keys: Tensor, values: Tensor, view: View, dropout: float) -> Tensor:
    """The same where a gradient follows, in bfloat16 on the CPU tile by tile; returns [R, H, n, D]."""
    if keys.requires_grad and keys.device.type == "cpu":
        plain = queries.dtype == torch.bfloat16 and not dropout
        tiles = taught_tiles(queries.shape[2], view.mask, view.causal) if plain else None
        if tiles is not None:
            return attend_taught(queries, keys, values, tiles)
        # The CPU's bfloat16 attention gradient takes 3.5 times as long as the float32 one.
        queries, keys, values = queries.float(), keys.float(), values.float()
    casting = not queries.is_meta and torch.is_autocast_enabled(queries.device.type)
    with torch.autocast(queries.device.type, enabled=False) if casting else nullcontext():
        return F.scaled_dot_product_attention(queries, keys, values, view.mask, dropout, view.causal)


def taught_tiles(rows: int, mask: Tensor | None, causal: bool) -> tuple[Tile, ...] | None:
    """Tiles of one view of all ``rows``; None where it is no plain mask."""
    if causal:
        return causal_tiles(rows)
    return None if mask is None or mask.ndim != 2 else tiles_of(mask)


def turned(heads: Tensor, phases: Tensor | None) -> Tensor:
    """``heads`` rotated, in place where no gradient follows."""
    if phases is None:
        return heads
    if torch.is_grad_enabled() or is_compiling():
        return rotate(heads, phases)
    rotate_(heads, phases)
    return heads


class Attention(nn.Module):
    """Self-attention with one fused projection, or cross-attention that projects only its queries."""

    def __init__(self, config: TrunkConfig, kind: Literal["self", "cross"]) -> None:
        super().__init__()
        self.heads, self.shared_heads, self.head_width = config.heads, config.shared_heads, config.head_width
        if kind == "cross":
            self.query = nn.Linear(config.width, self.heads * self.head_width, bias=config.bias)
        else:
            rows = (self.heads + 2 * self.shared_heads) * self.head_width
            self.qkv = nn.Linear(config.width, rows, bias=config.bias and not config.cosine)
        self.out = nn.Linear(self.heads * self.head_width, config.width, bias=config.bias)
        self.cosine = config.cosine
        if config.cosine:
            if kind == "cross" or self.shared_heads != self.heads or not config.bias:
                raise ValueError(
                    "cosine attention is self-attention with biases, and as many keys as queries"
                )
            self.log_factor = nn.Parameter(torch.full((1, self.heads, 1, 1), LOG_FIRST))
            self.query_value_bias = nn.Parameter(torch.zeros(2 * config.width))
        self.qk_norm, self.norm_eps = config.qk_norm, config.norm_eps
        if config.qk_norm is True:
            self.q_norm = nn.LayerNorm(self.head_width, eps=config.norm_eps)
            self.k_norm = nn.LayerNorm(self.head_width, eps=config.norm_eps)
        self.dropout, self.dropout_after = config.dropout.attention, config.dropout.attended

    def project(self, x: Tensor, phases: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [R, H, n, D], keys and values [R, Hkv, n, D] of x [R, n, d], normalised and rotated."""
        qkv = self.qkv(x).unflatten(-1, (-1, self.head_width))  # [R, n, H + 2 Hkv, D]
        if self.cosine:
            return self.of_unit_length(qkv)
        qk, values = qkv.split([self.heads + self.shared_heads, self.shared_heads], dim=2)
        if self.qk_norm:
            parts = qk[:, :, : self.heads], qk[:, :, self.heads :]
            qk = torch.cat(self.normalised(*parts), dim=2)
        if phases is not None:
            qk = rotate(qk, phases)
        queries, keys = qk.split([self.heads, self.shared_heads], dim=2)
        return queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)

    def normalised(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Queries [R, n, H, D] and keys [R, n, Hkv, D], as ``qk_norm`` says."""
        if self.qk_norm is True:
            return self.q_norm(queries), self.k_norm(keys)
        return self.rms(queries), self.rms(keys)

    def rms(self, heads: Tensor) -> Tensor:
        whole = heads.flatten(2)  # [R, n, H * D]
        return F.rms_norm(whole, whole.shape[-1:], None, self.norm_eps).view_as(heads)

    def of_unit_length(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of cosine attention, [R, H, n, D] each, from qkv [R, n, 3 H, D]."""
        queries, keys, values = (part.transpose(1, 2) for part in qkv.chunk(3, dim=2))
        of_query, of_value = self.query_value_bias.view(2, self.heads, 1, self.head_width)
        # The kernel divides by the root of the head width.
        factor = self.log_factor.clamp(max=LOG_MOST).exp() * self.head_width**0.5
        queries = F.normalize(queries + of_query, dim=-1) * factor
        return queries, F.normalize(keys, dim=-1), values + of_value

    def project_in_place(self, x: Tensor, phases: Tensor | None) -> tuple[Tensor, Tensor]:
        """The same without gradient: queries [R, H, n, D], and keys, then values, [R, 2 Hkv, n, D]."""
        if self.cosine:
            queries, keys, values = self.project(x, phases)
            return queries, torch.cat([keys, values], dim=1)
        images, rows, _ = x.shape
        qkv = self.qkv(x).view(images, rows, -1, self.head_width)  # [R, n, H + 2 Hkv, D]
        qk = qkv.narrow(2, 0, self.heads + self.shared_heads)
        if self.qk_norm:
            parts = qk.split_with_sizes([self.heads, self.shared_heads], dim=2)
            for part, normalised in zip(parts, self.normalised(*parts), strict=True):
                part.copy_(normalised)
        if phases is not None:
            rotate_(qk, phases)
        queries, pair = qkv.transpose(1, 2).split_with_sizes([self.heads, 2 * self.shared_heads], dim=1)
        return queries, pair

    def forward(
        self,
        x: Tensor,
        phases: Tensor | None,
        view: View,
        cache: LayerCache | None = None,
        shared: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """[R, n, d] of x [R, n, d], or of the rows that the view asks for; all keys are written."""
        if shared is not None:
            images, rows, _ = x.shape
            queries = self.query(x).view(images, rows, -1, self.head_width)  # [R, n, H, D]
            queries = turned(queries, phases).transpose(1, 2)  # [R, H, n, D]
            keys, values = shared
        elif cache is None:
            queries, keys, values = self.project(x, phases)
        else:
            if is_compiling():  # the compiler joins kernels itself
                queries, keys, values = self.project(x, phases)
                pair = torch.cat([keys, values], dim=1)
            else:
                queries, pair = self.project_in_place(x, phases)
            keys, values = cache.extend(view.start if view.slots is None else view.slots, pair, view.reach)
        if view.asked is not None:
            queries = queries[:, :, -view.asked :]
        mixed = attend(queries, keys, values, view, self.dropout if self.training else 0.0)
        x = self.out(mixed.flatten(2))
        return F.dropout(x, self.dropout_after) if self.training and self.dropout_after else x
