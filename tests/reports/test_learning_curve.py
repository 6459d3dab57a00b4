"""Quality against training images: what is drawn, what is said of it, and what is missing."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt
from synthetic_rows import anchor_rows, cell_row, replicates

from reports import learning, learning_curve
from reports.frame import facets, metrics
from reports.learning import SWEEP, lacking, runs, sentences, series
from reports.learning_curve import figure
from reports.site import write_report
from results.environments import result_key
from results.schema import RANDOM_WEIGHTS, Row
from results.store import ResultStore

MARKS = {50_000: 0.8, 100_000: 0.75}


def row(index: int, strategy: str, steps: int, distance: float, images: int | None, **changes: Any) -> Row:
    made = cell_row(index, strategy, strategy.upper(), steps, {}, distance, 50.0)
    known = {"training_images": images, "training_seed": 0, "network": f"zoo/marks/{strategy}-{images}"}
    made = dataclasses.replace(made, **known | {"checkpoint": f"{index:02x}" * 32} | changes)
    return dataclasses.replace(made, quality_replicates=replicates(made))


ROWS = [
    row(0, "raster", 256, 10.0, 50_000),
    row(1, "raster", 256, 9.0, 100_000),
    row(2, "arpg", 64, 20.0, 50_000),
    row(3, "arpg", 64, 14.0, 100_000),
    row(4, "lpd", 20, 12.0, 50_000),
]


def card(strategy: str, marks: dict[int, float] = MARKS) -> dict[str, Any]:
    told = [
        {"mark": at, "images": images, "validation_loss": loss}
        for at, (images, loss) in enumerate(marks.items())
    ]
    return {
        "learning": {
            "strategy": strategy,
            "marks": told,
            "train_loss": [[2_000, 2.0], [30_000, 0.9], [80_000, 0.85], [100_000, 0.76]],
        }
    }


STORED = {result_key(one): card(one.strategy) for one in ROWS}


@pytest.fixture(autouse=True)
def closed() -> Any:
    yield
    plt.close("all")


# What is drawn ---------------------------------------------------------------------------------------------


def test_a_line_for_each_strategy_at_its_papers_steps() -> None:
    other = row(5, "arpg", 32, 1.0, 50_000)
    better = row(6, "lpd", 20, 11.0, 50_000, guidance=3.0)
    seed = row(7, "lpd", 20, 1.0, 100_000, training_seed=1)
    (facet,) = facets([*ROWS, other, better, seed])
    found = {one.name: one for one in series(facet, metrics(ROWS)[0])}
    assert list(found) == ["RASTER, 256 steps", "LPD, 20 steps", "ARPG, 64 steps"]
    assert [one.images for one in found.values()] == [[50_000, 100_000], [50_000], [50_000, 100_000]]
    assert found["LPD, 20 steps"].rows == (better,)


def test_runs_are_those_of_the_cards() -> None:
    (facet,) = facets(ROWS)
    shorter = {**STORED, result_key(ROWS[0]): card("raster", {50_000: 0.8})}
    found = {run.strategy: run for run in runs(facet, shorter)}
    assert list(found) == ["raster", "lpd", "arpg"]
    np.testing.assert_allclose(found["raster"].marks, [[50_000, 0.8], [100_000, 0.75]])
    assert len(found["raster"].taught) == 4


@pytest.mark.parametrize(
    "told",
    [
        None,
        "text",
        {},
        {"strategy": 3, "marks": []},
        {"strategy": "raster", "marks": "no"},
        {"strategy": "raster", "marks": [{"images": -1, "validation_loss": 1.0}]},
        {"strategy": "raster", "marks": [{"images": 1, "validation_loss": "x"}, 5]},
        {"strategy": "raster", "marks": [{"images": True, "validation_loss": 1.0}]},
    ],
)
def test_a_card_that_says_nothing_is_left_out(told: Any) -> None:
    (facet,) = facets(ROWS[:1])
    assert runs(facet, {result_key(ROWS[0]): {"learning": told}}) == []
    odd = {**card("raster")["learning"], "train_loss": [[1, 2, 3]]}
    (run,) = runs(facet, {result_key(ROWS[0]): {"learning": odd}})
    assert len(run.taught) == 0


def test_both_halves_are_drawn_and_each_alone() -> None:
    (facet,) = facets(ROWS)
    drawn = figure(facet, STORED)
    assert drawn is not None
    loss, quality = drawn.axes
    assert loss.get_ylabel() == "validation loss, nats a token"
    assert quality.get_ylabel() == metrics(ROWS)[0]
    shown = {text.get_text() for axes in (loss, quality) for text in axes.texts}
    assert {"Raster", "ARPG", "ARPG, 64 steps", "LPD, 20 steps"} <= shown
    assert [label.get_text() for label in quality.get_xticklabels()] == ["50,000", "100,000"]
    alone = figure(facet, {})
    assert alone is not None
    assert len(alone.axes) == 1
    (old,) = facets([dataclasses.replace(one, training_images=None) for one in ROWS])
    losses = figure(old, STORED)
    assert losses is not None
    assert len(losses.axes) == 1
    low, high = losses.axes[0].get_ylim()
    assert low < 0.75
    assert 0.8 < high < 0.9, "losses of a training's first part leave the frame"
    assert figure(old, {}) is None


def test_quality_is_over_a_logarithm_where_it_spans_much_beside_its_own_tokenizer_s_reconstructions() -> None:
    own = anchor_rows()[1]
    other = dataclasses.replace(own, cell="f" * 16, tokenizer="zoo/other", label="Of another tokenizer")
    for least, scale in ((9.0, "linear"), (1.0, "log")):
        rows = [*ROWS[:1], row(1, "raster", 256, least, 100_000), *ROWS[2:], own, other]
        facet, foreign = facets(rows)
        assert foreign.rows == (other,)
        drawn = figure(facet, {})
        assert drawn is not None
        (quality,) = drawn.axes
        assert quality.get_yscale() == scale
        shown = {text.get_text() for text in quality.texts}
        assert own.label in shown
        assert other.label not in shown


# What is said ----------------------------------------------------------------------------------------------


def test_sentences_say_how_far_from_the_first_and_nothing_of_one_mark() -> None:
    (facet,) = facets(ROWS)
    metric = metrics(ROWS)[0]
    first, other = sentences(facet)
    assert first.startswith(f"RASTER, 256 steps: {metric} went from 10.0")
    assert f"the difference of {metric} to RASTER, 256 steps went from 10.0" in other
    assert "to 5.0" in other
    assert other.startswith("ARPG, 64 steps: ")
    assert other.endswith("between 50,000 and 100,000 training images.")
    (one_mark,) = facets([ROWS[0], ROWS[2], ROWS[4]])
    assert sentences(one_mark) == []


def test_what_is_missing_is_said() -> None:
    (whole,) = facets(ROWS)
    assert lacking(whole, STORED) is None
    (one_mark,) = facets([ROWS[0], ROWS[4]])
    assert "of one mark" in (lacking(one_mark, STORED) or "")
    (other_steps,) = facets([dataclasses.replace(ROWS[4], steps=10)])
    assert "at its paper's steps" in (lacking(other_steps, {result_key(ROWS[4]): card("lpd")}) or "")
    (old,) = facets([dataclasses.replace(one, training_images=None) for one in ROWS])
    assert "don't say how their networks learned" in (lacking(old, {}) or "")
    for changes in ({"tier": "published"}, {"checkpoint": RANDOM_WEIGHTS}):
        (untaught,) = facets([dataclasses.replace(ROWS[0], **changes)])
        assert not learning.is_taught(untaught)


@pytest.mark.usefixtures("quick_figures")
def test_the_report_shows_it_and_says_what_is_missing(
    tmp_path: Path, few_pictures: Callable[..., None]
) -> None:
    few_pictures("learning")
    for name, told, rows in (("whole", True, ROWS), ("old", False, ROWS[:1])):
        store = ResultStore(tmp_path / name)
        for one in rows:
            path = store.artifact(one.cell).with_suffix(".json")
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(card(one.strategy)))
            known = {"artifacts": {"method": store.relative(path)}} if told else {"training_images": None}
            store.append(dataclasses.replace(one, **known))
        write_report(tmp_path / name)
    whole, old = ((tmp_path / name / "report" / "report.html").read_text() for name in ("whole", "old"))
    assert "between 50,000 and 100,000 training images" in whole
    assert SWEEP not in whole
    assert (tmp_path / "whole" / "report" / "figures" / "learning.png").is_file()
    assert f'<code class="copy">{SWEEP}</code>' in old
    assert SWEEP in (tmp_path / "old" / "report" / "report.md").read_text()
    assert not (tmp_path / "old" / "report" / "figures" / "learning.png").exists()


def test_learning_curves_are_drawn_where_they_were_measured():
    (facet,) = facets(ROWS)
    loss, quality = learning_curve.figure(facet, STORED).axes
    assert [[50_000, 0.8], [100_000, 0.75]] in [line.get_xydata().tolist() for line in loss.lines]
    assert [[50_000, 10.0], [100_000, 9.0]] in [line.get_xydata().tolist() for line in quality.lines]
