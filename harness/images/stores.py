"""The images of a run as they are made: a shard on disk for every chunk of batches, one chunk in memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.cell.cell import Cell
from harness.images.shards import Shards, Share

BATCHES_PER_SHARD = 10


def cut(images: range, length: int) -> Iterator[range]:
    """Ranges of ``length`` images in order, the last one shorter."""
    for start in range(images.start, images.stop, length):
        yield range(start, min(start + length, images.stop))


def shard_length(cell: Cell, chunk: int | None) -> int:
    """Images of a shard."""
    return chunk or BATCHES_PER_SHARD * cell.batch


@dataclass
class ImageStore:
    """Writes batches that come in order of their images into shards.

    A kill loses at most the chunk at work. Chunks begin at multiples of the batch, so that every cut of a run
    has the same batches and thereby the same images.
    """

    shards: Shards
    batch: int
    _missing: list[range] = field(default_factory=list)
    _tokens: list[Tensor] = field(default_factory=list)
    _pixels: list[Tensor] = field(default_factory=list)
    _counters: list[Mapping[str, NDArray[Any]]] = field(default_factory=list)

    @classmethod
    def of(
        cls, shards: Shards, cell: Cell, chunk: int | None = None, share: Share | None = None
    ) -> "ImageStore":
        """A store for what is missing of this process's share; chunk: images a shard, or 10 batches."""
        return cls(shards, cell.batch, shards.missing(shard_length(cell, chunk), share or Share()))

    @property
    def images_missing(self) -> int:
        return sum(len(chunk) for chunk in self._missing)

    def batches(self) -> Iterator[range]:
        """The images of every batch that is still to be made, in order."""
        for chunk in list(self._missing):
            yield from cut(chunk, self.batch)

    def add(
        self,
        images: range,
        tokens: Tensor,
        pixels: Tensor | None,
        counters: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """Take one batch; write its chunk when it is whole. Images that are on disk already are left out.

        tokens: int [B, N]; pixels: uint8 [B, 3, H, W] on the CPU, or None without a tokenizer.
        counters: [B, ..] each.
        """
        chunk = next((chunk for chunk in self._missing if images.start in chunk), None)
        if chunk is None:
            return
        self._tokens.append(tokens.cpu())
        if pixels is not None:
            self._pixels.append(pixels)
        self._counters.append(counters or {})
        if images.stop == chunk.stop:
            whole = torch.cat(self._pixels).numpy() if self._pixels else None  # [chunk, 3, H, W]
            counted = {
                name: np.concatenate([one[name] for one in self._counters]) for name in self._counters[0]
            }
            self.shards.write(chunk, torch.cat(self._tokens).numpy().astype(np.int32), whole, counted)
            self._missing.remove(chunk)
            self._tokens, self._pixels, self._counters = [], [], []
