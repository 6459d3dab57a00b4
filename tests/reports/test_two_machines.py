"""One cell measured on two machines: sections, anchors and comparisons keep them apart."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
from matplotlib import pyplot as plt
from synthetic_rows import CELLS, ENVIRONMENT, cell_row, printed

from reports.artifacts import load_artifacts
from reports.compare import Comparison, compare, compare_within
from reports.frame import facets
from reports.pictures import order_maps
from results.environments import result_key
from results.merge import merge
from results.schema import Row
from results.store import ResultStore, load_rows

OTHER = ENVIRONMENT | {"host_cpu": "AMD EPYC"}
UPGRADED = ENVIRONMENT | {"torch": "3.0.0"}


def moved(rows: Sequence[Row], environment: dict) -> list[Row]:
    return [dataclasses.replace(row, environment=environment, artifacts={}) for row in rows]


def stored(folder: Path, rows: Sequence[Row]) -> Path:
    store = ResultStore(folder)
    for row in rows:
        store.append(row)
    return folder


@pytest.fixture(scope="module")
def both(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two machines' results merged; only the first one's rows have pictures."""
    folder = tmp_path_factory.mktemp("machines")
    second = stored(folder / "second", moved(load_rows(sweep), OTHER))
    merge([sweep, second], folder / "both")
    return folder / "both"


@pytest.fixture(scope="module")
def again(both: Path) -> Comparison:
    return compare(both, both)


@pytest.mark.parametrize("environment", [OTHER, UPGRADED])
def test_each_environment_is_a_section_with_its_own_anchors(rows: Sequence[Row], environment: dict) -> None:
    split = facets([*rows, *moved(rows, environment)])
    assert [len(facet.rows) for facet in split] == [len(rows)] * 2
    for facet, expected in zip(split, (ENVIRONMENT, environment), strict=True):
        assert len({row.cell for row in facet.rows}) == len(rows)
        assert all(row.environment == expected for row in facet.rows)
    assert len({facet.caption for facet in split}) == 2


def test_a_section_without_anchors_of_its_machine_borrows_those_of_the_other(rows: Sequence[Row]) -> None:
    cells = [row for row in moved(rows, OTHER) if row.tier != "anchor"]
    split = facets([*rows, *cells])
    assert [len(facet.anchors) for facet in split] == [2, 2]


def test_pictures_of_one_machine_do_not_pass_for_the_others(both: Path) -> None:
    rows = load_rows(both)
    artifacts = {result_key(row): load_artifacts(row, both) for row in rows}
    first, second = facets(rows)
    figure = order_maps(first, artifacts)
    assert figure is not None
    plt.close(figure)
    assert order_maps(second, artifacts) is None
    assert {artifacts[result_key(row)].problems for row in second.rows} == {("no artifacts recorded",)}


def test_comparing_pairs_each_row_with_that_of_its_machine(
    both: Path, again: Comparison, tmp_path: Path
) -> None:
    assert len(again.pairs) == 24
    assert not any(one.obstacles for one in again.pairs)
    only_other = stored(tmp_path / "only", moved([cell_row(0, *CELLS[0])], OTHER))
    found = compare(only_other, both)
    (one,) = found.pairs
    assert (one.a.environment, one.b.environment) == (OTHER, OTHER)
    assert len(found.only_b) == 23
    text = printed(again)
    assert "Raster, 64 steps, AMD EPYC, torch 2.9.0" in text


def test_curves_of_two_machines_are_compared_machine_by_machine(again: Comparison) -> None:
    (iso,) = again.tables
    names = [line[0] for line in iso.lines]
    assert "LPD (B, AMD EPYC) against LPD (A, AMD EPYC)" in names
    assert "LPD (B, Intel Xeon 2.60 GHz) against LPD (A, Intel Xeon 2.60 GHz)" in names


def test_within_a_folder_no_cell_of_one_machine_meets_one_of_another(both: Path) -> None:
    titles = [table.title for table in compare_within(both)]
    assert sum("AMD EPYC" in title for title in titles) == sum("Intel Xeon" in title for title in titles) > 0


def test_versions_of_torch_are_compared_between_folders(tmp_path: Path) -> None:
    row = cell_row(0, *CELLS[0])
    before, after = stored(tmp_path / "a", [row]), stored(tmp_path / "b", moved([row], UPGRADED))
    (one,) = compare(before, after).pairs
    assert not one.obstacles
    assert any(d.name == "throughput_images_per_s" for d in one.differences)
