"""The part of the contract that is about what a decode may not depend on, and may not touch."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from backbones.cache import KVCache
from strategies.decoding.contract.recording import Case, Run, randomise, run
from strategies.decoding.contract.recording import subject as make_subject
from strategies.decoding.contract.requirements import close, require, require_equal
from strategies.decoding.sampling import ForcedSampler
from strategies.decoding.streams import Streams
from strategies.decoding.trace import Drafted, places_of


def check_batch_equals_singles(subject: Case) -> None:
    """The trait ``batch_exact``: an image's logits and tokens do not depend on its batch."""
    images = (3, 0, 7, 12)
    steps = subject.plan(images).steps
    filters: dict[str, Any] = {"temperature": 0.9, "top_k": 7, "top_p": 0.95}
    for guidance in (None, subject.guidance(2.5, schedule="linear")):
        runs = [
            run(
                subject,
                subject.plan(batch, steps),
                subject.labels(batch),
                subject.sampler(batch, **filters),
                guidance,
            )
            for batch in (images, *((image,) for image in images))
        ]
        together, singles = runs[0], runs[1:]
        for row, alone in enumerate(singles):
            paces = int(together.decoded.steps_of_image[row]), alone.decoded.steps
            require_equal(paces[0], paces[1], f"steps of image {images[row]} in a batch, and alone")
            what = f"logits of image {images[row]} in a batch and alone"
            close(together.logits[row : row + 1], alone.logits, what=what)
            same = torch.equal(together.decoded.tokens[row], alone.decoded.tokens[0])
            require(same, f"tokens of image {images[row]} are others in a batch than alone")


def check_noise_belongs_to_images(subject: Case) -> None:
    """Every number is u(seed, image, position, purpose, visit), as ``Streams`` defines it.

    A place's own number is that of visit 0; fresh ones count the visits of an image to a place for a purpose.
    So numbers are the same over batch sizes, shards, plans, paces and (being one definition) strategies.
    """
    places = subject.places
    for images in ((0, 1, 2, 3), (0, 1), (2, 3), (3, 1, 0, 2)):
        for steps in subject.step_counts():
            plan, labels = subject.plan(images, steps, seed=8), subject.labels(images)
            found = run(subject, plan, labels, subject.sampler(images, seed=8))
            _require_own_numbers(found, Streams(8, images), f"images {images}, {steps or 'own'} steps")
    whole = Streams(8, (0, 1, 2, 3)).uniform("token", places)
    require(
        np.array_equal(whole[2:], Streams(8, (2, 3)).uniform("token", places)), "noise depends on the batch"
    )
    require(len(np.unique(whole)) == whole.size, "noise repeats itself")
    redrawn = Streams(8, (0, 1, 2, 3)).uniform("redraw", places)
    require(not np.intersect1d(whole, redrawn).size, "redraws meet the numbers of draws")


def _require_own_numbers(found: Run, streams: Streams, where: str) -> None:
    batch, places = found.decoded.tokens.shape
    visits: dict[str, Tensor] = {}
    layers: dict[tuple[str, int], Tensor] = {}

    def layer(purpose: str, visit: int) -> Tensor:
        """Numbers by place, [B, N + 1]."""
        if (purpose, visit) not in layers:
            numbers = torch.from_numpy(streams.uniform(purpose, places, visit)).gather(1, found.order)
            layers[purpose, visit] = torch.cat([numbers, torch.zeros(batch, 1)], dim=1)
        return layers[purpose, visit]

    for event in found.events:
        if event.purpose is None or event.numbers is None:
            continue
        entry = event.entry or Drafted(0, event.request.at, event.numbers)
        at = places_of(entry, batch, places)
        visited = visits.setdefault(event.purpose, torch.zeros(batch, places + 1, dtype=torch.int64))
        now = visited.gather(1, at) if event.fresh else torch.zeros_like(at)
        expected = torch.zeros(at.shape)
        for visit in now[at < places].unique().tolist():
            expected = torch.where(now == visit, layer(event.purpose, visit).gather(1, at), expected)
        own = torch.equal(event.numbers[at < places], expected[at < places])
        kind = "" if event.purpose == "token" else f" of purpose '{event.purpose}'"
        require(own, f"{where}: noise{kind} is not the images' own")
        if event.fresh:
            visited.scatter_add_(1, at, torch.ones_like(at))


def check_deterministic(subject: Case) -> None:
    """One seed, one result, without touching any global random state; another seed, another result."""
    images = tuple(range(4))
    labels = subject.labels(images)
    with _global_random_state_untouched():
        results = [
            run(subject, subject.plan(images, seed=seed), labels, subject.sampler(images, seed))
            for seed in (4, 4, 5)
        ]
    first, again, other = results
    require(all(map(torch.equal, first.asked, again.asked)), "one seed gives two sets of logits")
    require(torch.equal(first.decoded.tokens, again.decoded.tokens), "one seed gives two sets of tokens")
    require(not torch.equal(first.decoded.tokens, other.decoded.tokens), "two seeds give the same tokens")


@contextmanager
def _global_random_state_untouched() -> Iterator[None]:
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    numpy_state = np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    yield
    require(torch.equal(torch.get_rng_state(), torch_state), "torch's global generator was drawn from")
    require(random.getstate() == python_state, "Python's global generator was drawn from")
    now = np.random.get_state()[1]  # type: ignore[index]  # noqa: NPY002
    require(np.array_equal(now, numpy_state), "NumPy's global generator was drawn from")


def check_uses_the_network_it_is_given(subject: Case) -> None:
    """Other weights, in another network or in the same one, give other logits, and both give the same."""
    images = (0, 1)
    labels, forced = subject.labels(images), ForcedSampler(subject.tokens(2))
    guidance = subject.guidance(2.0)

    def logits(of: Case) -> Tensor:
        return run(of, of.plan(images), labels, forced, guidance).logits

    before = logits(subject)
    another = logits(make_subject(subject.strategy, subject.config, seed=1, parts=subject.parts))
    require(
        float((another - before).abs().max()) > 1e-2, "a network with other weights gives the same logits"
    )
    randomise(subject.network, seed=1)
    close(logits(subject), another, what="logits of two networks with the same new weights")


def check_leaves_its_inputs_alone(subject: Case) -> None:
    """Labels, plan, given tokens, lessons and the tokens it is sent are read, not written."""
    strategy, images = subject.strategy, (0, 1)
    known = np.array([3, 1]) if strategy.any_order else None
    plan = strategy.plan(subject.config.grid, None, Streams(0, images), known=known)
    labels, tokens = subject.labels(images), subject.tokens(2)
    inputs: dict[str, Any] = {"labels": labels, "given tokens": tokens}
    inputs |= {f"the plan's {key}": getattr(plan, key) for key in ("order", "progress", "count")}
    with _unwritten(inputs):
        for guidance in (None, subject.guidance(2.0)):
            found = run(subject, plan, labels, subject.sampler(images), guidance, known=tokens)
            kept = all(torch.equal(answer, copy) for answer, copy in found.answers)
            require(kept, "writes into the tokens it is sent")
    if strategy.base is None:
        lesson = strategy.lesson(2, subject.config.grid, torch.Generator().manual_seed(0), 0.0)
        with _unwritten({"labels": labels, "tokens": tokens, "the lesson's order": lesson.order}):
            strategy.loss(subject.network, tokens, labels, lesson)


@contextmanager
def _unwritten(inputs: dict[str, Any]) -> Iterator[None]:
    before = deepcopy(inputs)
    yield
    for name, value in inputs.items():
        require(bool((before[name] == value).all()), f"writes into {name}")


def check_reads_only_filled_slots(subject: Case) -> None:
    """Unless ``empty_context`` is declared, what a cache holds before it is written has no effect."""
    images = (0, 1, 2)
    labels, forced = subject.labels(images), ForcedSampler(subject.tokens(3))
    for steps in subject.step_counts():
        plan = subject.plan(images, steps)
        found = []
        for content in (0.0, 1e3):
            with _caches_filled_with(content):
                found.append(run(subject, plan, labels, forced, subject.guidance(2.0)).logits)
        same = torch.equal(*found)
        require(
            same,
            f"{steps or 'own'} steps: reads cache slots that are not yet filled; mask them, or declare "
            "empty_context = True",
        )


@contextmanager
def _caches_filled_with(content: float) -> Iterator[None]:
    make = KVCache.__init__

    def filled(self: KVCache, *args: Any, **settings: Any) -> None:
        make(self, *args, **settings)
        self.store.fill_(content)

    with patch.object(KVCache, "__init__", filled):
        yield
