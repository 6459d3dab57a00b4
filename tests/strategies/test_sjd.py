"""SJD: what it decodes is distributed as raster's, whatever it drafts; what breaks that is seen."""

from dataclasses import dataclass, field, replace
from itertools import product
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from backbones.transformer import Network
from pardec.errors import UserError
from strategies.decoding.base import Strategy
from strategies.decoding.contract.recording import CONTROLLED, randomise
from strategies.decoding.decode import Decoded, decode
from strategies.decoding.guidance import Guidance
from strategies.decoding.requests import Accept, Redraw
from strategies.decoding.sampling import DeclaredAcceptance, Sampler, StreamSampler
from strategies.decoding.streams import Streams
from strategies.raster import Raster
from strategies.sjd import SJD, published_law

CODES, PLACES = 3, 5
WORLD = replace(CONTROLLED, codes=CODES, grid=(1, PLACES))
IMAGES = torch.tensor(list(product(range(CODES), repeat=PLACES)))  # [243, 5]
BATCH = 4000


@dataclass(frozen=True)
class InStep(SJD):
    """Images advance in fours at the pace of the slowest; what is carried on has the new distributions."""

    decides_steps: ClassVar[bool] = True
    stale: ClassVar[bool] = False

    def judge(self, at: Tensor, drafts: Tensor, q: Tensor, p: Tensor, fresh: Tensor, sampler: Sampler):
        tokens, final, laws = yield from super().judge(at, drafts, q, p, fresh, sampler)
        if self.stale:
            accepted = final[:, 1:].unsqueeze(2)
            laws = torch.cat([torch.where(accepted, q, p[:, :-1]), p[:, -1:]], dim=1)
        return tokens, final.unflatten(0, (-1, 4)).all(dim=1).repeat_interleave(4, dim=0), laws


class Stale(InStep):
    """An accepted draft that waits for slower images keeps the distribution that it was drawn from."""

    decides_steps = True
    stale = True


@dataclass(frozen=True)
class Loose(StreamSampler):
    """Any independent numbers: those of the images' streams cost more than these tiny decodes."""

    generator: torch.Generator = field(default_factory=torch.Generator)

    def noise(self, order: Tensor, purpose: str = "token", visit: int = 0) -> Tensor:
        return torch.rand(order.shape, generator=self.generator)


def world() -> Network:
    network = Raster().network(WORLD).eval()
    randomise(network, seed=3, std=0.3)
    return network


def sequential_joint(network: Network, label: int, guidance: Guidance, temperature: float) -> Tensor:
    """Probability of every image, float64 [243], one token at a time."""
    strategy = Raster()
    lesson = strategy.lesson(len(IMAGES), WORLD.grid, torch.Generator(), 0.0)
    labels = torch.full((len(IMAGES),), label)
    with torch.no_grad():
        class_, nobody = (
            strategy.taught_logits(network, IMAGES, which, lesson).double()  # type: ignore[arg-type]
            for which in (labels, torch.full_like(labels, WORLD.classes))
        )
    logits = torch.lerp(nobody, class_, torch.tensor(guidance.scale, dtype=torch.float64)) / temperature
    return logits.log_softmax(dim=-1).gather(2, IMAGES.unsqueeze(2)).sum(dim=(1, 2)).exp()


def sampled(strategy: Strategy, images: int, seed: int = 0) -> tuple[Tensor, list[Decoded]]:
    """How often each image was decoded, [243], guided and tempered."""
    network, counts, found = world(), torch.zeros(len(IMAGES)), []
    generator = torch.Generator().manual_seed(seed)
    powers = CODES ** torch.arange(PLACES - 1, -1, -1)
    for start in range(0, images, BATCH):
        streams = Streams(0, tuple(range(min(BATCH, images - start))))
        sampler = Loose(streams, temperature=0.8, generator=generator)
        plan = strategy.plan(WORLD.grid, None, streams)
        labels = torch.ones(len(streams.images), dtype=torch.int64)
        found.append(decode(network, strategy, plan, labels, sampler, Guidance(1.5)))
        counts += (found[-1].tokens * powers).sum(dim=1).bincount(minlength=len(IMAGES))
    return counts, found


def chance(counts: Tensor) -> float:
    """Of counts at least as far (chi-squared) from raster's joint as these; rare images together."""
    expected = sequential_joint(world(), 1, Guidance(1.5), 0.8) * counts.sum()
    rare = expected < 5
    found, wanted = (torch.cat([one[~rare], one[rare].sum()[None]]) for one in (counts.double(), expected))
    statistic = ((found - wanted) ** 2 / wanted).sum()
    return float(torch.special.gammaincc(torch.tensor((len(found) - 1) / 2), statistic.float() / 2))


def variation(counts: Tensor) -> float:
    joint = sequential_joint(world(), 1, Guidance(1.5), 0.8)
    return float((counts / counts.sum() - joint).abs().sum() / 2)


def require_both(found: list[Decoded]) -> None:
    """Drafts were accepted, drafts were rejected, and images went at paces of their own."""
    forwards = torch.cat([one.steps_of_image for one in found]) - 1
    accepted = torch.cat([one.kept for one in found]) - forwards
    tested = torch.cat([one.drafted for one in found]) - forwards
    share = float(accepted.sum() / tested.sum())
    assert 0.1 < share < 0.9, f"share of accepted drafts {share:.2f}"
    assert len(forwards.unique()) > 1


ALARM = 1e-4
"""How often a right decoder would fail by chance, were its seed not fixed."""


@pytest.mark.parametrize(
    "strategy", [SJD(window=3), SJD(window=4, init="sample_horizon"), InStep(window=3)], ids=str
)
def test_the_joint_is_raster_s(strategy: SJD):
    counts, found = sampled(strategy, 12_000)
    require_both(found)
    assert chance(counts) > ALARM


def test_a_stale_draft_distribution_is_seen():
    counts, found = sampled(Stale(window=3), 12_000)
    require_both(found)
    assert chance(counts) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [Raster(), SJD(window=3), SJD(window=4), InStep(window=3)], ids=str)
def test_total_variation_of_many_images_is_that_of_chance(strategy: Strategy):
    counts, _ = sampled(strategy, 150_000, seed=1)
    assert chance(counts) > ALARM
    assert variation(counts) < 0.015


@pytest.mark.slow
def test_total_variation_of_stale_drafts_is_not():
    counts, _ = sampled(Stale(window=3), 150_000, seed=1)
    assert variation(counts) > 0.02


# One test of a window, by enumeration ----------------------------------------------------------------------


def test_one_step_keeps_the_joint_exactly():
    """All drafts, draws, outcomes of tests and redraws: what is final, continued one token at a time, has the
    sequential joint, whatever the drafts were drawn from; unless the test is told another distribution."""
    generator = torch.Generator().manual_seed(0)
    laws = lambda *shape: torch.rand(*shape, 3, generator=generator, dtype=torch.float64).softmax(-1)  # noqa: E731
    first, second, third = laws(), 3 * laws(3), laws(3, 3)
    second = second.softmax(-1)
    joint = first[:, None, None] * second[:, :, None] * third  # [3, 3, 3]
    q = torch.stack([laws(), laws()])
    for told, worst in ((q, 0.0), (q.flip(0), 0.005)):
        difference = float((_after_one_step(q, told, first, second, third) - joint).abs().sum() / 2)
        assert difference < 1e-9 if worst == 0.0 else difference > worst


def _after_one_step(q: Tensor, told: Tensor, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """Joint [3, 3, 3] of drafts from q, judged as if they were from ``told``."""
    rows = torch.tensor(list(product(range(3), range(3), range(3), range(3), range(3), (0, 1), (0, 1))))
    drafts, fresh, failing = rows[:, :2], rows[:, 2:5], rows[:, 5:].double()
    p = torch.stack(
        [first.expand(len(rows), 3), second[drafts[:, 0]], third[drafts[:, 0], drafts[:, 1]]], dim=1
    )
    at = torch.arange(3).expand(len(rows), -1)
    weight = q.expand(len(rows), 2, 3).gather(2, drafts.unsqueeze(2)).prod(dim=1)[:, 0]
    weight = weight * p.gather(2, fresh.unsqueeze(2)).prod(dim=1)[:, 0]
    asked = told.expand(len(rows), 2, 3)
    ratio = (p[:, :2] / asked).gather(2, drafts.unsqueeze(2))[..., 0].clamp(max=1)
    weight = weight * torch.where(failing > 0, 1 - ratio, ratio).prod(dim=1)
    found = torch.zeros(3, 3, 3, dtype=torch.float64)
    for redrawn in range(3):
        judging = SJD().judge(at, drafts, asked, p, fresh, StreamSampler(Streams(0, (0,))))
        assert isinstance(next(judging), Accept)
        redraw = judging.send(failing == 0)
        assert isinstance(redraw, Redraw)
        shares = redraw.probs[:, 0] / redraw.probs[:, 0].sum(dim=-1, keepdim=True)
        nothing = redraw.at[:, 0] < 0  # type: ignore[index]
        share = torch.where(nothing, float(redrawn == 0), shares[:, redrawn])
        try:
            judging.send(torch.full((len(rows), 1), redrawn))
        except StopIteration as end:
            tokens, final, kept = end.value
        assert kept is p, "whatever is carried on is distributed as this forward's targets"
        for tail in product(range(3), repeat=2):  # what follows, one at a time
            whole, part = tokens.clone(), weight * share
            for place in (1, 2):
                open_ = ~final[:, place]
                whole[open_, place] = tail[place - 1]
                law = second[whole[:, 0]] if place == 1 else third[whole[:, 0], whole[:, 1]]
                chance = law.gather(1, whole[:, place : place + 1])[:, 0]
                part = part * torch.where(open_, chance, float(tail[place - 1] == 0))
            found.view(-1).scatter_add_(0, (whole * torch.tensor([9, 3, 1])).sum(dim=1), part)
    return found


# Settings --------------------------------------------------------------------------------------------------


def test_what_is_promised_depends_on_the_loop():
    assert SJD().lossless
    assert SJD().batch_exact
    assert not SJD(loop="published").lossless
    assert not SJD(loop="published").batch_exact


@pytest.mark.parametrize("bound", [{"start": 3}, {"stop": 9}])
def test_bounds_of_the_published_loop_are_refused_elsewhere(bound: dict[str, int]):
    with pytest.raises(UserError, match="bounds of the published loop alone; expected loop = 'published'"):
        SJD(window=4, **bound).plan((4, 4), None, Streams(0, (0,)))
    assert SJD(window=4, loop="published", **bound).plan((4, 4), None, Streams(0, (0,))).places == 16
    with pytest.raises(UserError, match="expected counts of tokens"):
        SJD(window=4, loop="published", **dict.fromkeys(bound, -2)).plan((4, 4), None, Streams(0, (0,)))


def test_an_image_does_not_depend_on_its_batch():
    config = replace(CONTROLLED, codes=23, grid=(5, 6))
    network, method = Raster().network(config).eval(), SJD(window=5, init="sample_vertical")
    randomise(network)
    network.double()

    def images(*which: int) -> Decoded:
        streams, labels = Streams(3, which), torch.tensor(which) % config.classes
        sampler = StreamSampler(streams, top_k=9)
        return decode(
            network, method, method.plan(config.grid, None, streams), labels, sampler, Guidance(2.0)
        )

    whole = images(0, 1, 2, 3, 4, 5)
    assert len(whole.steps_of_image.unique()) > 1
    for image in range(6):
        alone = images(image)
        assert torch.equal(alone.tokens[0], whole.tokens[image])
        for counter in ("steps_of_image", "drafted", "kept"):
            assert getattr(alone, counter)[0] == getattr(whole, counter)[image], counter


def test_the_published_loop_goes_at_the_pace_of_the_slowest():
    config = replace(CONTROLLED, codes=23, grid=(5, 6))
    network, method = Raster().network(config).eval(), SJD(window=5, loop="published")
    randomise(network)
    streams = Streams(3, (0, 1, 2, 3))
    plan = method.plan(config.grid, None, streams)
    found = decode(network, method, plan, torch.zeros(4, dtype=torch.int64), StreamSampler(streams))
    assert (found.steps_of_image == found.steps).all()
    widths = [commit.tokens.shape[1] for commit in found.trace]
    assert widths[:3] == [1, 1, 1], "the first, then two forwards of one token"
    assert widths[3] == 5
    assert set(widths[-4:]) == {1}, "about the last window of places one by one"


@pytest.mark.parametrize("schedule", ["linear", "power-cosine"])
def test_the_published_loop_guides_by_the_last_scale_of_a_schedule(schedule: str):
    network, method, images = Raster().network(CONTROLLED).eval(), SJD(window=4, loop="published"), (0, 1)
    randomise(network)

    def tokens(guidance: Guidance | None) -> Tensor:
        streams, labels = Streams(3, images), torch.zeros(2, dtype=torch.int64)
        plan = method.plan(CONTROLLED.grid, None, streams)
        return decode(network, method, plan, labels, StreamSampler(streams), guidance).tokens

    assert not torch.equal(tokens(Guidance(6.0, schedule)), tokens(None))  # type: ignore[arg-type]


def test_published_filters_keep_the_likeliest_and_drop_from_below():
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    law = lambda **filters: published_law(logits, StreamSampler(Streams(0, (0,)), **filters))  # noqa: E731
    torch.testing.assert_close(law(), logits.exp())
    torch.testing.assert_close(law(temperature=0.3), logits.exp(), msg="no temperature in the loop")
    assert (law(top_k=2) > 0).tolist() == [True, True, False, False]
    assert (law(top_p=0.65) > 0).tolist() == [True, True, False, False]
    assert (law(top_p=1e-6) > 0).tolist() == [True, False, False, False]


def test_a_window_holds_at_least_one_token():
    with pytest.raises(UserError, match="window = 0: expected at least 1"):
        SJD(window=0).plan((4, 4), None, Streams(0, (0,)))


def test_a_declared_acceptance_makes_steps_of_weights_that_tell_nothing():
    network = Raster().network(CONTROLLED).eval()
    randomise(network)
    network.head.weight.data.zero_()  # every distribution is uniform: all drafts that are carried on pass

    def share(sampler: type[StreamSampler], **settings: float) -> float:
        streams = Streams(0, tuple(range(64)))
        method = SJD(window=4)
        plan = method.plan(CONTROLLED.grid, None, streams)
        labels = torch.zeros(64, dtype=torch.int64)
        found = decode(network, method, plan, labels, sampler(streams, **settings))  # type: ignore[arg-type]
        windows = [commit.where for commit in found.trace if commit.tokens.shape[1] > 1]
        first, second = (sum(int(where[:, j].sum()) for where in windows) for j in (0, 1))  # type: ignore[index]
        return second / first

    assert share(DeclaredAcceptance, acceptance=1.0) > 0.9
    assert share(DeclaredAcceptance, acceptance=0.0) == 0.0
    assert share(DeclaredAcceptance, acceptance=0.6) == pytest.approx(0.6, abs=0.08)
