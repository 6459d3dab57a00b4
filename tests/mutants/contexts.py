"""Wrong contexts: what a step sees, of its own image, of other images and of earlier decodes."""

from dataclasses import replace
from typing import ClassVar

import torch

from backbones.cache import KVCache, LayerCache
from strategies.arpg import ARPG
from strategies.lpd import LPD
from strategies.raster import Raster
from tests.mutants import Mutant
from tests.mutants.tools import Dressed, relayed


class PeeksInTraining(Raster):
    def taught_logits(self, network, tokens, labels, lesson):
        return super().taught_logits(network, tokens.roll(-1, dims=1), labels, lesson)


class PeeksInDecoding(Raster):
    def decode(self, network, plan, rows):
        swapped = {0: slice(1, 2), 1: slice(0, 1)}
        return relayed(super().decode(network, plan, rows), at=lambda at: swapped.get(at.start, at))


class LeaksBetweenImages(Raster):
    def decode(self, network, plan, rows):
        return relayed(
            super().decode(network, plan, rows),
            logits=lambda logits: torch.lerp(logits, logits.mean(dim=0, keepdim=True), 0.01),
        )


class FirstRowOfLayer(LayerCache):
    def extend(self, at, pair, reach=None):
        keys, values = super().extend(at, pair, reach)
        return keys[:1].expand_as(keys), values[:1].expand_as(values)


class FirstRowForAll(KVCache):
    layer_type = FirstRowOfLayer


class ReadsAnotherImagesCache(Raster):
    def decode(self, network, plan, rows):
        return super().decode(Dressed(network, FirstRowForAll), plan, rows)


class KeptPrefixOfLayer(LayerCache):
    kept: ClassVar[dict] = {}

    def extend(self, at, pair, reach=None):
        if at == 0:
            layer = self.store.storage_offset()
            pair = self.kept.setdefault((layer, pair.shape), pair.clone())
        return super().extend(at, pair, reach)


class KeptPrefix(KVCache):
    layer_type = KeptPrefixOfLayer


class KeepsAnotherDecodesPrefix(ARPG):
    def decode(self, network, plan, rows):
        return super().decode(Dressed(network, KeptPrefix), plan, rows)


class LosesSlotThreeOfLayer(LayerCache):
    def extend(self, at, pair, reach=None):
        before = self.store[:, :, 3].clone()
        found = super().extend(at, pair, reach)
        if at == 3:
            self.store[:, :, 3] = before
        return found


class LosesSlotThree(KVCache):
    layer_type = LosesSlotThreeOfLayer


class ReadsAnUnwrittenSlot(Raster):
    def decode(self, network, plan, rows):
        return super().decode(Dressed(network, LosesSlotThree), plan, rows)


class StaleCache(LPD):
    def decode(self, network, plan, rows):
        return relayed(super().decode(network, plan, rows), tokens=torch.zeros_like)


class ShiftedPhases(Raster):
    def decode(self, network, plan, rows):
        return super().decode(Dressed(network, shift=1), plan, rows)


class ShiftedTargets(ARPG):
    def decode(self, network, plan, rows):
        return super().decode(Dressed(network, shift=1), plan, rows)


class ForgetsGivenTokens(ARPG):
    def decode(self, network, plan, rows):
        known = None if rows.known is None else torch.zeros_like(rows.known)
        return super().decode(network, plan, replace(rows, known=known))


MUTANTS = [
    Mutant(
        "peeks at later tokens in training",
        PeeksInTraining(),
        ("lessons_leak_nothing", "cached_equals_taught", "lossless"),
        "when its token is another one",
    ),
    Mutant(
        "decodes the second position first, and the first from it",
        PeeksInDecoding(),
        ("causal", "every_position_once"),
        "step 0 writes places 1..2, its plan says places 0..1",
    ),
    Mutant(
        "mixes 1 % of the batch's mean into every image",
        LeaksBetweenImages(),
        ("batch_equals_singles",),
        "in a batch and alone",
    ),
    Mutant(
        "reads the cache of the batch's first image",
        ReadsAnotherImagesCache(),
        ("batch_equals_singles", "cached_equals_taught"),
        "in a batch and alone",
    ),
    Mutant(
        "keeps the class prefix of an earlier decode in the cache",
        KeepsAnotherDecodesPrefix(),
        ("batch_equals_singles", "guidance"),
        "in a batch and alone",
    ),
    Mutant(
        "reads a cache slot that it never wrote",
        ReadsAnUnwrittenSlot(),
        ("reads_only_filled_slots",),
        "not yet filled",
    ),
    Mutant(
        "leaves the last group's queries in the cache instead of its tokens",
        StaleCache(),
        ("cached_equals_taught", "causal"),
        "decoded and taught logits",
    ),
    Mutant(
        "turns inputs by the phases of the next position",
        ShiftedPhases(),
        ("cached_equals_taught",),
        "decoded and taught logits",
    ),
    Mutant(
        "asks for the position after the one it writes",
        ShiftedTargets(),
        ("cached_equals_taught",),
        "decoded and taught logits",
    ),
    Mutant(
        "replaces given tokens by zeros",
        ForgetsGivenTokens(),
        ("given_tokens",),
        "logits after given tokens",
    ),
]
