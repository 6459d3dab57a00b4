"""One cell of a sweep: all that determines a result, as plain data with a content key. Without torch."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.machine.environment import usable_cores
from pardec.errors import UserError, nearest, unknown
from pardec.hashing import text_key
from results.annotations import is_whole

ANCHORS = {"real": "Real images", "reconstruction": "Reconstructions"}
"""Rows that decode nothing: the held-out images, and what the tokenizer makes of them."""
SCHEDULES = ("constant", "linear", "power-cosine")
DTYPES = ("float32", "bfloat16", "float16")
PRODUCTS = ("plain", "packed", "auto")
ZOO_PREFIX = "zoo/"
LOSSINESS_IMAGES = 200
RANDOM = "random"
"""The checkpoint of a network that keeps its initial weights."""
_FILES = {
    "checkpoint": "network",
    "tokenizer_checkpoint": "tokenizer",
    "reference": "reference",
    "inception": "inception",
    "clean_reference": "clean_reference",
    "clean_inception": "clean_inception",
}
"""Fields that name a file, and the roles of their hashes."""
SCORING = ("reference", "inception", "clean_reference", "clean_inception")
"""Fields that only judge images, and the roles of their hashes."""
DOWNLOAD = "download"
"""The ``inception`` or ``clean_inception`` that is fetched from its authors if it isn't there."""
_KEY_VERSION = 3
"""Raised where equal settings no longer give equal results, so that a sweep runs them again."""
_NOT_IN_KEY = ("label", "zoo", "plugin", "timeout_s", "memory_limit_gb", "gated", "size", "checkpoints")


@dataclass(frozen=True)
class Cell:
    """One setting of one strategy. Fields that a strategy doesn't know are ``options``."""

    strategy: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """Strategy options that differ from those of the stored network."""
    network: str = ""
    """``zoo/NAME`` or a published preset; empty for the zoo's network of the strategy."""
    checkpoint: str | None = None
    """None for the zoo's weights, the path of a published file, or ``random``."""
    tokenizer_checkpoint: str | None = None
    """Weights of a published network's tokenizer: the path of a published file, ``random``, or None, where
    tokens stay tokens. The zoo's tokenizer has weights of its own, which ``random`` leaves as they are."""
    data: str = "mnist"
    """Where the reference images come from: ``mnist`` or ``imagefolder:PATH``."""
    reference: str | None = None
    """Path of the ADM npz that a published network's images are compared with; None: they are not scored."""
    inception: str | None = None
    """Path of the Inception weights behind that, or ``download``; None for the file where torch-fidelity
    keeps its own, if it is there."""
    clean_reference: str | None = None
    """Path of a folder of images, or of an npz of clean-fid's mu and sigma: what the images are compared with
    by clean-fid's own protocol."""
    clean_inception: str | None = None
    """Path of clean-fid's TorchScript Inception, or ``download``; None for ``inception-2015-12-05.pt`` where
    torch keeps downloaded files, if it is there."""
    steps: int | None = None
    """None for as many as the strategy can take."""
    guidance: float | None = None
    guidance_schedule: str = "constant"
    guidance_power: float = 1.0
    guidance_interval: int = -1
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    batch: int = 64
    images: int = 1000
    once: bool = False
    """Generate the images (by default one batch) in one pass and time that alone: no warm-up, no repeats, no
    other batch sizes."""
    evaluation_size: int | None = None
    """Side in pixels to which images are resized before they become bytes; None for their own."""
    dtype: str = "float32"
    device: str = "cpu"
    products: str = "plain"
    """``packed``: weights in the layout of the CPU's product kernel (``backbones.products``); ``auto``: that
    where device and dtype have it, else plain."""
    compile: bool = False
    """Run the trunks as compiled graphs."""
    cuda_graphs: bool = False
    """Record the trunk's passes on a CUDA device once, and replay them."""
    lossiness_images: int | None = None
    """Images from which the bits lost by decoding in groups are estimated; 0 for none, None for at
    most 200 of a zoo network and none of a published one."""
    seed: int = 0
    threads: int = 0
    """CPU threads; 0 for every core that this process may use."""
    timeout_s: float = 3600.0
    """Longest time that the cell may take, seconds."""
    memory_limit_gb: float | None = None
    """Most memory that the cell may ask for, 10^9 bytes: its process's data on the CPU, torch's share of the
    device on CUDA; None for no limit."""
    gated: bool = True
    """Whether the exit status of a sweep tells of this cell's failure."""
    size: str = ""
    """Size class of the network (B, L, XL), by which ``-k size=L`` takes one cell per method."""
    label: str = ""
    """Short display name; empty for the strategy's title and options."""
    checkpoints: str | None = None
    """Folder in which the published files of a network without ``checkpoint`` are looked for first."""
    zoo: str | None = None
    """Folder of trained weights; None for the one that ships."""
    plugin: tuple[str, ...] = ()
    """Strategy files to load first."""
    pins: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of every file that the result depends on, by role."""

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

    def content(self) -> dict[str, Any]:
        """What the result depends on, a pinned file by its hash alone: wherever it lies, it is the same."""
        content = dataclasses.asdict(self)
        for name in _NOT_IN_KEY:
            del content[name]
        for name, role in _FILES.items():
            if content[name] not in (None, RANDOM) and role in self.pins:
                content[name] = "file"
        # Settings that came later are left out at their defaults, so that earlier results keep their names.
        for name, default in (
            ("reference", None),
            ("inception", None),
            ("clean_reference", None),
            ("clean_inception", None),
            ("compile", False),
            ("cuda_graphs", False),
        ):
            if content[name] == default:
                del content[name]
        return content

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Cell":
        values = json.loads(text)
        return cls(**values | {"plugin": tuple(values["plugin"])})

    def describe(self) -> str:
        """The setting in a few words, for progress lines and messages."""
        name = self.label or ANCHORS.get(self.strategy, self.strategy)
        if self.is_anchor:
            return name
        parts = [name]
        if not self.label:
            parts += [f"{option}={value}" for option, value in sorted(self.options.items())]
        if self.steps is not None:
            parts.append(f"{self.steps} steps")
        if self.guidance is not None:
            parts.append(f"guidance {self.guidance:g}")
        if self.dtype != Cell.dtype:
            parts.append(self.dtype)
        if self.batch != Cell.batch:
            parts.append(f"batch {self.batch}")
        return ", ".join(parts)


def normalised(cell: Cell) -> Cell:
    """The cell with every setting that can't matter at its default, so that equal work has one key."""
    changes: dict[str, Any] = {"threads": cell.threads or usable_cores()}
    if cell.is_anchor or cell.is_published:
        changes["lossiness_images"] = 0 if cell.is_anchor else cell.lossiness_images or 0
    elif cell.lossiness_images is None:
        changes["lossiness_images"] = min(LOSSINESS_IMAGES, cell.images)
    defaults = {f.name: f.default for f in dataclasses.fields(Cell)}
    unused: tuple[str, ...] = ()
    if cell.is_anchor:
        changes |= {"network": "none", "options": {}, "dtype": "float32", "products": "plain"}
        unused = (
            "once",
            "evaluation_size",
            "checkpoint",
            "tokenizer_checkpoint",
            "reference",
            "inception",
            "clean_reference",
            "clean_inception",
            "steps",
            "guidance",
            "temperature",
            "top_k",
            "top_p",
            "batch",
            "seed",
            "compile",
            "cuda_graphs",
        )
    elif cell.tokenizer_checkpoint == RANDOM and not cell.is_published:
        unused = ("tokenizer_checkpoint",)
    changes |= {name: defaults[name] for name in unused}
    if cell.guidance is None or cell.is_anchor:
        names = ("guidance_schedule", "guidance_power", "guidance_interval")
        changes |= {name: defaults[name] for name in names}
    elif cell.guidance_schedule != "power-cosine":
        changes["guidance_power"] = defaults["guidance_power"]
    return dataclasses.replace(cell, **changes)


def unscored(cell: Cell) -> Cell:
    """The cell without what only judges its images: it makes the same ones."""
    pins = {role: digest for role, digest in cell.pins.items() if role not in SCORING}
    changes: dict[str, Any] = dict.fromkeys(SCORING)
    return dataclasses.replace(cell, pins=pins, **changes)


@dataclass(frozen=True)
class Rule:
    """What a value of a sweep file must be. Text is printable: it goes to terminals and into file names."""

    expectation: str
    fits: Callable[[Any], bool]
    choices: tuple[str, ...] = ()


def _is_number(value: Any) -> bool:
    return is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _whole(least: int, most: int | None = None) -> Rule:
    def fits(value: Any) -> bool:
        return is_whole(value) and value >= least and (most is None or value <= most)

    return Rule(f"a whole number of at least {least}" + (f" and at most {most:,}" if most else ""), fits)


def _number(expectation: str, fits: Callable[[float], bool]) -> Rule:
    return Rule(expectation, lambda value: _is_number(value) and fits(value))


def _text(expectation: str = "text", choices: tuple[str, ...] = ()) -> Rule:
    def fits(value: Any) -> bool:
        return isinstance(value, str) and value.isprintable() and (not choices or value in choices)

    return Rule(f"one of {', '.join(choices)}" if choices else expectation, fits, choices)


def _is_options(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(one, bool) or _is_number(one) or (isinstance(one, str) and one.isprintable())
        for one in value.values()
    )


RULES: dict[str, Rule] = {
    "strategy": _text("the name of a strategy or anchor"),
    "options": Rule("a table of strategy options: numbers, texts, true or false", _is_options),
    "network": _text("zoo/NAME or a published preset"),
    "checkpoint": _text("the path of a published file, or random"),
    "tokenizer_checkpoint": _text("the path of a published tokenizer's file, or random"),
    "data": _text("mnist or imagefolder:PATH"),
    "reference": _text("the path of an ADM reference npz"),
    "inception": _text("the path of Inception weights, or download"),
    "clean_reference": _text("the path of a folder of images or of an npz of clean-fid's mu and sigma"),
    "clean_inception": _text("the path of clean-fid's TorchScript Inception, or download"),
    "steps": _whole(1),
    "guidance": Rule("a number, or false for none", lambda value: value is False or _is_number(value)),
    "guidance_schedule": _text(choices=SCHEDULES),
    "guidance_power": _number("a number of at least 0", lambda value: value >= 0),
    "guidance_interval": _whole(-1),
    "temperature": _number("a number above 0", lambda value: value > 0),
    "top_k": _whole(0),
    "top_p": _number("a number above 0 and at most 1", lambda value: 0 < value <= 1),
    "batch": _whole(1, 10**6),
    "images": _whole(1, 10**8),
    "once": Rule("true or false", lambda value: isinstance(value, bool)),
    "evaluation_size": _whole(1, 4096),
    "lossiness_images": _whole(0, 10**8),
    "dtype": _text(choices=DTYPES),
    "device": _text("cpu, cuda or cuda:N"),
    "products": _text(choices=PRODUCTS),
    "compile": Rule("true or false", lambda value: isinstance(value, bool)),
    "cuda_graphs": Rule("true or false", lambda value: isinstance(value, bool)),
    "seed": _whole(0),
    "threads": _whole(0, 4096),
    "timeout_s": _number("a number above 0", lambda value: value > 0),
    "memory_limit_gb": _number("a number above 0", lambda value: value > 0),
    "gated": Rule("true or false", lambda value: isinstance(value, bool)),
    "size": _text(),
    "label": _text(),
}
"""What a sweep file may set."""
_REAL = ("guidance", "guidance_power", "temperature", "top_p", "timeout_s", "memory_limit_gb")


def checked(key: str, value: Any, where: str) -> Any:
    """``value`` as a cell holds it; UserError that opens with ``where`` for unknown keys and wrong values."""
    rule = RULES.get(key)
    if rule is None:
        raise unknown("key", key, RULES, where)
    if not rule.fits(value):
        hint = f"; {nearest(value, rule.choices)}" if rule.choices and isinstance(value, str) else ""
        raise UserError(f"{where}: {key} = {_toml(value)}: expected {rule.expectation}{hint}")
    if key == "guidance" and value is False:
        return None
    return float(value) if key in _REAL else value


def _toml(value: Any) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        return repr(value)
