"""Counters of decodes whose images go at their own pace: each image counts, and so does the whole batch."""

import pytest
import torch

from harness.cell.cell import Cell, normalised
from harness.measure import measure as measuring
from harness.measure.counts import Counts
from harness.measure.measure import Budgets, measure
from harness.measure.repeats import Budget
from harness.subject.prepare import prepare
from harness.subject.subject import load, run_batch

ONCE = Budget(seconds=0, least=1)
QUICK = Budgets(warmup_s=0, images=ONCE, latency=ONCE, by_batch=ONCE)


def subject(zoo, strategy: str, **changes):
    return load(prepare(normalised(Cell(strategy, zoo=str(zoo), threads=1, batch=4, **changes))))


def test_steps_are_a_mean_over_images_with_their_least_and_most(small_zoo):
    made, counts = subject(small_zoo, "sjd", options={"window": 4}, images=7), Counts()
    batches = [run_batch(made, range(4)), run_batch(made, range(4, 7))]
    for batch in batches:
        counts.add(batch.plan, batch.decoded)
    found = counts.fields()
    steps = torch.cat([batch.decoded.steps_of_image for batch in batches])
    assert (found["steps_least"], found["steps_most"]) == (int(steps.min()), int(steps.max()))
    assert found["steps"] == pytest.approx(float(steps.double().mean()))
    assert found["steps_bound"] == made.prepared.config.places
    forwards = [batch.decoded.forwards for batch in batches]
    assert found["forwards"] == pytest.approx((4 * forwards[0] + 3 * forwards[1]) / 7)
    assert found["draft_tokens"] >= made.prepared.config.places - 1
    assert found["accepted_share"] == pytest.approx((made.prepared.config.places - 1) / found["draft_tokens"])


def test_a_plan_known_before_counts_as_it_did(small_zoo):
    made, counts = subject(small_zoo, "lpd", steps=7, images=4), Counts()
    batch = run_batch(made, range(4))
    counts.add(batch.plan, batch.decoded)
    found = counts.fields()
    assert (found["steps"], found["steps_least"], found["steps_most"], found["steps_bound"]) == (
        7,
        7,
        7,
        None,
    )
    assert isinstance(found["steps"], int)
    assert found["forwards"] == batch.decoded.forwards
    assert found["draft_tokens"] is found["accepted_share"] is counts.wasted_share is None


def test_a_row_says_what_drafts_cost(small_zoo, monkeypatch):
    monkeypatch.setattr(measuring, "BATCHES", (1,))
    made = subject(small_zoo, "sjd", options={"window": 4}, images=4)
    row = measure(made, lambda share, doing: None, QUICK).row
    assert row["wasted_flops"] == pytest.approx((1 - row["accepted_share"]) * row["flops_per_image"])
    assert 0 < row["accepted_share"] <= 1
    assert row["parameters"] == sum(weight.numel() for weight in made.network.parameters())
