"""Random numbers belong to images, not to batches.

Every draw is a function of (seed, image, position, purpose, visit) alone, so it does not depend on the batch
an image stands in, on the shard, the order or the strategy: runs can be cut, resumed and compared pairwise.
"""

from dataclasses import dataclass
from zlib import crc32

import numpy as np

_NUMBERS_OF_A_BLOCK = 8
"""Single-precision numbers that one value of Philox's counter gives."""


@dataclass(frozen=True)
class Streams:
    """Counter-based streams (Philox) for the images of one batch.

    ``images`` are indices into the run, not into the batch. ``purpose`` separates uses ("token", "order",
    "accept"); ``visit`` counts repeated draws for the same position.
    """

    seed: int
    images: tuple[int, ...]

    def generator(self, row: int, purpose: str, visit: int = 0, first: int = 0) -> np.random.Generator:
        """The stream of image ``images[row]``: Philox of key (seed, image), counter (purpose, visit, first).

        first: how many blocks of the stream are passed over.
        """
        key = np.array([self.seed, self.images[row]], dtype=np.uint64)
        counter = np.array([first, 0, visit, crc32(purpose.encode())], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))

    def uniform(self, purpose: str, size: int, visit: int = 0) -> np.ndarray:
        """Uniform numbers in [0, 1), float32 [B, size]; column p belongs to position p."""
        rows = [
            self.generator(row, purpose, visit).random(size, dtype=np.float32)
            for row in range(len(self.images))
        ]
        return np.stack(rows)

    def of_codes(self, purpose: str, codes: int, first: np.ndarray, places: int) -> np.ndarray:
        """Uniform numbers of every code at so many places from ``first`` [B] on: float32 [B, places, codes].

        They are those of one long stream, of which only these are made.
        """
        blocks = -(-codes // _NUMBERS_OF_A_BLOCK)
        found = np.empty((len(self.images), places, blocks * _NUMBERS_OF_A_BLOCK), dtype=np.float32)
        for row, numbers in enumerate(found):
            generator = self.generator(row, purpose, first=int(first[row]) * blocks)
            generator.random(dtype=np.float32, out=numbers)
        return found[:, :, :codes]

    def permutations(self, size: int) -> np.ndarray:
        """One uniform permutation of 0..size-1 per image, int64 [B, size]."""
        return np.argsort(self.uniform("order", size), axis=1, kind="stable")
