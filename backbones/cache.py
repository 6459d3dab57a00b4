"""Preallocated key/value cache: no concatenation, no reallocation, its bytes known before the run."""

from typing import ClassVar

import torch
from torch import Tensor

from backbones.config import TrunkConfig
from backbones.pages import before_use


class LayerCache:
    """Slots of one layer: ``store`` [R, 2 H, slots, D] holds the keys' heads, then the values'."""

    def __init__(self, store: Tensor) -> None:
        self.store = store
        self.keys, self.values = store.chunk(2, dim=1)

    def extend(self, at: int | Tensor, pair: Tensor, reach: int | None = None) -> tuple[Tensor, Tensor]:
        """Write keys and values, ``pair`` [R, 2 H, n, D]; return those that can be seen, views [R, H, S, D].

        at: the first of n slots, which all rows fill alike; all up to the last of them are returned. Or the
        slots one by one, int64 [R, n] or [1, n], no two of a row the same; then the first ``reach`` are
        returned (None: all), and whoever reads them masks what its row has not filled. Slots can be written
        over. IndexError or RuntimeError for a slot that is not there.
        """
        slots = self.store.shape[2]
        if isinstance(at, Tensor):
            self.store.scatter_(2, at[:, None, :, None].expand_as(pair), pair)
            filled = slots if reach is None else reach
        else:
            rows = pair.shape[2]
            filled = at + rows
            if filled > slots:
                raise IndexError(f"cache of {slots} slots asked to hold {filled}")
            self.store.narrow(2, at, rows).copy_(pair)
        return self.keys.narrow(2, 0, filled), self.values.narrow(2, 0, filled)


class KVCache:
    """Keys (already rotated) and values of ``layers`` x ``slots``; slot s is written in place.

    Slots are zero until they are written. A decode whose rows fill the same slots reads up to the filled
    length and needs no mask. One whose rows fill different ones masks the others, and what is masked adds
    exactly nothing, since it is finite.
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
        shape = (layers, rows, 2 * config.shared_heads, slots, config.head_width)
        self.store = before_use(torch.empty(shape, dtype=dtype, device=device)).zero_()
        self.layers = [self.layer_type(layer) for layer in self.store]
        self.unit: int | None = None
        """Recorded passes read multiples of so many slots; None where none are recorded."""

    @property
    def slots(self) -> int:
        return self.store.shape[3]

    @property
    def nbytes(self) -> int:
        return self.store.nbytes

    def clear(self) -> None:
        """Zero all slots, as they were at first."""
        self.store.zero_()


def cache_bytes(config: TrunkConfig, layers: int, rows: int, slots: int, dtype: torch.dtype) -> int:
    """Bytes of a ``KVCache``, without making one."""
    return layers * 2 * rows * slots * config.shared_heads * config.head_width * dtype.itemsize
