"""What a card records of a guidance sweep: rows of one strategy at one setting, or nothing."""

import dataclasses
import json
import shutil

import pytest

from harness.train import tune
from harness.weights import zoo
from pardec.errors import UserError
from results.schema import Row
from tests.reports.synthetic_rows import base_row, quality

SCALES = {1.0: 12.0, 1.5: 9.0, 2.0: 10.0}
"""Scale -> Fréchet distance."""
BOTH = [
    {
        "role": role,
        "parameters": 1,
        "sha256": "ab" * 32,
        "weight_bytes": 1,
        "cache_bytes": 1,
        "forwards": 1.0,
        "tokens_processed": 1.0,
    }
    for role in ("drafter", "refiner")
]


def rows(network="zoo/raster", strategy="raster", distances=SCALES, **changes) -> list[Row]:
    made = {"steps": 256.0, "guidance_schedule": "constant"} | changes
    return [
        base_row(index, network=network, strategy=strategy, guidance=scale, quality=quality(distance), **made)
        for index, (scale, distance) in enumerate(distances.items())
    ]


@pytest.fixture
def folder(tmp_path):
    for name in ("raster", "var-small"):
        for end in ("json", "safetensors"):
            shutil.copy(zoo.SHIPPED / f"{name}.{end}", tmp_path)
        content = json.loads((tmp_path / f"{name}.json").read_text())
        (tmp_path / f"{name}.json").write_text(json.dumps(content | {"guidance": "before"}))
    return tmp_path


def recorded(folder, name="raster"):
    return json.loads((folder / f"{name}.json").read_text())["guidance"]


def test_a_grid_of_scales_decides_the_card(folder):
    other = rows("zoo/var-small", "var", {3.0: 5.0, 4.0: 6.0}, steps=10.0, seed=7)
    assert tune.record([*rows()[::-1], *other], folder) == {"zoo/raster": 1.5, "zoo/var-small": 3.0}
    assert recorded(folder)["chosen"] == 1.5
    assert [entry["guidance"] for entry in recorded(folder)["grid"]] == [1.0, 1.5, 2.0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 128.0}, r"steps \(128, 256\)"),
        ({"images": 200}, r"images \(1000, 200\)"),
        ({"seed": 1}, r"seed \(0, 1\)"),
        ({"options": {"order": "random"}}, "options"),
        ({"guidance_schedule": "linear"}, r"guidance_schedule \(constant, linear\)"),
        ({"settings": {"decoder": "robust"}}, r"decoder \(own, robust\)"),
        ({"checkpoint": "cd" * 32}, "weights;"),
    ],
)
def test_rows_that_differ_in_more_than_the_scale_write_no_card(folder, changes, words):
    other = rows(distances={3.0: 1.0}, **changes)
    with pytest.raises(UserError, match=f"network 'zoo/raster': rows differ in .*{words}"):
        tune.record([*rows("zoo/var-small", "var"), *rows(), *other], folder)
    assert recorded(folder) == recorded(folder, "var-small") == "before"


def test_one_scale_measured_twice_is_no_grid(folder):
    twice = rows(distances={1.5: 9.0})
    again = [dataclasses.replace(row, batch=32) for row in twice]
    with pytest.raises(UserError, match="no network with more than one guidance scale"):
        tune.record([*twice, *again], folder)


def test_the_strategy_that_owns_a_network_decides(folder):
    training_free = rows(strategy="zipar", distances={1.0: 1.0, 3.0: 0.5}, steps=31.0)
    assert tune.record([*training_free, *rows()], folder) == {"zoo/raster": 1.5}
    before = recorded(folder)
    with pytest.raises(UserError, match="trained for strategy 'raster', and these rows are of zipar"):
        tune.record(training_free, folder)
    assert recorded(folder) == before


def test_a_strategy_of_several_networks_decides_its_last_one_where_the_owner_has_no_rows(folder):
    several = rows("zoo/var-small", "code", networks=BOTH)
    assert tune.record(several, folder) == {"zoo/var-small": 1.5}
    with pytest.raises(UserError, match="these rows are of code, sjd"):
        tune.record([*several, *rows("zoo/var-small", "sjd", networks=BOTH)], folder)
    own = rows("zoo/var-small", "var", {3.0: 5.0, 4.0: 6.0})
    assert tune.record([*several, *own], folder) == {"zoo/var-small": 3.0}
