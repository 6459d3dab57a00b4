"""Preallocated key/value cache: no concatenation, no reallocation, its bytes known before the run."""

import torch
from torch import Tensor

from backbones.config import TrunkConfig


class KVCache:
    """Keys (already rotated) and values of ``layers`` x ``slots``; slot s is written in place.

    Reading stops at the filled length, so no mask over empty slots is ever needed.
    """

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
        self.slots = slots

    def extend(self, layer: int, start: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write keys and values [R, H, n, D] at slots start..start+n; return all up to there [R, H, S, D]."""
        filled = start + keys.shape[2]
        if filled > self.slots:
            raise IndexError(f"cache of {self.slots} slots asked to hold {filled}")
        store_k, store_v = self.store[layer].unbind(0)
        store_k[:, :, start:filled] = keys
        store_v[:, :, start:filled] = values
        return store_k[:, :, :filled], store_v[:, :, :filled]

    @property
    def nbytes(self) -> int:
        return self.store.nbytes


def cache_bytes(config: TrunkConfig, layers: int, rows: int, slots: int, dtype: torch.dtype) -> int:
    """Bytes of a ``KVCache``, without making one."""
    return layers * 2 * rows * slots * config.shared_heads * config.head_width * dtype.itemsize
