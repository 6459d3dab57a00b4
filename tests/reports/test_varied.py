"""One setting varied: which cells make a curve, what stands beside it, and what the ticks tell."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt

from reports.frame import facets, metrics
from reports.varied import figure, panels, shows
from results.schema import Row
from tests.reports.synthetic_rows import cell_row, replicates

WEIGHTS = "ab" * 32


def row(index: int, strategy: str, steps: int, distance: float, **changes: Any) -> Row:
    made = cell_row(index, strategy, strategy.upper(), steps, {}, distance, 50.0)
    made = dataclasses.replace(made, **{"network": "zoo/raster", "checkpoint": WEIGHTS} | changes)
    return dataclasses.replace(made, quality_replicates=replicates(made))


ZIPAR = [
    row(index, "zipar", 30 + 16 * w, 0.9 / w, options={"window": w}) for index, w in enumerate((1, 2, 4, 8))
]
RASTER = row(10, "raster", 256, 0.1)
MASKED = [
    row(20 + index, strategy, steps, distance, network="zoo/maskgit", checkpoint="cd" * 32)
    for index, (strategy, steps, distance) in enumerate(
        (name, steps, base / steps)
        for name, base in (("maskgit", 2.0), ("halton", 1.0))
        for steps in (4, 8, 12)
    )
]
CLUSTERS = [
    row(
        40 + index,
        "ctf",
        257,
        0.4 + index / 10,
        options={"clusters": clusters},
        network=f"zoo/ctf-small-clusters{clusters}",
        checkpoint=f"{index + 1:02x}" * 32,
    )
    for index, clusters in enumerate((4, 8, 16))
]


def found(rows: list[Row]) -> list[tuple[str, list[tuple[str, tuple[float, ...]]], list[str]]]:
    (facet,) = facets(rows)
    return [
        (one.title, [(line.name, line.values) for line in one.lines], [beside.label for beside in one.beside])
        for one in panels(facet, metrics(facet.cells)[0])
    ]


def test_an_option_of_several_values_is_a_curve_beside_the_network_decoded_without_it() -> None:
    assert found([*ZIPAR, RASTER, *MASKED[:1]]) == [
        ("ZipAR: window", [("ZipAR", (1.0, 2.0, 4.0, 8.0))], ["RASTER"])
    ]
    stronger = dataclasses.replace(RASTER, cell="f" * 16, guidance=4.0)
    assert [beside for _, _, beside in found([*ZIPAR, RASTER, stronger])] == [["RASTER"]], "all else is equal"
    assert found([*ZIPAR[:2], RASTER]) == [], "two values are no curve"
    other = [dataclasses.replace(one, guidance=3.0) for one in ZIPAR[2:]]
    assert found([*ZIPAR[:2], *other, RASTER]) == [], "their guidance differs too"
    filtered = [dataclasses.replace(one, top_k=5) for one in ZIPAR[2:]]
    assert found([*ZIPAR[:2], *filtered, RASTER]) == [], "or any other setting"


def test_networks_named_by_the_option_are_one_curve_and_others_are_not() -> None:
    assert found(CLUSTERS) == [("CTF: clusters", [("CTF", (4.0, 8.0, 16.0))], [])]
    renamed = [dataclasses.replace(one, network=f"zoo/{index}") for index, one in enumerate(CLUSTERS)]
    assert found(renamed) == []


def test_orders_of_one_network_stand_in_one_panel_over_steps() -> None:
    assert found(MASKED) == [
        (
            "One network (zoo/maskgit), several orders",
            [("HALTON", (4.0, 8.0, 12.0)), ("MASKGIT", (4.0, 8.0, 12.0))],
            [],
        )
    ]
    apart = [dataclasses.replace(one, checkpoint="ef" * 32) for one in MASKED[3:]]
    assert found([*MASKED[:3], *apart]) == []


def test_the_figure_draws_every_value_and_tells_steps_where_they_follow() -> None:
    (facet,) = facets([*ZIPAR, RASTER, *MASKED, *CLUSTERS])
    assert shows(facet)
    drawn = figure(facet)
    assert drawn is not None
    clusters, window, orders = drawn.axes
    assert [text.get_text() for text in window.get_xticklabels()] == [
        "1\n46 st.",
        "2\n62 st.",
        "4\n94 st.",
        "8\n158 st.",
    ]
    assert [text.get_text() for text in clusters.get_xticklabels()] == ["4", "8", "16"]
    assert [text.get_text() for text in orders.get_xticklabels()] == ["4", "8", "12"]
    assert window.lines[0].get_ydata() == pytest.approx(np.array([0.9, 0.45, 0.225, 0.1125]))
    assert any(set(line.get_ydata()) == {0.1} for line in window.lines), "raster across"
    assert {text.get_text() for text in orders.texts} >= {"MASKGIT", "HALTON"}
    plt.close(drawn)


def test_without_a_varied_setting_there_is_no_picture() -> None:
    (facet,) = facets([RASTER, MASKED[0]])
    assert not shows(facet)
    assert figure(facet) is None


def test_each_of_several_networks_stands_beside_where_it_decodes_alone() -> None:
    hashes = {"drafter": "aa" * 32, "refiner": "bb" * 32}
    counts = {"parameters": 1, "weight_bytes": 4, "cache_bytes": 4, "forwards": 5.0, "tokens_processed": 5.0}
    uses = [{"role": role, "sha256": found, **counts} for role, found in hashes.items()]
    both = [
        row(
            60 + n,
            "code",
            10,
            0.2 + n / 10,
            options={"refined": n},
            checkpoint=None,
            networks=uses,
            network="small",
        )
        for n in (1, 2, 3)
    ]
    alone = [
        row(70 + n, "var", 10, 0.1 + n, checkpoint=one, network=role)
        for n, (role, one) in enumerate(hashes.items())
    ]
    ((title, _, beside),) = found([*both, *alone, RASTER])
    assert (title, beside) == ("CoDe: refined", ["VAR", "VAR"])
    (facet,) = facets([*both, *alone])
    drawn = figure(facet)
    assert drawn is not None
    assert {text.get_text() for text in drawn.axes[0].texts} == {
        "VAR (drafter)",
        "VAR (refiner)",
    }
    plt.close(drawn)
