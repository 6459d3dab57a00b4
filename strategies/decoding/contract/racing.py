"""What a race between codes says of their exponential numbers, so that the next race has exact odds.

Code v wins a race of weights p where E_v / p_v is the smallest, which bounds ratios: E_v / E_w <= p_v / p_w.
Several races with the same numbers bound them further. The numbers over their sum are uniform on the simplex,
so the odds of the next winner are shares of areas.
"""

import torch
from torch import Tensor

from strategies.decoding.contract.requirements import require

MOST_CODES = 3


def unbounded(*shape: int) -> Tensor:
    """Bounds [..., V, V] of numbers about which nothing is known."""
    return torch.full(shape, torch.inf, dtype=torch.float64)


def after(bounds: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds [B, V, V, V] after each code has won a race of ``weights`` [B, V], and its odds [B, V]."""
    codes = weights.shape[-1]
    require(codes <= MOST_CODES, f"races of {codes} codes can't be enumerated, only those of {MOST_CODES}")
    ratios = weights[:, :, None] / weights[:, None, :]
    narrowed = bounds[:, None].repeat(1, codes, 1, 1)  # [B, winner, V, V]
    for winner in range(codes):
        narrowed[:, winner, winner] = torch.minimum(narrowed[:, winner, winner], ratios[:, winner])
    narrowed.diagonal(dim1=2, dim2=3).fill_(1.0)
    for between in range(codes):
        detour = narrowed[..., :, between, None] * narrowed[..., None, between, :]
        narrowed = torch.minimum(narrowed, detour.nan_to_num(torch.inf, torch.inf))
    possible = (narrowed.diagonal(dim1=2, dim2=3) >= 1 - 1e-12).all(dim=-1) & (weights > 0)
    shares = torch.where(possible, area(narrowed).clamp(min=0).nan_to_num(0.0), 0.0)
    return narrowed, shares / shares.sum(dim=-1, keepdim=True)


def area(bounds: Tensor) -> Tensor:
    """Share of the simplex where all ratios E_v / E_w are below ``bounds`` [..., V, V], which are tight."""
    if bounds.shape[-1] == 2:
        return 1 / (1 + 1 / bounds[..., 0, 1]) - 1 / (1 + bounds[..., 1, 0])
    # x = E_0 / E_2 from a to b and y = E_1 / E_2 from low(x) to high(x), of density 2 / (1 + x + y)^3.
    a, b = 1 / bounds[..., 2, 0], bounds[..., 0, 2]
    least, slope = 1 / bounds[..., 2, 1], 1 / bounds[..., 0, 1]
    turn = torch.minimum(torch.maximum((least / slope).nan_to_num(0.0, torch.inf), a), b)
    low = _level(a, turn, least) + _sloped(turn, b, slope)
    most, steep = bounds[..., 1, 2], bounds[..., 1, 0]
    turn = torch.minimum(torch.maximum((most / steep).nan_to_num(0.0, torch.inf), a), b)
    high = _sloped(a, turn, steep) + _level(turn, b, most)
    return low - high


def _level(a: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """Integral of 1 / (1 + x + y)^2 from a to b."""
    return 1 / (1 + y + a) - 1 / (1 + y + b)


def _sloped(a: Tensor, b: Tensor, slope: Tensor) -> Tensor:
    """Integral of 1 / (1 + x + slope x)^2 from a to b."""
    return 1 / (1 / b + 1 + slope) - 1 / (1 / a + 1 + slope)
