"""Settings as one types them: ``strategy=lpd,steps=10,label="a, b"``; a value in quotes keeps its commas."""

import dataclasses
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from harness.cell.cell import RULES, Cell, cell_of_settings, checked
from pardec.errors import UserError, unknown
from strategies.decoding import registry

_QUOTED = r"""(?:"[^"]*"|'[^']*')"""
_ONE = rf"""(?:{_QUOTED}|[^,|"']+)\s*"""
_PIECE = re.compile(rf"[=<>]\s*(?:{_ONE}\|\s*)*{_QUOTED}\s*(?:\|\s*{_ONE})*(?=,|$)|,")


@dataclass(frozen=True)
class Word:
    """A value as it was typed; quoted: it is text, whatever it looks like."""

    text: str
    quoted: bool = False

    @classmethod
    def of(cls, text: str) -> "Word":
        return cls(text[1:-1], True) if re.fullmatch(_QUOTED, text) else cls(text)

    def value(self) -> Any:
        """A number, true or false where it is one, else the text."""
        if self.quoted:
            return self.text
        if self.text.lower() in ("true", "false"):
            return self.text.lower() == "true"
        for number in (int, float):
            try:
                return number(self.text)
            except ValueError:
                continue
        return self.text


def pieces(text: str) -> list[str]:
    """What stands between commas, but for those in quoted values."""
    found, start = [], 0
    for match in _PIECE.finditer(text):
        if match[0] == ",":
            found.append(text[start : match.start()])
            start = match.end()
    return [*found, text[start:]]


def alternatives(text: str) -> list[str]:
    """The values that ``|`` separates, without their quotes."""
    whole = Word.of(text)
    return [whole.text] if whole.quoted else [Word.of(part.strip()).text for part in text.split("|")]


def settings(text: str, where: str) -> dict[str, Word]:
    """Keys and values of ``KEY=VALUE,KEY=VALUE``; UserError that opens with ``where`` for anything else."""
    found: dict[str, Word] = {}
    for piece in pieces(text):
        key, equals, value = (part.strip() for part in piece.partition("="))
        if not equals or not key or not value:
            raise UserError(
                f"{where}: '{piece}' is no setting; expected KEY=VALUE, a value with commas in quotes: "
                'KEY="a,b"'
            )
        if key in found:
            raise UserError(f"{where}: '{key}' is set twice; expected once")
        found[key] = Word.of(value)
    return found


def setting_value(key: str, word: Word) -> Any:
    """What a cell's setting is to be: text where its rule takes any, so that ``label=2024`` is a label."""
    if word.quoted or RULES[key].fits(word.text):
        return word.text
    if key == "guidance" and word.text.lower() == "none":
        return False
    return word.value()


def options_of(
    strategy: str, given: dict[str, Word], where: str, others: Collection[str] = ()
) -> dict[str, Any]:
    """Options of a strategy by their types; UserError for a key that is none of its options.

    others: keys that would be right, too, for the message.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(registry.get(strategy))}
    for key in given:
        if key not in defaults:
            raise unknown("key", key, [*defaults, *others], where)
    found = {
        key: word.text if isinstance(defaults[key], str) else word.value() for key, word in given.items()
    }
    for key, value in found.items():
        if not RULES["options"].fits({key: value}):
            raise UserError(
                f"{where}: {key} = {given[key].text}: expected a finite number, text, true or false"
            )
    return found


def inline_cell(
    text: str,
    changes: Mapping[str, Any],
    anchors: Collection[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> Cell:
    """The cell of ``lpd,steps=10,order=random``, or of ``strategy=lpd,steps=10,order=random``; keys beyond a
    cell's own are strategy options. ``anchors``: those that may stand for a strategy; ``defaults``: checked
    settings of what the text leaves open."""
    where = f"cell '{text}'"
    first, comma, rest = text.partition(",")
    if "=" not in first:
        text = f"strategy={first}{comma}{rest}"
    given = settings(text, where)
    own = set(RULES) - {"options"}
    values = {
        key: checked(key, setting_value(key, given.pop(key)), where) for key in list(given) if key in own
    }
    if "strategy" not in values:
        raise UserError(f"{where}: no strategy; valid: {', '.join(registry.names())}")
    values = {**(defaults or {}), **values}
    if values["strategy"] in anchors:
        if given:
            raise unknown("key", next(iter(given)), own, where)
        return cell_of_settings({**values, **changes})
    if values["strategy"] not in registry.names():
        raise registry.unknown_strategy(values["strategy"], where)
    typed = options_of(values["strategy"], given, where, own)
    return cell_of_settings({**values, **({"options": typed} if typed else {}), **changes})
