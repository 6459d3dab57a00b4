"""One tiny method of every kind that the loop holds, to try loop and contract with."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from backbones.networks import Networks
from backbones.transformer import Network, Trunk, View, make_norm
from pardec.errors import UserError
from strategies.decoding.base import Lesson, Strategy, TrainingFree, random_orders, raster_lesson
from strategies.decoding.plan import Plan
from strategies.decoding.requests import EVERYWHERE, Ask, Commit, Draft, Redraw, Uniform
from strategies.raster import Raster, RasterNetwork

# Speculative: steps, rows and cache at the pace of each image -----------------------------------------------


class Pace:
    """Where each image of a speculative decode stands, and its cache on raster's network."""

    def __init__(self, network, plan, rows, window):
        self.network, self.plan, self.rows = network, plan, rows
        self.window, self.batch = window, len(rows) // rows.branches
        self.cache = network.cache(len(rows), network.config.trunk.depth, plan.places + window)
        self.phases = network.phases(torch.arange(plan.places))
        self.known = torch.zeros(self.batch, dtype=torch.int64)  # accepted tokens of each image
        self.last = None  # the newest of them, [B]

    def first(self):
        """The first place is asked for alone, behind the class."""
        x = self.network.class_embedding(self.rows.labels)[:, None]
        here = self.phases[:1].expand(len(self.rows), *self.phases[:1].shape)
        start = torch.zeros(len(self.rows), dtype=torch.int64)
        slot = self.slot(start[: self.batch], 1)
        tokens = yield Ask(self.network(x, here, View(start=self.rows.repeat(slot)), self.cache), slice(0, 1))
        self.advance(tokens[: self.batch], torch.ones(self.batch, 1, dtype=torch.bool))

    def running(self):
        return bool((self.known < self.plan.places).any())

    def at(self):
        """Places that the next forward predicts, [B, W]; -1 beyond the end."""
        at = self.known[:, None] + torch.arange(self.window)
        return torch.where(at < self.plan.places, at, -1)

    def forward(self, drafts):
        """Logits [R, 1 + D, V] behind drafts [B, D] of the next places."""
        x = self.network.token_embedding(self.rows.repeat(torch.cat([self.last[:, None], drafts], 1)))
        start = self.known.clamp(max=self.plan.places - 1)
        here = (start[:, None] + torch.arange(x.shape[1])).clamp(max=self.plan.places - 1)
        view = View(start=self.rows.repeat(self.slot(start, x.shape[1])))
        return self.network(x, self.rows.repeat(self.phases[here]), view, self.cache)

    def slot(self, start, fed):
        """The slot of each image's first input, [B]; what stood behind it is cut off."""
        return start

    def advance(self, tokens, kept):
        """Accept ``kept`` [B, W], a prefix of each image's tokens [B, W]."""
        count = kept.sum(dim=1)
        newest = tokens.gather(1, (count - 1).clamp(min=0)[:, None]).squeeze(1)
        self.last = newest if self.last is None else torch.where(count > 0, newest, self.last)
        self.known = self.known + count


def prefix(accepted, at):
    """The accepted drafts before the first rejected one, and the place after them: bool [B, W]."""
    first = torch.ones_like(at[:, :1], dtype=torch.bool)
    return torch.cat([first, accepted.cumprod(dim=1).bool()], dim=1) & (at >= 0)


def shifted(values, count, fill):
    """values [B, W, ...] from index ``count`` [B] on, and ``fill`` behind them."""
    index = count[:, None] + torch.arange(values.shape[1])
    behind = index >= values.shape[1]
    index = index.clamp(max=values.shape[1] - 1)
    if values.dim() == 3:
        index, behind = index[..., None].expand_as(values), behind[..., None]
    return torch.where(behind, fill, values.gather(1, index))


@dataclass(frozen=True)
class ByEquality(TrainingFree[RasterNetwork]):
    """A draft stands where the place's own number draws it again: raster's tokens, in fewer steps."""

    name: ClassVar[str] = "by-equality"
    title: ClassVar[str] = "By equality"
    paper: ClassVar[str] = "none"
    base: ClassVar[str | None] = "raster"
    decides_steps: ClassVar[bool] = True
    lossless: ClassVar[bool] = True

    window: int = 3

    def decode(self, network, plan, rows):
        pace = Pace(network, plan, rows, self.window)
        yield from pace.first()
        drafts = torch.zeros(pace.batch, self.window - 1, dtype=torch.int64)
        while pace.running():
            at = pace.at()
            fed = drafts[:, : at.shape[1] - 1]
            drawn = yield Draft(pace.forward(fed), at, noise="place")
            final = prefix(fed == drawn.tokens[:, :-1], at)
            yield Commit(at, drawn.tokens, where=final)
            if at.shape[1] > 1:
                drafts = shifted(drawn.tokens, final.sum(dim=1), 0)[:, :-1]
            pace.advance(drawn.tokens, final)


@dataclass(frozen=True)
class ByTest(TrainingFree[RasterNetwork]):
    """Draws of the last forward are drafts of this one, kept with probability min(1, p / q)."""

    name: ClassVar[str] = "by-test"
    title: ClassVar[str] = "By test"
    paper: ClassVar[str] = "none"
    base: ClassVar[str | None] = "raster"
    decides_steps: ClassVar[bool] = True
    lossless: ClassVar[bool] = True

    window: int = 3

    def decode(self, network, plan, rows):
        pace, codes = self.pace(network, plan, rows), network.config.codes
        yield from pace.first()
        # First drafts are code 0, surely: q is 1 there.
        drafts = torch.zeros(pace.batch, self.window - 1, dtype=torch.int64)
        q = nn.functional.one_hot(drafts, codes).float()  # [B, W - 1, V]
        while pace.running():
            at = pace.at()
            fed = at.shape[1] - 1
            drawn = yield Draft(pace.forward(self.fed(drafts[:, :fed])), at, self.noise())
            tokens, p = drawn.tokens.clone(), drawn.probs
            if fed:
                tested = torch.where(at[:, 1:] >= 0, at[:, :-1], -1)
                number = yield Uniform("accept", tested)
                accepted = self.test(number, drafts, q, p[:, :-1]) & (tested >= 0)
                final = self.final(prefix(accepted, at), at)
                rejected = ~accepted & final[:, :-1] & (tested >= 0)
                stands = final[:, 1:] & accepted
                redrawn = yield from self.redraw(p[:, :-1], q, torch.where(rejected, tested, -1), tokens)
                kept = torch.where(stands | (accepted & final[:, :-1]), drafts, tokens[:, :-1])
                tokens[:, :-1] = torch.where(rejected, redrawn, kept)
                tokens = self.tokens(tokens, drafts, rejected)
            else:
                final = prefix(drafts[:, :0] == 0, at)
            yield Commit(at, tokens, where=final)
            if fed:
                drafts, q = self.carry(tokens, drafts, q, p, final)
            pace.advance(tokens, final)

    # What mutants change ---------------------------------------------------------------------------------

    def pace(self, network, plan, rows):
        return Pace(network, plan, rows, self.window)

    def fed(self, drafts):
        return drafts

    def noise(self):
        return "fresh"

    def test(self, number, drafts, q, p):
        ratio = p.gather(2, drafts[..., None]) / q.gather(2, drafts[..., None])
        return number < ratio.squeeze(2).clamp(max=1)

    def final(self, final, at):
        return final

    def redraw(self, p, q, at, fresh):
        return (yield Redraw((p - q).clamp(min=0), at))

    def tokens(self, tokens, drafts, rejected):
        return tokens

    def carry(self, tokens, drafts, q, p, final):
        """The next drafts and their distributions: what was drawn behind the accepted, then code 0."""
        count = final.sum(dim=1)
        zero = torch.zeros(1, dtype=torch.int64)
        sure = nn.functional.one_hot(zero, p.shape[-1]).float()
        return shifted(tokens, count, 0)[:, :-1], shifted(p, count, sure[None])[:, :-1]


# Places chosen after drawing, everything fed at every step --------------------------------------------------


class MaskedNetwork(Network):
    """Sees every place at once, unknown ones as a mask vector; a class prefix."""

    def __init__(self, config):
        super().__init__(config)
        width = config.trunk.width
        self.class_embedding = nn.Embedding(config.classes + config.null_class, width)
        self.token_embedding = nn.Embedding(config.codes + 1, width)  # the last one: unknown
        self.trunk = Trunk(config.trunk)
        self.norm = make_norm(config.trunk)
        self.head = nn.Linear(width, config.codes, bias=False)

    def forward(self, labels, tokens):
        """Logits [R, N, V] of all places, of tokens [R, N] that may be unknown."""
        x = torch.cat([self.class_embedding(labels)[:, None], self.token_embedding(tokens)], dim=1)
        phases = self.phases(torch.arange(x.shape[1]))
        return self.head(self.norm(self.trunk(x, phases, View())[:, 1:])).float()


@dataclass(frozen=True)
class ByConfidence(Strategy[MaskedNetwork]):
    """All unknown places are drawn, the likeliest kept."""

    name: ClassVar[str] = "by-confidence"
    title: ClassVar[str] = "By confidence"
    paper: ClassVar[str] = "none"
    cached_equals_taught: ClassVar[bool] = False
    sequential_conditionals: ClassVar[bool] = False

    def network(self, config):
        return MaskedNetwork(config)

    def lesson(self, batch, grid, generator, progress):
        places = grid[0] * grid[1]
        known = int(torch.randint(1, places, (), generator=generator))
        return Lesson(random_orders(batch, places, generator), (known, places - known))

    def taught_logits(self, network, tokens, labels, lesson):
        unknown = torch.full_like(tokens, network.config.codes)
        known = lesson.order[:, : lesson.sizes[0]]
        some = unknown.scatter(1, known, tokens.gather(1, known))
        index = lesson.order[..., None].expand(-1, -1, network.config.codes)
        blind, seeing = (network(labels, fed).gather(1, index) for fed in (unknown, some))
        return torch.cat([blind[:, : lesson.sizes[0]], seeing[:, lesson.sizes[0] :]], dim=1)

    def allowed_steps(self, grid, given=0):
        return range(1, grid[0] * grid[1] + 1)

    def sizes(self, grid, steps, given=0):
        places = grid[0] * grid[1]
        ends = np.linspace(0, places, steps + 1).astype(int)
        return tuple(int(size) for size in np.diff(ends))

    def arrange(self, grid, order, sizes, given=0):
        return Plan(grid, order, sizes, given, opened=True)

    def decode(self, network, plan, rows):
        batch, codes = len(rows) // rows.branches, network.config.codes
        tokens = shown = torch.full((batch, plan.places), codes)
        for size in plan.sizes:
            drawn = yield Draft(network(rows.labels, rows.repeat(shown)), EVERYWHERE, clock=0.5)
            sure = drawn.probs.gather(2, drawn.tokens[..., None]).squeeze(2)
            kept = self.kept(sure, tokens == codes, size)
            yield Commit(EVERYWHERE, drawn.tokens, where=kept)
            tokens = torch.where(kept, drawn.tokens, tokens)
            shown = self.shown(tokens, tokens == codes, drawn.tokens)

    def kept(self, sure, unknown, size):
        """The ``size`` surest unknown places of each image: bool [B, N]."""
        sure = torch.where(unknown, sure, -1.0)
        return torch.zeros_like(unknown).scatter(1, sure.topk(size, dim=1).indices, True)

    def shown(self, tokens, unknown, drawn):
        return tokens


@dataclass(frozen=True)
class Revising(ByConfidence):
    """All places are drawn and written at every step, seeing those of the last one that are surest."""

    name: ClassVar[str] = "revising"
    revises: ClassVar[bool] = True

    def decode(self, network, plan, rows):
        batch, codes = len(rows) // rows.branches, network.config.codes
        tokens, shown = torch.full((batch, plan.places), codes), 0
        for size in plan.sizes:
            shown += size
            drawn = yield Draft(network(rows.labels, rows.repeat(tokens)), EVERYWHERE, clock=0.5)
            yield Commit(EVERYWHERE, drawn.tokens)
            sure = drawn.probs.gather(2, drawn.tokens[..., None]).squeeze(2)
            kept = self.kept(sure, torch.ones_like(tokens, dtype=torch.bool), shown)
            tokens = torch.where(kept, drawn.tokens, codes)


# Several maps, several heads, several networks --------------------------------------------------------------


class ScalesNetwork(Network):
    """Map by map: each place reads what all smaller maps add up to there."""

    def __init__(self, config):
        super().__init__(config)
        width = config.trunk.width
        self.class_embedding = nn.Embedding(config.classes + config.null_class, width)
        self.token_embedding = nn.Embedding(config.codes, width)
        self.scale_embedding = nn.Embedding(8, width)
        self.trunk = Trunk(config.trunk)
        self.norm = make_norm(config.trunk)
        self.head = nn.Linear(width, config.codes, bias=False)

    def forward(self, x, phases, view, cache=None):
        return self.head(self.norm(self.trunk(x, phases, view, cache))).float()

    def added(self, state, tokens, side):
        """The state [R, d, h, w] that a tokenizer accumulates, with the map of ``side`` [R, side^2] on it."""
        up = self.token_embedding(tokens).transpose(1, 2).unflatten(2, (side, side))
        return state + nn.functional.interpolate(up, size=state.shape[2:], mode="nearest")

    def read(self, state, side, scale):
        """Input vectors [R, side^2, d] of a map from the state of all smaller ones."""
        down = nn.functional.adaptive_avg_pool2d(state, side).flatten(2).transpose(1, 2)
        return down + self.scale_embedding.weight[scale]


@dataclass(frozen=True)
class Scales(Strategy[ScalesNetwork]):
    """A canvas of maps, one a step; the next input is made from what the tokenizer holds so far."""

    name: ClassVar[str] = "scales"
    title: ClassVar[str] = "Scales"
    paper: ClassVar[str] = "none"
    sequential_conditionals: ClassVar[bool] = False

    def network(self, config):
        return ScalesNetwork(config)

    def sides(self, grid):
        if grid[0] != grid[1]:
            raise UserError(f"strategy '{self.name}' has square maps, not {grid[0]}x{grid[1]}")
        return [side for side in range(1, grid[0] + 1) if side in (1, 2) or side == grid[0]]

    def sizes(self, grid, steps, given=0):
        return tuple(side * side for side in self.sides(grid))

    def orders(self, grid, sizes, streams, known):
        return np.arange(sum(sizes))

    def arrange(self, grid, order, sizes, given=0):
        return Plan(grid, order, sizes, given, maps=tuple((side, side) for side in self.sides(grid)))

    def lesson(self, batch, grid, generator, progress):
        sizes = self.sizes(grid, 0)
        return Lesson(torch.arange(sum(sizes)).expand(batch, -1), sizes)

    def phases(self, network, side):
        big = network.config.grid[0]
        rows = torch.arange(side) * big // side
        return network.phases(1 + (rows[:, None] * big + rows).flatten())

    def taught_logits(self, network, tokens, labels, lesson):
        xs, phases, ends = [], [], []
        for x, here, end in self.inputs(network, labels, tokens.split(lesson.sizes, dim=1)):
            xs.append(x)
            phases.append(here)
            ends.append(torch.full((x.shape[1],), end))
        scale = torch.cat(ends)
        mask = scale[None, :] <= scale[:, None]
        return network(torch.cat(xs, dim=1), torch.cat(phases), View(mask=mask))

    def inputs(self, network, labels, maps):
        """Of each map: its input, phases, and the slots filled after it; ``maps`` is read one behind."""
        grid, done = network.config.grid, 0
        state = network.class_embedding(labels)[:, :, None, None].expand(-1, -1, *grid)
        for scale, side in enumerate(self.sides(grid)):
            done += side * side
            yield network.read(state, side, scale), self.phases(network, side), done
            if side < grid[0]:
                state = network.added(state, maps[scale], side)

    def decode(self, network, plan, rows):
        cache, maps = network.cache(len(rows), network.config.trunk.depth, plan.places), []
        inputs = self.inputs(network, rows.labels, maps)
        for at in plan.groups():
            x, phases, _ = next(inputs)
            maps.append((yield Ask(network(x, phases, View(start=at.start), cache), at)))


class TwoHeadsNetwork(RasterNetwork):
    def __init__(self, config):
        super().__init__(config)
        self.second = nn.Linear(config.trunk.width, config.codes, bias=False)

    def forward(self, x, phases, view, cache=None, asked=slice(None)):
        """Logits of both heads, [2, R, n, V]."""
        hidden = self.norm(self.trunk(x, phases, view, cache)[:, asked])
        return torch.stack([self.head(hidden), self.second(hidden)]).float()


@dataclass(frozen=True)
class TwoHeads(Strategy[TwoHeadsNetwork]):
    """Two heads vote on every token: their logits are combined before guidance and drawing."""

    name: ClassVar[str] = "two-heads"
    title: ClassVar[str] = "Two heads"
    paper: ClassVar[str] = "none"
    lossless: ClassVar[bool] = True

    def network(self, config):
        return TwoHeadsNetwork(config)

    def lesson(self, batch, grid, generator, progress):
        return raster_lesson(batch, grid)

    def taught_logits(self, network, tokens, labels, lesson):
        x = torch.cat([network.class_embedding(labels)[:, None], network.token_embedding(tokens[:, :-1])], 1)
        return network(x, network.phases(torch.arange(tokens.shape[1])), View(causal=True)).mean(dim=0)

    def decode(self, network, plan, rows):
        phases, cache = (
            network.phases(torch.arange(plan.places)),
            network.cache(len(rows), network.config.trunk.depth, plan.places),
        )
        x = network.class_embedding(rows.labels)[:, None]
        for slot, at in enumerate(plan.groups()):
            heads = network(x, phases[slot : slot + 1], View(start=slot), cache)
            x = network.token_embedding((yield Ask(heads.mean(dim=0), at)))


@dataclass(frozen=True)
class TwoNetworks(Strategy):
    """A main and an auxiliary network, each with a cache of its own, draw every token together."""

    name: ClassVar[str] = "two-networks"
    title: ClassVar[str] = "Two networks"
    paper: ClassVar[str] = "none"
    lossless: ClassVar[bool] = True

    def network(self, config):
        return Networks(auxiliary=RasterNetwork(config), main=RasterNetwork(config))

    def lesson(self, batch, grid, generator, progress):
        return raster_lesson(batch, grid)

    def taught_logits(self, network, tokens, labels, lesson):
        parts = [Raster().taught_logits(one, tokens, labels, lesson) for one in network.roles.values()]
        return sum(parts) / 2

    def decode(self, network, plan, rows):
        phases = network["main"].phases(torch.arange(plan.places))
        caches = {
            role: one.cache(len(rows), one.config.trunk.depth, plan.places)
            for role, one in network.roles.items()
        }
        tokens = None
        for slot, at in enumerate(plan.groups()):
            here = phases[slot : slot + 1]
            parts = []
            for role, cache in caches.items():
                one = network[role]
                x = one.class_embedding(rows.labels)[:, None]
                x = x if tokens is None else one.token_embedding(tokens)
                parts.append(self.call(network, role, x, here, View(start=slot), cache))
            tokens = yield Ask(sum(parts) / 2, at)

    def cache_shapes(self, config):
        return dict.fromkeys(("auxiliary", "main"), (config.trunk.depth, config.places))

    def call(self, network, role, *args):
        return network[role](*args)


# Inputs that are not the token at their place ---------------------------------------------------------------


@dataclass(frozen=True)
class Staggered(TrainingFree[RasterNetwork]):
    """A row starts once the row above is ``lead`` tokens ahead, from a stand-in for the token before it."""

    name: ClassVar[str] = "staggered"
    title: ClassVar[str] = "Staggered"
    paper: ClassVar[str] = "none"
    base: ClassVar[str | None] = "raster"

    lead: int = 2

    def waves(self, grid):
        """Positions of each step: (row, column) is drawn at step lead * row + column."""
        height, width = grid
        when = np.add.outer(min(self.lead, width) * np.arange(height), np.arange(width)).ravel()
        return [np.flatnonzero(when == step) for step in range(when.max() + 1)]

    def sizes(self, grid, steps, given=0):
        return tuple(len(wave) for wave in self.waves(grid))

    def orders(self, grid, sizes, streams, known):
        return np.concatenate(self.waves(grid))

    def decode(self, network, plan, rows):
        width, batch = plan.grid[1], len(rows)
        phases, cache = (
            network.phases(torch.arange(plan.places)),
            network.cache(batch, network.config.trunk.depth, plan.places),
        )
        written = torch.zeros(plan.places, dtype=torch.bool)  # slots of the cache
        x = network.class_embedding(rows.labels)[:, None]
        tokens = torch.zeros(batch, plan.places, dtype=torch.int64)
        known = torch.zeros(plan.places, dtype=torch.bool)
        for at in plan.groups():
            wave = rows.order[0, at]
            if at.start:
                # The input that predicts place p is the token before it, or, where that is not drawn yet, the
                # token above.
                before = torch.where(known[wave - 1], wave - 1, (wave - width).clamp(min=0))
                x = network.token_embedding(tokens[:, before])
            written[wave] = True
            mask = self.seen(wave, written)
            view = View(slots=wave.expand(batch, -1), mask=mask)
            drawn = yield Ask(network(x, phases[wave], view, cache), at)
            tokens[:, wave], known[wave] = drawn, True

    def seen(self, wave, written):
        """Slots that each input of a wave sees, bool [n, N]: the filled ones up to its own."""
        return (torch.arange(len(written)) <= wave[:, None]) & written


KINDS = {
    kind.name: kind
    for kind in (
        ByEquality(),
        ByTest(),
        ByConfidence(),
        Revising(),
        Scales(),
        TwoHeads(),
        TwoNetworks(),
        Staggered(),
    )
}
