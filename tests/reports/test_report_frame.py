"""Facets never mix what can't be compared, and name what differs."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from synthetic_rows import CELLS, cell_row, failed_row

from reports.comparability import (
    FACET_KEYS,
    QUALITY_KEYS,
    Incomparable,
    facet_keys,
    lower_is_better,
    quantity,
    require_comparable,
)
from reports.frame import facets, frame, hardware_notes, metrics
from reports.naming import series_label
from results.schema import Row


def first(**changes: Any) -> Row:
    return dataclasses.replace(cell_row(50, *CELLS[0]), **changes)


def test_one_sweep_is_one_facet_with_anchors_first(rows: Sequence[Row]) -> None:
    (facet,) = facets(rows)
    assert len(facet.rows) == len(rows)
    assert [row.strategy for row in facet.rows[:3]] == ["real", "reconstruction", "raster"]
    lpd = [row.steps for row in facet.rows if row.label == "LPD"]
    assert lpd == [20, 10]
    assert tuple(facet.keys) == FACET_KEYS


def test_caption_states_device_dtype_batch_n_and_reference(rows: Sequence[Row]) -> None:
    (facet,) = facets(rows)
    for part in (
        "device cpu",
        "Intel",
        "float32",
        "batch 64",
        "N = 1000",
        "fashion-train",
        "cdcdcdcd",
        "n = 4000",
    ):
        assert part in facet.caption
    assert "random weights" not in facet.caption


def test_caption_says_whose_weights_are_random() -> None:
    random, trained = (
        first(checkpoint="random", label="A"),
        first(checkpoint="ab" * 32, label="B", cell="b" * 16),
    )
    assert facets([random])[0].caption.startswith("random weights, device")
    assert facets([random, trained])[0].caption.startswith("random weights (A), device")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"device": "cuda"}, "device"),
        ({"dtype": "bfloat16"}, "dtype"),
        ({"threads": 1}, "threads"),
        ({"images": 500}, "n"),
        ({"reference": {"name": "fashion-train", "sha256": "00" * 32, "n": 4000}}, "reference"),
        ({"environment": {"host_cpu": "another"}}, "hardware"),
        ({"tokenizer": "other"}, "tokenizer"),
        ({"compile": True}, "compile"),
        ({"cuda_graphs": True}, "compile"),
        ({"cuda_graphs": True, "one_graph": True}, "compile"),
        ({"products": "packed"}, "products"),
    ],
)
def test_whatever_differs_splits_facets(rows: Sequence[Row], changes: dict[str, Any], key: str) -> None:
    other = first(**changes)
    split = facets([*rows, other])
    assert len(split) == 2
    assert split[0].keys[key] != split[1].keys[key]
    assert other in split[1].rows


def test_a_changed_protocol_splits_facets(rows: Sequence[Row]) -> None:
    protocol = dict(first().protocol or {}) | {"colour": "truncate"}
    assert len(facets([*rows, first(protocol=protocol)])) == 2


@pytest.mark.parametrize(
    ("name", "changes", "key"),
    [
        ("fd_fashion@1000", {"images": 500}, "n"),
        ("is_fashion@1000", {"tokenizer": "other"}, "tokenizer"),
        ("throughput_images_per_s", {"batch": 1}, "batch"),
        ("throughput_images_per_s", {"compile": True}, "compile"),
        ("peak_bytes", {"batch": 1}, "batch"),
        ("latency_s", {"products": "packed"}, "products"),
        ("lossiness_bits", {"checkpoint": "0" * 64}, "judge"),
        ("lossiness_bits", {"temperature": 0.5}, "temperature"),
        ("fd_fashion@1000", {"settings": {"evaluation_size": 64}}, "evaluation_size"),
        ("steps", {"acceptance": 0.7}, "acceptance"),
        ("draft_tokens", {"acceptance": 0.7}, "acceptance"),
    ],
)
def test_every_quantity_declares_what_must_match(name: str, changes: dict[str, Any], key: str) -> None:
    with pytest.raises(Incomparable, match=f"{name} can't be compared: {key} differs") as caught:
        require_comparable([first(), first(**changes)], quantity(name).keys, name)
    assert caught.value.keys == (key,)


def test_what_a_quantity_does_not_need_may_differ() -> None:
    other = {"name": "other", "sha256": "11" * 32, "n": 10}
    require_comparable([first(), first(reference=other, dtype="bfloat16")], quantity("accuracy@1000").keys)
    require_comparable([first(), first(batch=1, images=7)], quantity("latency_s").keys)


def test_speed_figures_are_split_by_batch(rows: Sequence[Row]) -> None:
    (facet,) = facets([*rows, first(batch=1)])
    split = facet.by_batch()
    assert sorted(len(part.cells) for part in split) == [1, 10]
    assert all(len(part.anchors) == 2 for part in split)


def test_anchors_join_every_facet_of_their_reference(rows: Sequence[Row]) -> None:
    split = facets([*rows, first(dtype="bfloat16"), first(images=500)])
    assert [len(facet.anchors) for facet in split] == [2, 2, 0]


def test_reconstructions_join_the_facet_of_their_tokenizer_and_real_images_every_one(
    rows: Sequence[Row],
) -> None:
    real, rebuilt = facets(rows)[0].anchors
    other = dataclasses.replace(rebuilt, cell="f" * 16, tokenizer="zoo/other")
    split = facets([*rows, other, first(tokenizer="zoo/other")])
    assert [facet.anchors for facet in split] == [(real, rebuilt), (real, other)]


def test_a_failed_cell_without_a_reference_stays_with_its_sweep(rows: Sequence[Row]) -> None:
    early = dataclasses.replace(
        failed_row(7),
        environment=None,
        threads=None,
        unmeasured={**failed_row().unmeasured, "threads": "oom"},
    )
    (facet,) = facets([*rows, early])
    assert {failed_row().cell, early.cell} <= {row.cell for row in facet.rows}
    assert [facet.rows for facet in facets([failed_row()])] == [(failed_row(),)]


def test_comparing_quality_across_n_and_reference_names_both() -> None:
    reference = {"name": "other", "sha256": "11" * 32, "n": 10}
    with pytest.raises(Incomparable) as caught:
        require_comparable([first(), first(images=500, reference=reference)], QUALITY_KEYS)
    assert caught.value.keys == ("reference", "n")
    assert "n differs (1000, 500)" in str(caught.value)
    require_comparable([first(), first(dtype="bfloat16")], QUALITY_KEYS)


def test_frame_has_numbers_and_bounds(rows: Sequence[Row]) -> None:
    table = frame(rows)
    assert len(table) == len(rows)
    ok = table[(table.status == "ok") & (table.tier != "anchor")]
    for name in ("fd_fashion@1000", "throughput_images_per_s", "latency_s"):
        assert (ok[f"{name}_low"] <= ok[name]).all()
        assert (ok[name] <= ok[f"{name}_high"]).all()
    assert table["facet_n"].eq("1000").all()


def test_metrics_put_distances_first_and_rates_last(rows: Sequence[Row]) -> None:
    names = [name.split("@")[0] for name in metrics(rows)]
    assert names == ["fd_fashion", "kid_fashion", "precision", "recall", "accuracy"]
    assert [lower_is_better(name) for name in names] == [True, True, False, False, False]


def test_labels_say_what_tells_rivals_apart() -> None:
    plain, strong, many = first(), first(guidance=3.0), first(steps=32, guidance=5.0)
    assert series_label(plain, [plain, many]) == "Raster"
    assert series_label(plain, [plain, strong]) == "Raster (guidance 2)"
    assert series_label(strong, [plain, strong]) == "Raster (guidance 3)"


def test_the_gpu_is_the_hardware_of_a_gpu_run() -> None:
    environment = {"gpu": "H100", "host_cpu": "Xeon"}
    assert facet_keys(first(device="cuda", environment=environment))["hardware"] == "H100"
    assert facet_keys(first(environment=environment))["hardware"] == "Xeon"
    assert facet_keys(first(environment=None))["hardware"] == "unknown"


def test_uncommitted_changes_are_noted() -> None:
    (note,) = hardware_notes([first(environment={"git_commit": "abc", "git_dirty": True})])
    assert note == "git_commit abc, with uncommitted changes"
