"""A plug-in strategy that does what none may, through the command line and the real worker."""

import re
from pathlib import Path

import pytest

from harness.cli import main
from harness.machine.processes import carriers
from results.schema import Row
from results.store import load_rows
from strategies.decoding import registry
from tests.harness.sweeps_at_work import RUN

PLUGIN = Path(__file__).parents[1] / "misbehaving.py"
HEAD = """
[defaults]
strategy = "misbehaving"
steps = 4
images = 2
batch = 2
threads = 1
once = true
lossiness_images = 0
"""
CELL = """
[[include]]
options = {{ how = "{how}" }}
{more}
"""


@pytest.fixture(autouse=True)
def no_plugins(monkeypatch):
    monkeypatch.setattr(registry, "_plugins", {})


def swept(tmp_path: Path, zoo: Path, deeds: dict[str, str]) -> tuple[int, dict[str, Row]]:
    """Exit status and rows by misdeed of a sweep of these cells and one that behaves."""
    file, results = tmp_path / "mine.toml", tmp_path / "results"
    cells = "".join(CELL.format(how=how, more=more) for how, more in (deeds | {"nothing": ""}).items())
    file.write_text(f'[sweep]\nin_turn = "none"\n{HEAD}{cells}')
    words = ["sweep", str(file), "--zoo", str(zoo), "--plugin", str(PLUGIN), "--results", str(results)]
    status = main([*words, "--no-report"])
    return status, {row.options["how"]: row for row in load_rows(results)}


def check(rows: dict[str, Row], expected: dict[str, tuple[str, str | None]]) -> None:
    found = {how: (row.status, row.reason) for how, row in rows.items()}
    for how, (status, words) in (expected | {"nothing": ("ok", None)}).items():
        assert found[how][0] == status, (how, found[how])
        if words is None:
            assert found[how][1] is None
        else:
            assert re.search(words, found[how][1]), (how, found[how])
            assert "\n" not in found[how][1]
    assert len(found) == len(expected) + 1


@pytest.mark.slow
def test_every_misdeed_costs_its_own_cell_and_no_other(tmp_path, small_zoo, capsys, monkeypatch):
    monkeypatch.setenv(RUN, str(tmp_path))
    expected = {
        "print": ("ok", None),
        "read": ("ok", None),
        "fork": ("ok", None),
        "garbage": ("error", "no message to its pipe: b'garbage'"),
        "exit 0": ("error", "the worker ended with 0 and no result"),
        "exit 3": ("error", "the worker ended with 3 and no result"),
        "quit": ("error", "SystemExit: 0"),
        "interrupt": ("error", "KeyboardInterrupt"),
        "nan": ("invalid", "logits are not finite"),
        "places": ("error", "RuntimeError|ValueError|IndexError"),
        "batch": ("error", "RuntimeError|ValueError|IndexError"),
        "memory": ("oom", r"MemoryError \(memory_limit_gb = 3\)"),
        "hang": ("timeout", "took longer than 30 s and was stopped"),
    }
    more = {"memory": "memory_limit_gb = 3.0", "hang": "timeout_s = 30"}
    status, rows = swept(tmp_path, small_zoo, {how: more.get(how, "") for how in expected})
    check(rows, expected)
    assert status == 1
    assert carriers(str(tmp_path), RUN) == []
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_plugin_that_only_a_worker_cannot_import(tmp_path, small_zoo, capsys):
    plugin, file, results = tmp_path / "fragile.py", tmp_path / "mine.toml", tmp_path / "results"
    text = PLUGIN.read_text().replace('"misbehaving"', '"fragile"')
    plugin.write_text(text + "\nif 'worker' in sys.argv[0]:\n    raise RuntimeError('not\\nhere')\n")
    file.write_text(HEAD.replace("misbehaving", "fragile") + "[grid]\nstrategy = ['fragile', 'arpg']\n")
    words = ["sweep", str(file), "--zoo", str(small_zoo), "--plugin", str(plugin), "--results", str(results)]
    assert main([*words, "--no-report", "-k", "strategy=fragile"]) == 1
    (row,) = load_rows(results)
    assert row.status == "error"
    assert "not here" in row.reason
    assert str(plugin) in row.reason
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("text", ["raise RuntimeError('not\\nhere')\n", "raise SystemExit('not here')\n"])
def test_a_plugin_that_cannot_be_imported_is_one_line(tmp_path, capsys, text):
    plugin = tmp_path / "broken.py"
    plugin.write_text(text)
    assert main(["sweep", "quick", "--plugin", str(plugin), "--results", str(tmp_path / "results")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(plugin) in error
    assert "not here" in error
    assert not (tmp_path / "results").exists()
