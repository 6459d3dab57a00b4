"""Device cards: what a device can do at best, from its data sheet or measured on it. Without torch."""

import bisect
import json
import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.machine.environment import environment
from pardec.errors import UserError, unknown
from pardec.files import path_of, read_text, write_whole

SHEETS = Path(__file__).with_name("cards.toml")
HERE = "here"
"""The name of the card that ``pardec calibrate`` measures."""
_KEYS = {
    "title": str,
    "hardware": list,
    "bandwidth_bytes_per_s": float,
    "product_flops_per_s": dict,
    "launch_s": object,
    "source": str,
}
_OPTIONAL = {
    "memory_bytes": float,
    "threads": int,
    "unchecked": list,
    "asynchronous": bool,
    "kernel_bytes": dict,
    "attention": str,
}


@dataclass(frozen=True)
class RateCurve:
    """Between measured points the straight line on logarithmic axes, outside them the nearest one's value."""

    xs: tuple[float, ...]
    ys: tuple[float, ...]

    @classmethod
    def through(cls, measured: Mapping[int, float]) -> "RateCurve":
        points = sorted(measured)
        return cls(tuple(map(math.log, points)), tuple(math.log(measured[at]) for at in points))

    def at(self, position: float) -> float:
        x = math.log(max(position, 1))
        right = bisect.bisect_left(self.xs, x)
        if right == 0 or right == len(self.xs):
            return math.exp(self.ys[min(right, len(self.ys) - 1)])
        share = (x - self.xs[right - 1]) / (self.xs[right] - self.xs[right - 1])
        return math.exp(self.ys[right - 1] + share * (self.ys[right] - self.ys[right - 1]))


@dataclass(frozen=True)
class DeviceCard:
    """Rates of one device; bytes and FLOPs over them give the shortest time that work can take."""

    name: str
    title: str
    hardware: tuple[str, ...]
    """Beginnings of the device's name, as ``environment`` records it."""
    bandwidth_bytes_per_s: float
    product_flops_per_s: Mapping[str, Mapping[int, float]]
    """Precision -> rows of a product -> FLOP/s. A data sheet's one peak stands at row 1, hence for all."""
    launch_s: Mapping[int, float]
    """Bytes that pass through the caches per operation -> host seconds of one that does next to nothing. A
    CPU that has just read weights finds its own code in no near cache; one figure, at 1 byte, holds for all.
    """
    source: str
    memory_bytes: float | None = None
    threads: int | None = None
    """CPU threads that the rates were measured with; None for a GPU."""
    unchecked: tuple[str, ...] = ()
    """Figures that were not read on the maker's own data sheet."""
    asynchronous: bool = True
    """Whether the host runs ahead of the device, so that launching hides behind working (GPUs)."""
    kernel_bytes: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """Precision -> rows of a product -> what a CPU's product library keeps for each shape that it has met."""
    attention: str = "mask"
    """What is faster where rows see different numbers of slots: one call behind a ``mask``, or ``parts``."""
    _curves: dict[str, RateCurve] = field(default_factory=dict, init=False, repr=False, compare=False)

    def product_rate(self, precision: str, rows: int) -> float:
        """FLOP/s of a matrix product of ``rows`` rows; UserError for a precision without a rate."""
        rates = self.product_flops_per_s.get(precision)
        if rates is None:
            raise UserError(
                f"device card '{self.name}' has no rate for '{precision}'; it has "
                f"{', '.join(self.product_flops_per_s)}"
            )
        return self._read("rate " + precision, rates, rows)

    def launch_seconds(self, bytes_per_launch: float) -> float:
        """Host seconds of one operation amid others that read or write so many bytes each."""
        return self._read("launch", self.launch_s, bytes_per_launch)

    def kernel_size(self, precision: str, rows: int) -> float | None:
        """Bytes kept for one shape of product; None where the card doesn't say."""
        sizes = self.kernel_bytes.get(precision)
        return None if sizes is None else self._read("kernel " + precision, sizes, rows)

    def _read(self, name: str, measured: Mapping[int, float], at: float) -> float:
        if name not in self._curves:
            self._curves[name] = RateCurve.through(measured)
        return self._curves[name].at(at)

    def is_of(self, hardware: str | None, threads: int | None) -> bool:
        """Whether the card describes a machine whose CPU or GPU has this name and uses so many threads."""
        named = hardware is not None and any(hardware.startswith(name) for name in self.hardware)
        return named and self.threads in (None, threads)


def user_cards() -> Path:
    """The file of measured cards: $PARDEC_CARDS, else ``pardec/cards.toml`` in the user's data folder."""
    if chosen := os.environ.get("PARDEC_CARDS"):
        return path_of(chosen)
    return path_of(os.environ.get("XDG_DATA_HOME") or "~/.local/share") / "pardec" / "cards.toml"


def cards() -> dict[str, DeviceCard]:
    """All cards by name: the data sheets', then those measured here."""
    measured = read_cards(user_cards()) if user_cards().is_file() else {}
    return {**_sheets(), **measured}


@lru_cache(maxsize=1)
def _sheets() -> dict[str, DeviceCard]:
    return read_cards(SHEETS)


def card_named(name: str) -> DeviceCard:
    """The card ``name``; UserError with the nearest name where there is none."""
    known = cards()
    if name == HERE and name not in known:
        own = [card for card in known.values() if card.name.startswith(f"{HERE}-")]
        if len(own) == 1:
            return own[0]
        raise UserError(f"device card '{HERE}': {len(own)} are measured; run 'pardec calibrate' or name one")
    if name not in known:
        raise unknown("device card", name, known)
    return known[name]


def card_of(hardware: str | None, threads: int | None) -> DeviceCard | None:
    """The card of a machine, measured ones first; None where there is none."""
    fitting = [card for card in cards().values() if card.is_of(hardware, threads)]
    return fitting[-1] if fitting else None


def card_here(device: str, threads: int) -> DeviceCard | None:
    """The card of this machine's ``device`` (cpu, cuda, cuda:N); None where it was never calibrated."""
    if device == "cpu":
        return card_of(environment()["host_cpu"], threads)
    return card_of(environment(device)["gpu"], None)


def read_cards(path: Path) -> dict[str, DeviceCard]:
    """The cards of a TOML file; UserError naming file, card and key for what is wrong."""
    try:
        content = tomllib.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"device cards '{path}' can't be read: {error}") from None
    return {name: _card(name, values, f"device cards '{path}' [{name}]") for name, values in content.items()}


def _card(name: str, values: Any, where: str) -> DeviceCard:
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected a table")
    for key in values:
        if key not in _KEYS and key not in _OPTIONAL:
            raise unknown("key", key, [*_KEYS, *_OPTIONAL], where)
    for key, kind in (_KEYS | _OPTIONAL).items():
        if key not in values:
            if key in _KEYS:
                raise UserError(f"{where}: key '{key}' is missing")
            continue
        value = values[key]
        fits = _is_rate(value) if kind is float else isinstance(value, kind)
        if not fits:
            raise UserError(f"{where}: {key} = {value!r}: expected {_WORDS[kind]}")
    if values.get("attention", "mask") not in ("mask", "parts"):
        raise UserError(f"{where}: attention = {values['attention']!r}: expected mask or parts")
    curves = {
        key: {
            precision: _points(points, f"{where}: {precision}", "rows", unit)
            for precision, points in values.get(key, {}).items()
        }
        for key, unit in (("product_flops_per_s", "FLOP/s"), ("kernel_bytes", "bytes"))
    }
    launch_s = _points(values["launch_s"], f"{where}: launch_s", "bytes", "seconds")
    lists = {key: tuple(values.get(key, ())) for key in ("hardware", "unchecked")}
    return DeviceCard(**{**values, "name": name, "launch_s": launch_s, **curves, **lists})


def _is_rate(value: Any) -> bool:
    """Whether ``value`` is a number of a size that any device may have, so that its logarithm is harmless."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 1e-15 <= value <= 1e30


_WORDS = {
    float: "a number above 0 (1e-15 to 1e30)",
    int: "a whole number",
    str: "text",
    list: "a list",
    dict: "a table",
    bool: "true or false",
}


def _points(value: Any, where: str, x: str, y: str) -> dict[int, float]:
    """The points of a curve: a table, or one number for all of it."""
    table = value if isinstance(value, dict) else {"1": value}
    try:
        points = {int(at): float(reached) for at, reached in table.items()}
    except (TypeError, ValueError, OverflowError):
        points = {}
    if not points or min(points) < 1 or not all(map(_is_rate, points.values())):
        raise UserError(f"{where} = {value!r}: expected {y}, or a table of {x} = {y}")
    return points


def write_card(card: DeviceCard, path: Path) -> None:
    """Put ``card`` into the file of measured cards, in place of one of its name; whole or not at all."""
    kept = read_cards(path) if path.is_file() else {}
    kept.pop(card.name, None)  # the latest comes last, and wins
    text = "# Device cards measured by `pardec calibrate`.\n\n"
    text += "\n".join(_to_toml(one) for one in [*kept.values(), card])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise UserError(f"device cards '{path}' can't be written: {error.strerror}") from None


def _to_toml(card: DeviceCard) -> str:
    quoted = json.dumps  # a JSON string without control characters is a TOML string
    lines = [f"[{quoted(card.name)}]", f"title = {quoted(card.title)}"]
    lines += [f"hardware = {quoted(list(card.hardware))}"]
    if card.threads is not None:
        lines.append(f"threads = {card.threads}")
    if card.memory_bytes is not None:
        lines.append(f"memory_bytes = {card.memory_bytes!r}")
    lines += [
        f"bandwidth_bytes_per_s = {card.bandwidth_bytes_per_s!r}",
        f"asynchronous = {str(card.asynchronous).lower()}",
        f"unchecked = {quoted(list(card.unchecked))}",
        f"source = {quoted(card.source)}",
        f"attention = {quoted(card.attention)}",
    ]
    lines += _curve_to_toml(f"{quoted(card.name)}.launch_s", card.launch_s)
    for key in ("product_flops_per_s", "kernel_bytes"):
        for precision, points in getattr(card, key).items():
            lines += _curve_to_toml(f"{quoted(card.name)}.{key}.{quoted(precision)}", points)
    return "\n".join(lines) + "\n"


def _curve_to_toml(name: str, points: Mapping[int, float]) -> list[str]:
    return [f"\n[{name}]", *(f"{at} = {reached!r}" for at, reached in sorted(points.items()))]
