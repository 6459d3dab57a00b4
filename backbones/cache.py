"""Preallocated key/value cache: no concatenation, no reallocation, its bytes known before the run."""

from typing import ClassVar

import torch
from torch import Tensor

from backbones.config import TrunkConfig


class LayerCache:
    """Slots of one layer: keys and values [R, H, slots, D]."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values

    def extend(self, start: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write keys and values [R, H, n, D] at slots start..start+n; return all up to there [R, H, S, D]."""
        filled, slots = start + keys.shape[2], self.keys.shape[2]
        if filled > slots:
            raise IndexError(f"cache of {slots} slots asked to hold {filled}")
        self.keys[:, :, start:filled] = keys
        self.values[:, :, start:filled] = values
        return self.keys[:, :, :filled], self.values[:, :, :filled]


class KVCache:
    """Keys (already rotated) and values of ``layers`` x ``slots``; slot s is written in place.

    Reading stops at the filled length, so no mask over empty slots is ever needed.
    """

    layer_type: ClassVar[type[LayerCache]] = LayerCache

    def __init__(
        self,
        config: TrunkConfig,
        rows: int,
        slots: int,
        dtype: torch.dtype,
        device: torch.device,
        layers: int | None = None,
    ) -> None:
        layers = config.depth if layers is None else layers
        shape = (layers, 2, rows, config.shared_heads, slots, config.head_width)
        self.store = torch.empty(shape, dtype=dtype, device=device)
        self.layers = [self.layer_type(keys, values) for keys, values in self.store]

    @property
    def nbytes(self) -> int:
        return self.store.nbytes


def cache_bytes(config: TrunkConfig, layers: int, rows: int, slots: int, dtype: torch.dtype) -> int:
    """Bytes of a ``KVCache``, without making one."""
    return layers * 2 * rows * slots * config.shared_heads * config.head_width * dtype.itemsize
