"""Which images are timed: always the same where the plan is known, all in turn where images decide."""

import dataclasses
from collections.abc import Callable

import pytest

from harness.cell.cell import Cell, normalised
from harness.measure import measure as measuring
from harness.measure import timed
from harness.measure.measure import LEAST_OF_IMAGES, Budgets, measure
from harness.measure.repeats import Budget
from harness.measure.timed import images_of, timed_batches
from harness.measure.turns import load_all
from harness.subject.prepare import Prepared, prepare
from harness.subject.subject import Subject, load, run_batch

ONCE = Budget(seconds=0, least=1)


@pytest.fixture
def prepared(small_zoo) -> Callable[..., Prepared]:
    def make(strategy: str, **changes) -> Prepared:
        cell = Cell(strategy, zoo=str(small_zoo), threads=1, batch=4, images=10)
        return prepare(normalised(dataclasses.replace(cell, **changes)))

    return make


def test_a_known_plan_is_timed_on_the_first_images(prepared):
    assert {images_of(prepared("raster"), 4, repeat) for repeat in range(5)} == {range(4)}


def test_a_decode_that_decides_its_steps_goes_round_the_images_of_its_cell(prepared):
    sjd = prepared("sjd", options={"window": 4})
    assert [images_of(sjd, 4, repeat) for repeat in range(4)] == [
        range(4),
        range(4, 8),
        range(4),
        range(4, 8),
    ]
    assert [images_of(sjd, 1, repeat)[0] for repeat in range(12)] == [*range(10), 0, 1]
    assert images_of(sjd, 16, 3) == range(16), "more than the cell has"


def test_every_repeat_is_another_batch(prepared, monkeypatch):
    seen = []

    def heard(subject: Subject, images, **named):
        seen.append(tuple(images))
        return run_batch(subject, images, **named)

    subject = load(prepared("sjd", options={"window": 4}))
    monkeypatch.setattr(timed, "run_batch", heard)
    run = timed_batches(subject, 4)
    assert [run() > 0 for _ in range(3)] == [True] * 3
    assert seen == [(0, 1, 2, 3), (4, 5, 6, 7), (0, 1, 2, 3)]


def test_latency_is_of_several_images(prepared, monkeypatch):
    monkeypatch.setattr(measuring, "BATCHES", (1,))
    budgets = Budgets(warmup_s=0, images=ONCE, latency=ONCE, by_batch=ONCE)
    rows = {
        name: measure(load(prepared(name, **options)), lambda share, doing: None, budgets).row
        for name, options in (("raster", {}), ("sjd", {"options": {"window": 4}}))
    }
    assert len(rows["raster"]["latency_samples_s"]) == 1
    assert len(rows["sjd"]["latency_samples_s"]) == LEAST_OF_IMAGES


@pytest.mark.parametrize(("name", "changes"), [("raster", {}), ("sjd", {"options": {"window": 4}})])
def test_the_first_batches_of_images_are_the_warm_up(prepared, monkeypatch, name, changes):
    seen = []

    def heard(subject: Subject, images, **named):
        seen.append(images)
        return run_batch(subject, images, **named)

    monkeypatch.setattr(measuring, "BATCHES", (4,))
    monkeypatch.setattr(measuring, "run_batch", heard)
    budgets = Budgets(warmup_s=0, images=Budget(seconds=0, least=2), latency=ONCE, by_batch=ONCE)
    row = measure(load(prepared(name, images=24, **changes)), lambda share, doing: None, budgets).row
    images = [range(first, first + 4) for first in range(0, 24, 4)]
    assert seen == [[0], range(4), *images], "one image, the memory, then nothing beside the images"
    assert len(row["warmup_s"]) == 3
    assert row["throughput_repeats"] == 4


def test_warm_up_is_over_where_steps_take_as_long(prepared, monkeypatch):
    """Whatever the number of steps."""
    steps = []

    def at_its_own_pace(subject: Subject, images, **named):
        made = run_batch(subject, images, **named)
        steps.append(made.decoded.steps)
        return dataclasses.replace(made, seconds=dict.fromkeys(made.seconds, 0.1 * steps[-1]))

    monkeypatch.setattr(measuring, "BATCHES", (1,))
    monkeypatch.setattr(measuring, "run_batch", at_its_own_pace)
    budgets = Budgets(warmup_s=60, images=Budget(seconds=0, least=2), latency=ONCE, by_batch=ONCE)
    sjd = prepared("sjd", batch=1, images=8, options={"window": 16})
    row = measure(load(sjd), lambda share, doing: None, budgets).row
    assert max(steps[1:4]) > 1.05 * min(steps[1:4]), "by their seconds they do not agree"
    assert row["steady"]
    assert row["warmup_s"] == pytest.approx([0.1 * one for one in steps[1:4]])


def test_cells_in_turn_share_a_network_and_keep_their_tokenizers():
    cells = [
        normalised(Cell("raster", threads=1, batch=4, decoder=name)) for name in ("own", "own", "robust")
    ]
    own, again, robust = load_all(map(prepare, cells))
    assert own.network is again.network
    assert own.tokenizer is again.tokenizer
    assert robust.tokenizer is not own.tokenizer
