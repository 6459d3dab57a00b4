"""What other packages declare as strategies, looked at without importing any of them."""

import ast
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, distributions
from importlib.util import resolve_name
from pathlib import Path

from pardec.errors import one_line


def one_by_one(group: str) -> tuple[list[EntryPoint], dict[str, str]]:
    """Entry points of every package that can be read, and why the others can't, by the package's name."""
    found: dict[str, list[EntryPoint]] = {}
    broken: dict[str, str] = {}
    for package in distributions():
        name = str(package.name)
        if name in found or name in broken:
            continue  # the first of a name is the one that is imported
        try:
            found[name] = [point for point in package.entry_points if point.group == group]
        except (TypeError, ValueError, LookupError, OSError) as error:
            broken[name] = f"its entry points can't be read: {_named(error)}"
    return [point for points in found.values() for point in points], broken


def parts(value: str) -> tuple[str, str]:
    """Module and class of an entry point such as ``package.module:Class [extra]``."""
    module, _, attribute = value.partition("[")[0].partition(":")
    return module.strip(), attribute.strip()


def find(module: str) -> list[ModuleSpec | None]:
    """The specs of a module and of the packages around it, outermost first, up to one that isn't there."""
    specs: list[ModuleSpec | None] = []
    path = None
    for end in range(1, module.count(".") + 2):
        name = ".".join(module.split(".")[:end])
        spec = next(_specs(name, path), None) if name else None
        specs.append(spec)
        if spec is None or spec.submodule_search_locations is None:
            break
        path = list(spec.submodule_search_locations)
    return specs


def _specs(name: str, path: list[str] | None) -> Iterator[ModuleSpec]:
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, path)
        except (ImportError, ValueError, OSError, AttributeError):
            continue
        if spec is not None:
            yield spec


def source_of(value: str) -> Path | None:
    """The file of an entry point's module, where there is one."""
    module, _ = parts(value)
    specs = find(module)
    if len(specs) < module.count(".") + 1 or specs[-1] is None or not specs[-1].has_location:
        return None
    return Path(str(specs[-1].origin))


def why_not(value: str) -> str | None:
    """Why an entry point can't be imported, as far as its files tell; None where they don't."""
    module, attribute = parts(value)
    specs = find(module)
    if specs[-1] is None or len(specs) < module.count(".") + 1:
        missing = ".".join(module.split(".")[: len(specs) + (specs[-1] is not None)])
        return f"no module '{missing}'; was its package removed?"
    for spec in specs:
        path = Path(str(spec.origin)) if spec is not None and spec.has_location else None
        if spec is None or path is None or path.suffix != ".py":
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError) as error:
            return f"{path} is no Python: {_named(error)}"
        except OSError as error:
            return f"{path}: {error.strerror}"
        package = spec.name if spec.submodule_search_locations is not None else spec.parent or ""
        needed = next((name for name in _imported(tree, package) if find(name)[-1] is None), None)
        if needed is not None:
            return f"{path} needs '{needed}', which isn't installed"
        if attribute and spec is specs[-1] and attribute not in (_bound(tree) or {attribute}):
            return f"{path} defines no '{attribute}'"
    return None


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """What a module imports in any case: packages of others, modules of its own package."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module).partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module and package:
            yield resolve_name("." * node.level + node.module, package)


def _bound(tree: ast.Module) -> set[str] | None:
    """Names that a module binds at its top level; None where that can't be told."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom | ast.Import):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return None if "*" in names or "__getattr__" in names else names


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error)}"
