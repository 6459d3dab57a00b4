"""Wrong masked decoders: what is shown, what is accepted, whose noise orders it, what becomes of the mask."""

from copy import copy
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from strategies.decoding.requests import Commit, Uniform
from strategies.halton import Halton
from strategies.maskgit import MaskedNetwork, MaskGIT
from tests.mutants import Mutant


def answered(decoding, change=lambda request: request, answer_of=lambda request, answer: answer):
    """The same decode with changed requests on the way out, changed answers on the way back."""
    answer = None
    while True:
        try:
            request = decoding.send(answer)
        except StopIteration:
            return
        answer = answer_of(request, (yield change(request)))


class OrdersByAnotherImagesNoise(MaskGIT):
    def decode(self, network, plan, rows):
        def rolled(request, answer):
            return answer.roll(1, dims=0) if isinstance(request, Uniform) else answer

        return answered(super().decode(network, plan, rows), answer_of=rolled)


class OrdersByTheGlobalGenerator(MaskGIT):
    def decode(self, network, plan, rows):
        def other(request, answer):
            return torch.rand_like(answer) if isinstance(request, Uniform) else answer

        return answered(super().decode(network, plan, rows), answer_of=other)


class ResamplesSilently(MaskGIT):
    revises: ClassVar[bool] = False

    def decode(self, network, plan, rows):
        return MaskGIT(resample_known=True).decode(network, plan, rows)


class TakesSizesForTotals(MaskGIT):
    """Each step accepts as many as it should add, those of earlier steps among them."""

    def decode(self, network, plan, rows):
        wrong = copy(plan)
        # What ``decode`` adds up to totals; a plan would not take it.
        object.__setattr__(wrong, "sizes", tuple(np.diff([0, *plan.sizes]).tolist()))
        return super().decode(network, wrong, rows)


class RedrawsWhatIsGiven(MaskGIT):
    def decode(self, network, plan, rows):
        first, *others = plan.sizes or (0,)
        unaware = replace(plan, given=0, sizes=(plan.given + first, *others))
        return super().decode(network, unaware, replace(rows, known=None))


class ShutsItsEyesToWhatIsGiven(MaskGIT):
    any_order: ClassVar[bool] = True

    def decode(self, network, plan, rows):
        return super().decode(network, plan, replace(rows, known=None))


class ClaimsToBeLosslessOutsideABatch(MaskGIT):
    lossless: ClassVar[bool] = True
    batch_exact: ClassVar[bool] = False


class ScoresTheMask(MaskedNetwork):
    """As published: the mask is a class of the head."""

    def __init__(self, config):
        super().__init__(config)
        self.head = nn.Linear(config.trunk.width, config.codes + 1, bias=False)


class LetsTheMaskOut(MaskGIT):
    def network(self, config):
        return ScoresTheMask(config)

    def decode(self, network, plan, rows):
        drawn = []

        def heard(request, answer):
            drawn.append(getattr(answer, "tokens", None))
            return answer

        def unclamped(request):
            if not isinstance(request, Commit):
                return request
            tokens = next(one for one in reversed(drawn) if one is not None)
            return replace(request, tokens=tokens)

        return answered(super().decode(network, plan, rows), unclamped, heard)


class ShowsWhatItAsksFor(MaskGIT):
    def taught_logits(self, network, tokens, labels, lesson):
        shown = None if lesson.shown is None else torch.ones_like(lesson.shown)
        return super().taught_logits(network, tokens, labels, replace(lesson, shown=shown))


class MasksByTheGlobalGenerator(MaskGIT):
    def lesson(self, batch, grid, generator, progress):
        lesson = super().lesson(batch, grid, generator, progress)
        return replace(lesson, shown=torch.rand(lesson.shown.shape) < 0.5)


class Blind:
    """A network that is shown masks alone."""

    def __init__(self, network):
        self.network = network

    def __getattr__(self, name):
        return getattr(self.network, name)

    def __call__(self, labels, codes, order, at):
        return self.network(labels, torch.full_like(codes, self.network.mask), order, at)


class ForgetsToUnmask(Halton):
    any_order: ClassVar[bool] = True

    def decode(self, network, plan, rows):
        return super().decode(Blind(network), plan, rows)


class RollsByTheRowOfTheBatch(Halton):
    any_order: ClassVar[bool] = True

    def orders(self, grid, sizes, streams, known):
        orders = super().orders(grid, sizes, streams, known)
        return np.stack([np.roll(orders[0], row) for row in range(len(streams.images))])


MUTANTS = [
    Mutant(
        "ranks an image's places by another image's noise",
        OrdersByAnotherImagesNoise(),
        ("batch_equals_singles",),
        "in a batch",
    ),
    Mutant(
        "ranks places by torch's global generator",
        OrdersByTheGlobalGenerator(),
        ("deterministic",),
        "global generator was drawn from",
    ),
    Mutant(
        "draws known tokens anew without declaring it",
        ResamplesSilently(),
        ("every_position_once",),
        "by a strategy that does not declare `revises`",
    ),
    Mutant(
        "takes what a step adds for what is known after it",
        TakesSizesForTotals(),
        ("every_position_once",),
        "places",
    ),
    Mutant(
        "draws given tokens anew",
        RedrawsWhatIsGiven(),
        ("given_tokens",),
        "written 2 times",
    ),
    Mutant(
        "shows the network nothing of what is given",
        ShutsItsEyesToWhatIsGiven(),
        ("given_tokens",),
        "the same after other given tokens",
    ),
    Mutant(
        "claims to be lossless, but not in a batch",
        ClaimsToBeLosslessOutsideABatch(),
        ("lossless",),
        "chi-square",
    ),
    Mutant(
        "lets a drawn mask out as a token", LetsTheMaskOut(), ("every_position_once",), "tokens outside 0..10"
    ),
    Mutant(
        "shows in training what it asks for", ShowsWhatItAsksFor(), ("lessons_leak_nothing",), "differ by"
    ),
    Mutant(
        "masks by a generator that is not the lesson's",
        MasksByTheGlobalGenerator(),
        ("lessons",),
        "a lesson depends on more than its generator",
    ),
    Mutant(
        "shows no step what was drawn before it",
        ForgetsToUnmask(),
        ("cached_equals_taught", "causal"),
        "decoded and taught logits",
    ),
    Mutant(
        "shifts an order by the image's row in its batch",
        RollsByTheRowOfTheBatch(),
        ("plans_are_valid",),
        "an image's order is not its own",
    ),
]
