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

from strategies.decoding.errors import UserError, unknown

SHEETS = Path(__file__).with_name("cards.toml")
HERE = "here"
"""The name of the card that ``pardec calibrate`` measures."""
_KEYS = {
    "title": str,
    "hardware": list,
    "bandwidth_bytes_per_s": float,
    "product_flops_per_s": dict,
    "launch_s": float,
    "source": str,
}
_OPTIONAL = {"memory_bytes": float, "threads": int, "unchecked": list, "asynchronous": bool}


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
    launch_s: float
    """Host seconds of one operation that does next to nothing."""
    source: str
    memory_bytes: float | None = None
    threads: int | None = None
    """CPU threads that the rates were measured with; None for a GPU."""
    unchecked: tuple[str, ...] = ()
    """Figures that were not read on the maker's own data sheet."""
    asynchronous: bool = True
    """Whether the host runs ahead of the device, so that launching hides behind working (GPUs)."""
    _curves: dict[str, tuple[list[float], list[float]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def product_rate(self, precision: str, rows: int) -> float:
        """FLOP/s of a matrix product of ``rows`` rows: between the measured row counts by the straight line
        on logarithmic axes, outside them that of the nearest. UserError for a precision without a rate."""
        if precision not in self._curves:
            rates = self.product_flops_per_s.get(precision)
            if rates is None:
                raise UserError(
                    f"device card '{self.name}' has no rate for '{precision}'; it has "
                    f"{', '.join(self.product_flops_per_s)}"
                )
            measured = sorted(rates)
            self._curves[precision] = (
                [math.log(at) for at in measured],
                [math.log(rates[at]) for at in measured],
            )
        xs, ys = self._curves[precision]
        x = math.log(max(rows, 1))
        right = bisect.bisect_left(xs, x)
        if right == 0 or right == len(xs):
            return math.exp(ys[min(right, len(ys) - 1)])
        share = (x - xs[right - 1]) / (xs[right] - xs[right - 1])
        return math.exp(ys[right - 1] + share * (ys[right] - ys[right - 1]))

    def is_of(self, hardware: str | None, threads: int | None) -> bool:
        """Whether the card describes a machine whose CPU or GPU has this name and uses so many threads."""
        named = hardware is not None and any(hardware.startswith(name) for name in self.hardware)
        return named and self.threads in (None, threads)


def user_cards() -> Path:
    """The file of measured cards: $PARDEC_CARDS, else ``pardec/cards.toml`` in the user's data folder."""
    if chosen := os.environ.get("PARDEC_CARDS"):
        return Path(chosen)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "pardec" / "cards.toml"


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


def read_cards(path: Path) -> dict[str, DeviceCard]:
    """The cards of a TOML file; UserError naming file, card and key for what is wrong."""
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
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
    rates = {
        precision: _rates(rate, f"{where}: {precision}")
        for precision, rate in values["product_flops_per_s"].items()
    }
    lists = {key: tuple(values.get(key, ())) for key in ("hardware", "unchecked")}
    return DeviceCard(**{**values, "name": name, "product_flops_per_s": rates, **lists})


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


def _rates(value: Any, where: str) -> dict[int, float]:
    table = value if isinstance(value, dict) else {"1": value}
    try:
        rates = {int(rows): float(rate) for rows, rate in table.items()}
    except (TypeError, ValueError, OverflowError):
        rates = {}
    if not rates or min(rates) < 1 or not all(map(_is_rate, rates.values())):
        raise UserError(f"{where} = {value!r}: expected FLOP/s, or a table of rows = FLOP/s")
    return rates


def write_card(card: DeviceCard, path: Path) -> None:
    """Put ``card`` into the file of measured cards, in place of one of its name; whole or not at all."""
    kept = read_cards(path) if path.is_file() else {}
    kept.pop(card.name, None)  # the latest comes last, and wins
    text = "# Device cards measured by `pardec calibrate`.\n\n"
    text += "\n".join(_to_toml(one) for one in [*kept.values(), card])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(text)
        os.replace(partial, path)
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
        f"launch_s = {card.launch_s!r}",
        f"asynchronous = {str(card.asynchronous).lower()}",
        f"unchecked = {quoted(list(card.unchecked))}",
        f"source = {quoted(card.source)}",
    ]
    for precision, rates in card.product_flops_per_s.items():
        lines.append(f"\n[{quoted(card.name)}.product_flops_per_s.{quoted(precision)}]")
        lines += [f"{rows} = {rate!r}" for rows, rate in sorted(rates.items())]
    return "\n".join(lines) + "\n"
