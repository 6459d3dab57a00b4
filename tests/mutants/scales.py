"""Wrong next-scale decoders: sums of maps, levels, hand-over, and what is counted of two networks."""

import torch

from backbones.transformer import View
from strategies.code import CoDe
from strategies.var import VAR, Condition, Sums
from tests.mutants import Mutant
from tests.mutants.tools import relayed


class LastMapAlone(Sums):
    def up_to(self, scale, quantiser):
        self.total = None
        return super().up_to(scale, quantiser)


class ForgetsSmallerMaps(VAR):
    def decode(self, network, plan, rows):
        cache = network.cache(len(rows), *self.cache_shape(network.config))
        condition, sums = Condition(rows.labels), LastMapAlone()
        for scale, at in enumerate(plan.groups()):
            logits = network(condition, sums, range(scale, scale + 1), View(start=at.start), cache)
            tokens = yield self.ask(logits, at, scale)
            sums.drew(scale, tokens[: len(rows) // rows.branches])


class LevelsOffByOne:
    def __init__(self, network):
        self.network = network

    def __getattr__(self, name):
        return getattr(self.network, name)

    def __call__(self, *args, **named):
        levels = self.network.levels.weight
        before = levels.clone()
        levels.copy_(before.roll(1, dims=0))
        try:
            return self.network(*args, **named)
        finally:
            levels.copy_(before)


class WrongLevels(VAR):
    def decode(self, network, plan, rows):
        return super().decode(LevelsOffByOne(network), plan, rows)


class SeesItsOwnMapAlone(VAR):
    """Every map is written over the one before, in the first slots of the cache."""

    def decode(self, network, plan, rows):
        cache = network.cache(len(rows), *self.cache_shape(network.config))
        condition, sums = Condition(rows.labels), Sums()
        for scale, at in enumerate(plan.groups()):
            logits = network(condition, sums, range(scale, scale + 1), View(start=0), cache)
            tokens = yield self.ask(logits, at, scale)
            sums.drew(scale, tokens[: len(rows) // rows.branches])


class Refining(CoDe):
    """CoDe with a hand-over of its own: ``view`` and scales of the refiner's first pass."""

    def first(self, scale):
        return 0

    def runs(self, read):
        return tuple((one.stop - one.start, one.stop) for one in read)

    def decode(self, network, plan, rows):
        images, sums, groups = len(rows) // rows.branches, Sums(), plan.groups()
        hand_over = len(groups) - self.refined
        for scale, at in enumerate(groups):
            if scale in (0, hand_over):
                one = network["drafter" if scale < hand_over else "refiner"]
                cache = one.cache(len(rows), one.config.trunk.depth, plan.places)
                condition = Condition(rows.labels)
            first = self.first(scale) if scale == hand_over else scale
            read = groups[first : scale + 1]
            view = View(start=read[0].start, runs=self.runs(read))
            last = at.stop - at.start
            logits = self.call(one, condition, sums, range(first, scale + 1), view, cache, last)
            tokens = yield self.ask(logits, at, scale)
            sums.drew(scale, tokens[:images])

    def call(self, network, *args):
        return network(*args)


class RefinesWithoutAllDrafts(Refining):
    def first(self, scale):
        return scale - 1


class RefinesWithoutMask(Refining):
    def runs(self, read):
        return tuple((one.stop - one.start, read[-1].stop) for one in read)


class CountsTheDrafterAlone(Refining):
    def call(self, network, *args):
        return network.forward(*args) if args[2].start or args[2].stop > 2 else network(*args)


class AnotherClassAtTheHandOver(CoDe):
    def decode(self, network, plan, rows):
        start = plan.groups()[-self.refined].start
        places = iter(plan.groups())

        def swapped(logits):
            return logits.roll(1, dims=0) if next(places).start >= start else logits

        with torch.no_grad():
            yield from relayed(super().decode(network, plan, rows), logits=swapped)


MUTANTS = [
    Mutant(
        "feeds a map from the one before it alone, not from the sum of all smaller ones",
        ForgetsSmallerMaps(),
        ("cached_equals_taught",),
        "decoded and taught logits",
    ),
    Mutant(
        "adds the level of the map before",
        WrongLevels(),
        ("cached_equals_taught",),
        "decoded and taught logits",
    ),
    Mutant(
        "writes every map over the one before in the cache",
        SeesItsOwnMapAlone(),
        ("cached_equals_taught",),
        "decoded and taught logits",
    ),
    Mutant(
        "hands over the last drafted map alone",
        RefinesWithoutAllDrafts(),
        ("cached_equals_taught",),
        "decoded and taught logits",
    ),
    Mutant(
        "lets drafted maps see larger ones when the refiner reads them",
        RefinesWithoutMask(),
        ("cached_equals_taught",),
        "decoded and taught logits",
    ),
    Mutant(
        "calls the refiner past the counter",
        CountsTheDrafterAlone(),
        ("hides_no_work", "used_through_the_loop_only"),
        "outside the counted forward calls",
    ),
    Mutant(
        "refines with the class of another image",
        AnotherClassAtTheHandOver(),
        ("batch_equals_singles", "cached_equals_taught"),
        "in a batch and alone",
    ),
]
