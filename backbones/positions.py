"""2-D rotary phases as LlamaGen and its descendants use them (arXiv 2406.06525).

A phase is a unit complex number per channel pair. Row 0 of every table is all zero, not one: a query or key
turned by it becomes the zero vector. Prefix and learned tokens use that row; position p uses row 1 + p.
"""

from functools import lru_cache

import torch
from torch import Tensor

PREFIX_ROW = 0


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # kept beyond the decode that first asks for it
def rotary_table(
    grid: tuple[int, int],
    head_width: int,
    base: float,
    device: torch.device,
    trained: tuple[int, int] | None = None,
    boundary: int = 0,
) -> Tensor:
    """Phases of the prefix row and of every raster position: complex64 [1 + h*w, head_width / 2].

    The first half of the channel pairs turns with the row, the second with the column, at frequencies
    base^(-2m / (head_width / 2)). Kept outside modules, so casting a network never rounds it.

    trained: the smaller grid that a network has learned. All but the ``boundary`` highest frequencies then
    meet its positions only, spread evenly over ``grid``; those go on beyond them (RandAR, arXiv 2412.01827).
    """
    half = head_width // 2
    exponents = torch.arange(0, half, 2, dtype=torch.float32) / half
    frequencies = 1.0 / base**exponents  # [head_width / 4]
    sides = []
    for axis in (0, 1):
        whole = torch.arange(grid[axis], dtype=torch.float32)[:, None].repeat(1, len(frequencies))
        if trained is not None:
            whole[:, boundary:] = torch.linspace(0, trained[axis] - 1, grid[axis])[:, None]
        sides.append(whole * frequencies)  # [h or w, head_width / 4]
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    angles = torch.cat(
        [sides[0][rows.flatten()], sides[1][columns.flatten()]], dim=1
    )  # [h*w, head_width / 2]
    phases = torch.complex(angles.cos(), angles.sin())
    prefix = torch.zeros(1, half, dtype=phases.dtype)
    return torch.cat([prefix, phases]).to(device)


def rotate(x: Tensor, phases: Tensor) -> Tensor:
    """Turn adjacent channel pairs of x [..., n, heads, D] by phases [..., n, 1, D/2], in float32 or more."""
    pairs = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(
        -1, (-1, 2)
    )  # [..., n, heads, D/2, 2]
    if torch.compiler.is_compiling():  # the compiler has no complex arithmetic
        real, imaginary = pairs.unbind(-1)
        cos, sin = torch.view_as_real(phases).unbind(-1)
        turned = torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)
        return turned.flatten(-2).type_as(x)
    pairs = torch.view_as_complex(pairs)  # [..., n, heads, D/2]
    return torch.view_as_real(pairs * phases).flatten(-2).type_as(x)


def rotate_(x: Tensor, phases: Tensor) -> None:
    """``rotate`` in place, without gradient."""
    wide = x if x.dtype.itemsize >= torch.float32.itemsize else x.float()
    wide.view(wide.dtype.to_complex()).mul_(phases)
    if wide is not x:
        x.copy_(wide)
