"""Strategies by name: built-ins, entry points and plug-in files are found alike, and imported lazily."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import pkgutil
import re
import sys
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints
from zlib import crc32

import strategies.published
from pardec.errors import UserError, closest, one_line, unknown, visible

if TYPE_CHECKING:
    from strategies.decoding.base import Strategy
    from strategies.published.naming import Published

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
    """First line of the strategy file's docstring, read without importing it; or why it can't be read."""
    path = Path(__file__).parent.parent / f"{name}.py" if name in BUILT_IN else _plugins.get(name)
    if path is None:
        spec = importlib.util.find_spec(_entry_points()[name].partition(":")[0])
        path = Path(spec.origin) if spec and spec.origin else None
    try:
        docstring = ast.get_docstring(ast.parse(path.read_bytes())) if path else None
    except (SyntaxError, ValueError) as error:
        return visible(f"{path} is no Python: {_one_line(error)}")
    return visible((docstring or name).strip().splitlines()[0])


def get(name: str, **options: Any) -> Strategy:
    """The strategy ``name`` with its options; UserError for an unknown name or option."""
    if name not in names():
        raise unknown_strategy(name)
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


def unknown_strategy(name: str, where: str = "") -> UserError:
    """The error for a strategy that does not exist: the nearest, and where all of them come from."""
    known = names()
    close = closest(name, known)
    hint = f"did you mean '{close}' ({origin(close)})? " if close else ""
    origins = {origin(each): [other for other in known if origin(other) == origin(each)] for each in known}
    valid = "; ".join(f"{', '.join(sorted(group))} ({source})" for source, group in origins.items())
    place = f" in {where}" if where else ""
    return UserError(f"unknown strategy '{name}'{place}: {hint}valid: {valid}")


def add_plugin(path: Path) -> str:
    """Make the one strategy class of a Python file known; returns its name."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"plug-in {path}: no such file")
    kind = _class_in(_module_from(path), f"plug-in {path}")
    name = getattr(kind, "name", None)
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]{0,63}", name):
        raise UserError(
            f"plug-in {path}: class {kind.__name__} has no name; expected a ClassVar 'name' of letters, "
            "digits, '-', '_' and '.'"
        )
    if name in BUILT_IN or name in _entry_points() or _plugins.get(name, path) != path:
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
    """Every declared family of published files by name: built in, then those of plug-ins."""
    modules = sorted(module.name for module in pkgutil.iter_modules(strategies.published.__path__))
    imported = [importlib.import_module(f"strategies.published.{name}") for name in modules]
    found = [getattr(module, "PUBLISHED", None) for module in imported]
    foreign = [_load(name).published for name in names() if name not in BUILT_IN]
    return {published.family: published for published in (*found, *foreign) if published}


def published_of(name: str) -> Published | None:
    """Naming of the published files of strategy ``name``, if there are any."""
    return next((found for found in families().values() if found.strategy == name), None)


@lru_cache(maxsize=1)
def _entry_points() -> dict[str, str]:
    found: dict[str, str] = {}
    for point in entry_points(group=GROUP):
        taken = "built in" if point.name in BUILT_IN else found.get(point.name, point.value)
        if taken != point.value:
            raise UserError(f"entry point {point.value}: the strategy name '{point.name}' is taken ({taken})")
        found[point.name] = point.value
    return found


def _load(name: str) -> type[Strategy]:
    if name in _plugins:
        return _class_in(_module_from(_plugins[name]), f"plug-in {_plugins[name]}")
    target = f"strategies.{name}" if name in BUILT_IN else _entry_points()[name]
    module_name, _, attribute = target.partition(":")
    where = f"strategy '{name}' ({origin(name)})"
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise UserError(f"{where} cannot be imported: {_one_line(error)}") from error
    kind = _class_in(module, where, attribute)
    if kind.name != name:
        raise UserError(f"{where} calls itself '{kind.name}'; expected the name of its entry point")
    return kind


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


def _module_from(path: Path) -> Any:
    # Two files of one name in two folders are two modules.
    name = f"pardec_plugin_{path.stem}_{crc32(str(path).encode()):08x}"
    if name in sys.modules and sys.modules[name].__file__ == str(path):
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"plug-in {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(f"plug-in {path}: {_one_line(error)}") from error
    return module


def _class_in(module: Any, where: str, attribute: str = "") -> type[Strategy]:
    """The class called ``attribute``, or the only concrete one that the module itself defines."""
    from strategies.decoding.base import Strategy

    own = [
        value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, Strategy)
        and (name == attribute if attribute else value.__module__ == module.__name__)
    ]
    concrete = [kind for kind in own if not getattr(kind, "__abstractmethods__", None)]
    if len(concrete) == 1:
        return concrete[0]
    wanted = f"a concrete Strategy class {attribute}" if attribute else "one concrete Strategy class"
    missing = "".join(
        f"; {kind.__name__} lacks {', '.join(sorted(kind.__abstractmethods__))}"
        for kind in own
        if kind not in concrete
    )
    raise UserError(f"{where}: expected {wanted}, found {len(concrete)}{missing}")
