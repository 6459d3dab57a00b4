"""Targets that read text: sweep files, selections, cells, rows, cards, manifests and other JSON and TOML."""

import dataclasses
import io
import json
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from rich.console import Console

from harness.cell import sweep_file
from harness.cell.cell import RULES, Cell
from harness.images.code_shards import CodeShards
from harness.images.shards import Shards
from harness.lossiness.worlds import RULES as ORDERS
from harness.machine.cards import HERE, SHEETS, read_cards
from harness.regress.benchmarks import read_benchmark_json, read_recorded
from harness.regress.judge import judge
from harness.regress.show import print_findings, to_json, to_markdown
from harness.sweep.find import find_cell, inline_cell
from harness.train import tune
from harness.weights import zoo
from pardec.errors import UserError
from reports import claim_tables, selftest, tables
from reports.artifacts import load_cost
from reports.claims import claims
from reports.compare import compare, compare_within, print_comparison, print_text_tables
from reports.contests import contests
from reports.frame import facets, frame
from reports.training_noise import TrainingNoise
from results.schema import Row, row_to_json
from results.store import ResultStore, load_rows
from strategies.decoding import registry
from tests.fuzz.target import target, write
from tests.harness.small_codes import write_codes
from tests.reports.synthetic_rows import sweep_rows

ROOT = Path(__file__).parents[2]
TOML_WORDS = (
    "[grid]",
    "[[include]]",
    "[[exclude]]",
    "[defaults]",
    "[sweep]",
    "name = '../../x'",
    "1979-05-27",
    "nan",
    "inf",
    "-1",
    "1e400",
    "[[1]]",
    "{a = 1}",
    '"\\u0000"',
)
JSON_WORDS = (
    "null",
    "NaN",
    "1e999",
    "-0",
    "{}",
    "[]",
    '"../../x"',
    '"/etc/passwd"',
    "true",
    "9" * 400,
    '"\\u001b[2J"',
    '"\\ud800"',
    "[" * 200,
    "1" * 5000,
)


def _sweeps(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(sweep_file.SHIPPED.glob("*.toml"))]


@target("sweep-file", _sweeps, (*TOML_WORDS, *RULES))
def sweep_file_text(data: bytes, folder: Path) -> None:
    sweep = sweep_file.load(str(write(folder, "x.toml", data)))
    assert "/" not in sweep.name
    assert sweep.name not in ("", ".", "..")
    for cell in sweep.cells[:20]:
        assert Cell.from_json(cell.to_json()) == cell
        assert cell.describe().isprintable()


@lru_cache(maxsize=1)
def _cells() -> tuple[Cell, ...]:
    return sweep_file.load("quick").cells + sweep_file.load("guidance").cells


@target(
    "selection",
    lambda folder: [b"strategy=lpd|arpg,steps<=8", b"guidance!=none,dtype=float32", b"seed>=0,order=random"],
    (*RULES, "<=", ">=", "!=", "==", "|", ",", "none", "nan", "1e999", "order"),
)
def selection(data: bytes, folder: Path) -> None:
    chosen = sweep_file.select(_cells(), data.decode(errors="surrogateescape"))
    assert chosen
    assert all(cell in _cells() for cell in chosen)


@target(
    "inline-cell",
    lambda folder: [
        b"strategy=lpd,steps=10,guidance=2",
        b"strategy=par,seed=3,top_p=0.5,dtype=bfloat16",
        b"strategy=arpg,network=arpg-l,checkpoint=random,order=random",
        b"quick:0123",
        b"abcdef",
    ],
    (*RULES, *ORDERS, *registry.BUILT_IN, "nan", "inf", "1e999", "true", "none", "=", ","),
)
def inline(data: bytes, folder: Path) -> None:
    text = data.decode(errors="surrogateescape")
    cell = inline_cell(text, {}) if b"=" in data else find_cell(text, {}, folder / "none")
    assert cell.describe().isprintable()
    assert len(cell.key) == 16


def _rows(folder: Path) -> list[bytes]:
    lines = [row_to_json(row).encode() + b"\n" for row in sweep_rows()[::4]]
    old = (ROOT / "tests/results/data/schema-1.jsonl").read_bytes().splitlines(keepends=True)
    new = (ROOT / "results/baselines/gate.jsonl").read_bytes().splitlines(keepends=True)
    return [b"".join(old[:2]), old[2], new[0], b"".join(new[1:3]), *lines]


@target("rows", _rows, JSON_WORDS)
def rows(data: bytes, folder: Path) -> None:
    found = load_rows(write(folder, "rows.jsonl", data))
    assert len({row.cell for row in found}) == len(found)
    again = folder / "again.jsonl"
    again.write_text("".join(row_to_json(row) + "\n" for row in found))
    assert load_rows(again) == found, "a row that is written and read is another row"


@target("stored-rows", _rows, JSON_WORDS)
def stored_rows(data: bytes, folder: Path) -> None:
    write(folder, "rows.jsonl", data)
    store = ResultStore(folder)
    for row in store.rows():
        store.append(row)


@target("row-tables", _rows, JSON_WORDS)
def row_tables(data: bytes, folder: Path) -> None:
    path = write(folder, "rows.jsonl", data)
    show_rows(path)


def show_rows(path: Path) -> str:
    """Everything but pictures that commands make of rows; the terminal's text of it."""
    found = load_rows(path)
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    parts = facets(found)
    tables.print_tables(parts, console)
    tables.to_csv(found)
    for part in parts:
        frame(part.rows)
        for table in tables.tables(part):
            tables.to_markdown(table)
        for contest in contests(part, {}, TrainingNoise()):
            tables.markdown_of(contest.headings, contest.lines)
    comparison = compare(path, path)
    print_comparison(comparison, console)
    findings = judge(found, found)
    print_findings(findings, console)
    to_markdown(findings)
    to_json(findings)
    seen = claims(found)
    claim_tables.print_claims(seen, console)
    claim_tables.to_markdown(seen)
    claim_tables.to_csv(seen)
    tune.grids(found)
    with suppress(UserError):  # no two cells that can be compared
        print_text_tables(compare_within(path), console)
    return console.file.getvalue()  # type: ignore[attr-defined]


@lru_cache(maxsize=1)
def _row() -> Row:
    return sweep_rows()[3]


def _cost(folder: Path) -> list[bytes]:
    from reports.artifacts import _COST_NUMBERS

    return [json.dumps({"card": "here", **dict.fromkeys(_COST_NUMBERS, 1.5)}).encode()]


@target("cost", _cost, JSON_WORDS)
def cost(data: bytes, folder: Path) -> None:
    write(folder, "cost.json", data)
    row = dataclasses.replace(_row(), artifacts={"cost": "cost.json"})
    load_cost(row, folder)


@target("device-cards", lambda folder: [SHEETS.read_bytes()], TOML_WORDS)
def device_cards(data: bytes, folder: Path) -> None:
    for card in read_cards(write(folder, "cards.toml", data)).values():
        card.is_of("NVIDIA H100", 2)
        for precision in card.product_flops_per_s:
            for row_count in (1, 7, 4096):
                assert card.product_rate(precision, row_count) > 0
        assert card.name != HERE or card.title


def _cards(folder: Path) -> list[bytes]:
    return [(zoo.SHIPPED / f"{name}.json").read_bytes() for name in ("lpd", "raster")]


@target("zoo-card", _cards, JSON_WORDS)
def zoo_card(data: bytes, folder: Path) -> None:
    from harness.commands.list_command import _describe

    (folder / "lpd.safetensors").write_bytes(b"")
    write(folder, "lpd.json", data)
    _describe("lpd", folder)
    find = zoo.read_card("zoo/lpd", folder)
    registry.get("lpd", **find.options)


def _benchmarks(folder: Path) -> list[bytes]:
    one = {"fullname": "tests/x.py::test_a", "stats": {"data": [0.1, 0.2]}}
    return [json.dumps({"benchmarks": [one, one]}).encode(), b'{"a": [0.1, 0.2]}']


@target("benchmark-json", _benchmarks, JSON_WORDS)
def benchmark_json(data: bytes, folder: Path) -> None:
    from harness.regress.judge import benchmarks

    path = write(folder, "b.json", data)
    reader = read_benchmark_json if data[:4] != b'{"a"' else read_recorded
    found = reader(path)
    print_findings(list(benchmarks(found, found)), Console(file=io.StringIO()))


def _manifest(folder: Path) -> list[bytes]:
    return [(write_codes(folder / "codes") / "manifest.json").read_bytes()]


@target("code-manifest", _manifest, JSON_WORDS)
def code_manifest(data: bytes, folder: Path) -> None:
    codes = folder / "codes"
    if not codes.is_dir():
        write_codes(codes)
    write(codes, "manifest.json", data)
    _use(CodeShards.open(codes))


def _use(shards: CodeShards) -> None:
    import torch

    images, variants = shards.choose(2, 0, torch.Generator())
    shards.tokens(images, variants)
    assert len(shards.labels) == shards.images


def _run(folder: Path) -> list[bytes]:
    Shards.open(folder / "run", _cells()[2])
    return [(folder / "run" / "run.json").read_bytes()]


@target("shards-run", _run, JSON_WORDS)
def shards_run(data: bytes, folder: Path) -> None:
    write(folder, "run.json", data)
    shards = Shards.read(folder)
    shards.files()
    if data[:1] == b"{":
        Shards.open(folder, _cells()[2])


def _selftest(folder: Path) -> list[bytes]:
    rate = {
        "name": "a",
        "flagged": 1,
        "n": 20,
        "low": 0.1,
        "high": 0.2,
        "most": 0.1,
        "least": None,
        "met": True,
    }
    found = {
        "started_at": "now",
        "threads": 2,
        "environment": {"host_cpu": "c", "torch": "t"},
        "rates": [rate],
    }
    return [json.dumps(found).encode()]


@target("selftest-json", _selftest, JSON_WORDS)
def selftest_json(data: bytes, folder: Path) -> None:
    write(folder, "selftest.json", data)
    selftest.beside(folder)
