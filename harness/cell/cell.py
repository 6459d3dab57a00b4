"""One cell of a sweep: all that determines a result, as plain data with a content key. Without torch."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.machine.environment import usable_cores
from pardec.errors import UserError, nearest, unknown
from pardec.files import path_of, spec_of
from pardec.hashing import text_key
from results.fields import Applies
from results.rules import TUNED
from results.settings import DECLARED, Settings
from strategies.decoding import registry
from strategies.decoding.presets import is_trained

ANCHORS = {
    "real": "Real images",
    "reconstruction": "Reconstructions",
    "reconstruction-multiscale": "Reconstructions, multi-scale",
    "reconstruction-robust": "Reconstructions, robust decoder",
}
"""Rows that decode nothing: the held-out images, and what a tokenizer makes of them."""
RECONSTRUCTING = {
    "reconstruction": "tokenizer",
    "reconstruction-multiscale": "multiscale",
    "reconstruction-robust": "robust",
}
"""Anchor -> the zoo's tokenizer that its images went through."""
ZOO_PREFIX = "zoo/"
LOSSINESS_IMAGES = 200
RANDOM = "random"
"""The checkpoint of a network that keeps its initial weights."""
SCORING = tuple(name for name, one in DECLARED.items() if one.scores)
"""Fields that only judge images, and the roles of their hashes."""
DOWNLOAD = "download"
"""The ``inception`` or ``clean_inception`` that is fetched from its authors if it isn't there."""
NETWORK_PIN = "network"
_KEY_VERSION = 3
"""Raised where equal settings no longer give equal results, so that a sweep runs them again."""


@dataclass(frozen=True)
class Cell(Settings):
    """One setting of one strategy, with the key of its result."""

    @property
    def is_anchor(self) -> bool:
        return self.strategy in ANCHORS

    @property
    def is_published(self) -> bool:
        """Whether the network is a published preset, with a tokenizer and a reference of its own."""
        return bool(self.network) and not self.is_anchor and not self.network.startswith(ZOO_PREFIX)

    @property
    def key(self) -> str:
        """16 hexadecimal digits that name the result: equal for cells that measure the same thing."""
        content = self.content()
        text = json.dumps({"schema": _KEY_VERSION} | content, sort_keys=True, separators=(",", ":"))
        return text_key(text)

    @property
    def scale(self) -> float | None:
        """The guidance scale, None without guidance; ValueError while it is still to be looked up."""
        if isinstance(self.guidance, str):
            raise ValueError(f"guidance '{self.guidance}' was not looked up")
        return self.guidance

    def content(self) -> dict[str, Any]:
        """What the result depends on, a pinned file by its hash alone: wherever it lies, it is the same."""
        content = dataclasses.asdict(self)
        for name, one in DECLARED.items():
            if not one.in_key or (one.late and content[name] == one.before):
                del content[name]
            elif one.pin in self.pins and content[name] not in (None, RANDOM):
                content[name] = "file"
        if is_trained(self.network) and NETWORK_PIN in self.pins:
            content["network"] = "file"
        if self.is_published and self.roles:
            content["roles"] = dict.fromkeys(self.roles, "file")
        return content

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    def settings(self) -> dict[str, Any]:
        """All of the cell as JSON holds it: what a row stores."""
        values: dict[str, Any] = json.loads(self.to_json())
        return values

    @classmethod
    def from_json(cls, text: str) -> "Cell":
        return cls.from_settings(json.loads(text))

    @classmethod
    def from_settings(cls, values: Mapping[str, Any]) -> "Cell":
        """The cell of what ``settings`` gave."""
        return cls(**{**values, "plugin": tuple(values.get("plugin", ()))})

    def describe(self) -> str:
        """The setting in a few words, for progress lines and messages."""
        name = self.label or ANCHORS.get(self.strategy, self.strategy)
        if self.is_anchor:
            return name
        defaults = default_values()
        told = ("strategy", "network", "options") if self.label else ("strategy", "network")
        parts = [
            one.shown(setting, getattr(self, setting))
            for setting, one in DECLARED.items()
            if one.joins and setting not in told and getattr(self, setting) != defaults[setting]
        ]
        return ", ".join([name, *parts])


def network_pin(role: str) -> str:
    """What the hash of one of several networks is called."""
    return f"{NETWORK_PIN} {role}"


def default_values() -> dict[str, Any]:
    """Every setting that has one -> its default."""
    return {
        one.name: one.default if one.default_factory is dataclasses.MISSING else one.default_factory()
        for one in dataclasses.fields(Cell)
        if one.name != "strategy"
    }


APPLIES: dict[Applies, Callable[[Cell], bool]] = {
    "always": lambda cell: True,
    "decoding": lambda cell: not cell.is_anchor,
    "guidance": lambda cell: not cell.is_anchor and cell.guidance is not None,
    "power-cosine": lambda cell: (
        not cell.is_anchor and cell.guidance is not None and cell.guidance_schedule == "power-cosine"
    ),
    "random weights": lambda cell: not cell.is_anchor and cell.checkpoint == RANDOM,
}
"""Whether a setting that declares the key can matter to a cell."""


def normalised(cell: Cell) -> Cell:
    """The cell with every setting that can't matter at its default, so that equal work has one key."""
    changes: dict[str, Any] = {"threads": cell.threads or usable_cores()}
    if cell.is_anchor or cell.is_published:
        changes["lossiness_images"] = 0 if cell.is_anchor else cell.lossiness_images or 0
    elif cell.lossiness_images is None:
        changes["lossiness_images"] = min(LOSSINESS_IMAGES, cell.images)
    if cell.is_anchor:
        changes["network"] = "none"
    if cell.is_anchor or cell.strategy in registry.BUILT_IN:
        changes["plugin"] = ()  # what another strategy of the same sweep needs
    defaults = default_values()
    unused = [name for name, one in DECLARED.items() if not APPLIES[one.applies](cell)]
    if cell.tokenizer_checkpoint == RANDOM and not cell.is_published:
        unused.append("tokenizer_checkpoint")
    return dataclasses.replace(cell, **changes | {name: defaults[name] for name in unused})


def cell_of_settings(values: Mapping[str, Any]) -> Cell:
    """The normalised cell of checked settings.

    One that decodes ``once`` makes one batch of images by default.
    """
    if values.get("once") and "images" not in values:
        values = {**values, "images": values.get("batch", Cell.batch)}
    return normalised(Cell(**values))


def unscored(cell: Cell) -> Cell:
    """The cell without what only judges its images: it makes the same ones."""
    pins = {role: digest for role, digest in cell.pins.items() if role not in SCORING}
    changes: dict[str, Any] = dict.fromkeys(SCORING)
    return dataclasses.replace(cell, pins=pins, **changes)


RULES = {name: one.rule for name, one in DECLARED.items() if one.rule is not None}
"""What a sweep file may set."""


def checked(key: str, value: Any, where: str) -> Any:
    """``value`` as a cell holds it; UserError that opens with ``where`` for unknown keys and wrong values."""
    rule = RULES.get(key)
    if rule is None:
        raise unknown("key", key, RULES, where)
    if not rule.fits(value):
        hint = f"; {nearest(value, rule.choices)}" if rule.choices and isinstance(value, str) else ""
        raise UserError(f"{where}: {key} = {_toml(value)}: expected {rule.expectation}{hint}")
    if key == "guidance" and (value is False or value == TUNED):
        return value or None
    if DECLARED[key].pin:
        return str(path_of(value)) if value.startswith("~") else value
    if key == "data":
        return spec_of(value)
    return float(value) if rule.real else value


def _toml(value: Any) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        return repr(value)
