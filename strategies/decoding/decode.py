"""The one loop: the only place where tokens are drawn, counted and recorded.

A strategy's ``decode`` is a generator. It yields what it wants drawn or written (``requests``) and is sent
the tokens; guidance, filters, noise, counting and the trace are the loop's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from backbones.direct import called_directly
from backbones.networks import Networks
from backbones.transformer import Network
from backbones.uploading import upload
from pardec.errors import NotFinite
from strategies.decoding.drawing import Drawing, combine, draw_guided
from strategies.decoding.guidance import Guiding
from strategies.decoding.meter import Meter
from strategies.decoding.noise import Numbers
from strategies.decoding.plan import Plan
from strategies.decoding.requests import Accept, Ask, Commit, Draft, Drawn, Places, Redraw, Request, Uniform
from strategies.decoding.sampling import Sampler
from strategies.decoding.trace import Committed, Drafted

if TYPE_CHECKING:
    from strategies.decoding.base import Strategy


class OffPlan(ValueError):
    """A strategy writes what its plan does not say, or not all of it."""


@dataclass(frozen=True)
class Rows:
    """The rows of one decode as the network sees them: B images for each branch of guidance.

    labels: int64 [R], all but the first branch being "no class". order: int64 [R, P] or [1, P], position at
    each place. known: tokens [R, given] of the given places, or None.
    """

    labels: Tensor
    order: Tensor
    known: Tensor | None = None
    branches: int = 1

    def __len__(self) -> int:
        return self.labels.shape[0]

    def repeat(self, tokens: Tensor) -> Tensor:
        """What is the same for all branches, [B, ...] -> [R, ...]."""
        return tokens if self.branches == 1 else torch.cat([tokens] * self.branches)


@dataclass(frozen=True)
class Count:
    """Of one network: its forward calls, and the rows through its trunks per image and branch."""

    forwards: int
    tokens_processed: int


@dataclass(frozen=True)
class Decoded:
    """tokens: int64 [B, P] by position of the canvas. order: int64 [B, P], position at each place. trace:
    what each step wrote. steps: of the slowest image. counts: by role of the network, counted by hooks.

    steps_of_image: int64 [B], the step after which an image was complete. drafts: where they were asked for.
    drafted, kept: int64 [B], an image's draws by ``Draft``, which writes nothing, and those of them that a
    commit wrote; 0 where a strategy only asks. tested, accepted: int64 [B, P], how often a draft of each
    position was tested, and stood the test; None where drafts are not tested.
    """

    tokens: Tensor
    order: Tensor
    trace: tuple[Committed, ...]
    drafts: tuple[Drafted, ...]
    steps: int
    steps_of_image: Tensor
    drafted: Tensor
    kept: Tensor
    counts: Mapping[str, Count]
    tested: Tensor | None = None
    accepted: Tensor | None = None

    @property
    def forwards(self) -> int:
        return sum(count.forwards for count in self.counts.values())

    @property
    def tokens_processed(self) -> int:
        return sum(count.tokens_processed for count in self.counts.values())


def make_rows(plan: Plan, labels: Tensor, null_label: int, branches: int, known: Tensor | None) -> Rows:
    """Stack the branches of guidance: the labels, then "no class" in all others."""
    order = upload(plan.order, labels.device)  # [1 or B, N]
    given = None
    if plan.given:
        if known is None:
            raise ValueError(f"the plan holds {plan.given} given places, but no known tokens came with it")
        given = known.gather(1, order.expand(len(labels), -1)[:, : plan.given])  # [B, given]
    if branches > 1:
        labels = torch.cat([labels, *[torch.full_like(labels, null_label)] * (branches - 1)])
        order = order if order.shape[0] == 1 else order.repeat(branches, 1)
        given = None if given is None else given.repeat(branches, 1)
    return Rows(labels, order, given, branches)


class Loop:
    """One decode: answers requests, and keeps what they amount to."""

    def __init__(
        self,
        meter: Meter,
        plan: Plan,
        rows: Rows,
        sampler: Sampler,
        guidance: Guiding | None,
        observe: Callable[[Committed], None] | None,
        keep_drafts: bool,
        drawing: Drawing,
    ) -> None:
        self.drawing = drawing
        self.meter, self.plan, self.rows, self.sampler = meter, plan, rows, sampler
        self.guidance, self.observe, self.keep_drafts = guidance, observe, keep_drafts
        self.device, self.batch = rows.labels.device, len(rows) // rows.branches
        self.order = rows.order[: self.batch].expand(self.batch, -1)
        self.numbers = Numbers(sampler, self.order, plan.most_visits)
        self.weights = self._weights(plan.progress, plan.count)
        self.begin()

    def begin(self) -> None:
        """Nothing drawn, nothing written but what is given."""
        plan, rows = self.plan, self.rows
        self.groups = None if plan.opened else iter(plan.groups())
        # One column more, for what is no place or not written.
        self.tokens = torch.zeros(self.batch, plan.places + 1, dtype=torch.int64, device=self.device)
        self.written = torch.zeros_like(self.tokens)
        if rows.known is not None:
            self.tokens[:, : plan.given] = rows.known[: self.batch]
        self.written[:, : plan.given] = 1
        self.done_at, self.drafted, self.kept = torch.zeros(
            3, self.batch, dtype=torch.int64, device=self.device
        ).unbind(0)
        self.tests: tuple[Tensor, Tensor] | None = None
        """Drafts tested and accepted by place, [B, N + 1] each."""
        self.soundness = torch.zeros((), device=self.device)  # read once, at the end
        self.trace: list[Committed] = []
        self.drafts: list[Drafted] = []
        self.step, self.drawn_after = -1, -1

    def on(self, rows: Rows, own: Tensor, weights: list[Tensor]) -> Loop:
        """The same decode of other images, not begun: their rows, the numbers [B, N] of their places, and the
        weights of guidance, which are no other but may lie elsewhere."""
        other = copy(self)
        other.weights = weights
        other.rows, other.observe = rows, None
        other.order = rows.order[: self.batch].expand(self.batch, -1)
        other.numbers = self.numbers.on(own, other.order)
        other.begin()
        return other

    def _weights(self, progress: Any, count: Any) -> list[Tensor]:
        """Of the branches of guidance, each [n, 1]."""
        scales = () if self.guidance is None else self.guidance.scales(progress, count)
        return [upload(np.asarray(scale, np.float32), self.device)[:, None] for scale in scales]

    def answer(self, request: Request) -> Any:
        if isinstance(request, Ask):
            drawn = self.draw(Draft(request.logits, request.at, "place", law=request.law))
            self.commit(request.at, drawn.tokens, None)
            return self.rows.repeat(drawn.tokens)
        if isinstance(request, Draft):
            drawn = self.draw(request)
            self.drafted += self._number_of(request.at, drawn.tokens)
            if self.keep_drafts:
                self.drafts.append(Drafted(self.step, request.at, drawn.tokens))
            return drawn
        if isinstance(request, Uniform):
            return self.numbers.next(request.purpose, request.at)
        if isinstance(request, Accept):
            return self.accept(request)
        if isinstance(request, Redraw):
            return self.sampler.draw_from(request.probs, self.numbers.next("redraw", request.at))
        if isinstance(request, Commit):
            self.kept += self._number_of(request.at, request.tokens, request.where)
            return self.commit(request.at, request.tokens, request.where)
        raise TypeError(f"a strategy yields requests (Ask, Draft, ...), not {type(request).__name__}")

    def _number_of(self, at: Places, tokens: Tensor, where: Tensor | None = None) -> int | Tensor:
        """Places of each image, [B] or the same for all."""
        if isinstance(at, slice):
            return tokens.shape[1] if where is None else where.sum(dim=1)
        return ((at >= 0) if where is None else (at >= 0) & where).sum(dim=1)

    def draw(self, draft: Draft) -> Drawn:
        if self.meter.forwards != self.drawn_after:
            self.step, self.drawn_after = self.step + 1, self.meter.forwards
        at, law = draft.at, None
        weights = self._weights_for(at, draft.clock, draft.count) if self.weights else []
        if draft.noise != "gumbel" and draft.law is None:
            tokens, logits, soundness = self.drawing(
                draft.logits, weights, self._numbers(draft), self.sampler
            )
        else:
            logits = combine(draft.logits.float(), weights) if weights else draft.logits.float()
            law = self.sampler.probabilities(logits) if draft.law is None else draft.law(logits, self.sampler)
            tokens, soundness = self._draw_from(law, draft), law.sum(dim=-1)
        if isinstance(at, Tensor):
            soundness = soundness.masked_fill(at < 0, 0.0)
        self.soundness += soundness.sum()
        return Drawn(tokens, logits, self.sampler, law)

    def _numbers(self, draft: Draft) -> Tensor:
        """[B, n]."""
        if draft.noise == "place":
            return self.numbers.of_places(draft.at)
        return self.numbers.next("token", draft.at)

    def _draw_from(self, law: Tensor, draft: Draft) -> Tensor:
        if draft.noise == "gumbel":
            return self.sampler.race(law, self._positions(draft.at))
        return self.sampler.draw_from(law, self._numbers(draft))

    def accept(self, request: Accept) -> Tensor:
        accepted = self.numbers.next("accept", request.at) < request.chance.clamp(max=1)  # [B, n]
        if self.tests is None:
            self.tests = torch.zeros_like(self.tokens), torch.zeros_like(self.tokens)
        index = self._columns(request.at)
        counted = torch.ones_like(accepted)
        if request.stops:
            counted[:, 1:] = accepted[:, :-1].cumprod(dim=1).bool()
        for table, one in zip(self.tests, (counted, counted & accepted), strict=True):
            table.scatter_add_(1, index, one.long())
        return accepted

    def _columns(self, at: Places) -> Tensor:
        """Places [B, n], N where there is none."""
        places = self.plan.places
        if isinstance(at, slice):
            return torch.arange(places, device=self.device)[at].expand(self.batch, -1)
        return torch.where(at < 0, places, at)

    def _positions(self, at: Places) -> Tensor:
        """[B, n], -1 where there is no place."""
        columns = self._columns(at)
        outside = columns == self.plan.places
        return self.order.gather(1, columns.masked_fill(outside, 0)).masked_fill(outside, -1)

    def _weights_for(self, at: Places, clock: float | None, count: int) -> list[Tensor]:
        if clock is not None:
            return self._weights(np.array([clock]), np.array([count]))
        if isinstance(at, slice):
            return [weight[at] for weight in self.weights]
        return [weight[at.clamp(min=0)] for weight in self.weights]  # [B, n, 1]

    def commit(self, at: Places, tokens: Tensor, where: Tensor | None) -> None:
        if self.groups is not None:
            self._require_planned(at, where)
        if isinstance(at, slice) and where is None:
            self.tokens[:, : self.plan.places][:, at] = tokens
            if self.groups is None:
                self.written[:, : self.plan.places][:, at] += 1
            self.done_at.fill_(self.step + 1)
        else:
            self._commit_some(at, tokens, where)
        self.trace.append(Committed(max(self.step, 0), at, tokens, where))
        if self.observe is not None:
            self.observe(self.trace[-1])

    def _commit_some(self, at: Places, tokens: Tensor, where: Tensor | None) -> None:
        places = self.plan.places
        index = self._columns(at)
        if where is not None:
            index = torch.where(where, index, places)
        self.tokens.scatter_(1, index, tokens)
        self.written.scatter_add_(1, index, torch.ones_like(index))
        self.done_at = torch.where((index < places).any(dim=1), self.step + 1, self.done_at)

    def _require_planned(self, at: Places, where: Tensor | None) -> None:
        planned = next(self.groups, None)  # type: ignore[arg-type]
        if planned is None or where is not None or at != planned:
            asked = (
                f"places {at.start}..{at.stop}" if isinstance(at, slice) else "places chosen while decoding"
            )
            meant = "no further step" if planned is None else f"places {planned.start}..{planned.stop}"
            raise OffPlan(
                f"step {self.step} writes {asked}, its plan says {meant}; a strategy that decides while "
                "decoding gives a plan that says so (opened, or without sizes)"
            )

    def finish(self, strategy: Strategy) -> Decoded:
        """What the decode gave; NotFinite, or OffPlan where the canvas is not as promised."""
        if not self.soundness.isfinite():
            raise NotFinite("the guided logits, or what is drawn from instead, are not finite")
        if not self.tokens.is_meta:  # there nothing is drawn
            self.numbers.require_enough()
        if self.groups is not None:
            left = next(self.groups, None)
            if left is not None:
                raise OffPlan(f"decoding ended before places {left.start}..{left.stop} of its plan")
        elif self.plan.places and not self.tokens.is_meta:
            self._require_whole_canvas(strategy)
        by_place = self.tokens[:, : self.plan.places]
        tokens = torch.empty_like(by_place).scatter_(1, self.order, by_place)
        tested, accepted = (
            (None, None)
            if self.tests is None
            else (torch.empty_like(tokens).scatter_(1, self.order, one[:, :-1]) for one in self.tests)
        )
        counts = {
            role: Count(
                sum(named == role for named, _ in self.meter.calls),
                sum(rows for named, rows in self.meter.calls if named == role),
            )
            for role in self.meter.networks
        }
        trace, drafts = tuple(self.trace), tuple(self.drafts)
        return Decoded(
            tokens,
            self.order,
            trace,
            drafts,
            self.step + 1,
            self.done_at,
            self.drafted,
            self.kept,
            counts,
            tested,
            accepted,
        )

    def _require_whole_canvas(self, strategy: Strategy) -> None:
        written = self.written[:, : self.plan.places]
        least, most = int(written.min()), int(written.max())
        if least < 1:
            raise OffPlan(f"decoding left {int((written < 1).sum())} places of its batch unwritten")
        if most > 1 and not strategy.revises:
            raise OffPlan(f"a place was written {most} times by a strategy that does not declare `revises`")


def answer_all(network: Network | Networks, strategy: Strategy, loop: Loop) -> None:
    """Run a strategy's decode to its end."""
    asking = strategy.decode(network, loop.plan, loop.rows)
    answer: Any = None
    while True:
        try:
            request = asking.send(answer)
        except StopIteration:
            return
        answer = loop.answer(request)


Running = Callable[["Network | Networks", "Strategy", Loop], None]


@torch.inference_mode()
def decode(
    network: Network | Networks,
    strategy: Strategy,
    plan: Plan,
    labels: Tensor,
    sampler: Sampler,
    guidance: Guiding | None = None,
    known: Tensor | None = None,
    observe: Callable[[Committed], None] | None = None,
    keep_drafts: bool = False,
    drawing: Drawing = draw_guided,
    running: Running = answer_all,
) -> Decoded:
    """Generate tokens for ``labels`` [B] by ``plan``.

    known: int64 [B, N] tokens by position, read at the plan's given places only. observe: called after each
    commit (film strips, phase times). keep_drafts: keep what was drawn, not only what was committed.
    drawing, running: what computes ``draw_guided`` and ``answer_all``.

    Raises ValueError where guidance meets a network without a null class, OffPlan (a ValueError) where a
    strategy leaves its plan, NotFinite for guided logits that are NaN or infinite.
    """
    config = network.config
    if guidance is not None and not config.null_class:
        raise ValueError("guidance needs a network with a null class")
    branches = 1 if guidance is None else 1 + len(guidance.scales(plan.progress, plan.count))
    rows = make_rows(plan, labels, config.classes, branches, known)
    with called_directly(network), Meter(network) as meter:
        loop = Loop(meter, plan, rows, sampler, guidance, observe, keep_drafts, drawing)
        running(network, strategy, loop)
    return loop.finish(strategy)
