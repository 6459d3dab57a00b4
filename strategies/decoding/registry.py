"""Strategies by name: built-ins, entry points and plug-in files are found alike, and imported lazily."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import sys
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from strategies.decoding.errors import UserError, unknown

if TYPE_CHECKING:
    from strategies.decoding.base import Strategy
    from strategies.decoding.published import Published

GROUP = "pardec.strategies"
BUILT_IN = ("raster", "rar", "par", "lpd", "arpg", "randar")
_plugins: dict[str, Path] = {}


def names() -> list[str]:
    """All strategy names, without importing any."""
    return [*BUILT_IN, *sorted({*_entry_points(), *_plugins} - set(BUILT_IN))]


def origin(name: str) -> str:
    """Where a strategy comes from, for messages and lists."""
    if name in BUILT_IN:
        return "built in"
    return str(_plugins[name]) if name in _plugins else f"entry point {_entry_points()[name]}"


def describe(name: str) -> str:
    """First line of the strategy file's docstring, read without importing it."""
    path = Path(__file__).parent.parent / f"{name}.py" if name in BUILT_IN else _plugins.get(name)
    if path is None:
        spec = importlib.util.find_spec(_entry_points()[name].partition(":")[0])
        path = Path(spec.origin) if spec and spec.origin else None
    docstring = ast.get_docstring(ast.parse(path.read_text())) if path else None
    return (docstring or name).splitlines()[0]


def get(name: str, **options: Any) -> Strategy:
    """The strategy ``name`` with its options; UserError for an unknown name or option."""
    if name not in names():
        raise unknown("strategy", name, names())
    kind = _load(name)
    valid = {field.name: field.default for field in dataclasses.fields(kind)}
    choices = get_type_hints(kind)
    for option, value in options.items():
        if option not in valid:
            raise unknown("option", option, valid, f"strategy '{name}'")
        expected = type(valid[option])
        if type(value) is not expected and not (expected is float and type(value) is int):
            raise UserError(
                f"option '{option}' of strategy '{name}' is {value!r}; expected {expected.__name__}"
            )
        if get_origin(choices[option]) is Literal and value not in get_args(choices[option]):
            raise unknown(
                f"value of option '{option}':", str(value), get_args(choices[option]), f"strategy '{name}'"
            )
    return kind(**options)


def add_plugin(path: Path) -> str:
    """Make the one strategy class of a Python file known; returns its name."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"plug-in {path}: no such file")
    name = _class_in(_module_from(path), str(path)).name
    if name in BUILT_IN or name in _entry_points():
        raise UserError(f"plug-in {path}: the name '{name}' is taken ({origin(name)})")
    _plugins[name] = path
    return name


def by_family(family: str) -> Published:
    """Naming of a family of published files; UserError for a family that no strategy declares."""
    declared = families()
    if family not in declared:
        raise unknown("family", family, declared)
    return declared[family]


def families() -> dict[str, Published]:
    """Every declared family of published files by name."""
    return {kind.published.family: kind.published for kind in map(_load, names()) if kind.published}


@lru_cache(maxsize=1)
def _entry_points() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=GROUP)}


def _load(name: str) -> type[Strategy]:
    if name in _plugins:
        return _class_in(_module_from(_plugins[name]), str(_plugins[name]))
    target = f"strategies.{name}" if name in BUILT_IN else _entry_points()[name]
    module_name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(f"strategy '{name}' ({origin(name)}) cannot be imported: {error}") from error
    return getattr(module, attribute) if attribute else _class_in(module, target)


def _module_from(path: Path) -> Any:
    name = f"pardec_plugin_{path.stem}"
    if name in sys.modules and sys.modules[name].__file__ == str(path):
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"plug-in {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        cause = " ".join(str(error).split())
        raise UserError(f"plug-in {path}: {type(error).__name__}: {cause}") from error
    return module


def _class_in(module: Any, where: str) -> type[Strategy]:
    from strategies.decoding.base import Strategy

    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Strategy)
        and value.__module__ == module.__name__
        and not getattr(value, "__abstractmethods__", None)
    ]
    if len(own) != 1:
        raise UserError(f"{where}: expected one concrete Strategy class, found {len(own)}")
    return own[0]
