"""Relations of strategies to their papers: every verdict and its reasons, whose rows speak, the data file."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from synthetic_rows import cell_row, quality, replicates

from harness.cell import sweep_file
from harness.cli import main
from reports import training_noise
from reports.frame import metrics
from reports.relation_tables import HEADINGS, cells_of, to_csv, to_markdown
from reports.relation_verdicts import Held, counts, held
from reports.relations import EQUAL, Side, relations, steps_of
from reports.training_noise import TrainingNoise
from results.schema import Row, Turns
from results.store import ResultStore
from strategies.decoding import registry


@pytest.fixture(autouse=True)
def nothing_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_noise, "recorded", tuple)


def row(index: int, strategy: str, steps: float, distance: float, **changes: Any) -> Row:
    """A row with an interval of 6 % about its distance, and replicates that pair it tightly."""
    made = cell_row(index, strategy, strategy, round(steps), {}, distance, 50.0)
    known = {"steps": steps, "checkpoint": f"{index:02x}" * 32, "training_seed": 0, "training_images": 50_000}
    made = dataclasses.replace(made, **known | changes)
    return dataclasses.replace(made, quality_replicates=replicates(made))


RASTER = row(0, "raster", 256, 10.0)
SECOND_SEED = row(1, "raster", 256, 10.2, training_seed=1)


def found(rows: Sequence[Row], strategy: str) -> Held:
    (one,) = [one for one in held(rows, TrainingNoise.known(rows)) if one.relation.own.strategy == strategy]
    return one


# The file --------------------------------------------------------------------------------------------------


def test_every_claim_is_of_strategies_and_options_that_exist() -> None:
    sides = [side for one in relations() for side in (one.own, one.baseline)]
    assert len(relations()) >= 15
    assert len({one.own.strategy for one in relations()}) == len(relations())
    for side in sides:
        for options in side.settings:
            strategy = registry.get(side.strategy, **options)
        assert (side.steps is None) == strategy.decides_steps
        if side.steps is not None and len(steps := strategy.allowed_steps((16, 16))) == 1:
            assert list(steps) == [side.steps]
    for one in relations():
        assert one.claim
        assert one.source
        assert (one.worse_by > 0) == (one.quality == "worse")
        lossless = {
            registry.get(side.strategy, **side.settings[-1]).lossless for side in (one.own, one.baseline)
        }
        assert not one.lossless or (lossless == {True} and one.quality == "equal")
        assert one.limit == {"better": 0, "equal": EQUAL}.get(one.quality, one.worse_by)
        steps = (one.own.steps, one.baseline.steps)
        if one.fewer_steps and None not in steps:  # the claim is what the plans give
            assert steps[1] / steps[0] == pytest.approx(float(one.fewer_steps), abs=0.05)


def test_paper_steps_of_a_strategy() -> None:
    assert (steps_of("lpd"), steps_of("raster"), steps_of("sjd"), steps_of("none")) == (20, 256, None, None)


# Verdicts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "steps", "distance", "verdict", "why"),
    [
        ("lpd", 20, 9.0, "holds", ""),
        ("lpd", 20, 10.6, "holds", ""),  # "equal" to a tenth
        ("lpd", 20, 10.9, "cannot be said", "+7 to +11 %"),
        ("lpd", 20, 11.5, "does not hold", "+13 to +17 %"),
        ("par", 67, 10.1, "holds", ""),
        ("par", 67, 10.9, "does not hold", "allowed +5 %"),
        ("nar", 31, 9.0, "holds", ""),
        ("nar", 31, 10.1, "cannot be said", "it has to be better"),
        ("nar", 31, 10.5, "does not hold", "it has to be better"),
    ],
)
def test_quality_with_its_interval_and_training_noise(
    strategy: str, steps: int, distance: float, verdict: str, why: str
) -> None:
    one = found([RASTER, SECOND_SEED, row(2, strategy, steps, distance)], strategy)
    assert one.verdict == verdict, one.why
    assert why in "; ".join(one.why)
    assert one.quality is not None
    assert one.quality.training == pytest.approx(0.2)
    assert one.quality.paired


def test_two_networks_say_nothing_without_a_second_seed_and_one_network_needs_none() -> None:
    one = found([RASTER, row(2, "lpd", 20, 9.0)], "lpd")
    assert (one.verdict, one.why) == (
        "cannot be said",
        ("how far another training seed moves quality is not known",),
    )
    options = {"options": {"window": 16}, "steps_bound": 256}
    same = row(3, "sjd", 120.5, 10.1, checkpoint=RASTER.checkpoint, **options)
    assert found([RASTER, same], "sjd").verdict == "holds"


def test_what_is_exact_by_its_rule_needs_no_narrow_interval() -> None:
    options = {"options": {"window": 16}, "steps_bound": 256, "checkpoint": RASTER.checkpoint}
    loose = row(3, "sjd", 100.0, 11.0, **options)
    assert found([RASTER, loose], "sjd").verdict == "holds"
    assert found([RASTER, row(3, "gsd", 100.0, 11.0, **options)], "gsd").verdict == "cannot be said"
    guided = dataclasses.replace(loose, guidance=(RASTER.guidance or 0.0) + 1.0)
    assert found([RASTER, guided], "sjd").verdict == "cannot be said"
    assert found([RASTER, row(3, "sjd", 100.0, 14.0, **options)], "sjd").verdict == "does not hold"


def test_steps_are_those_counted() -> None:
    options = {"options": {"window": 16}, "steps_bound": 256, "checkpoint": RASTER.checkpoint}
    one = found([RASTER, row(3, "sjd", 190.0, 10.0, **options)], "sjd")
    assert one.verdict == "does not hold"
    assert one.why[0] == "1.35 times fewer steps, claimed 2"
    assert found([RASTER, row(3, "sjd", 170.0, 10.0, **options)], "sjd").verdict == "holds"  # 1.5 rounds to 2


def test_a_claim_of_speed_counts_on_its_own_device_alone() -> None:
    rows = [row(4, "var", 10, 10.0), row(5, "code", 10, 9.9, checkpoint="04" * 32)]
    one = found(rows, "code")
    assert one.verdict == "cannot be said"
    assert one.why[0] == "its speed is claimed on L20, measured on cpu"
    on_gpu = {"device": "cuda", "environment": {"gpu": "NVIDIA L20"}}
    timed = [dataclasses.replace(one, **on_gpu) for one in rows]
    slow = found(timed, "code")
    assert slow.verdict == "does not hold"
    assert slow.why[0].endswith("times as fast, claimed 1.7")
    samples = [85.0, 86.0, 87.0, 88.0, 89.0, 90.0]
    fast = {"throughput_samples": samples, "throughput_images_per_s": 87.5, "throughput_interval": [85, 90.0]}
    timed[1] = dataclasses.replace(timed[1], **fast)
    assert found(timed, "code").verdict == "holds", found(timed, "code")


def test_speed_is_of_timed_rows_where_those_of_quality_are_not() -> None:
    def untimed(index: int, like: Row) -> Row:
        times = dict.fromkeys(("throughput_images_per_s", "throughput_samples", "throughput_interval"))
        known = {
            "cell": f"{index:016x}",
            "batch": 100,
            "images": 5000,
            "quality": quality(9.0, 5000),
            **times,
        }
        untold = like.unmeasured | dict.fromkeys(times, "not measured in this test")
        return dataclasses.replace(like, quality_replicates=None, unmeasured=untold, **known)

    samples = [2 * sample for sample in RASTER.throughput_samples or ()]
    lpd = row(4, "lpd", 20, 9.0, throughput_samples=samples, throughput_images_per_s=samples[4])
    rows = [untimed(6, RASTER), untimed(7, lpd), RASTER, lpd, SECOND_SEED]
    one = found(rows, "lpd")
    assert one.own is not None
    assert one.speed is not None
    assert one.speed.ratio is not None
    assert one.own.images == 5000
    assert one.speed.ratio.value == pytest.approx(2.0)
    of_other_guidance = dataclasses.replace(lpd, guidance=6.0)
    assert found([*rows[:3], of_other_guidance, SECOND_SEED], "lpd").speed is None
    of_other_batch = dataclasses.replace(lpd, batch=(lpd.batch or 0) + 1)
    assert found([*rows[:3], of_other_batch, SECOND_SEED], "lpd").speed is None


def test_speed_is_of_rows_timed_in_turn_before_those_timed_alone() -> None:
    slow_day = [1.0, 1.1, 0.9, 1.6, 1.5, 1.7]

    def in_turn(like: Row, share: float) -> Row:
        seconds = [share * second for second in slow_day]
        turns = Turns(reference=RASTER.cell, batch=32, seconds=seconds, reference_seconds=slow_day)
        untold = {name: why for name, why in like.unmeasured.items() if name != "turns"}
        cell = f"{int(like.cell, 16) + 16:016x}"
        return dataclasses.replace(like, cell=cell, batch=32, turns=turns, unmeasured=untold)

    lpd = row(4, "lpd", 20, 9.0, images=5000, quality=quality(9.0, 5000))
    raster = dataclasses.replace(RASTER, images=5000, quality=quality(10.0, 5000))
    alone = found([raster, lpd, SECOND_SEED], "lpd").speed
    turns = [in_turn(row(4, "lpd", 20, 9.0), 0.25), in_turn(RASTER, 1.0)]
    timed = found([raster, lpd, SECOND_SEED, *turns], "lpd").speed
    assert alone is not None
    assert alone.ratio is not None
    assert timed is not None
    assert timed.ratio is not None
    assert alone.ratio.value == pytest.approx(1.0, rel=0.05)
    assert timed.ratio.value == pytest.approx(4.0)


# Which rows speak ------------------------------------------------------------------------------------------


def test_missing_rows_are_named() -> None:
    lpd = row(2, "lpd", 20, 9.0)
    assert found([RASTER], "lpd").why == ("no row of LPD, 20 steps",)
    assert found([lpd], "lpd").why == ("no row of Raster, 256 steps",)
    for changes in (
        {"steps": 10},
        {"options": {"order": "random"}},
        {"tier": "published"},
        {"status": "oom", "reason": "x"},
    ):
        assert found([RASTER, dataclasses.replace(lpd, **changes)], "lpd").own is None, changes
    assert held([dataclasses.replace(lpd, tier="published")], TrainingNoise()) == []


def test_each_side_takes_its_best_guidance_and_the_network_that_learned_most() -> None:
    rows = [
        RASTER,
        row(6, "raster", 256, 8.0, guidance=3.0),
        SECOND_SEED,
        row(7, "lpd", 20, 9.0),
        row(8, "lpd", 20, 8.5, guidance=3.0),
        row(9, "lpd", 20, 7.0, training_images=25_000),
    ]
    one = found(rows, "lpd")
    assert one.own is not None
    assert one.baseline is not None
    assert (one.own.cell, one.baseline.cell) == (rows[4].cell, rows[1].cell)
    rows = [RASTER, SECOND_SEED, row(9, "lpd", 20, 7.0, training_images=25_000)]
    assert found(rows, "lpd").why[-1] == "networks of 25,000 training images and 50,000 training images"


def test_rows_that_must_not_be_compared_say_why() -> None:
    one = found([RASTER, SECOND_SEED, row(4, "lpd", 20, 5.0, tokenizer="zoo/other")], "lpd")
    assert one.verdict == "cannot be said"
    assert "tokenizer differs" in one.why[0]
    unscored = dataclasses.replace(row(4, "lpd", 20, 5.0), quality={}, quality_replicates=None)
    assert found([RASTER, unscored], "lpd").why == ("no quality metric in common",)
    fewer = row(4, "lpd", 20, 5.0, images=500, quality=quality(5.0, 500))
    assert found([RASTER, fewer], "lpd").why == ("no quality metric in common",)


def test_networks_on_two_tokenizers_are_compared_beyond_their_reconstructions() -> None:
    var = row(4, "var", 10, 12.0, tokenizer="zoo/multiscale")

    def anchor(index: int, tokenizer: str, distance: float) -> Row:
        return row(index, "reconstruction", 1, distance, tokenizer=tokenizer, tier="anchor")

    plain, scales = anchor(5, RASTER.tokenizer, 4.0), anchor(6, "zoo/multiscale", 9.0)
    rows = [RASTER, SECOND_SEED, var, plain, scales]
    one = found(rows, "var")
    assert one.quality is not None
    assert one.quality.change == pytest.approx((12.0 - 9.0) - (10.0 - 4.0))
    half = np.linalg.norm([0.06 * value for value in (12.0, 9.0, 10.0, 4.0)])  # of four independent intervals
    assert one.quality.high - one.quality.change == pytest.approx(half)
    assert (one.verdict, one.quality.paired) == ("holds", False)
    assert "each beyond its tokenizer's reconstructions" in one.why
    worse = found(
        [RASTER, SECOND_SEED, row(4, "var", 10, 19.0, tokenizer="zoo/multiscale"), plain, scales], "var"
    )
    assert worse.verdict == "does not hold"
    missing = found([RASTER, SECOND_SEED, var, plain], "var")
    assert (missing.verdict, missing.quality) == ("cannot be said", None)
    assert "no reconstruction by zoo/multiscale" in missing.why


# What is written -------------------------------------------------------------------------------------------


def test_tables_hold_what_was_measured_beside_the_claim() -> None:
    rows = [RASTER, SECOND_SEED, row(2, "lpd", 20, 9.0)]
    every = held(rows, TrainingNoise.known(rows))
    assert sum(counts(every).values()) == len(every) == len(relations())
    line = dict(zip(HEADINGS, cells_of(found(rows, "lpd")), strict=True))
    assert (line["strategy"], line["against"]) == ("LPD, 20 steps", "Raster, 256 steps")
    assert line["times fewer steps"] == "12.8 (claimed 12.8)"
    assert line["distance, difference"].startswith("-1.0")
    assert (line["training seeds"], line["verdict"]) == ("± 0.2", "holds")
    written = list(csv.DictReader(io.StringIO(to_csv(every))))
    assert [one["verdict"] for one in written] == [one.verdict for one in every]
    assert to_markdown(every).count("\n| ") == len(every) + 1
    assert metrics(rows)[0].startswith("fd")


def test_the_command_prints_and_writes_them(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    store = ResultStore(tmp_path / "rows")
    for one in (RASTER, SECOND_SEED, row(2, "lpd", 20, 9.0)):
        store.append(one)
    out = tmp_path / "out"
    assert main(["claims", "--results", str(tmp_path / "rows"), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "Of 16 relations 1 hold, 0 do not, and of 15 nothing can be said." in printed
    assert "PAR, 67 steps: no row of PAR, 67 steps" in printed
    assert "| holds |" in (out / "relations.md").read_text()
    assert ",holds," in (out / "relations.csv").read_text()


def test_of_a_baseline_at_distance_zero_nothing_is_a_share() -> None:
    perfect = row(2, "raster", 256, 0.0)
    one = found([perfect, row(3, "raster", 256, 0.0, training_seed=1), row(4, "par", 67, 1.0)], "par")
    assert one.verdict == "cannot be said"
    assert any("is 0, of which nothing is a share" in reason for reason in one.why)


def test_the_claims_sweep_has_both_sides_of_every_claim() -> None:
    cells = sweep_file.load("claims").cells

    def images(side: Side) -> set[int]:
        return {
            cell.images
            for cell in cells
            if cell.strategy == side.strategy
            and dict(cell.options) in side.settings
            and (side.steps is None or cell.steps in (None, side.steps))
        }

    for one in relations():
        assert images(one.own) & images(one.baseline), one.own.words
        anchors = {cell.strategy for cell in cells if cell.images in images(one.own)}
        assert not one.beyond_reconstruction or {"reconstruction", "reconstruction-multiscale"} <= anchors
