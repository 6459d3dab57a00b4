"""Strategies by name: built-ins, entry points and plug-in files are found alike, and imported lazily."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import pkgutil
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints
from zlib import crc32

import strategies.published
from pardec.errors import UserError, closest, one_line, unknown, visible
from strategies.decoding import installed

if TYPE_CHECKING:
    from strategies.decoding.base import Strategy
    from strategies.published.naming import Published

GROUP = "pardec.strategies"
AUTO = "auto"
PAPERS = Path(__file__).parents[1]
FIRST = ("raster", "rar", "par", "lpd", "arpg", "randar")
"""They keep their places, and so their colours, whatever else comes; the others follow by name."""
_found = {path.stem.replace("_", "-"): path for path in PAPERS.glob("[a-z]*.py")}
BUILT_IN = (*FIRST, *sorted(_found.keys() - set(FIRST)))
"""Every file of ``strategies/`` is a strategy, named as the file."""
NAME = r"\w[\w.-]{0,63}"
CHARACTERS = "letters, digits, '-', '_' and '.'"
LONGEST_TITLE = 24
_plugins: dict[str, Path] = {}


def names() -> list[str]:
    """All strategy names, without importing any."""
    return [*BUILT_IN, *sorted({*_entry_points(), *_plugins} - set(BUILT_IN))]


def loadable() -> list[str]:
    """Names of the strategies that can be imported: what a package does wrong is no fault of the others."""
    return [*BUILT_IN, *(name for name, _ in _foreign())]


def trained() -> list[str]:
    """Names of the loadable strategies that have networks of their own."""
    return [name for name in loadable() if get(name).base is None]


def faults() -> list[tuple[str, str]]:
    """What packages declare in vain, and why. Names that ``names`` holds say themselves what is wrong."""
    points, unread = _read_entry_points()
    named = [(point.name, point.value, _unusable(point.name)) for point in points]
    found = {(name, f"entry point {value} is ignored: {why}") for name, value, why in named if why}
    packages = [(name, f"package {name} is ignored: {why}") for name, why in unread.items()]
    return [(visible(name), visible(reason)) for name, reason in [*sorted(found), *packages]]


def origin(name: str) -> str:
    """Where a strategy comes from, for messages and lists."""
    if name in BUILT_IN:
        return "built in"
    if name in _plugins:
        return str(_plugins[name])
    values = _entry_points()[name]
    return visible(f"entry point{'s' if len(values) > 1 else ''} {' and '.join(values)}")


def plugin_of(name: str) -> Path | None:
    """The file from which a strategy was added; None for built-ins and those of packages."""
    return _plugins.get(name)


def describe(name: str) -> str:
    """First line of the strategy file's docstring, read without importing it; or why it can't be imported."""
    path = _found.get(name) or _plugins.get(name)
    if path is None:
        value = _entry_points()[name][0]
        reason = _clash(name) or installed.why_not(value)
        if reason is not None:
            return visible(f"can't be imported ({origin(name)}): {reason}")
        path = installed.source_of(value)
    try:
        docstring = ast.get_docstring(ast.parse(path.read_bytes())) if path else None
    except (SyntaxError, ValueError, OSError) as error:
        return visible(f"{path} is no Python: {_one_line(error)}")
    return visible((docstring or name).strip().splitlines()[0])


def titles() -> dict[str, str]:
    """What every strategy calls itself where its file begins, in the order of ``names``; none is imported."""
    found = {name: describe(name).partition(":")[0] for name in names()}
    return {name: title if len(title) <= LONGEST_TITLE else name for name, title in found.items()}


def get(name: str, **options: Any) -> Strategy:
    """The strategy ``name`` with its options; UserError for an unknown name or option.

    What is left to measurement (``AUTO``) is at its default until it was measured.
    """
    if name not in names():
        raise unknown_strategy(name)
    kind = _load(name)
    valid = {field.name: field.default for field in dataclasses.fields(kind)}
    choices = get_type_hints(kind)
    left = {option for option, value in options.items() if value == AUTO and option in kind.timed_options}
    options = {option: value for option, value in options.items() if option not in left}
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


def owner(strategy: Strategy) -> Strategy:
    """The strategy whose trained networks this one decodes: itself, or its base, with common options."""
    if strategy.base is None:
        return strategy
    valid = {field.name for field in dataclasses.fields(_load(strategy.base))}
    shared = {field.name for field in dataclasses.fields(strategy)} & valid
    return get(strategy.base, **{name: getattr(strategy, name) for name in shared})


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
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise UserError(
            f"plug-in {path}: class {kind.__name__} has no name; expected a ClassVar 'name' of {CHARACTERS}"
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


def published_by(strategy: str) -> Published | None:
    """Naming of the published files of a strategy that is trained; None where there are none."""
    return next((one for one in families().values() if one.strategy == strategy), None)


def families() -> dict[str, Published]:
    """Every declared family of published files by name: built in, then those of plug-ins that load."""
    modules = sorted(module.name for module in pkgutil.iter_modules(strategies.published.__path__))
    imported = [importlib.import_module(f"strategies.published.{name}") for name in modules]
    found = [getattr(module, "PUBLISHED", None) for module in imported]
    families: dict[str, Published] = {}
    for published in (*found, *(kind.published for _, kind in _foreign())):
        if published:
            families.setdefault(published.family, published)
    return families


def _foreign() -> Iterator[tuple[str, type[Strategy]]]:
    """The strategies that aren't ours, without those that can't be imported."""
    for name in names():
        if name not in BUILT_IN:
            with suppress(UserError):
                yield name, _load(name)


@lru_cache(maxsize=1)
def _entry_points() -> dict[str, tuple[str, ...]]:
    """Names that packages give strategies -> what they stand for: several values where packages clash."""
    found: dict[str, tuple[str, ...]] = {}
    for point in _read_entry_points()[0]:
        if _unusable(point.name) is None and point.value not in found.get(point.name, ()):
            found[point.name] = (*found.get(point.name, ()), point.value)
    return found


def _read_entry_points() -> tuple[list[EntryPoint], dict[str, str]]:
    """Declared entry points, and the packages whose own can't be read."""
    try:
        return list(entry_points(group=GROUP)), {}
    except (TypeError, ValueError, LookupError, OSError):  # of any package, whatever it is for
        return installed.one_by_one(GROUP)


def _unusable(name: str) -> str | None:
    """Why a package can't give a strategy this name."""
    if name in BUILT_IN:
        return f"the strategy name '{name}' is taken (built in)"
    return None if re.fullmatch(NAME, name) else f"the name of a strategy has {CHARACTERS}"


def _clash(name: str) -> str | None:
    """Why none of several packages is asked for a name that all of them declare."""
    values = _entry_points()[name]
    if len(values) == 1:
        return None
    return f"{len(values)} packages declare it, {' and '.join(values)}; uninstall all but one"


def _load(name: str) -> type[Strategy]:
    if name in _plugins:
        return _class_in(_module_from(_plugins[name]), f"plug-in {_plugins[name]}")
    where = f"strategy '{name}' ({origin(name)})"
    clash = None if name in BUILT_IN else _clash(name)
    if clash is not None:
        raise UserError(f"{where} cannot be imported: {clash}")
    target = f"strategies.{_found[name].stem}" if name in BUILT_IN else _entry_points()[name][0]
    module_name, attribute = installed.parts(target)
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
