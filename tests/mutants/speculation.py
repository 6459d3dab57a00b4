"""Wrong decisions while decoding: drafts, tests, redraws, revisions, paces, networks, unfilled slots."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from backbones.transformer import View
from strategies.decoding.contract import Parts
from strategies.decoding.requests import Accept, Ask, Draft, Redraw
from strategies.decoding.sampling import StreamSampler
from strategies.jacobi import Jacobi
from strategies.raster import Raster
from strategies.sjd_gs import SJDGS
from strategies.sjd_mc import SJDMC
from tests.mutants import Mutant
from tests.mutants.tools import relayed
from tests.strategies.kinds import (
    ByConfidence,
    ByEquality,
    ByTest,
    Pace,
    Revising,
    Scales,
    Staggered,
    TwoHeads,
    TwoNetworks,
    shifted,
)

# Traits of a training-free method are its own: a mutant claims again what its original claims.


@dataclass(frozen=True)
class CommitsARejectedDraft(ByTest):
    decides_steps: ClassVar[bool] = True
    lossless: ClassVar[bool] = True

    def tokens(self, tokens, drafts, rejected):
        tokens[:, :-1] = torch.where(rejected, drafts, tokens[:, :-1])
        return tokens


@dataclass(frozen=True)
class KeepsAStaleLaw(ByTest):
    decides_steps: ClassVar[bool] = True
    lossless: ClassVar[bool] = True

    def carry(self, tokens, drafts, q, p, final):
        drafts, laws = super().carry(tokens, drafts, q, p, final)
        old = shifted(q, final.sum(dim=1), torch.nan)
        return drafts, torch.where(old.isnan(), laws, old)


@dataclass(frozen=True)
class ReusesADrawForARedraw(ByTest):
    decides_steps: ClassVar[bool] = True
    lossless: ClassVar[bool] = True

    def redraw(self, p, q, at, fresh):
        yield Redraw(p, at)
        return fresh[:, :-1]


@dataclass(frozen=True)
class RedrawsFromTheTarget(ByTest):
    decides_steps: ClassVar[bool] = True
    lossless: ClassVar[bool] = True

    def redraw(self, p, q, at, fresh):
        return (yield Redraw(p, at))


@dataclass(frozen=True)
class TestsWithoutTheLaw(ByTest):
    __test__ = False
    decides_steps: ClassVar[bool] = True
    lossless: ClassVar[bool] = True

    def test(self, number, drafts, q, p):
        return number < p.gather(2, drafts[..., None]).squeeze(2)


@dataclass(frozen=True)
class RedrawsWithThePlacesNoise(ByTest):
    """Drafts by the noise of their places, which is right, and redraws by it."""

    decides_steps: ClassVar[bool] = True
    lossless: ClassVar[bool] = True

    def noise(self):
        return "place"

    def redraw(self, p, q, at, fresh):
        drawn = yield Draft(p, at, "place", law=lambda logits, sampler: (p - q).clamp(min=0))
        return drawn.tokens


def in_step(final, at):
    """What the image with the fewest places accepts, for all that are not done."""
    running = (at >= 0).any(dim=1)
    return final & (final | ~running[:, None]).all(dim=0)


@dataclass(frozen=True)
class AdvancesByTheSlowest(ByTest):
    decides_steps: ClassVar[bool] = True
    lossless: ClassVar[bool] = True

    def final(self, final, at):
        return in_step(final, at)


@dataclass(frozen=True)
class AdvancesByTheSlowestWithOldLaws(ByTest):
    """Says that a batch is another matter, not that it is lossy there."""

    decides_steps: ClassVar[bool] = True
    lossless: ClassVar[bool] = True
    batch_exact: ClassVar[bool] = False

    def final(self, final, at):
        return in_step(final, at)

    def carry(self, tokens, drafts, q, p, final):
        laws = p.clone()
        laws[:, :-1] = torch.where((tokens[:, :-1] == drafts)[..., None], q, p[:, :-1])
        return super().carry(tokens, drafts, q, laws, final)


@dataclass(frozen=True)
class ShowsAnotherImagesDrafts(ByTest):
    decides_steps: ClassVar[bool] = True
    lossless: ClassVar[bool] = True

    def fed(self, drafts):
        return drafts.roll(1, dims=0)


@dataclass(frozen=True)
class KeepsTheLawOfAKeptDraft(SJDMC):
    """The published code's distribution of drafts that passed, said to be lossless."""

    decides_steps: ClassVar[bool] = True
    tests_drafts: ClassVar[bool] = True
    lossless: ClassVar[bool] = True

    def decode(self, network, plan, rows):
        return SJDMC(window=self.window, kept="stale").decode(network, plan, rows)


@dataclass(frozen=True)
class RedrawsByTheSameGumbelNoise(SJDGS):
    """A rejected draft is replaced by the residual's winner under the noise that drew it."""

    decides_steps: ClassVar[bool] = True
    tests_drafts: ClassVar[bool] = True
    lossless: ClassVar[bool] = True

    def decode(self, network, plan, rows):
        inner = super().decode(network, plan, rows)
        answer, logits = None, None
        while True:
            try:
                request = inner.send(answer)
            except StopIteration:
                return
            if isinstance(request, Draft):
                logits = request.logits
            if isinstance(request, Redraw):
                law = request.probs
                drawn = yield Draft(
                    logits[:, :1], request.at, "gumbel", law=lambda logits, sampler, law=law: law
                )
                answer = drawn.tokens
            else:
                answer = yield request


@dataclass(frozen=True)
class TestsItsDraftsItself(Jacobi):
    """Compares drafts with their draws and tells nobody."""

    __test__: ClassVar[bool] = False
    decides_steps: ClassVar[bool] = True
    tests_drafts: ClassVar[bool] = True
    lossless: ClassVar[bool] = True

    def decode(self, network, plan, rows):
        inner = super().decode(network, plan, rows)
        answer = None
        while True:
            try:
                request = inner.send(answer)
            except StopIteration:
                return
            answer = request.chance > 0 if isinstance(request, Accept) else (yield request)


class UncutPace(Pace):
    """Writes behind what it has fed, rejected drafts included."""

    def __init__(self, network, plan, rows, window):
        super().__init__(network, plan, rows, window)
        self.cache = network.cache(len(rows), network.config.trunk.depth, (plan.places + 1) * window)
        self.end = torch.zeros(self.batch, dtype=torch.int64)

    def slot(self, start, fed):
        here, self.end = self.end, self.end + fed
        return here


@dataclass(frozen=True)
class ForgetsToCutTheCache(ByTest):
    decides_steps: ClassVar[bool] = True
    lossless: ClassVar[bool] = True

    def pace(self, network, plan, rows):
        return UncutPace(network, plan, rows, self.window)


@dataclass(frozen=True)
class BoundsTooFewSteps(ByEquality):
    decides_steps: ClassVar[bool] = True
    lossless: ClassVar[bool] = True

    def bounded(self, grid):
        return replace(super().bounded(grid), most_steps=6)


@dataclass(frozen=True)
class HidesThatItDecides(ByEquality):
    """Its plan says one token a step."""

    lossless: ClassVar[bool] = True


@dataclass(frozen=True)
class FeedsWhatIsNotKept(ByConfidence):
    def shown(self, tokens, unknown, drawn):
        return torch.where(unknown, drawn, tokens)


@dataclass(frozen=True)
class LeavesAPlaceUnwritten(ByConfidence):
    def kept(self, sure, unknown, size):
        kept = super().kept(sure, unknown, size)
        kept[:, 5] = False
        return kept


@dataclass(frozen=True)
class RevisesSilently(Revising):
    revises: ClassVar[bool] = False


@dataclass(frozen=True)
class ForgetsToAccumulate(Scales):
    def decode(self, network, plan, rows):
        return relayed(super().decode(network, plan, rows), tokens=torch.zeros_like)


@dataclass(frozen=True)
class ReadsOneHead(TwoHeads):
    def decode(self, network, plan, rows):
        phases = network.phases(torch.arange(plan.places))
        cache = network.cache(len(rows), network.config.trunk.depth, plan.places)
        x = network.class_embedding(rows.labels)[:, None]
        for slot, at in enumerate(plan.groups()):
            heads = network(x, phases[slot : slot + 1], View(start=slot), cache)
            x = network.token_embedding((yield Ask(heads[0], at)))


@dataclass(frozen=True)
class CountsOneNetworkOnly(TwoNetworks):
    def call(self, network, role, *args):
        return network[role].forward(*args) if role == "auxiliary" else network[role](*args)


@dataclass(frozen=True)
class AttendsUnfilledSlots(Staggered):
    def seen(self, wave, written):
        return torch.arange(len(written)) <= wave[:, None]


@dataclass(frozen=True)
class ClaimsThatStaggeredIsLossless(Raster):
    """A plug-in of the kind that derives from the method whose network it decodes, and repeats its claim."""

    base: ClassVar[str | None] = "raster"
    lossless: ClassVar[bool] = True

    def sizes(self, grid, steps, given=0):
        return Staggered().sizes(grid, steps, given)

    def orders(self, grid, sizes, streams, known):
        return Staggered().orders(grid, sizes, streams, known)

    def decode(self, network, plan, rows):
        return Staggered().decode(network, plan, rows)


@dataclass(frozen=True)
class SeesItsOwnRowOnly(Raster):
    """Changes both passes alike, so that they agree."""

    base: ClassVar[str | None] = "raster"
    lossless: ClassVar[bool] = True

    def taught_logits(self, network, tokens, labels, lesson):
        x = torch.cat([network.class_embedding(labels)[:, None], network.token_embedding(tokens[:, :-1])], 1)
        places = torch.arange(x.shape[1])
        return network(x, network.phases(places), View(mask=self.seen(network, places)))

    def seen(self, network, places):
        row = places // network.config.grid[1]
        return (row == row[:, None]) & (places <= places[:, None]) | (places == 0)

    def decode(self, network, plan, rows):
        places = torch.arange(plan.places)
        mask, phases = self.seen(network, places), network.phases(places)
        cache = network.cache(len(rows), network.config.trunk.depth, plan.places)
        x = network.class_embedding(rows.labels)[:, None]
        for slot, at in enumerate(plan.groups()):
            view = View(start=slot, mask=mask[slot : slot + 1, : slot + 1])
            x = network.token_embedding((yield Ask(network(x, phases[slot : slot + 1], view, cache), at)))


@dataclass(frozen=True)
class SameAtEveryVisit(StreamSampler):
    def noise(self, order, purpose="token", visit=0):
        return super().noise(order, purpose, 0)


@dataclass(frozen=True)
class SameForEveryPurpose(StreamSampler):
    def noise(self, order, purpose="token", visit=0):
        return super().noise(order, "token", visit)


OFF = "an image's probability is off by"
MUTANTS = [
    Mutant("commits a rejected draft", CommitsARejectedDraft(), ("lossless",), OFF),
    Mutant("keeps a stale draft distribution", KeepsAStaleLaw(), ("lossless",), OFF),
    Mutant(
        "keeps the old distribution with a coupled draft that passed",
        KeepsTheLawOfAKeptDraft(window=3),
        ("lossless",),
        OFF,
    ),
    Mutant(
        "redraws by the Gumbel noise of the draft",
        RedrawsByTheSameGumbelNoise(window=3),
        ("lossless",),
        OFF,
    ),
    Mutant("reuses a draw for a redraw", ReusesADrawForARedraw(), ("lossless",), OFF),
    Mutant("redraws from the target instead of the residual", RedrawsFromTheTarget(), ("lossless",), OFF),
    Mutant("tests drafts without their distribution", TestsWithoutTheLaw(), ("lossless",), OFF),
    Mutant(
        "redraws with a place's own noise where fresh noise is needed",
        RedrawsWithThePlacesNoise(),
        ("lossless",),
        OFF,
    ),
    Mutant(
        "advances all images by the slowest without saying so",
        AdvancesByTheSlowest(),
        ("batch_equals_singles",),
        "steps of image",
    ),
    Mutant(
        "advances by the slowest, accepted drafts keeping their old distribution",
        AdvancesByTheSlowestWithOldLaws(),
        ("lossless_in_a_batch",),
        "chi-square",
    ),
    Mutant(
        "lets an image see another one's drafts",
        ShowsAnotherImagesDrafts(),
        ("batch_equals_singles",),
        "in a batch",
    ),
    Mutant(
        "forgets to cut rejected drafts off the cache",
        ForgetsToCutTheCache(),
        ("causal", "lossless"),
        "is seen too early",
    ),
    Mutant(
        "takes more steps than its plan bounds",
        BoundsTooFewSteps(),
        ("used_through_the_loop_only",),
        "the plan says at most 6, decided while decoding",
    ),
    Mutant(
        "decides while decoding under a plan of one token a step",
        HidesThatItDecides(),
        ("every_position_once", "used_through_the_loop_only"),
        "a strategy that decides while decoding gives a plan that says so",
    ),
    Mutant(
        "feeds drawn tokens that it does not keep", FeedsWhatIsNotKept(), ("causal",), "is seen too early"
    ),
    Mutant(
        "tests its drafts without the loop",
        TestsItsDraftsItself(),
        ("tests_its_drafts",),
        "no draft is tested by Accept",
    ),
    Mutant(
        "leaves a place unwritten",
        LeavesAPlaceUnwritten(),
        ("every_position_once",),
        "places of its batch unwritten",
    ),
    Mutant(
        "revises tokens silently",
        RevisesSilently(),
        ("every_position_once",),
        "by a strategy that does not declare `revises`",
    ),
    Mutant(
        "forgets the smaller maps when it makes the next input",
        ForgetsToAccumulate(),
        ("cached_equals_taught",),
        "decoded and taught logits",
    ),
    Mutant(
        "reads one of two heads",
        ReadsOneHead(),
        ("cached_equals_taught", "lossless"),
        "decoded and taught logits",
    ),
    Mutant(
        "counts one network's passes only",
        CountsOneNetworkOnly(),
        ("hides_no_work",),
        "outside the counted forward calls",
    ),
    Mutant(
        "attends to unfilled slots silently",
        AttendsUnfilledSlots(),
        ("reads_only_filled_slots",),
        "declare empty_context = True",
    ),
    Mutant(
        "claims to be lossless as its base is, and starts rows early",
        ClaimsThatStaggeredIsLossless(),
        ("lossless", "cached_equals_taught"),
        "the judge is its base, 'raster'",
    ),
    Mutant(
        "sees its own row only, in both passes",
        SeesItsOwnRowOnly(),
        ("lossless",),
        "the judge is its base, 'raster'",
    ),
    Mutant(
        "gives every visit of a place the same number",
        ByTest(),
        ("noise_belongs_to_images",),
        "is not the images' own",
        Parts(SameAtEveryVisit),
    ),
    Mutant(
        "gives tests and redraws the numbers of draws",
        ByTest(),
        ("noise_belongs_to_images", "lossless_in_a_batch"),
        "is not the images' own",
        Parts(SameForEveryPurpose),
    ),
]
