"""What mutants are made with: an honest decode whose logits, places, tokens, cache or phases are changed."""

from collections.abc import Callable

import torch

from backbones.cache import KVCache
from strategies.decoding.decode import Ask


def unchanged(x):
    return x


def relayed(decoding, logits: Callable = unchanged, at: Callable = unchanged, tokens: Callable = unchanged):
    """The same decode with changed logits and places on the way out, changed tokens on the way back."""
    answer = None
    while True:
        try:
            ask = decoding.send(answer)
        except StopIteration:
            return
        answer = tokens((yield Ask(logits(ask.logits), at(ask.at))))


def is_guided(rows, network) -> bool:
    """Whether the second half of the rows, and only that, is without a class."""
    null = rows.labels == network.config.classes
    conditional, unconditional = null[: len(null) // 2], null[len(null) // 2 :]
    return bool(len(null) % 2 == 0 and unconditional.all() and not conditional.any())


class Dressed:
    """A network as a decode sees it, with other caches or phases."""

    def __init__(self, network, cache: type[KVCache] = KVCache, shift: int = 0) -> None:
        self.network, self.cache_type, self.shift = network, cache, shift

    def __getattr__(self, name: str):
        return getattr(self.network, name)

    def __call__(self, *args):
        return self.network(*args)

    def cache(self, rows: int, layers: int, slots: int) -> KVCache:
        network = self.network
        return self.cache_type(network.config.trunk, rows, slots, network.dtype, network.device, layers)

    def phases(self, rows: torch.Tensor):
        return self.network.phases((rows + self.shift) % (1 + self.network.config.places))
