"""Iso-quality on curves whose answer is known."""

import dataclasses

import numpy as np
import pytest
from synthetic_rows import cell_row, failed_row, metric, sweep_rows

from reports.comparability import Incomparable
from reports.contests import contests, iso_table_between, iso_within
from reports.frame import facets
from reports.inference import Contrast
from reports.isoquality import Advantage, Curve, advantage, curve, front
from reports.matrix import _inverse
from reports.training_noise import SeedPair, TrainingNoise
from results.schema import Row

METRIC = "fd_fashion@1000"


def analytic(
    label: str, speed: float = 1.0, shift: float = 0.0, noise: float = 0.0, without: np.ndarray | None = None
) -> Curve:
    """quality = 10 + shift - 3 log(time * speed) at five times."""
    time = np.log(np.array([0.01, 0.02, 0.04, 0.08, 0.16]) / speed)
    quality = 10 + shift - 3 * (time + np.log(speed))
    return Curve(label, "lpd", time, np.full(5, noise / 10), quality, np.full(5, noise), without)


def test_a_curve_that_is_twice_as_fast() -> None:
    found = advantage(analytic("A"), analytic("B", speed=2.0), METRIC, draws=50)
    assert found.faster is not None
    assert found.faster.value == pytest.approx(2.0)
    assert (found.faster.low, found.faster.high) == pytest.approx((2, 2))
    assert found.better is not None
    assert found.better.value == pytest.approx(-3 * np.log(2))
    assert found.times_s == pytest.approx((0.01, 0.08))
    assert found.why == ""
    back = advantage(analytic("B", speed=2.0), analytic("A"), METRIC, draws=50)
    assert back.faster is not None
    assert back.faster.value == pytest.approx(0.5)


def test_scores_are_better_when_they_rise() -> None:
    a, b = (
        dataclasses.replace(analytic(x, s), quality=-analytic(x, s).quality) for x, s in (("A", 1), ("B", 2))
    )
    flipped = advantage(
        dataclasses.replace(a, quality=-a.quality),
        dataclasses.replace(b, quality=-b.quality),
        "accuracy@1000",
        draws=50,
    )
    assert flipped.better is not None
    assert flipped.better.value == pytest.approx(3 * np.log(2))  # in the score's own direction
    assert flipped.qualities is not None
    assert flipped.qualities[0] < flipped.qualities[1] < 0


def test_without_overlap_there_is_no_figure() -> None:
    found = advantage(analytic("A"), analytic("B", shift=100.0), METRIC, draws=10)
    assert found.faster is None
    assert "no common quality: A 15.5 to 23.8, B 115 to 124" in found.why
    assert "every point of B has one of A that is no slower and better" in found.why
    assert found.better is not None
    apart = advantage(analytic("A"), analytic("B", speed=1000.0), METRIC, draws=10)
    assert apart.better is None
    assert "no common time: A 10 to 160 ms, B 0.01 to 0.16 ms" in apart.why
    assert apart.faster is not None


def test_a_single_point_is_compared_where_the_other_curve_meets_it() -> None:
    a = analytic("A")
    point = Curve("P", "raster", np.log([0.08]), np.zeros(1), np.array([10 - 3 * np.log(0.02)]), np.zeros(1))
    found = advantage(point, a, METRIC, draws=10)
    assert found.faster is not None
    assert found.faster.value == pytest.approx(4.0)
    assert found.qualities is not None
    assert found.qualities[0] == found.qualities[1]


def test_an_uncertain_overlap_has_no_interval() -> None:
    a = analytic("A")
    edge = Curve("P", "raster", np.log([0.5]), np.zeros(1), a.quality[-1:], np.array([1.0]))
    found = advantage(edge, a, METRIC, draws=400)
    assert found.faster is not None
    assert found.faster.low is None
    assert "no overlap in" in found.why


def test_the_front_keeps_what_nothing_beats() -> None:
    time, quality = front(np.array([1.0, 2, 3, 3, 4]), np.array([9.0, 9, 5, 4, 6]))
    assert (time.tolist(), quality.tolist()) == ([1, 3], [9, 4])


def test_intervals_cover_and_pairing_narrows_them() -> None:
    generator = np.random.default_rng(0)
    hits, widths = 0, {"paired": [], "alone": []}
    for trial in range(100):
        noise = generator.normal(size=20) * 0.5  # of groups, shared by all cells
        jackknife = -noise / 19  # leaving a group out takes its share away
        shift = noise.mean()
        curves = []
        for label, speed in (("A", 1.0), ("B", 1.5)):
            base = analytic(label, speed)
            own = generator.normal(size=(5, 20)) * 0.1
            quality = base.quality + shift + own.mean(axis=1)
            without = quality[:, None] + (jackknife - own / 19)
            sd = np.full(5, np.hypot(0.5, 0.1) / np.sqrt(20))
            curves.append(dataclasses.replace(base, quality=quality, quality_sd=sd, without=without))
        found = advantage(*curves, METRIC, draws=300, seed=trial).faster
        assert found is not None
        hits += found.low <= 1.5 <= found.high  # type: ignore[operator]
        if trial % 10 == 0:
            alone = advantage(
                *(dataclasses.replace(c, without=None) for c in curves), METRIC, draws=300
            ).faster
            assert alone is not None
            widths["paired"].append(found.high - found.low)  # type: ignore[operator]
            widths["alone"].append(alone.high - alone.low)  # type: ignore[operator]
    assert 0.88 <= hits / 100 <= 0.99
    assert np.mean(widths["paired"]) < np.mean(widths["alone"]) / 2


def rows_of(label: str, strategy: str, speed: float, first: int, shift: float = 0.0) -> list[Row]:
    return [
        dataclasses.replace(
            cell_row(first + i, strategy, label, steps, {}, 30 + shift - 5 * i, speed * 400 / 2**i),
            guidance=1.0 + i,
        )
        for i, steps in enumerate((4, 8, 16, 32))
    ]


def test_curves_gather_steps_and_guidance_and_refuse_other_settings() -> None:
    rows = rows_of("LPD", "lpd", 2.0, 100)
    found = curve("LPD", rows, METRIC)
    assert found is not None
    assert np.exp(-found.log_time) == pytest.approx([row.throughput_images_per_s for row in rows])
    assert found.quality_sd == pytest.approx([0.06 * (30 - 5 * i) / 1.96 for i in range(4)], rel=1e-3)
    with pytest.raises(Incomparable, match="batch"):
        curve("LPD", [*rows, dataclasses.replace(rows[0], batch=1)], METRIC)
    with pytest.raises(Incomparable, match="n differs"):
        curve("LPD", [*rows, dataclasses.replace(rows[0], images=9)], METRIC)
    assert (
        curve(
            "LPD",
            [
                dataclasses.replace(
                    rows[0],
                    quality={METRIC: metric(1, 1) | {"value": None}},
                    unmeasured=rows[0].unmeasured | {f"quality.{METRIC}": "no"},
                )
            ],
            METRIC,
        )
        is None
    )


def test_tables_say_who_is_faster_and_how_many_comparisons_that_rests_on() -> None:
    rows = [*rows_of("ARPG", "arpg", 1.0, 200), *rows_of("LPD", "lpd", 3.0, 100)]
    (facet,) = facets(rows)
    iso, against = contests(facet, {}, TrainingNoise())
    (line,) = iso.lines
    assert line[0] == "ARPG against LPD"
    assert line[3] == "slower"
    assert line[6] == "worse"
    assert float(line[1].split()[0]) == pytest.approx(1 / 3, abs=0.05)
    assert "2 comparisons, 2 called a difference" in iso.note
    assert len(against.lines) == 7
    assert "21 comparisons" in against.note
    (same,) = iso_table_between(rows, rows, TrainingNoise())
    assert same.lines
    assert all(line[3] == "no difference shown" for line in same.lines)


def test_cells_without_guidance_are_the_end_of_every_curve_of_their_setting() -> None:
    guided = rows_of("LPD", "lpd", 3.0, 100)
    bare = dataclasses.replace(guided[0], cell="f" * 16, guidance=None, guidance_schedule=None)
    linear = [
        dataclasses.replace(row, cell=f"{at:016x}", guidance_schedule="linear")
        for at, row in enumerate(guided[1:], 900)
    ]
    (one,) = iso_between([bare, *guided])
    assert len(one.a.quality) + len(one.b.quality) == 4 + 5
    pairs = iso_between([bare, *guided, *linear])
    names = {curve.label for pair in pairs for curve in (pair.a, pair.b)}
    assert names == {"ARPG", "LPD, constant", "LPD, linear"}
    sizes = {curve.label: len(curve.quality) for pair in pairs for curve in (pair.a, pair.b)}
    assert sizes == {"ARPG": 4, "LPD, constant": 5, "LPD, linear": 4}


def test_a_curve_meets_cells_without_guidance_of_another_result() -> None:
    guided = rows_of("LPD", "lpd", 3.0, 100)
    bare = [
        dataclasses.replace(row, cell=f"{at:016x}", guidance=None, guidance_schedule=None)
        for at, row in enumerate(guided[:2], 700)
    ]
    linear = [
        dataclasses.replace(row, cell=f"{at:016x}", guidance_schedule="linear")
        for at, row in enumerate(guided[1:], 900)
    ]
    for own, other in (([*guided, *bare], bare), ([*guided, *bare], [*linear, *bare])):
        (table,) = iso_table_between(own, other, TrainingNoise())
        assert len(table.lines) == 1
    (table,) = iso_table_between([*guided, *bare], [*linear, *guided, *bare], TrainingNoise())
    assert "constant (B) against LPD, constant (A)" in table.lines[0][0]


def iso_between(lpd: list[Row]) -> list[Advantage]:
    """The pairs of these rows and of ARPG's."""
    found = iso_within([*rows_of("ARPG", "arpg", 1.0, 200), *lpd])
    assert found is not None
    return list(found.pairs)


def test_two_results_have_a_table_for_each_metric_and_the_noise_of_its_rows() -> None:
    lpd = rows_of("LPD", "lpd", 3.0, 100)
    many = [
        dataclasses.replace(row, images=5000, quality={"fd_fashion@5000": metric(20.0 - at, 0.5, 5000)})
        for at, row in enumerate(rows_of("ARPG", "arpg", 1.0, 200))
    ]
    rows = [*lpd, *many]
    seeds = TrainingNoise((SeedPair(lpd[0], dataclasses.replace(lpd[1], steps=lpd[0].steps)),))
    tables = iso_table_between(rows, [*rows, failed_row()], seeds)
    assert [table.title.rpartition(": ")[2] for table in tables] == [METRIC, "fd_fashion@5000"]
    assert [len(table.lines) for table in tables] == [1, 1]
    assert f"{METRIC} moved by 5" in tables[0].note
    assert "fd_fashion@5000 is not known" in tables[1].note


def test_speeds_of_other_batches_are_never_mixed() -> None:
    rows = [
        *rows_of("LPD", "lpd", 3.0, 100),
        *(
            dataclasses.replace(r, batch=1, cell=f"{i:016x}")
            for i, r in enumerate(rows_of("LPD", "lpd", 1.0, 300), 1000)
        ),
    ]
    (facet,) = facets(rows)
    titles = [table.title for table in contests(facet, {}, TrainingNoise())]
    assert [title.partition(", batch ")[2] for title in titles] == ["64", "1"] or "batch 1" in titles[0]


def test_paired_values_reach_the_table() -> None:
    without = (np.random.default_rng(0).normal(size=20) * 0.01).tolist()
    rows = [dataclasses.replace(row, quality_replicates={METRIC: without}) for row in sweep_rows()]
    (facet,) = facets(rows)
    against = contests(facet, {}, TrainingNoise())[-1]
    assert against.title == "Against Raster, 64 steps"
    assert against.headings[1:4] == (f"{METRIC}, difference", "training seeds", "verdict")
    rar = next(line for line in against.lines if line[0].startswith("RAR"))
    assert rar[1:4] == ("1.700 ± 0", "–", "worse (paired)")


def test_bounds_of_a_score_turn_round():
    a, b = analytic("A", noise=0.3), analytic("B", speed=2.0, noise=0.3)
    fall, rise = (advantage(a, b, name, draws=100).better for name in (METRIC, "accuracy@1000"))
    assert (rise.value, rise.low, rise.high) == (-fall.value, -fall.high, -fall.low)


def test_the_other_half_of_a_matrix_has_inverse_bounds():
    assert _inverse(Contrast(2.0, 1.6, 2.5, 0.01)) == Contrast(0.5, 0.4, 0.625, 0.01)
