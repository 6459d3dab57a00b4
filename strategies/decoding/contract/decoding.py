"""The part of the contract that is about one decode: what it writes, what it has seen, what it computes."""

import itertools
import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pardec.errors import UserError
from strategies.decoding.base import Lesson
from strategies.decoding.contract.recording import Run, Subject, randomise, run
from strategies.decoding.contract.recording import subject as make_subject
from strategies.decoding.contract.requirements import TOLERANCE, Broken, close, require, require_equal
from strategies.decoding.sampling import ForcedSampler
from strategies.decoding.streams import Streams


def check_every_position_once(subject: Subject) -> None:
    """Every position is written once, in the step that the plan says, by the token that comes out."""
    images = (0, 1, 2)
    for steps in subject.step_counts():
        plan = subject.plan(images, steps)
        found = run(subject, plan, subject.labels(images), subject.sampler(images))
        _require_written_once(found)
        tokens = found.decoded.tokens
        inside = (tokens >= 0) & (tokens < subject.config.codes)
        require(inside.all(), f"tokens outside 0..{subject.config.codes - 1}")


def _require_written_once(found: Run) -> None:
    plan, tokens = found.plan, found.decoded.tokens
    written = torch.zeros(tokens.shape, dtype=torch.int64)
    planned = torch.as_tensor(plan.step_of_position()).expand(len(tokens), -1)
    for step, commit in enumerate(found.decoded.trace):
        require_equal(commit.step, step, "step of a commit")
        positions = found.order[:, commit.places]
        written.scatter_add_(1, positions, torch.ones_like(positions))
        in_time = (planned.gather(1, positions) == step).all()
        require(in_time, f"step {step} writes places {commit.places} of another step of the plan")
    times = sorted({int(count) for count in written.unique()} - {1})
    require(not times, f"positions are written {' or '.join(map(str, times))} times, expected once")
    for commit in found.decoded.trace:
        came_out = tokens.gather(1, found.order[:, commit.places])
        require(torch.equal(came_out, commit.tokens), f"tokens of step {commit.step} are not what came out")


def check_causal(subject: Subject) -> None:
    """Changing a committed token leaves the logits of its own and all earlier steps exactly as they were."""
    images = (0,)
    plan, labels, tokens = subject.plan(images), subject.labels(images), subject.tokens(1)
    base = run(subject, plan, labels, ForcedSampler(tokens))
    steps = plan.step_of_position().reshape(-1)
    reached = False
    for position in range(plan.places):
        changed = tokens.clone()
        changed[0, position] = (changed[0, position] + 1) % subject.config.codes
        other = run(subject, plan, labels, ForcedSampler(changed))
        upto = int(steps[position]) + 1
        for before, after in zip(base.combined[:upto], other.combined[:upto], strict=True):
            require(
                torch.equal(before, after),
                f"the token of position {position} (step {upto - 1}) is seen too early",
            )
        later = zip(base.combined[upto:], other.combined[upto:], strict=True)
        reached |= any(float((before - after).abs().max()) > TOLERANCE for before, after in later)
    require(reached or plan.steps == 1, "no token is ever seen by a later step")


def check_cached_equals_taught(subject: Subject) -> None:
    """Cached, unguided decoding gives the logits of one teacher-forced pass over the plan's groups."""
    images = (0, 1, 2, 3)
    labels, tokens = subject.labels(images), subject.tokens(4)
    if subject.config.null_class:
        labels[-1] = subject.config.classes
    for steps in subject.step_counts():
        plan = subject.plan(images, steps)
        found = run(subject, plan, labels, ForcedSampler(tokens))
        with torch.no_grad():
            expected = subject.strategy.taught_logits(
                subject.network, tokens, labels, Lesson(found.order, plan.sizes)
            )
        close(found.logits, expected, what=f"decoded and taught logits of {steps} steps")


def check_guidance(subject: Subject) -> None:
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
        weights = torch.as_tensor(guidance.weights(plan), dtype=torch.float32)[:, None]
        expected = null.logits + weights * (conditional.logits - null.logits)
        close(guided.logits, expected, what=f"guided logits and u + s (c - u) for {settings}")
        for counter in ("forwards", "tokens_processed"):
            counted, without = getattr(guided.decoded, counter), getattr(conditional.decoded, counter)
            require_equal(counted, without, f"{counter} under guidance")
    require(float((null.logits - conditional.logits).abs().max()) > 1e-2, "the class has no effect")


def check_needs_a_null_class_for_guidance(subject: Subject) -> None:
    """A network without a null class decodes, and refuses guidance."""
    config = replace(subject.config, null_class=False)
    bare = make_subject(subject.strategy, config, parts=subject.parts)
    images = (0, 1)
    plan, labels, sampler = bare.plan(images), bare.labels(images), bare.sampler(images)
    require_equal(run(bare, plan, labels, sampler).decoded.steps, plan.steps, "steps without a null class")
    try:
        run(bare, plan, labels, sampler, bare.guidance(2.0))
    except (ValueError, UserError) as error:
        require("null class" in str(error), f"guidance fails by: {error}; expected the missing null class")
        return
    raise Broken("guidance without a null class is accepted")


def check_given_tokens(subject: Subject) -> None:
    """The trait ``any_order``: given tokens stand unchanged, and equal an ordinary first group forced."""
    strategy, grid, places = subject.strategy, subject.config.grid, subject.config.places
    images, known = (0, 1), np.array([1, 6, 2, places - 1])
    labels, tokens = subject.labels(images), subject.tokens(2)
    for steps in (2, 4):
        plan = strategy.plan(grid, steps, Streams(0, images), known=known)
        require_equal((plan.given, plan.steps), (len(known), steps), "given places and steps of the plan")
        stays = (plan.step_of_position()[..., known] == -1).all()
        require(stays, "the plan writes a given position")
        drawn = run(subject, plan, labels, subject.sampler(images), subject.guidance(2.0), known=tokens)
        kept = torch.equal(drawn.decoded.tokens[:, known], tokens[:, known])
        require(kept, "given tokens do not come back unchanged")
        require_equal(drawn.decoded.steps, steps, "steps of a decode with given tokens")

        ordinary = strategy.arrange(grid, plan.order, (len(known), *plan.sizes))
        for guidance in (None, subject.guidance(2.0)):
            given = run(subject, plan, labels, ForcedSampler(tokens), guidance, known=tokens)
            whole = run(subject, ordinary, labels, ForcedSampler(tokens), guidance)
            what = "logits after given tokens and after the same tokens as a first group"
            close(given.logits, whole.logits[:, len(known) :], what=what)


def check_everything_given(subject: Subject) -> None:
    """Nothing to generate: the given tokens come back."""
    tokens, images = subject.tokens(2), (0, 1)
    known = np.arange(subject.config.places)
    plan = subject.strategy.plan(subject.config.grid, None, Streams(0, images), known=known)
    require_equal(plan.steps, 0, "steps of a plan with every token given")
    found = run(subject, plan, subject.labels(images), subject.sampler(images), known=tokens)
    require_equal(found.decoded.steps, 0, "steps of a decode with every token given")
    require(torch.equal(found.decoded.tokens, tokens), "given tokens do not come back unchanged")


def check_lossless(subject: Subject) -> None:
    """The trait ``lossless`` on an enumerable world: 2 x 2 positions, 3 codes, all 81 images.

    The joint distribution of the decode (product of its steps' conditionals) is that of the network decoded
    one token at a time, whatever the number of steps.
    """
    config = replace(subject.config, codes=3, grid=(2, 2))
    world = make_subject(subject.strategy, config, parts=subject.parts)
    randomise(world.network, std=0.4)
    images = torch.tensor(list(itertools.product(range(3), repeat=4)))  # [81, 4]
    labels = torch.ones(len(images), dtype=torch.int64)

    for steps in world.step_counts():
        plan = world.plan(tuple(range(len(images))), steps)
        found = run(world, plan, labels, ForcedSampler(images))
        targets = images.gather(1, found.order).unsqueeze(-1)
        with torch.no_grad():
            one_by_one = Lesson(found.order, (1,) * plan.places)
            taught = world.strategy.taught_logits(world.network, images, labels, one_by_one)
        decoded, expected = _joint(found.logits, targets), _joint(taught, targets)
        total = float(decoded.sum())
        require(math.isclose(total, 1.0, abs_tol=1e-6), f"probabilities of all images sum to {total}")
        worst = float((decoded - expected).abs().max())
        require(worst < 1e-6, f"{steps} steps: an image's probability is off by {worst:.1e}")
        require(float(expected.max() / expected.min()) > 2, "the world is too flat to tell")


def _joint(logits: Tensor, targets: Tensor) -> Tensor:
    """Probability of every image, [B], from its logits [B, N, V] and targets [B, N, 1] by place."""
    return logits.double().log_softmax(dim=-1).gather(-1, targets).sum(dim=(1, 2)).exp()
