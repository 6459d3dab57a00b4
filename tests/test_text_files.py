"""Texts are UTF-8 whatever the locale says, with or without a byte order mark."""

import ast
import json
import os
import subprocess
import sys
from codecs import BOM_UTF8
from pathlib import Path

import pytest

from harness.cell.sweep_file import load
from harness.machine.cards import read_cards
from pardec.errors import UserError
from pardec.files import read_text
from results.schema import row_to_json
from results.store import load_rows
from tests.reports.synthetic_rows import base_row

ROOT = Path(__file__).parents[1]
ROOMS = ("pardec", "strategies", "backbones", "harness", "results", "reports")
NAME = "Größe – 大"
SWEEP = f'[[include]]\nstrategy = "lpd"\nlabel = "{NAME}"\n'
CARDS = f"""[card]
title = "{NAME}"
source = "here"
hardware = ["x"]
bandwidth_bytes_per_s = 1e9
launch_s = 1e-6
product_flops_per_s = {{ float32 = {{ 1 = 1e9 }} }}
"""
READ = """
import sys
from pathlib import Path
from harness.cell.sweep_file import load
from harness.machine.cards import read_cards
from results.store import load_rows
folder = Path(sys.argv[1])
found = [load(str(folder / "mine.toml")).cells[0].label, load_rows(folder / "rows.jsonl")[0].label]
print([label.encode("unicode_escape") for label in found])
"""


def calls_without_encoding(source: str) -> list[int]:
    """Lines that read or write a text in whatever encoding the locale names."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(word.arg == "encoding" for word in node.keywords):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        words = [one.value for one in node.args if isinstance(one, ast.Constant)]
        words += [one.value.value for one in node.keywords if isinstance(one.value, ast.Constant)]
        modes = [word for word in words if isinstance(word, str) and set(word) <= set("rwaxbt+") and word]
        text = name in ("read_text", "write_text") and bool(owner)
        opened = name == "open" and (not owner or owner.endswith(("path", "file", "partial")))
        if text or (opened and not any("b" in mode for mode in modes)):
            lines.append(node.lineno)
        if any(word.arg in ("text", "universal_newlines") for word in node.keywords):
            lines.append(node.lineno)
    return lines


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_asks_the_locale(room):
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        for path in (ROOT / room).rglob("*.py")
        for line in calls_without_encoding(path.read_text(encoding="utf-8"))
    }
    assert not found


@pytest.mark.parametrize(
    "call",
    [
        "path.read_text()",
        "file.write_text(x)",
        "open(p)",
        "path.open('a')",
        "open(p, mode='w')",
        "run(text=True)",
    ],
)
def test_the_rule_sees_what_it_should(call):
    assert calls_without_encoding(call) == [1]


def test_what_says_its_encoding_or_is_binary_is_left_alone():
    assert calls_without_encoding("path.read_text(encoding='utf-8'); run(encoding='utf-8', text=True)") == []
    assert calls_without_encoding("path.open('rb'); open(p, mode='wb'); Image.open(p); os.open(p, 0)") == []


@pytest.fixture(params=[b"", BOM_UTF8], ids=["plain", "mark"])
def folder(tmp_path, request):
    for name, text in (("mine.toml", SWEEP), ("cards.toml", CARDS)):
        (tmp_path / name).write_bytes(request.param + text.encode())
    row = json.dumps(json.loads(row_to_json(base_row(0, label=NAME))), ensure_ascii=False)
    (tmp_path / "rows.jsonl").write_bytes(request.param + row.encode() + b"\n")
    return tmp_path


def test_a_byte_order_mark_is_accepted(folder):
    assert load(str(folder / "mine.toml")).cells[0].label == NAME
    assert read_cards(folder / "cards.toml")["card"].title == NAME
    assert load_rows(folder / "rows.jsonl")[0].label == NAME


@pytest.mark.parametrize("locale", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_another_locale_changes_nothing(folder, locale):
    check = "import locale; assert locale.getpreferredencoding(False).lower() != 'utf-8'\n"
    done = subprocess.run(
        [sys.executable, "-c", check + READ, os.fspath(folder)],
        cwd=ROOT, env=os.environ | locale, capture_output=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(repr(NAME.encode("unicode_escape"))) == 2


def test_what_is_no_utf_8_is_said_with_its_line(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(b"[sweep]\n" + 'title = "Größe"\n'.encode("latin-1"))
    with pytest.raises(ValueError, match="byte 0xf6 in line 2 is no UTF-8"):
        read_text(path)
    with pytest.raises(UserError, match="can't be read: byte 0xf6 in line 2 is no UTF-8"):
        load(str(path))
    path.write_bytes(SWEEP.encode("utf-16"))
    with pytest.raises(UserError, match="byte 0xff in line 1 is no UTF-8"):
        load(str(path))


def test_line_ends_of_other_systems_are_line_ends(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(SWEEP.replace("\n", "\r\n").encode())
    assert load(str(path)).cells[0].label == NAME
