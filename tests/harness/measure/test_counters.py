"""Counters of decodes whose images go at their own pace: each image counts, and so does the whole batch."""

import pytest
import torch

from harness.cell.cell import Cell, normalised
from harness.images.shards import Shards
from harness.images.stores import ImageStore
from harness.measure import measure as measuring
from harness.measure.counts import OF_IMAGES, Counts, counters_of
from harness.measure.measure import Budgets, measure
from harness.measure.repeats import Budget
from harness.subject.prepare import prepare
from harness.subject.subject import Gallery, load, run_batch
from pardec.errors import UserError

ONCE = Budget(seconds=0, least=1)
QUICK = Budgets(warmup_s=0, images=ONCE, latency=ONCE, by_batch=ONCE)


def subject(zoo, strategy: str, **changes):
    return load(prepare(normalised(Cell(strategy, zoo=str(zoo), threads=1, batch=4, **changes))))


def test_steps_are_a_mean_over_images_with_their_least_and_most(small_zoo):
    made = subject(small_zoo, "sjd", options={"window": 4}, images=7)
    batches = [run_batch(made, range(4)), run_batch(made, range(4, 7))]
    counts = Counts(batches[0].plan, [counters_of(batch.decoded) for batch in batches])
    found = counts.fields()
    steps = torch.cat([batch.decoded.steps_of_image for batch in batches])
    assert (found["steps_least"], found["steps_most"]) == (int(steps.min()), int(steps.max()))
    assert found["steps"] == pytest.approx(float(steps.double().mean()))
    assert found["steps_bound"] == made.prepared.config.places
    forwards = [batch.decoded.forwards for batch in batches]
    assert found["forwards"] == pytest.approx((4 * forwards[0] + 3 * forwards[1]) / 7)
    assert found["draft_tokens"] >= made.prepared.config.places - 1
    tested, accepted = (
        torch.cat([getattr(batch.decoded, name) for batch in batches]) for name in ("tested", "accepted")
    )
    assert found["drafts_tested"] == pytest.approx(float(tested.sum()) / 7)
    assert found["accepted_share"] == pytest.approx(float(accepted.sum() / tested.sum()))
    # A forward keeps the drafts that pass, and the token behind them.
    kept = torch.cat([batch.decoded.kept for batch in batches])
    assert torch.equal(accepted.sum(dim=1), kept - (steps - 1))
    maps = counts.by_position
    assert maps["drafts_tested"].shape == made.prepared.config.grid
    assert maps["drafts_tested"][0, 0] == 0, "the first token is drawn at once"
    assert maps["drafts_tested"][-1, -1] == 0, "and so is the last"
    assert (maps["drafts_accepted"] <= maps["drafts_tested"]).all()
    assert maps["drafts_accepted"].sum() == int(accepted.sum())


def test_a_plan_known_before_counts_as_it_did(small_zoo):
    made = subject(small_zoo, "lpd", steps=7, images=4)
    batch = run_batch(made, range(4))
    counts = Counts(batch.plan, [counters_of(batch.decoded)])
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
    assert found["drafts_tested"] is None
    assert counts.by_position == {}


def test_a_row_says_what_drafts_cost(small_zoo, monkeypatch):
    monkeypatch.setattr(measuring, "BATCHES", (1,))
    monkeypatch.setattr(measuring, "LEAST_OF_IMAGES", 1)
    made = subject(small_zoo, "sjd", options={"window": 4}, images=4)
    row = measure(made, lambda share, doing: None, QUICK).row
    wasted = 1 - (made.prepared.config.places - 1) / row["draft_tokens"]
    assert row["wasted_flops"] == pytest.approx(wasted * row["flops_per_image"])
    assert 0 < row["accepted_share"] < 1
    assert row["parameters"] == sum(weight.numel() for weight in made.network.parameters())


def test_a_resumed_cell_counts_as_an_undisturbed_one(small_zoo, tmp_path):
    made = subject(small_zoo, "sjd", options={"window": 8}, images=8, once=True)
    cell = made.prepared.cell

    class Killed(BaseException):
        pass

    def kill(share, doing):
        if doing == "images" and share >= 0.5:
            raise Killed

    def run(folder, report=lambda share, doing: None):
        gallery = Gallery(store=ImageStore.of(Shards.open(folder, cell), cell, chunk=4))
        missing = gallery.store.images_missing
        return measure(made, report, QUICK, gallery).row, gallery.by_position, missing

    row, maps, missing = run(tmp_path / "whole")
    assert missing == 8
    with pytest.raises(Killed):
        run(tmp_path / "cut", kill)
    again, maps_again, missing = run(tmp_path / "cut")
    assert missing == 4, "the first shard was there"
    counted = ("steps", "steps_least", "steps_most", "forwards", "tokens_processed", "draft_tokens")
    counted += ("drafts_tested", "accepted_share", "tokens_sha256")
    assert {name: row[name] for name in counted} == {name: again[name] for name in counted}
    for name, array in maps.items():
        assert (array == maps_again[name]).all(), name
    assert maps["drafts_tested"].sum() == pytest.approx(8 * row["drafts_tested"])
    alone = measure(made, lambda share, doing: None, QUICK).row
    assert {name: row[name] for name in counted} == {name: alone[name] for name in counted}


def test_shards_without_counters_are_told(small_zoo, tmp_path):
    made = subject(small_zoo, "sjd", images=4)
    shards = Shards.open(tmp_path, made.prepared.cell)
    shards.write(range(4), torch.zeros(4, made.prepared.config.places).numpy(), None)
    with pytest.raises(UserError, match="holds no steps of its images: remove it"):
        list(shards.counters(OF_IMAGES))
