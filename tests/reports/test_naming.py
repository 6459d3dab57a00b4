"""Rows of different settings have different keys and names, in whichever setting they differ."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from synthetic_rows import CELLS, cell_row, printed

from pardec.errors import UserError
from reports import plots, waterfall
from reports.compare import compare
from reports.contests import contests, iso_table_between
from reports.frame import facets, frame
from reports.naming import display_name, namer, natural, series_label, steps_text
from reports.training_noise import TrainingNoise
from results.same_setting import joining, setting_key, value_of
from results.schema import FIELDS, Row
from results.settings import DECLARED
from results.store import ResultStore

OTHERS: dict[str, tuple[Any, str]] = {
    "strategy": ("par", "strategy par"),
    "options": ({"order": "spiral"}, "order spiral"),
    "network": ("zoo/other", "zoo/other"),
    "roles": ({"drafter": "zoo/other"}, "drafter zoo/other"),
    "weights": ("ema", "weights ema"),
    "tokenizer_weights": ("ema", "tokenizer-weights ema"),
    "guidance": (3.5, "guidance 3.5"),
    "guidance_schedule": ("linear", "linear"),
    "guidance_power": (3.0, "guidance-power 3"),
    "guidance_interval": (4, "guidance-interval 4"),
    "decoder": ("robust", "robust decoder"),
    "temperature": (0.5, "temperature 0.5"),
    "top_k": (7, "top-k 7"),
    "top_p": (0.25, "top-p 0.25"),
    "acceptance": (0.7, "declared acceptance 0.7"),
    "batch": (8, "batch 8"),
    "dtype": ("bfloat16", "bfloat16"),
    "products": ("packed", "packed products"),
    "attention": ("parts", "attention by parts"),
    "compile": (True, "compile on"),
    "cuda_graphs": (True, "cuda-graphs on"),
    "one_graph": (True, "one-graph on"),
    "seed": (5, "seed 5"),
}


def plain(**changes: Any) -> Row:
    known = {"guidance_schedule": "power-cosine", "guidance_power": 2.0, "top_k": 0, "top_p": 1.0}
    return dataclasses.replace(cell_row(0, *CELLS[0]), **known | changes)


def other(name: str, value: Any, **changes: Any) -> Row:
    copied = name in FIELDS and FIELDS[name].kind == "setting"
    return plain(**({name: value} if copied else {"settings": {name: value}}) | {"cell": "f" * 16} | changes)


def test_every_setting_that_joins_rows_is_tried_here() -> None:
    assert set(OTHERS) | {"steps"} == set(joining())


@pytest.mark.parametrize("name", OTHERS)
def test_rows_that_differ_in_one_setting_are_told_apart_by_it_alone(name: str) -> None:
    value, text = OTHERS[name]
    one, two = plain(), other(name, value)
    assert setting_key(one) != setting_key(two)
    assert value_of(two, name) == value
    assert series_label(two, [one, two]) == f"Raster ({text})"
    assert namer([one, two])(two) == f"Raster, 64 steps, {text}"
    caveat = f", {text}" if DECLARED[name].caveat else ""
    assert display_name(two) == f"Raster, 64 steps{caveat}"
    assert namer([one, two])(one) != namer([one, two])(two)
    assert list(frame([one, two])[name].map(str)) != list(frame([one, one])[name].map(str))


def test_published_files_of_roles_are_one_setting_wherever_they_lie() -> None:
    rows = [
        plain(tier="published", settings={"roles": {"drafter": f"/{folder}/{file}.pth"}})
        for folder, file in (("a", "d30"), ("b", "d30"), ("a", "d24"))
    ]
    one, moved, other_file = map(setting_key, rows)
    assert one == moved != other_file


@pytest.mark.parametrize("name", OTHERS)
def test_rows_that_differ_in_one_setting_are_not_compared_as_one(name: str, tmp_path: Path) -> None:
    for folder, row in (("a", plain()), ("b", other(name, OTHERS[name][0]))):
        ResultStore(tmp_path / folder).append(row)
    with pytest.raises(UserError, match="share no setting"):
        compare(tmp_path / "a", tmp_path / "b")


def test_labels_follow_their_numbers_by_size() -> None:
    names = ["ZipAR (window 16)", "ZipAR (window 4)", "ZipAR", "2 of 3", "10 of 3"]
    assert sorted(names, key=natural) == [
        "2 of 3",
        "10 of 3",
        "ZipAR",
        "ZipAR (window 4)",
        "ZipAR (window 16)",
    ]


def test_what_does_not_apply_tells_nothing_apart() -> None:
    free = plain(guidance=None, cell="f" * 16)
    assert series_label(free, [plain(), free]) == "Raster (no guidance)"
    assert series_label(plain(), [plain(), free]) == "Raster (guidance 2)"
    constant = plain(guidance_schedule="constant", guidance_power=1.0)
    assert setting_key(constant) == setting_key(dataclasses.replace(constant, guidance_power=None))


def test_rows_of_older_schemas_had_the_defaults() -> None:
    told = plain(settings={"guidance_interval": -1})
    assert setting_key(told) == setting_key(plain())


def test_steps_of_images_at_their_own_pace_are_a_mean_and_join_by_what_was_asked() -> None:
    one = plain(steps=7.25, steps_bound=64, settings={"steps": None})
    assert steps_text(one) == "7.25 steps"
    assert setting_key(one) == setting_key(dataclasses.replace(one, steps=8.5))
    assert setting_key(plain(steps=7)) != setting_key(plain(steps=8))


def test_counts_of_a_declared_acceptance_are_never_compared(tmp_path: Path) -> None:
    declared = {"acceptance": 0.7, "steps_bound": 64, "settings": {"acceptance": 0.7, "steps": None}}
    faster = plain(**declared, steps=5, forwards=5, tokens_processed=90, parameters=7)
    for folder, row in (("a", plain(**declared)), ("b", faster)):
        ResultStore(tmp_path / folder).append(row)
    comparison = compare(tmp_path / "a", tmp_path / "b")
    (pair,) = comparison.pairs
    assert {one.name for one in pair.differences} >= {"parameters", "throughput_images_per_s"}
    assert not {one.name for one in pair.differences} & {"steps", "forwards", "tokens_processed"}
    text = printed(comparison)
    assert "steps, forwards, tokens_processed: not compared, they follow from a declared acceptance" in text
    assert "declared acceptance 0.7" in text


def test_pictures_over_steps_leave_out_what_follows_from_a_declared_acceptance() -> None:
    metric = "fd_fashion@1000"
    (facet,) = facets([plain(acceptance=0.7, steps_bound=64)])
    assert plots.quality_against_steps(facet, metric) is None
    assert plots.quality_against_throughput(facet, metric) is not None
    counted, declared = plain(), plain(strategy="lpd", acceptance=0.7, steps_bound=64)
    assert waterfall.base_of(declared, [counted]) == counted
    assert waterfall.base_of(counted, [dataclasses.replace(declared, strategy="raster")]) is None


def test_images_judged_at_another_size_are_not_comparable(tmp_path: Path) -> None:
    for folder, size in (("a", 256), ("b", 64)):
        ResultStore(tmp_path / folder).append(plain(settings={"evaluation_size": size}))
    (pair,) = compare(tmp_path / "a", tmp_path / "b").pairs
    assert [one.keys for one in pair.obstacles] == [("evaluation_size",)]


def test_a_curve_holds_cells_of_one_setting_but_for_steps_and_guidance() -> None:
    rows = [
        plain(cell=f"{place:016x}", steps=steps, guidance=scale, temperature=heat)
        for place, (steps, scale, heat) in enumerate([(64, 2.0, 1.0), (32, 3.0, 1.0), (64, 2.0, 0.5)])
    ]
    (facet,) = facets(rows)
    iso = contests(facet, {}, TrainingNoise())[0]
    assert [line[0] for line in iso.lines] == ["Raster, temperature 0.5 against Raster, temperature 1"]


def test_curves_of_two_results_meet_where_their_settings_do() -> None:
    hot, cold = plain(), plain(temperature=0.5)
    assert iso_table_between([hot], [cold], TrainingNoise()) == []
    (table,) = iso_table_between([hot, cold], [cold], TrainingNoise())
    (line,) = table.lines
    assert line[0] == "Raster, temperature 0.5 (B) against Raster, temperature 0.5 (A)"
    elsewhere = plain(network="zoo/raster-seed1")
    assert len(iso_table_between([hot], [elsewhere], TrainingNoise())) == 1
