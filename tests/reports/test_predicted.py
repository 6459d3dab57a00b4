"""Predicted beside measured, and the waterfall, whose factors multiply up to the measured speed-up."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
from synthetic_rows import cell_row, sweep_rows, write_sweep

from reports.artifacts import load_cost
from reports.frame import facets
from reports.predicted import (
    CheckedPrediction,
    error_line,
    predicted_against_measured,
    prediction_table,
    published_predictions,
    waterfall_figure,
    waterfall_table,
)
from reports.site import write_report
from reports.waterfall import FACTORS, IDEAL, UNEXPLAINED, base_of, waterfall, waterfalls
from results.environments import result_key
from results.schema import Row
from results.store import ResultStore


def cost(row: Row, **changes) -> dict:
    """A prediction of realistic shares, half as long as measured."""
    assert row.throughput_images_per_s
    assert row.batch
    half = row.batch / row.throughput_images_per_s / 2
    shares = {"tokens": 0.5, "guidance": 0.2, "cache": 0.1, "attention": 0.15, "launch": 0.05}
    return {
        **{f"{name}_s": half * share for name, share in shares.items()},
        "card": "here-2",
        "total_s": half,
        "latency_s": 2 * (row.latency_s or 1.0),
        "throughput_images_per_s": row.batch / half,
        "peak_bytes": (row.weight_bytes or 0) + (row.cache_bytes or 0) + 1_000_000,
        **changes,
    }


def pair(**changes) -> tuple[Row, Row]:
    """A raster row and a faster one."""
    slow = cell_row(1, "raster", "Raster", 64, {}, 20.0, 100.0)
    return slow, dataclasses.replace(cell_row(2, "lpd", "LPD", 8, {}, 20.0, 450.0), **changes)


def test_factors_multiply_up_to_the_measured_speed_up_exactly():
    slow, fast = pair()
    costs = {result_key(slow): cost(slow), result_key(fast): cost(fast, guidance_s=0.001, attention_s=0.02)}
    drawn = waterfall(fast, slow, costs)
    assert list(drawn.factors) == [IDEAL, *FACTORS, UNEXPLAINED]
    assert drawn.factors[IDEAL] == 8
    measured = fast.throughput_images_per_s / slow.throughput_images_per_s
    assert drawn.speedup == pytest.approx(measured, rel=1e-12)
    assert math.prod(drawn.factors.values()) == drawn.speedup


def test_each_factor_is_the_cost_that_it_names():
    slow, fast = pair()
    pieces = {f"{name}_s": 1.0 for name in ("tokens", "guidance", "cache", "attention", "launch")}
    phases = {"plan": 0.0, "prefill": 0.0, "decode": 1.0, "detokenize": 1.0, "total": 1.0}
    slow, fast = (dataclasses.replace(row, phases_s=phases) for row in (slow, fast))
    costs = {result_key(slow): cost(slow, **pieces), result_key(fast): cost(fast, **pieces)}
    factors = waterfall(fast, slow, costs).factors
    assert factors["tokens processed"] == pytest.approx(
        1 / 8
    )  # as many tokens as raster: the steps buy nothing
    assert [factors[name] for name in FACTORS[1:]] == pytest.approx([1.0] * 5)
    costs[result_key(fast)]["cache_s"] = 4.0  # 3 of 3 seconds become 3 of 6
    factors = waterfall(fast, slow, costs).factors
    assert factors["cache traffic"] == pytest.approx(0.5)
    assert factors["guidance"] == pytest.approx(1.0)


def test_the_base_is_a_raster_row_of_the_same_batch_and_size():
    slow, fast = pair(parameters=1_262_720)
    other_batch = dataclasses.replace(slow, cell="0" * 16, batch=1)
    unguided = dataclasses.replace(slow, cell="1" * 16, guidance=None)
    large = dataclasses.replace(slow, cell="2" * 16, parameters=10_000_000)
    assert base_of(fast, [other_batch, unguided, large, slow, fast]) is slow
    assert base_of(fast, [other_batch, unguided, fast]) is None


def test_nothing_is_drawn_where_a_part_is_missing():
    slow, fast = pair()
    assert waterfalls([slow, fast], {result_key(fast): cost(fast)}) == []
    assert (
        waterfalls([slow, fast], {result_key(slow): cost(slow), result_key(fast): cost(fast, card="h200")})
        == []
    )
    (facet,) = facets([slow, fast])
    assert prediction_table(facet, {}) is None
    assert waterfall_table(facet, {}) is None
    assert waterfall_figure(facet, {}) is None


def test_ratios_and_their_worst():
    slow, fast = pair()
    compared = [
        CheckedPrediction(slow, cost(slow)),
        CheckedPrediction(fast, cost(fast, latency_s=0.1 * fast.latency_s)),
    ]
    assert compared[0].ratios["throughput"] == pytest.approx(2)
    assert compared[0].ratios["latency"] == pytest.approx(2)
    predicted = slow.weight_bytes + slow.cache_bytes + 1_000_000
    assert compared[0].ratios["peak memory"] == pytest.approx(
        predicted / (slow.weight_bytes + slow.peak_bytes)
    )
    assert "latency 1.05 (worst 0.1)" in error_line(compared)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A sweep in which every decoded cell has a prediction."""
    folder = write_sweep(tmp_path_factory.mktemp("sweep"))
    store = ResultStore(folder)
    for row in store.rows():
        if row.throughput_images_per_s:
            path = store.artifact(row.cell, ".cost.json")
            path.write_text(json.dumps(cost(row)))
            store.append(dataclasses.replace(row, artifacts={**row.artifacts, "cost": store.relative(path)}))
    return folder


@pytest.mark.usefixtures("quick_figures")
def test_the_report_shows_prediction_and_waterfall(folder, tmp_path, few_pictures):
    few_pictures("predicted-against-measured")
    page = write_report(folder, tmp_path / "report").read_text()
    text = (tmp_path / "report" / "report.md").read_text()
    for shown in (page, text):
        assert "Predicted and measured (predicted over measured, median of" in shown
        assert "Speed-up over raster, factor by factor" in shown
        assert "unexplained" in shown
    assert (tmp_path / "report" / "figures" / "predicted-against-measured.png").stat().st_size > 5000
    assert "Not shown" not in page or ".cost.json" not in page


@pytest.mark.parametrize(
    "change", [{"tokens_s": 0}, {"latency_s": -0.1}, {"cache_s": -1.0}, {"peak_bytes": 0}]
)
def test_a_prediction_of_nothing_or_less_is_none(tmp_path, change):
    row = dataclasses.replace(sweep_rows()[3], artifacts={"cost": "a.json"})
    (tmp_path / "a.json").write_text(json.dumps(cost(row)))
    assert load_cost(row, tmp_path) is not None
    (tmp_path / "a.json").write_text(json.dumps(cost(row) | change))
    assert load_cost(row, tmp_path) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"card": "x", "total_s": "1"}', '{"card": 1}'])
def test_an_unreadable_prediction_is_none(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    row = dataclasses.replace(sweep_rows()[3], artifacts={"cost": "a.json"})
    assert load_cost(row, tmp_path) is None
    assert load_cost(dataclasses.replace(row, artifacts={"cost": "b.json"}), tmp_path) is None


def test_published_speeds_have_their_predictions_and_ratios():
    lines = published_predictions()
    assert {strategy for strategy, _ in lines} >= {"raster", "rar", "par", "lpd", "arpg"}
    for _, cells in lines:
        assert float(cells[8]) == pytest.approx(float(cells[7]) / float(cells[6]), rel=0.01)


def test_predictions_are_drawn_and_tabled_as_they_are():
    slow, fast = pair()
    costs = {result_key(row): cost(row) for row in (slow, fast)}
    (facet,) = facets([slow, fast])
    first = prediction_table(facet, costs)
    told = [entry.value for entry in first.entries[0]][2:]

    assert told[3:6] == pytest.approx([50.0, 25.0, 2.0])
    axes = predicted_against_measured(facet, costs).axes[0]
    dots = [tuple(line.get_xydata()[0]) for line in axes.lines if len(line.get_xydata()) == 1]
    assert dots == [
        (row.throughput_images_per_s, costs[result_key(row)]["throughput_images_per_s"])
        for row in (slow, fast)
    ]
    drawn = waterfall_figure(facet, costs).axes[0]
    assert (
        drawn.get_title(loc="left")
        == f"LPD, 8 steps: {fast.throughput_images_per_s / slow.throughput_images_per_s:.3g} times raster"
    )
    assert drawn.patches[-1].get_height() + 1 == pytest.approx(
        fast.throughput_images_per_s / slow.throughput_images_per_s
    )
