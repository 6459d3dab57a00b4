"""``import pardec``: what it hands out, at what cost, and from an installed wheel in another folder."""

import ast
import importlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import pardec
from tests.test_rooms import BELOW, ROOT

GROUND_FLOOR = sorted(
    f"pardec.{path.stem}" for path in (ROOT / "pardec").glob("*.py") if path.stem != "__init__"
)
LIGHT = "import sys, {module}\nprint(sorted({{name.partition('.')[0] for name in sys.modules}}))"
SCRIPT = """
import torch
import pardec

assert pardec.__file__.startswith({target!r})
trunk = pardec.TrunkConfig(depth=1, width=16, heads=2, mlp_width=32)
tokenizer = pardec.load_tokenizer()
config = pardec.NetworkConfig(trunk, codes=tokenizer.codes, classes=10, grid=tokenizer.grid)
strategy = pardec.get("lpd")
network = strategy.network(config).eval()
for parameter in network.parameters():
    torch.nn.init.normal_(parameter, std=0.02)
streams = pardec.Streams(0, images=(0,))
plan = strategy.plan(config.grid, 12, streams)
decoded = pardec.decode(network, strategy, plan, torch.tensor([3]), pardec.StreamSampler(streams))
image = tokenizer.decode(decoded.tokens.unflatten(1, config.grid))
print(plan.steps, tuple(image.shape), bool(image.isfinite().all()))
"""


def homes() -> dict[str, str]:
    """Name -> module, as type checkers read the face."""
    tree = ast.parse(Path(pardec.__file__).read_text(encoding="utf-8"))
    (branch,) = (node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.name: str(node.module)
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_names_are_what_type_checkers_see():
    assert sorted(homes()) == sorted(pardec.__all__)
    for name, module in homes().items():
        assert getattr(pardec, name) is getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("module", ["pardec", *GROUND_FLOOR])
def test_the_ground_floor_imports_nothing_of_ours_and_no_torch(module):
    command = [sys.executable, "-c", LIGHT.format(module=module)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(ast.literal_eval(done.stdout)) & {"torch", "numpy", *BELOW} - {"pardec"}


def test_another_name_is_refused_with_those_there_are():
    with pytest.raises(AttributeError, match=r"no attribute 'decoder'.*decode"):
        pardec.decoder  # noqa: B018


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built offline from a copy, so that nothing is left in the checkout."""
    pytest.importorskip("setuptools", "77", reason="the wheel is built by setuptools")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for package in BELOW:
        skipped = shutil.ignore_patterns("__pycache__", "runs")
        shutil.copytree(ROOT / package, source / package, ignore=skipped)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip(["wheel", "--no-build-isolation", "--wheel-dir", str(out), str(source)])
    (built,) = out.glob("pardec-*.whl")
    return built


def pip(arguments: list[str]) -> None:
    quiet = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", arguments[0], *quiet, *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path):
    """All but the pictures of the README and networks of earlier marks."""
    held = set(zipfile.ZipFile(wheel).namelist())
    ours = {
        path.relative_to(ROOT).as_posix()
        for package in BELOW
        for path in (ROOT / package).rglob("*")
        if path.is_file()
        and not {"__pycache__", "runs", "gallery", "marks"} & set(path.relative_to(ROOT).parts)
    }
    assert len(ours) > 200
    assert ours - held == set()


def test_an_installed_wheel_works_from_another_folder(wheel: Path, tmp_path: Path):
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip(["install", "--no-compile", "--target", str(target), str(wheel)])

    def run(*arguments: str) -> str:
        environment = {"PYTHONPATH": str(target), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=elsewhere, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("-c", SCRIPT.format(target=str(target))).split(maxsplit=1) == ["12", "(1, 3, 32, 32) True\n"]
    listing = run("-m", "harness.cli", "list")
    for name in ("lpd", "zoo/raster", "quick"):
        assert name in listing
    assert list(elsewhere.iterdir()) == []
