"""The contract of a strategy as checks over any ``Strategy``: built-in, plug-in or from a test.

``checks(strategy)`` names those that apply to what the strategy declares. Each takes a ``Subject``: a
strategy and a tiny network of it whose parameters are all random (published initialisations zero whole
heads, which would make most checks empty).
"""

import ast
import inspect
import itertools
import math
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from strategies.decoding.base import Lesson, Strategy
from strategies.decoding.decode import decode
from strategies.decoding.errors import UserError
from strategies.decoding.guidance import Guidance
from strategies.decoding.sampling import ForcedSampler, StreamSampler
from strategies.decoding.streams import Streams
from tests.contract_lessons import (
    check_every_parameter_learns,
    check_lessons,
    check_lessons_leak_nothing,
    check_loss_is_mean_cross_entropy,
)
from tests.recorded import CONTROLLED, TOLERANCE, Subject, close, randomise, run
from tests.recorded import subject as make_subject

__all__ = ["CONTROLLED", "Subject", "checks"]

GRIDS = ((2, 2), (4, 4), (6, 6), (8, 8), (4, 6))
FOREIGN = frozenset({"harness", "reports", "results", "time", "os", "random", "subprocess", "threading"})
"""Modules that a strategy has no business with: devices, timers, files and seeds are the harness's."""

# Declarations and plans ------------------------------------------------------------------------------------


def check_declares_itself(subject: Subject) -> None:
    """Name, title, paper; options are frozen fields with defaults."""
    strategy = subject.strategy
    for attribute in (strategy.name, strategy.title, strategy.paper):
        assert isinstance(attribute, str)
        assert attribute
    assert is_dataclass(strategy)
    options = {field.name: getattr(strategy, field.name) for field in fields(strategy)}
    assert type(strategy)(**options) == strategy
    assert hash(strategy) == hash(replace(strategy))
    assert set(strategy.gradient_exceptions.values()) != {""}, "an exception needs its reason"


def check_imports_nothing_foreign(subject: Subject) -> None:
    """A strategy knows no harness, no clock, no file system."""
    source = Path(inspect.getfile(type(subject.strategy)))
    imported = {name.split(".")[0] for name in imports_of(source)}
    assert not imported & FOREIGN, f"{source.name} imports {sorted(imported & FOREIGN)}"


def imports_of(source: Path) -> set[str]:
    """Dotted names of all modules that a file imports anywhere, relative imports aside."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


def check_plans_are_valid(subject: Subject) -> None:
    """Every allowed step count on several grids gives a whole plan; what is not allowed is a UserError."""
    strategy = subject.strategy
    tried = [grid for grid in GRIDS if _plannable(strategy, grid)]
    assert tried, f"no plan on any of {GRIDS}"

    @settings(max_examples=30, deadline=None, derandomize=True, database=None)
    @given(st.data(), st.sampled_from(tried), st.integers(0, 2**32 - 1))
    def whole(data: st.DataObject, grid: tuple[int, int], seed: int) -> None:
        allowed = strategy.allowed_steps(grid)
        steps = allowed[data.draw(st.integers(0, len(allowed) - 1), label="index of steps")]
        plan = strategy.plan(grid, steps, Streams(seed, (0, 9)))
        assert plan.steps == steps
        assert sum(plan.sizes) == plan.places
        assert sorted(np.unique(plan.step_of_position())) == list(range(steps))
        assert plan.progress.shape == plan.count.shape == (plan.places,)
        assert (plan.progress >= 0).all()
        assert (plan.progress <= 1).all()
        assert (np.diff(plan.progress) >= 0).all()
        again = strategy.plan(grid, steps, Streams(seed, (9, 0)))
        flipped = again.order if again.order.ndim == 1 else again.order[::-1]
        assert np.array_equal(flipped, plan.order), "an order depends on its place in the batch"

    whole()
    grid = tried[-1]
    allowed = strategy.allowed_steps(grid)
    assert strategy.plan(grid, None, Streams(0, (0,))).steps == max(allowed)
    for steps in (-1, 0, allowed[0] - 1, allowed[-1] + 1):
        _refused(lambda steps=steps: strategy.plan(grid, steps, Streams(0, (0,))))
    if not strategy.any_order:
        _refused(lambda: strategy.plan(grid, None, Streams(0, (0,)), known=np.array([0])))


def _plannable(strategy: Strategy, grid: tuple[int, int]) -> bool:
    try:
        strategy.plan(grid, None, Streams(0, (0,)))
    except UserError:
        return False
    return True


def _refused(call: Callable[[], object]) -> None:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)


# Decoding --------------------------------------------------------------------------------------------------


def check_every_position_once(subject: Subject) -> None:
    images = (0, 1, 2)
    plan = subject.plan(images)
    found = run(subject, plan, subject.labels(images), StreamSampler(Streams(0, images))).decoded
    written = torch.zeros(len(images), plan.places, dtype=torch.int64)
    order = torch.as_tensor(plan.order).reshape(-1, plan.places).expand(len(images), -1)
    for step, commit in enumerate(found.trace):
        assert commit.step == step
        positions = order[:, commit.places]
        written.scatter_add_(1, positions, torch.ones_like(positions))
        assert torch.equal(found.tokens.gather(1, positions), commit.tokens)
        planned = torch.as_tensor(plan.step_of_position()).expand(len(images), -1)
        assert (planned.gather(1, positions) == step).all()
    assert (written == 1).all()
    assert found.tokens.min() >= 0
    assert found.tokens.max() < subject.config.codes


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
            assert torch.equal(before, after), f"position {position} of step {upto - 1} is seen too early"
        later = zip(base.combined[upto:], other.combined[upto:], strict=True)
        reached |= any(float((before - after).abs().max()) > TOLERANCE for before, after in later)
    assert reached or plan.steps == 1, "no token is ever seen by a later step"


def check_batch_equals_singles(subject: Subject) -> None:
    """The trait ``batch_exact``: an image's logits and tokens do not depend on its batch."""
    images = (3, 0, 7, 12)
    steps = subject.plan(images).steps
    for guidance in (None, Guidance(2.5, "linear")):
        together = run(
            subject,
            subject.plan(images, steps),
            subject.labels(images),
            StreamSampler(Streams(0, images), temperature=0.9, top_k=7, top_p=0.95),
            guidance,
        )
        for row, image in enumerate(images):
            alone = run(
                subject,
                subject.plan((image,), steps),
                subject.labels((image,)),
                StreamSampler(Streams(0, (image,)), temperature=0.9, top_k=7, top_p=0.95),
                guidance,
            )
            close(together.logits[row : row + 1], alone.logits)
            assert torch.equal(together.decoded.tokens[row], alone.decoded.tokens[0])


def check_cached_equals_taught(subject: Subject) -> None:
    """Cached, unguided decoding gives the logits of one teacher-forced pass over the plan's groups."""
    images = (0, 1, 2)
    labels, tokens = subject.labels(images), subject.tokens(3)
    allowed = subject.strategy.allowed_steps(subject.config.grid)
    for steps in sorted({allowed[0], allowed[len(allowed) // 3], allowed[-1]}):
        plan = subject.plan(images, steps)
        found = run(subject, plan, labels, ForcedSampler(tokens))
        order = torch.as_tensor(plan.order).reshape(-1, plan.places).expand(3, -1)
        with torch.no_grad():
            expected = subject.strategy.taught_logits(
                subject.network, tokens, labels, Lesson(order, plan.sizes)
            )
        close(found.logits, expected)


def check_noise_belongs_to_images(subject: Subject) -> None:
    """The number behind a token depends on (seed, image, position) alone, as ``Streams`` defines it.

    So it is the same over batch sizes, shards, plans and (being one definition) strategies.
    """
    allowed = subject.strategy.allowed_steps(subject.config.grid)
    places = subject.config.places
    for images in ((0, 1, 2, 3), (0, 1), (2, 3), (3, 1, 0, 2)):
        expected = torch.from_numpy(Streams(8, images).uniform("token", places))
        for steps in {allowed[0], allowed[-1]}:
            sampler = StreamSampler(Streams(8, images))
            found = run(subject, subject.plan(images, steps, seed=8), subject.labels(images), sampler)
            assert torch.equal(found.noise_of_position(), expected)
    whole = Streams(8, (0, 1, 2, 3)).uniform("token", places)
    assert np.array_equal(whole[2:], Streams(8, (2, 3)).uniform("token", places))
    assert len(np.unique(whole)) == whole.size


def check_deterministic(subject: Subject) -> None:
    """One seed, one result, without touching any global random state; another seed, another result."""
    images = tuple(range(4))
    labels = subject.labels(images)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    results = [
        run(subject, subject.plan(images, seed=seed), labels, StreamSampler(Streams(seed, images)))
        for seed in (4, 4, 5)
    ]
    assert torch.equal(results[0].decoded.tokens, results[1].decoded.tokens)
    assert all(map(torch.equal, results[0].asked, results[1].asked))
    assert not torch.equal(results[0].decoded.tokens, results[2].decoded.tokens)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def check_guidance(subject: Subject) -> None:
    """Scale 1 is the conditional branch exactly; other scales are u + s (c - u) with s by place."""
    images = (0, 1, 2)
    plan, labels, tokens = subject.plan(images), subject.labels(images), subject.tokens(3)
    sampler = StreamSampler(Streams(0, images))
    one, plain = run(subject, plan, labels, sampler, Guidance(1.0)), run(subject, plan, labels, sampler)
    for asked, combined in zip(one.asked, one.combined, strict=True):
        assert torch.equal(combined, asked.chunk(2)[0])
    close(one.logits, plain.logits)
    assert torch.equal(one.decoded.tokens, plain.decoded.tokens)

    forced = ForcedSampler(tokens)
    null = run(subject, plan, torch.full_like(labels, subject.config.classes), forced)
    conditional = run(subject, plan, labels, forced)
    for guidance in (Guidance(3.0), Guidance(3.0, "linear"), Guidance(4.0, interval=2)):
        guided = run(subject, plan, labels, forced, guidance)
        weights = torch.as_tensor(guidance.weights(plan), dtype=torch.float32)[:, None]
        close(guided.logits, null.logits + weights * (conditional.logits - null.logits))
        assert guided.decoded.forwards == conditional.decoded.forwards
        assert guided.decoded.tokens_processed == conditional.decoded.tokens_processed
    assert float((null.logits - conditional.logits).abs().max()) > 1e-2, "the class has no effect"


def check_needs_a_null_class_for_guidance(subject: Subject) -> None:
    config = replace(subject.config, null_class=False)
    bare = make_subject(subject.strategy, config)
    images = (0, 1)
    plan, labels = bare.plan(images), bare.labels(images)
    sampler = StreamSampler(Streams(0, images))
    assert run(bare, plan, labels, sampler).decoded.steps == plan.steps
    with pytest.raises((ValueError, UserError), match="null class"):
        run(bare, plan, labels, sampler, Guidance(2.0))


def check_used_through_the_loop_only(subject: Subject) -> None:
    """One forward per step, and no mode, gradient or parameter of the network is changed."""
    images = (0, 1)
    before = {name: value.clone() for name, value in subject.network.state_dict().items()}
    for steps in {subject.strategy.allowed_steps(subject.config.grid)[i] for i in (0, -1)}:
        plan = subject.plan(images, steps)
        found = run(subject, plan, subject.labels(images), StreamSampler(Streams(0, images))).decoded
        assert found.forwards == found.steps == plan.steps == steps
        assert found.tokens_processed >= plan.places
        assert not found.tokens.requires_grad
    assert not subject.network.training
    assert all(torch.equal(value, before[name]) for name, value in subject.network.state_dict().items())
    assert not any(module._forward_pre_hooks for module in subject.network.modules())


# Given tokens ----------------------------------------------------------------------------------------------


def check_given_tokens(subject: Subject) -> None:
    """The trait ``any_order``: given tokens stand unchanged, and equal an ordinary first group forced."""
    strategy, grid, places = subject.strategy, subject.config.grid, subject.config.places
    images, known = (0, 1), np.array([1, 6, 2, places - 1])
    labels, tokens = subject.labels(images), subject.tokens(2)
    for steps in (2, 4):
        plan = strategy.plan(grid, steps, Streams(0, images), known=known)
        assert plan.given == len(known)
        assert plan.steps == steps
        assert (plan.step_of_position()[..., known] == -1).all()
        drawn = run(subject, plan, labels, StreamSampler(Streams(0, images)), Guidance(2.0), known=tokens)
        assert torch.equal(drawn.decoded.tokens[:, known], tokens[:, known])
        assert drawn.decoded.steps == steps

        ordinary = strategy.arrange(grid, plan.order, (len(known), *plan.sizes))
        for guidance in (None, Guidance(2.0)):
            given = run(subject, plan, labels, ForcedSampler(tokens), guidance, known=tokens)
            whole = run(subject, ordinary, labels, ForcedSampler(tokens), guidance)
            close(given.logits, whole.logits[:, len(known) :])


def check_everything_given(subject: Subject) -> None:
    """Nothing to generate: the given tokens come back."""
    tokens, images = subject.tokens(2), (0, 1)
    known = np.arange(subject.config.places)
    plan = subject.strategy.plan(subject.config.grid, None, Streams(0, images), known=known)
    assert plan.steps == 0
    sampler = StreamSampler(Streams(0, images))
    found = decode(subject.network, subject.strategy, plan, subject.labels(images), sampler, known=tokens)
    assert torch.equal(found.tokens, tokens)


def check_lossless(subject: Subject) -> None:
    """The trait ``lossless`` on an enumerable world: 2 x 2 positions, 3 codes, all 81 images.

    The joint distribution of the decode (product of its steps' conditionals) is that of the network decoded
    one token at a time.
    """
    config = replace(subject.config, codes=3, grid=(2, 2))
    world = make_subject(subject.strategy, config)
    randomise(world.network, std=0.4)
    images = torch.tensor(list(itertools.product(range(3), repeat=4)))  # [81, 4]
    labels = torch.ones(len(images), dtype=torch.int64)
    plan = world.strategy.plan(config.grid, None, Streams(0, tuple(range(len(images)))))
    order = torch.as_tensor(plan.order).reshape(-1, 4).expand(len(images), -1)
    targets = images.gather(1, order).unsqueeze(-1)

    def joint(logits: Tensor) -> Tensor:
        return logits.double().log_softmax(dim=-1).gather(-1, targets).sum(dim=(1, 2)).exp()

    decoded = joint(run(world, plan, labels, ForcedSampler(images)).logits)
    with torch.no_grad():
        one_by_one = Lesson(order, (1,) * plan.places)
        expected = joint(world.strategy.taught_logits(world.network, images, labels, one_by_one))
    assert math.isclose(float(decoded.sum()), 1.0, abs_tol=1e-6)
    assert float((decoded - expected).abs().max()) < 1e-6
    assert float(expected.max() / expected.min()) > 2, "the world is too flat to tell"


ALWAYS = (
    check_declares_itself,
    check_imports_nothing_foreign,
    check_plans_are_valid,
    check_causal,
    check_noise_belongs_to_images,
    check_deterministic,
    check_guidance,
    check_needs_a_null_class_for_guidance,
    check_used_through_the_loop_only,
)


LEARNING = (
    check_lessons,
    check_lessons_leak_nothing,
    check_loss_is_mean_cross_entropy,
    check_every_parameter_learns,
)


def checks(strategy: Strategy) -> list[Callable[[Subject], None]]:
    """What a strategy with these declared traits must pass."""
    found = list(ALWAYS)
    if strategy.base is None:
        found += LEARNING
    if not strategy.revises:
        found.append(check_every_position_once)
    if strategy.batch_exact:
        found.append(check_batch_equals_singles)
    if strategy.cached_equals_taught:
        found.append(check_cached_equals_taught)
    if strategy.lossless:
        found.append(check_lossless)
    if strategy.any_order:
        found += [check_given_tokens, check_everything_given]
    return found
