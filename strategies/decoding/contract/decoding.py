"""The part of the contract that is about one decode: what it writes, what it has seen, what it computes."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pardec.errors import UserError
from strategies.decoding.base import Lesson
from strategies.decoding.contract.recording import Case, Event, Run, run
from strategies.decoding.contract.recording import subject as make_subject
from strategies.decoding.contract.requirements import TOLERANCE, Broken, close, require, require_equal
from strategies.decoding.guidance import Guidance
from strategies.decoding.plan import Plan
from strategies.decoding.requests import Draft
from strategies.decoding.sampling import ForcedSampler
from strategies.decoding.streams import Streams
from strategies.decoding.trace import Committed, Drafted, places_of, step_of_position


def check_every_position_once(subject: Case) -> None:
    """Every position is written in its step, once unless ``revises`` is declared, as it comes out.

    Read off the trace: what a plan decides beforehand, the trace shows.
    """
    images = (0, 1, 2)
    for steps in subject.step_counts():
        plan = subject.plan(images, steps)
        found = run(subject, plan, subject.labels(images), subject.sampler(images))
        _require_written_once(found, subject.strategy.revises)
        tokens = found.decoded.tokens
        inside = (tokens >= 0) & (tokens < subject.config.codes)
        require(inside.all(), f"tokens outside 0..{subject.config.codes - 1}")


def _require_written_once(found: Run, revises: bool) -> None:
    plan, decoded, trace = found.plan, found.decoded, found.decoded.trace
    batch, places = decoded.tokens.shape
    written = torch.zeros(batch, places + 1, dtype=torch.int64)
    came_out = torch.full_like(written, -1)
    for entry in trace:
        at = places_of(entry, batch, places)
        written.scatter_add_(1, at, torch.ones_like(at))
        came_out.scatter_(1, at, entry.tokens)
    times = sorted({int(count) for count in written[:, :places].unique()} - {1})
    wrong = min(times, default=1) < 1 if revises else times
    require(not wrong, f"positions are written {' or '.join(map(str, times))} times, expected once")
    same = torch.equal(came_out[:, :places], decoded.tokens.gather(1, found.order))
    require(same, "the tokens that were written last are not what came out")

    steps = [entry.step for entry in trace]
    in_time = steps == sorted(steps) and steps[0] >= 0 and steps[-1] < decoded.steps
    require(in_time, f"steps of the trace are {steps}, of the decode {decoded.steps}")
    by_position = step_of_position(trace, found.order)
    done = by_position.amax(dim=1) + 1
    require_equal(decoded.steps_of_image.tolist(), done.tolist(), "steps of each image, and its last commit")
    if not plan.opened:
        planned = torch.as_tensor(plan.step_of_position()).expand(batch, -1)
        require(torch.equal(by_position, planned), "the trace says other steps than the plan")


def check_causal(subject: Case) -> None:
    """A token is drawn from logits that no token had a part in which was not written before.

    Changing a token leaves all logits exactly as they were until the trace has written it. Where the steps
    are decided while decoding, drafts may have been read as well: then it leaves the logits exactly as they
    were of all that was written in earlier steps.
    """
    images = (0,)
    plan, labels, tokens = subject.plan(images), subject.labels(images), subject.tokens(1)
    base = run(subject, plan, labels, ForcedSampler(tokens))
    steps, order = base.by_place(first=True)[1][0], base.order[0]
    reached = False
    for place in range(plan.places):
        changed = tokens.clone()
        position = order[place]
        changed[0, position] = (changed[0, position] + 1) % subject.config.codes
        other = run(subject, plan, labels, ForcedSampler(changed))
        early = _first_difference(base, other)
        if early is not None and subject.strategy.decides_steps:
            early = _first_changed_place(base, other, place)
        require(
            early is None,
            f"the token of position {int(position)} (step {int(steps[place])}) is seen too early: it changes "
            f"the logits of step {early}",
        )
        later = [
            float((before - after).abs().max()) if before.shape == after.shape else 1.0
            for before, after in zip(base.combined, other.combined, strict=False)
        ]
        reached |= max(later) > TOLERANCE
    require(reached or base.decoded.steps == 1, "no token is ever seen by a later step")


def _first_difference(base: Run, other: Run) -> int | None:
    """Step of the first logits that differ although the same was written before them."""
    for event, same in zip(base.events, other.events, strict=False):
        if isinstance(event.entry, Committed):
            if not _same_written(event.entry, same.entry, base.decoded.tokens.shape):
                return None
        elif event.logits is not None and (same.logits is None or not torch.equal(event.logits, same.logits)):
            return base.decoded.steps if event.entry is None else event.entry.step
    return None


def _first_changed_place(base: Run, other: Run, place: int) -> int | None:
    """The first step before that of ``place`` whose written tokens were drawn from logits that differ."""
    logits, steps = (each[0] for each in base.by_place(first=True))
    before = steps < steps[place]
    before[place] = True  # a token has no part in its own logits
    differs = (logits != other.by_place(first=True)[0][0]).any(dim=1) & before  # [N]
    return int(steps[differs].min()) if differs.any() else None


def check_tests_its_drafts(subject: Case) -> None:
    """The trait ``tests_drafts``: drafts stand or fall by ``Accept``, so that the loop counts them."""
    images = (0, 1, 2)
    found = run(subject, subject.plan(images), subject.labels(images), subject.sampler(images)).decoded
    drafts = 0 if found.tested is None else int(found.tested.sum())
    require(drafts > 0, "no draft is tested by Accept; what tests none declares tests_drafts = False")


def check_cached_equals_taught(subject: Case) -> None:
    """Cached, unguided decoding gives the logits of one teacher-forced pass over the plan's groups.

    Where the places of a step are chosen while decoding, the trace says what the groups were.
    """
    images = (0, 1, 2, 3)
    labels, tokens = subject.labels(images), subject.tokens(4)
    if subject.config.null_class:
        labels[-1] = subject.config.classes
    for steps in subject.step_counts():
        plan = subject.plan(images, steps)
        found = run(subject, plan, labels, ForcedSampler(tokens))
        by_place = found.by_place(first=True)[1].argsort(dim=1, stable=True) if plan.opened else None
        order = found.order if by_place is None else found.order.gather(1, by_place)
        with torch.no_grad():
            expected = subject.strategy.taught_logits(
                subject.network, tokens, labels, Lesson(order, plan.sizes)
            )
        what = f"decoded and taught logits of {steps} steps"
        remedy = ""
        if subject.strategy.base is not None:
            remedy = "; a method without a teacher-forced form derives from TrainingFree or declares "
            remedy += "cached_equals_taught = False"
        logits = found.logits
        if by_place is not None:
            logits = logits.gather(1, by_place.unsqueeze(2).expand_as(logits))
        close(logits, expected, what=what, remedy=remedy)


def check_guidance(subject: Case) -> None:
    """Scale 1 is the conditional branch exactly; other scales are u + s (c - u) with s by place."""
    images = (0, 1, 2)
    plan, labels, tokens = subject.plan(images), subject.labels(images), subject.tokens(3)
    sampler = subject.sampler(images)
    one = run(subject, plan, labels, sampler, subject.guidance(1.0))
    plain = run(subject, plan, labels, sampler)
    for asked, combined in zip(one.asked, one.combined, strict=True):
        exact = torch.equal(combined, asked.chunk(2)[0])
        require(exact, "guidance of scale 1 does not leave the conditional logits as they are")
    close(one.logits, plain.logits, what="logits guided by scale 1 and unguided ones")
    same = torch.equal(one.decoded.tokens, plain.decoded.tokens)
    require(same, "guidance of scale 1 gives other tokens than none")

    forced = ForcedSampler(tokens)
    null = run(subject, plan, torch.full_like(labels, subject.config.classes), forced)
    conditional = run(subject, plan, labels, forced)
    for settings in ({"scale": 3.0}, {"scale": 3.0, "schedule": "linear"}, {"scale": 4.0, "interval": 2}):
        guidance = subject.guidance(**settings)
        guided = run(subject, plan, labels, forced, guidance)
        what = f"guided logits and u + s (c - u) for {settings}"
        draws = [event for event in guided.events if event.logits is not None]
        for event, asked in zip(draws, guided.asked, strict=True):
            c, u = asked.chunk(2)
            close(event.logits, u + _scales(event, guidance, plan) * (c - u), what=what)
        both = zip(*(_draws_in_one_context(guided, one) for one in (conditional, null)), strict=False)
        for (event, c), (_, u) in list(both)[: 1 if subject.strategy.revises else None]:
            close(event.logits, u + _scales(event, guidance, plan) * (c - u), what=what)
        for counter in ("forwards", "tokens_processed"):
            counted, without = getattr(guided.decoded, counter), getattr(conditional.decoded, counter)
            require(plan.opened or counted == without, f"{counter} under guidance: {counted}, not {without}")
    effect = (null.combined[0] - conditional.combined[0]).abs().max()
    require(float(effect) > 1e-2, "the class has no effect")


def _draws_in_one_context(found: Run, other: Run) -> list[tuple[Event, Tensor]]:
    """Draws of ``found`` with the logits of ``other``, as long as both have committed the same.

    (Where the places are chosen after drawing, guidance changes what is committed next; where tokens are
    revised, also what is shown of them, so that only the first draw compares.)
    """
    draws = []
    for event, same in zip(found.events, other.events, strict=False):
        if event.logits is not None and same.logits is not None:
            draws.append((event, same.logits))
        canvas = found.decoded.tokens.shape
        if event.entry is not None and not _same_written(event.entry, same.entry, canvas):
            break
    return draws


def _same_written(entry: Committed | Drafted, other: Committed | Drafted | None, canvas: torch.Size) -> bool:
    """Whether two entries name the same tokens and places of a canvas [B, N], whatever else was drawn."""
    if type(entry) is not type(other) or other is None or entry.tokens.shape != other.tokens.shape:
        return False
    first, second = (places_of(each, *canvas) for each in (entry, other))
    written = first < canvas[1]
    return torch.equal(first, second) and torch.equal(entry.tokens[written], other.tokens[written])


def _scales(event: Event, guidance: Guidance, plan: Plan) -> Tensor:
    """Of guidance for each logit of a draw, [B or 1, n or 1, 1]: by its clock, or by its places."""
    request = event.request
    if isinstance(request, Draft) and request.clock is not None:
        weights = guidance.weights_at(np.array([request.clock]), np.array([request.count]))
        return torch.as_tensor(weights, dtype=torch.float32)[:, None]
    assert event.entry is not None  # it draws
    by_place = torch.as_tensor(guidance.weights(plan), dtype=torch.float32)
    at = event.entry.places
    return (by_place[at] if isinstance(at, slice) else by_place[at.clamp(min=0)]).unsqueeze(-1)


def check_needs_a_null_class_for_guidance(subject: Case) -> None:
    """A network without a null class decodes, and refuses guidance."""
    config = replace(subject.config, null_class=False)
    bare = make_subject(subject.strategy, config, parts=subject.parts)
    images = (0, 1)
    plan, labels, sampler = bare.plan(images), bare.labels(images), bare.sampler(images)
    steps = run(bare, plan, labels, sampler).decoded.steps
    require(plan.steps in (None, steps), f"{steps} steps without a null class, the plan says {plan.steps}")
    try:
        run(bare, plan, labels, sampler, bare.guidance(2.0))
    except (ValueError, UserError) as error:
        require("null class" in str(error), f"guidance fails by: {error}; expected the missing null class")
        return
    raise Broken("guidance without a null class is accepted")


def check_given_tokens(subject: Case) -> None:
    """The trait ``any_order``: given tokens stand unchanged, and equal an ordinary first group forced."""
    strategy, grid, places = subject.strategy, subject.config.grid, subject.places
    images, known = (0, 1), np.array([1, 6, 2, places - 1])
    labels, tokens = subject.labels(images), subject.tokens(2)
    for steps in (2, 4):
        plan = strategy.plan(grid, steps, Streams(0, images), known=known)
        require_equal((plan.given, plan.steps), (len(known), steps), "given places and steps of the plan")
        drawn = run(subject, plan, labels, subject.sampler(images), subject.guidance(2.0), known=tokens)
        kept = torch.equal(drawn.decoded.tokens[:, known], tokens[:, known])
        require(kept, "given tokens do not come back unchanged")
        stays = (step_of_position(drawn.decoded.trace, drawn.order)[:, known] == -1).all()
        require(stays, "a given position is written")
        require_equal(drawn.decoded.steps, steps, "steps of a decode with given tokens")
        if plan.opened:
            _require_given_tokens_seen(subject, plan, labels, tokens)
            continue
        ordinary = strategy.arrange(grid, plan.order, (len(known), *(plan.sizes or ())))
        for guidance in (None, subject.guidance(2.0)):
            given = run(subject, plan, labels, ForcedSampler(tokens), guidance, known=tokens)
            whole = run(subject, ordinary, labels, ForcedSampler(tokens), guidance)
            what = "logits after given tokens and after the same tokens as a first group"
            close(given.logits, whole.logits[:, len(known) :], what=what)


def _require_given_tokens_seen(subject: Case, plan: Plan, labels: Tensor, tokens: Tensor) -> None:
    """Of a plan without groups, which no ordinary first group stands beside."""
    others = (tokens + 1) % subject.config.codes
    first, second = (
        run(subject, plan, labels, subject.sampler((0, 1)), known=known).asked[0]
        for known in (tokens, others)
    )
    seen = (first != second).flatten(1).any(dim=1).all()
    require(seen, "the first step's logits are the same after other given tokens")


def check_everything_given(subject: Case) -> None:
    """Nothing to generate: the given tokens come back."""
    tokens, images = subject.tokens(2), (0, 1)
    known = np.arange(subject.places)
    plan = subject.strategy.plan(subject.config.grid, None, Streams(0, images), known=known)
    require_equal(plan.steps, 0, "steps of a plan with every token given")
    found = run(subject, plan, subject.labels(images), subject.sampler(images), known=tokens)
    require_equal(found.decoded.steps, 0, "steps of a decode with every token given")
    require(torch.equal(found.decoded.tokens, tokens), "given tokens do not come back unchanged")
