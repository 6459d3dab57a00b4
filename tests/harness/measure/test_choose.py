"""Options left to measurement: the fastest value by batch size, from outside of the strategy."""

import io
import json

import pytest

from harness.cell.cell import Cell, normalised
from harness.images.shards import Shards
from harness.images.stores import ImageStore
from harness.measure import choose, turns
from harness.measure import measure as measuring
from harness.measure.choose import Choice
from harness.measure.measure import Budgets, measure
from harness.measure.repeats import Budget
from harness.subject.pins import finished
from harness.subject.prepare import prepare
from harness.subject.subject import Gallery, load, run_batch
from harness.sweep import job
from harness.sweep.messages import Channel
from pardec.errors import UserError
from strategies.decoding import registry

ONCE = Budget(seconds=0, least=1)
QUICK = Budgets(warmup_s=0, images=ONCE, latency=ONCE, by_batch=ONCE)


def subject(zoo, **changes):
    known = {"options": {"window": "auto"}, "zoo": str(zoo), "threads": 1, "batch": 4, "images": 4}
    return load(prepare(normalised(Cell("jacobi", **{**known, **changes}))))


@pytest.fixture
def seconds(monkeypatch):
    """Seconds of a batch by its size and the strategy's window, as if they had been measured."""
    timed = []

    def measured(made, size):
        timed.append((size, made.prepared.strategy.window))
        return abs(made.prepared.strategy.window - {1: 16, 4: 8}[size])

    monkeypatch.setattr(choose, "_seconds", measured)
    return timed


def test_the_fastest_of_the_candidates_is_taken_for_each_batch(small_zoo, seconds):
    choice = Choice(subject(small_zoo))
    assert choice.at(4).prepared.strategy.window == 8
    assert choice.at(1).prepared.strategy.window == 16
    assert choice.at(4).prepared.undecided == ()
    assert seconds == [(size, window) for size in (4, 1) for window in (2, 4, 8, 16, 32)], "each timed once"
    assert choice.row == {"window": {"1": 16, "4": 8}}


def test_the_row_says_which_was_chosen(small_zoo, seconds, monkeypatch, tmp_path):
    monkeypatch.setattr(measuring, "BATCHES", (1,))
    monkeypatch.setattr(measuring, "LEAST_OF_IMAGES", 1)
    made = subject(small_zoo)
    store = ImageStore.of(Shards.open(tmp_path, made.prepared.cell), made.prepared.cell)
    row = measure(made, lambda share, doing: None, QUICK, Gallery(store=store)).row
    assert row["chosen_options"] == {"window": {"1": 16, "4": 8}}
    assert made.prepared.cell.options == {"window": "auto"}
    fixed = subject(small_zoo, options={"window": 8})
    assert row["steps"] == float(run_batch(fixed, range(4)).decoded.steps_of_image.double().mean())


def test_stored_images_keep_their_choice(small_zoo, seconds, tmp_path):
    (tmp_path / choose.CHOSEN).write_text(json.dumps({"window": 2}))
    choice = Choice(subject(small_zoo), tmp_path)
    assert choice.at(4).prepared.strategy.window == 2
    assert choice.at(1).prepared.strategy.window == 16
    for wrong in ('{"window": 3}', "[]", "{"):
        (tmp_path / choose.CHOSEN).write_text(wrong)
        with pytest.raises(UserError, match="chosen"):
            Choice(subject(small_zoo), tmp_path).at(4)


def test_cells_are_timed_in_turn_with_what_was_chosen_for_them(small_zoo, seconds, monkeypatch):
    """Others, whose rows don't say it, choose anew."""
    given, other = (subject(small_zoo, seed=seed).prepared.cell for seed in range(2))
    timed = []
    monkeypatch.setattr(turns, "timed_batches", lambda made, *rest: timed.append(made) or (lambda: 1.0))
    found = turns.time_in_turn([given, other], 2, {given.key: {"window": 2}})
    assert list(found) == [given.key, other.key]
    assert [made.prepared.strategy.window for made in timed] == [2, 8]
    assert {made.prepared.undecided for made in timed} == {()}


def test_what_is_stored_beside_a_row_is_of_what_was_chosen(small_zoo, seconds, monkeypatch, tmp_path):
    monkeypatch.setattr(measuring, "BATCHES", (1,))
    monkeypatch.setattr(measuring, "LEAST_OF_IMAGES", 1)
    told = []
    monkeypatch.setattr(job, "store_method", lambda prepared, folder: told.append(prepared.strategy) or {})
    monkeypatch.setattr(
        job, "store_prediction", lambda made, *rest: told.append(made.prepared.strategy) or ({}, {})
    )
    asked = subject(small_zoo, once=True).prepared.cell
    found = job.measure_cell(finished(asked), tmp_path, Channel(io.BytesIO()))
    assert found["chosen_options"] == {"window": {"4": 8}}
    assert [strategy.window for strategy in told] == [8, 8]


def test_what_is_left_open_does_not_run(small_zoo):
    with pytest.raises(UserError, match="window = 'auto' is chosen by a sweep"):
        run_batch(subject(small_zoo), range(4))
    decided = subject(small_zoo, options={"window": 4})
    assert Choice(decided).at(4) is decided
    with pytest.raises(UserError, match="'init'"):
        registry.get("sjd", init="auto")
