"""Numbers that tables and pictures show are those of the rows, in their units and the right way round."""

import csv
import dataclasses
import io

import pytest
from synthetic_rows import CELLS, cell_row, sweep_rows
from test_isoquality import METRIC, analytic
from test_learning_curve import ROWS, STORED
from test_page_parts import OWNERS, beside
from test_predicted import cost, pair

from reports import learning_curve, plots
from reports.comparability import Incomparable, quantity, require_comparable
from reports.contests import against_first
from reports.frame import facets
from reports.inference import Contrast
from reports.isoquality import advantage
from reports.matrix import _inverse
from reports.points import facet_points
from reports.predicted import predicted_against_measured, prediction_table, waterfall_figure
from reports.race import lanes
from reports.tables import cost_table, to_csv
from reports.training_noise import TrainingNoise
from results.environments import result_key


def test_the_cost_table_has_its_units():
    (facet,) = facets(sweep_rows())
    table = cost_table(facet)
    at = next(n for n, row in enumerate(table.rows) if row.label == "PAR")
    shown = dict(
        zip([one.heading for one in table.columns], [one.text for one in table.entries[at]], strict=True)
    )

    assert (shown["parameters"], shown["GFLOPs/image"], shown["weights MB"], shown["cache MB"]) == (
        "1.263 M",
        "0.1700",
        "5.051",
        "6.390",
    )
    assert shown["latency ms"] == "15.1 [14.5, 16.3]"
    assert shown["peak MB"] == "11.96 (n=1)"


def test_bounds_of_a_score_turn_round():
    a, b = analytic("A", noise=0.3), analytic("B", speed=2.0, noise=0.3)
    fall, rise = (advantage(a, b, name, draws=100).better for name in (METRIC, "accuracy@1000"))
    assert (rise.value, rise.low, rise.high) == (-fall.value, -fall.high, -fall.low)


def test_the_other_half_of_a_matrix_has_inverse_bounds():
    assert _inverse(Contrast(2.0, 1.6, 2.5, 0.01)) == Contrast(0.5, 0.4, 0.625, 0.01)


def test_a_lane_has_the_shares_of_planning_and_of_detokenizing():
    row = cell_row(3, "lpd", "LPD", 10, {}, 10.0, 100.0)
    (lane,) = lanes(facets([row])[0], beside(row), OWNERS)
    assert lane["share"] == pytest.approx([0.001 / 0.64, 0.05 / 0.64])


def test_scores_of_two_extractors_are_not_compared():
    a = cell_row(50, *CELLS[0])
    b = dataclasses.replace(a, protocol=dict(a.protocol) | {"extractor": "x"})
    with pytest.raises(Incomparable) as c:
        require_comparable([a, b], quantity("is_fashion@1000").keys)
    assert c.value.keys == ("extractor",)


def test_cells_of_two_seeds_are_not_paired():
    one, other = sweep_rows()[2:4]
    found = [
        against_first([one, dataclasses.replace(other, seed=seed)], {}, TrainingNoise())
        .found[0][1][METRIC]
        .paired
        for seed in (0, 1)
    ]
    assert found == [True, False]


def test_csv_keeps_metrics_and_their_bounds():
    rows = sweep_rows()
    read = {line["cell"]: line for line in csv.DictReader(io.StringIO(to_csv(rows)))}
    for row in rows:
        for name, one in (row.quality or {}).items():
            assert [float(read[row.cell][f"{name}{end}"]) for end in ("", "_low", "_high")] == [
                one["value"],
                one["low"],
                one["high"],
            ]


def test_points_are_in_the_units_of_their_axes():
    facet = facets(sweep_rows())[0]
    for point, row in zip(
        facet_points(facet, {}, OWNERS)["cells"], [r for r in facet.cells if r.status == "ok"], strict=True
    ):
        assert point["x"]["memory"][0] == pytest.approx(row.peak_bytes / 1e6)
        assert point["x"]["flops"][0] == pytest.approx(row.flops_per_image / 1e9)


def test_memory_points_and_anchor_lines():
    (facet,) = facets(sweep_rows())
    drawn = plots.memory_against_batch(facet).axes[0].lines
    for one, line in zip(plots.series(facet), drawn, strict=False):
        peaks = {int(b): v / 1e6 for b, v in one.rows[0].peak_bytes_by_batch.items()}
        assert dict(line.get_xydata().tolist()) == pytest.approx(peaks)
    axes = plots.quality_against_steps(facet, METRIC).axes[0]
    levels = {
        line.get_ydata()[0]
        for line in axes.lines
        if line.get_linestyle() == "--" and len(set(line.get_ydata())) == 1
    }
    assert {row.quality[METRIC]["value"] for row in facet.anchors} <= levels


def test_learning_curves_are_drawn_where_they_were_measured():
    (facet,) = facets(ROWS)
    loss, quality = learning_curve.figure(facet, STORED).axes
    assert [[50_000, 0.8], [100_000, 0.75]] in [line.get_xydata().tolist() for line in loss.lines]
    assert [[50_000, 10.0], [100_000, 9.0]] in [line.get_xydata().tolist() for line in quality.lines]


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
