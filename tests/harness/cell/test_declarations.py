"""A new setting and a new number each touch one place: their declaration. Everything else finds them."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import results
from harness.cell.cell import Cell, normalised
from results.fields import Field, Measure, declared
from results.schema import FIELDS, SCHEMA, Row
from results.settings import DECLARED

ROOT = Path(results.__file__).parents[1]
SETTING = """
    flavour: str = setting("plain", rule=text(choices=("plain", "sweet")), late=True, joins=True, draws=True)
"""
NUMBER = f"""
    heat_j: float | None = measured(
        column=True, unit="J", since={SCHEMA + 1}, gated="anywhere", compared="throughput", better="lower",
        least=0,
    )
    ticks: int | None = measured(since={SCHEMA + 1}, counted=True)
"""
SCRIPT = """
import dataclasses, json
from pathlib import Path

from harness.cell import sweep_file
from harness.cell.cell import Cell, checked, normalised
from harness.cell.recorded import cell_of
from harness.regress import judge
from harness.sweep.process import Outcome
from harness.sweep.row import make_row
from pardec.errors import UserError
from reports.compare import compare
from reports.frame import frame
from reports.naming import display_name, series_label
from results.schema import SCHEMA, row_from_json, row_to_json
from results.store import ResultStore

def row(cell, **numbers):
    found = make_row(cell, Outcome("ok", None, {"steps": 8} | numbers, 1.0), "2026-01-01T00:00:00+00:00")
    return row_from_json(row_to_json(found))

# The key, and what a sweep file may say.
plain, sweet = (normalised(Cell("lpd", label="LPD", flavour=one)) for one in ("plain", "sweet"))
assert plain.key == KEY and sweet.key != plain.key
Path("s.toml").write_text('[grid]\\nstrategy = "lpd"\\nflavour = ["plain", "sweet"]\\n')
assert [cell.flavour for cell in sweep_file.load("s.toml").cells] == ["plain", "sweet"]
try:
    checked("flavour", "swete", "here")
    raise SystemExit("not refused")
except UserError as error:
    assert "did you mean 'sweet'" in str(error)
assert sweep_file.select([plain, sweet], "flavour=sweet") == [sweet]
assert normalised(Cell("lpd")).describe() == "lpd" and sweet.describe() == "LPD, flavour sweet"

# The row, and back.
one, other = row(plain, heat_j=2.0, ticks=7), row(sweet, heat_j=3.0, ticks=8)
assert cell_of(other) == sweet
assert row(plain).unmeasured["heat_j"] == "not measured"

# The table, and labels.
table = frame([one, other])
assert dict(zip(table["flavour"], table["heat_j"])) == {"plain": 2.0, "sweet": 3.0}
assert series_label(other, [one, other]) == "LPD (flavour sweet)"
assert display_name(other, [one, other]) == "LPD, 8 steps, flavour sweet"
assert display_name(other) == "LPD, 8 steps"

# The comparison.
def stored(name, *rows):
    for each in rows:
        ResultStore(name).append(each)
    return name
more = dataclasses.replace(one, heat_j=4.0, ticks=9)
(pair,) = compare(stored("a", one), stored("b", other, more)).pairs
found = {each.name: each for each in pair.differences}
assert found["heat_j"].change == 2.0 and found["ticks"].verdict == "differs"
assert pair.b.cell == one.cell

# The gate.
assert judge.partners([one], [other]) == {}
told = {each.quantity: each for each in judge.judge([one], [more])}
assert told["ticks"].verdict == "fail"
lost = row(plain, ticks=7)
assert {each.quantity: each.verdict for each in judge.absent(one, lost)} == {"heat_j": "fail"}

# Rows of the schema before.
assert SCHEMA == NEWEST
old = json.loads(row_to_json(one)) | {"schema": SCHEMA - 1}
for name in ("heat_j", "ticks"):
    del old[name]
del old["settings"]["flavour"]
read = row_from_json(json.dumps(old))
assert read.heat_j is None and read.unmeasured["heat_j"] == f"not recorded before schema {SCHEMA}"
assert judge.partners([read], [one, other]) == {read.cell: one}
assert cell_of(read) == plain

# What nothing can have measured.
try:
    stored("c", dataclasses.replace(one, heat_j=-1.0))
    compare("c", "a")
    raise SystemExit("not refused")
except UserError as error:
    assert "key 'heat_j' must be at least 0" in str(error)
print("found everywhere")
"""


def test_one_line_makes_a_setting_and_a_number_known_everywhere(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "results", tmp_path / "results", ignore=shutil.ignore_patterns("baselines"))
    for name, line, before in (
        ("settings.py", SETTING, "    temperature: float"),
        ("schema.py", NUMBER, "    guidance: float"),
    ):
        file = tmp_path / "results" / name
        text = file.read_text()
        assert text.count(before) == 1
        file.write_text(text.replace(before, line + before))
    script = f"KEY, NEWEST = {normalised(Cell('lpd', label='LPD')).key!r}, {SCHEMA + 1}\n{SCRIPT}"
    (tmp_path / "script.py").write_text(script)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "found everywhere\n", done.stderr


def test_every_field_declares_what_it_is() -> None:
    @dataclasses.dataclass(frozen=True)
    class Longer(Row):
        heat_j: float | None = None

    assert set(FIELDS) == {field.name for field in dataclasses.fields(Row)}
    assert set(DECLARED) == {field.name for field in dataclasses.fields(Cell)}
    with pytest.raises(TypeError, match="field 'heat_j' of Longer declares nothing"):
        declared(Longer, Field)
    assert {name for name, one in FIELDS.items() if one.kind == "setting"} <= set(DECLARED)


def test_intervals_and_repeats_are_fields() -> None:
    for one in FIELDS.values():
        if isinstance(one, Measure):
            assert {one.interval, one.samples} <= {"", *FIELDS}


def test_what_decides_the_tokens_is_in_the_key_and_joins_rows() -> None:
    for name, one in DECLARED.items():
        assert not one.draws or (one.joins and one.in_key), name
        assert not one.joins or one.in_key, name
