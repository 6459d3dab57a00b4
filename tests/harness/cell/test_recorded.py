"""A row stores all of its cell: the cell that comes back is equal, and so is its key."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.cell.cell import ANCHORS, Cell, normalised
from harness.cell.recorded import cell_of
from harness.cli import main
from harness.sweep.find import find_cell
from harness.sweep.process import Outcome
from harness.sweep.row import make_row
from harness.sweep.sweep import sweep_cells
from pardec.errors import UserError
from results.schema import Row, row_from_json, row_to_json
from results.settings import ATTENTIONS, DECLARED, DTYPES, PRODUCTS, SCHEDULES
from results.store import ResultStore

TEXT = st.text(max_size=8)
PATH = st.none() | st.just("random") | TEXT.map(lambda text: f"/files/{text}")
SHARE = st.floats(0, 1)
PINS = st.dictionaries(st.sampled_from(["network", "drafter", "tokenizer"]), st.just("ab" * 32))
WORD = st.text("aZ0é -", max_size=8)
OPTION = st.booleans() | st.integers(0, 9) | st.floats(-1, 1) | WORD
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "options": st.dictionaries(WORD, OPTION, max_size=2),
    "roles": st.dictionaries(WORD, WORD, max_size=2),
    "network": st.sampled_from(["", "zoo/lpd"]),
    "steps": st.none() | st.integers(1, 64),
    "guidance": st.none() | st.floats(-20, 20),
    "guidance_schedule": st.sampled_from(SCHEDULES),
    "guidance_power": st.floats(0, 4),
    "guidance_interval": st.integers(-1, 9),
    "temperature": st.floats(0.1, 2),
    "top_k": st.integers(0, 9),
    "top_p": st.floats(0.1, 1),
    "acceptance": st.none() | SHARE,
    "batch": st.integers(1, 99),
    "images": st.integers(1, 99),
    "once": st.booleans(),
    "evaluation_size": st.none() | st.integers(1, 512),
    "dtype": st.sampled_from(DTYPES),
    "device": st.sampled_from(["cpu", "cuda:1"]),
    "attention": st.sampled_from(ATTENTIONS),
    "products": st.sampled_from(PRODUCTS),
    "decoder": st.sampled_from(["own", "robust"]),
    "by_batch": st.booleans(),
    "compile": st.booleans(),
    "cuda_graphs": st.booleans(),
    "one_graph": st.booleans(),
    "lossiness_images": st.none() | st.integers(0, 9),
    "seed": st.integers(0, 2**40),
    "threads": st.integers(0, 8),
    "timeout_s": st.floats(1, 9),
    "memory_limit_gb": st.none() | st.floats(1, 9),
    "gated": st.booleans(),
    "plugin": st.lists(TEXT, max_size=2).map(tuple),
    "pins": PINS,
    "data": TEXT.map(lambda text: f"imagefolder:{text}"),
    "label": TEXT,
    "size": TEXT,
}
STRATEGY = st.sampled_from(["raster", "lpd", *ANCHORS])
CELLS = st.builds(
    Cell,
    STRATEGY,
    **{name: VALUES.get(name, PATH) for name in DECLARED if name not in ("strategy", "zoo", "checkpoints")},
    zoo=st.none() | TEXT,
    checkpoints=st.none() | TEXT,
).map(normalised)


def row_of(cell: Cell, **measured: Any) -> Row:
    return make_row(cell, Outcome("ok", None, measured, 1.0), "2026-01-01T00:00:00+00:00")


@settings(max_examples=50, deadline=None)
@given(CELLS)
def test_the_cell_of_a_row_is_the_cell_that_it_was_made_of(cell: Cell) -> None:
    row = row_from_json(row_to_json(row_of(cell, steps=7, images=cell.images)))
    rebuilt = cell_of(row)
    assert rebuilt == cell
    assert rebuilt.key == cell.key == row.cell


def test_every_setting_is_in_the_row() -> None:
    assert set(row_of(Cell("lpd")).settings) == set(DECLARED)


def test_settings_beside_the_numbers_stand_as_they_apply() -> None:
    guided = row_of(Cell("lpd", guidance=2.0, guidance_schedule="power-cosine", guidance_power=2.5))
    assert (guided.guidance, guided.guidance_schedule, guided.guidance_power) == (2.0, "power-cosine", 2.5)
    assert row_of(Cell("lpd", guidance=2.0)).guidance_power is None
    assert row_of(Cell("lpd")).guidance_schedule is None
    anchor = row_of(normalised(Cell("real")))
    assert (anchor.temperature, anchor.batch, anchor.seed) == (None, None, 0)


def test_every_image_takes_the_steps_of_a_fixed_plan() -> None:
    row = row_of(Cell("lpd"), steps=10)
    assert (row.steps_least, row.steps, row.steps_most) == (10, 10, 10)
    assert row.unmeasured["draft_tokens"] == "the strategy drafts no tokens"
    own_pace = row_of(Cell("lpd"), steps=7.5, steps_least=6, steps_most=9, steps_bound=64)
    assert (own_pace.steps_least, own_pace.steps, own_pace.steps_most) == (6, 7.5, 9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flavour": 3}, "unknown setting 'flavour'"),
        ({"steps": 0}, "steps = 0: expected a whole number of at least 1"),
        ({"guidance_schedule": "liner"}, "guidance_schedule = 'liner': expected one of constant, linear"),
    ],
)
def test_what_is_no_cell_is_told(changes: dict[str, Any], message: str) -> None:
    row = row_of(Cell("lpd"))
    spoilt = dataclasses.replace(row, settings=row.settings | changes)
    with pytest.raises(UserError, match=f"^row of cell '{row.cell}': {message}"):
        cell_of(spoilt)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": "ten"}, "settings.steps' must be a whole number"),
        ({"pins": {"network": 3}}, r"settings.pins.network' must be text"),
        ({"plugin": "a.py"}, "settings.plugin' must be a list"),
        ({"strategy": None}, "settings.strategy' must be text"),
        ({"guidance_interval": [1]}, "settings.guidance_interval' must be a whole number"),
    ],
)
def test_rows_hold_no_setting_of_another_type(changes: dict[str, Any], message: str) -> None:
    row = row_of(Cell("lpd"))
    line = json.loads(row_to_json(row))
    line["settings"] |= changes
    with pytest.raises(UserError, match=f"^here: key '{message}"):
        row_from_json(json.dumps(line), "here")


def test_explain_takes_the_key_of_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = sweep_cells("gate", "strategy=lpd")
    cell = dataclasses.replace(sweep.cells[0], guidance_interval=2, guidance_schedule="linear", threads=1)
    ResultStore(tmp_path).append(row_of(cell, images=cell.images))
    for place in (tmp_path, tmp_path / "rows.jsonl"):
        assert main(["explain", cell.key[:8], "--results", str(place)]) == 0
        out, err = capsys.readouterr()
        assert "guidance     linear, scale" in out
        assert not err


def test_a_row_of_another_machine_is_explained_without_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"checkpoint": "/nowhere/network.pt", "tokenizer_checkpoint": "/nowhere/vq.pt"}
    cell = normalised(Cell("raster", network="llamagen-l-256", steps=256, threads=1, **files))
    ResultStore(tmp_path).append(row_of(cell, images=cell.images))
    assert find_cell(cell.key, {}, tmp_path) == cell  # whoever decodes it misses them
    assert main(["explain", cell.key, "--results", str(tmp_path)]) == 0
    assert "steps        256" in capsys.readouterr().out


def test_explain_says_where_an_older_row_does_not_tell_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = sweep_cells("gate", "strategy=lpd").cells[0]
    values = json.loads(row_to_json(row_of(cell, images=cell.images))) | {"settings": {}}
    (tmp_path / "rows.jsonl").write_text(json.dumps(values) + "\n")
    found = find_cell(cell.key, {}, tmp_path)
    assert (found.strategy, found.steps) == ("lpd", 20)
    assert "doesn't tell every setting" in capsys.readouterr().err
