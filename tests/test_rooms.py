"""The house: which room may import which, read off every import, those inside functions and for types too."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BELOW = {
    "harness": ("reports", "results", "strategies", "backbones", "pardec"),
    "reports": ("results", "pardec"),
    "results": ("pardec",),
    "strategies": ("backbones", "pardec"),
    "backbones": ("pardec",),
    "pardec": (),
}
"""What each package may import besides itself."""
HARNESS = (
    "cli",
    "commands",
    "regress",
    "sweep",
    "gpu_check",
    "train",
    "lossiness",
    "measure",
    "cost",
    "subject",
    "quality",
    "images",
    "weights",
    "cell",
    "machine",
)
"""The rooms of the harness: each may import those named after it."""
FACE = "pardec"
"""The public face hands out names of all packages on first use; nothing of ours may lead back to it."""


@dataclass(frozen=True)
class Import:
    importer: str
    line: int
    imported: str
    lazy: bool
    """Inside a function."""
    for_types: bool
    """Only type checkers follow it."""

    def __str__(self) -> str:
        where = f"{self.importer.replace('.', '/')}.py:{self.line}"
        return f"{where} imports {self.imported}{' inside a function' if self.lazy else ''}"


def modules_of(root: Path) -> dict[str, Path]:
    files = [path for package in BELOW for path in sorted((root / package).rglob("*.py"))]
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files
    }


def imports_of(name: str, path: Path, modules: dict[str, Path]) -> Iterator[Import]:
    """What a module imports of ours; of a package, the module that a name is taken from."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lazy = {id(inner) for function in functions for inner in ast.walk(function)}
    typed = [node for node in ast.walk(tree) if isinstance(node, ast.If)]
    typed = [node for node in typed if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"]
    for_types = {id(inner) for branch in typed for inner in ast.walk(branch)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: a relative import"
            of_package = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [one if one in modules else str(node.module) for one in of_package]
        else:
            continue
        for one in dict.fromkeys(found):
            if one in modules and one != name:
                yield Import(name, node.lineno, one, id(node) in lazy, id(node) in for_types)


def all_imports(root: Path) -> list[Import]:
    modules = modules_of(root)
    return [one for name, path in modules.items() for one in imports_of(name, path, modules)]


@cache
def our_imports() -> list[Import]:
    return all_imports(ROOT)


def room_of(module: str) -> tuple[str, str]:
    """Package, and the room in it."""
    package, _, rest = module.partition(".")
    return package, rest.partition(".")[0] if package == "harness" else ""


def is_allowed(one: Import) -> bool:
    (ours, room), (theirs, other) = room_of(one.importer), room_of(one.imported)
    if one.importer == FACE:
        return True
    if one.imported == FACE:
        return False
    if ours != theirs:
        return theirs in BELOW[ours]
    return ours != "harness" or HARNESS.index(room) <= HARNESS.index(other)


def circle_of(found: list[Import]) -> list[str]:
    """The modules of one circle of imports that run; none where there is none."""
    graph: dict[str, set[str]] = defaultdict(set)
    for one in found:
        if one.importer != FACE and not one.for_types:
            graph[one.importer].add(one.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_import_runs_from_a_room_to_one_below():
    found = our_imports()
    assert len(found) > 500
    assert [str(one) for one in found if not is_allowed(one)] == []


def test_no_circle_of_imports():
    assert circle_of(our_imports()) == []


def test_every_room_is_declared_and_says_what_it_owns():
    rooms = {path.stem for path in (ROOT / "harness").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert rooms - {"__init__", "__pycache__"} == set(HARNESS)
    packages = [path for path in modules_of(ROOT).values() if path.name == "__init__.py"]
    assert len(packages) > len(HARNESS)
    silent = [path for path in packages if not ast.get_docstring(ast.parse(path.read_text()))]
    assert [str(path.relative_to(ROOT)) for path in silent] == []


def test_the_tree_and_the_order_stand_in_the_docs():
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert f"`{' '.join(HARNESS)}`" in " ".join(page.split())
    for path in modules_of(ROOT).values():
        if path.name == "__init__.py":
            assert f" {path.parent.name}/ " in page.replace("\n", " "), path


RIM = ("harness.cli", "harness.commands", "harness.sweep.worker", "strategies.decoding.registry", FACE)
"""Where an import inside a function buys start-up time: torch is loaded when something is computed."""


def test_imports_hide_inside_functions_only_at_the_rim():
    hidden = [one for one in our_imports() if one.lazy]
    assert [str(one) for one in hidden if not one.importer.startswith(RIM)] == []


@pytest.mark.parametrize(
    ("files", "wrong"),
    [
        ({"results/a.py": "import reports.b"}, "results/a.py:1 imports reports.b"),
        ({"backbones/a.py": "from strategies import c"}, "backbones/a.py:1 imports strategies.c"),
        (
            {"harness/cell/a.py": "def f():\n    from harness.sweep.b import g"},
            "harness/cell/a.py:2 imports harness.sweep.b inside a function",
        ),
        ({"harness/measure/a.py": "from harness.train.b import g"}, "imports harness.train.b"),
        ({"harness/sweep/a.py": "from harness.commands.b import g"}, "imports harness.commands.b"),
        ({"strategies/c.py": "from pardec import Plan"}, "strategies/c.py:1 imports pardec"),
        (
            {"pardec/a.py": "if TYPE_CHECKING:\n    from results.b import g"},
            "pardec/a.py:2 imports results.b",
        ),
    ],
)
def test_a_wrong_import_is_named(tmp_path, files, wrong):
    targets = ("reports/b.py", "strategies/c.py", "results/b.py", "pardec/__init__.py")
    rooms = ("harness/sweep/b.py", "harness/train/b.py", "harness/commands/b.py")
    for file, text in {**dict.fromkeys((*targets, *rooms), ""), **files}.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    refused = [str(one) for one in all_imports(tmp_path) if not is_allowed(one)]
    assert len(refused) == 1
    assert wrong in refused[0]


def test_a_circle_is_seen_though_an_import_hides_in_a_function(tmp_path):
    room = tmp_path / "results"
    room.mkdir()
    (room / "a.py").write_text("import results.b")
    (room / "b.py").write_text("def f():\n    import results.c")
    assert circle_of(all_imports(tmp_path)) == []
    (room / "c.py").write_text("from results.a import g")
    assert set(circle_of(all_imports(tmp_path))) == {"results.a", "results.b", "results.c"}
