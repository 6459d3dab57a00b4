"""The answer in sentences: what is said is in the rows, and what isn't in them is said to be missing."""

import dataclasses

import numpy as np
from synthetic_rows import anchor_rows, cell_row, failed_row, metric

from reports.answer import CURVES, MOST, SCORED, Sentence, answer
from reports.contests import against_first, iso_within
from reports.frame import facets
from reports.training_noise import TrainingNoise
from results.environments import result_key
from results.schema import Row


def cell(at: int, strategy: str, steps: int, distance: float, rate: float, lost: float = 5.0, **more) -> Row:
    row = cell_row(at, strategy, strategy.upper(), steps, {}, distance, rate)
    noise = 0.002 * np.random.default_rng(at).standard_normal(20)
    quality = {"fd_fashion@1000": metric(distance, 0.1)}
    replicates = {"fd_fashion@1000": (distance + noise).tolist()}
    bits = {"value": lost, "low": 0.9 * lost, "high": 1.1 * lost, "n": 20}
    row = dataclasses.replace(row, quality=quality, quality_replicates=replicates, lossiness_bits=bits)
    return dataclasses.replace(row, **more)


def said(rows: list[Row]) -> list[Sentence]:
    facet = facets(rows)[0]
    cells = [row for row in facet.cells if row.status == "ok"]
    found = answer(facet, cells, iso_within(cells), against_first(cells, {}, TrainingNoise()))
    assert 1 <= len(found) <= MOST
    return found


def without(row: Row, *names: str) -> Row:
    """The row with these numbers missing."""
    return dataclasses.replace(
        row, **dict.fromkeys(names), unmeasured=row.unmeasured | dict.fromkeys(names, "not asked for")
    )


def curves() -> list[Row]:
    raster = [cell(at, "raster", 64, 10.0 + at, 60.0 + 0.5 * at, 0.0, guidance=1.0 + at) for at in range(3)]
    lpd = [
        cell(10 + at, "lpd", steps, 9.5 + at, 200.0 + 30 * at) for at, steps in enumerate((30, 20, 15, 10))
    ]
    return [*anchor_rows(), *raster, *lpd]


def test_equal_quality_comes_first_with_its_interval():
    first = said(curves())[0]
    assert first.text.startswith("At equal fd_fashion@1000, LPD is 4.")
    assert first.text.endswith("times as fast as RASTER.")
    assert " ± " in first.text or " [" in first.text
    assert first.evidence == "iso"
    assert first.command is None


def test_cells_with_and_without_guidance_are_told_of():
    rows = curves()
    bare = [
        dataclasses.replace(row, cell=f"{at:016x}", guidance=None, guidance_schedule=None)
        for at, row in enumerate(rows[-2:], 500)
    ]
    assert said([*rows, *bare])[0].text.startswith("At equal fd_fashion@1000, LPD is ")


def test_lossless_steps_are_counted_against_raster_s():
    raster, ctf = cell(0, "raster", 64, 10.0, 60.0, 0.0), cell(1, "ctf", 65, 10.0, 50.0, 0.0)
    assert not any("Lossless" in one.text for one in said([*anchor_rows(), raster, ctf]))
    windows = [
        cell(2 + at, "sjd", steps, 10.0, 90.0, 0.0, options={"window": window})
        for at, (steps, window) in enumerate(((40, 4), (30, 8)))
    ]
    assert not any("Lossless" in one.text for one in said([*anchor_rows(), *windows]))
    (told,) = [one for one in said([*anchor_rows(), raster, ctf, *windows]) if "Lossless" in one.text]
    assert "in 30 instead of 64 steps" in told.text


def test_single_settings_say_what_is_missing_and_the_command_that_gives_it():
    rows = [
        cell(0, "raster", 64, 10.0, 60.0, 0.0),
        cell(1, "par", 19, 10.001, 160.0),
        cell(2, "arpg", 8, 30.0, 500.0),
    ]
    found = said(rows)
    assert found[0].text.startswith("Nothing can be said at equal fd_fashion@1000 against RASTER yet")
    assert found[0].command == CURVES
    assert sum(one.command == CURVES for one in found) == 1
    assert "PAR, 19 steps decodes 2.6" in found[1].text
    assert "not shown to differ" in found[1].text
    worse = next(one for one in found if "is worse" in one.text)
    assert worse.text.startswith("The fastest, ARPG, 8 steps at 8.")
    assert "fd_fashion@1000 +20.0" in worse.text


def test_more_settings_are_asked_for_where_curves_have_few_of_them():
    """A curve of four settings that meets no other needs another range, not more of the same."""
    many = [cell(20 + at, "arpg", 8 + at, 40.0 + at, 500.0 + at) for at in range(4)]
    rows = [*curves(), *many]
    (told,) = [one for one in said(rows) if "no figure at equal quality" in one.text]
    assert (told.evidence, told.command) == ("iso", None)
    few = [row for row in rows if row.strategy == "raster" or row.steps in (30, 20, 8)]
    (told,) = [one for one in said(few) if "no figure at equal quality" in one.text]
    assert (told.evidence, told.command) == ("iso", CURVES)
    assert told.text.endswith("More settings give curves that meet:")


def test_what_is_lossless_and_what_it_saves():
    rows = [cell(0, "raster", 64, 10.0, 60.0, 0.0), cell(1, "jacobi", 41, 10.0, 90.0, 0.0)]
    lossless = next(one for one in said(rows) if one.text.startswith("Lossless"))
    assert "JACOBI in 41 instead of 64 steps, 1.5" in lossless.text
    assert lossless.text.endswith("times the speed of RASTER, 64 steps.")
    rows[1] = cell(1, "jacobi", 41, 10.0, 90.0, 3.0)
    assert any("Nothing that saves steps is lossless here" in one.text for one in said(rows))


def test_lossless_may_be_declared_and_at_another_batch():
    rows = [cell(0, "raster", 64, 10.0, 60.0, 0.0), cell(1, "par", 19, 10.0, 90.0)]
    other = without(cell(2, "sjd", 20, 10.0, 90.0, batch=32), "lossiness_bits")
    facet = facets([*rows, other])[0]
    found = answer(facet, rows, None, None, {result_key(other)})
    assert found[1].text == "Lossless: SJD in 20 instead of 64 steps."
    assert "Nothing that saves steps is lossless" in answer(facet, rows, None, None)[1].text


def test_declared_acceptance_saves_nothing_that_is_said():
    rows = [cell(0, "raster", 64, 10.0, 60.0, 0.0), cell(1, "sjd", 20, 10.0, 90.0, 0.0, acceptance=0.5)]
    assert not any("ossless" in one.text for one in said(rows))


def test_failures_and_single_times_are_told():
    rows = [*curves(), failed_row(), cell(30, "par", 19, 10.0, 160.0)]
    rows[2] = without(rows[2], "throughput_interval")
    last = said(rows)[-1]
    assert "1 of 11 cells failed" in last.text
    assert "1 cell was timed once, so its speed has no interval" in last.text


def test_without_quality_speed_alone_is_told():
    measured = [cell(0, "raster", 64, 10.0, 60.0), cell(1, "par", 64, 10.0, 160.0)]
    rows = [without(dataclasses.replace(row, checkpoint="random"), "quality") for row in measured]
    speed, quality = said(rows)
    assert "PAR, 64 steps decodes 2." in speed.text
    assert "the weights are random" in quality.text
    assert quality.command == SCORED


def test_nothing_measured_is_said_to_be_nothing():
    assert said([*anchor_rows(), failed_row()])[0].text == "Nothing can be said: no cell was measured."


def test_cells_stand_against_the_best_setting_of_the_first_strategy():
    rows = [
        cell(0, "raster", 64, 30.0, 60.0, 0.0, guidance=1.0),
        cell(1, "raster", 64, 10.0, 60.0, 0.0, guidance=1.5),
        cell(2, "raster", 64, 20.0, 60.0, 0.0, guidance=3.0),
        cell(3, "lpd", 20, 12.0, 200.0),
    ]
    against = against_first(rows, {}, TrainingNoise())
    assert against is not None
    assert against.base.guidance == 1.5
    assert [row.cell for row, _ in against.found] == [rows[at].cell for at in (0, 2, 3)]
    unscored = [without(row, "quality") for row in rows]
    found = against_first(unscored, {}, TrainingNoise())
    assert found is not None
    assert found.base == unscored[0]
