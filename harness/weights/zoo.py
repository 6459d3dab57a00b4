"""The zoo: small trained networks as NAME.safetensors with a card NAME.json. Cards are read without torch."""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import backbones
from backbones.config import NetworkConfig, TrunkConfig, network_config
from harness.cell.cell import ZOO_PREFIX
from pardec.errors import UserError, nearest
from pardec.files import read_text
from pardec.hashing import text_key
from results.annotations import is_whole
from strategies.decoding import registry

SHIPPED = Path(backbones.__file__).parent / "zoo"
SHARED = ("tokenizer", "features", "judge")
"""Files that every cell of the controlled tier uses."""
OTHER_TOKENIZERS = ("multiscale", "robust")
"""Files that cells of some strategies and sweeps use."""
MARKS = "marks"
"""Folder of a zoo with networks of other marks than that which all have reached: ``zoo/marks/raster-2x``."""


@dataclass(frozen=True)
class Card:
    """What is known about a stored network before its weights are read."""

    name: str
    weights: Path
    strategy: str
    options: Mapping[str, Any]
    network: NetworkConfig
    content: Mapping[str, Any]
    """The whole card."""

    @property
    def training_seed(self) -> int | None:
        """Of its recipe, None where the card has none."""
        recipe = self.content.get("recipe")
        seed = recipe.get("seed") if isinstance(recipe, Mapping) else None
        return seed if is_whole(seed) else None

    @property
    def mark(self) -> int | None:
        """Of its training, None where it has none."""
        mark = self.content.get("mark")
        return mark if is_whole(mark) else None

    @property
    def training_images(self) -> int | None:
        """Images behind the network, None where the card doesn't say."""
        images = self.content.get("images_trained")
        return images if is_whole(images) else None

    @property
    def learning(self) -> dict[str, Any]:
        """How the network learned: whose it is, and the curves of its run, in nats a token over images."""
        curves = {name: self.content.get(name) or [] for name in ("marks", "train_loss")}
        return {"strategy": self.strategy, **curves}


_MARK = re.compile(r"(.+)-(\d+)x")
_SEED = re.compile(r"-seed\d+$")


def folder_of(zoo: str | Path | None) -> Path:
    return SHIPPED if zoo is None else Path(zoo)


def file_stem(
    strategy: str, training_seed: int, size: str = "", options: Mapping[str, Any] = MappingProxyType({})
) -> str:
    """What a network is called: ``lpd``, by its training seed ``lpd-seed1``, by its size ``var-small``, by
    options of its strategy ``ctf-clusters4``."""
    stem = "-".join(
        [strategy, *([size] if size else []), *(f"{key}{value}" for key, value in options.items())]
    )
    return stem if training_seed == 0 else f"{stem}-seed{training_seed}"


def names(zoo: str | Path | None = None) -> list[str]:
    """Networks with a card in a zoo folder, those of earlier marks aside."""
    cards = (path for path in folder_of(zoo).glob("*.json") if path.stem not in (*SHARED, *OTHER_TOKENIZERS))
    return sorted(path.stem for path in cards if path.with_suffix(".safetensors").is_file())


def marks(stem: str, zoo: str | Path | None = None) -> list[str]:
    """The networks of a run's marks that stand in a zoo folder, by rising mark: ``marks/lpd-1x``, ``lpd``."""
    of_run = [(mark, f"{MARKS}/{of}-{mark}x") for of, mark in _of_marks(zoo) if of == stem]
    own = read_card(stem, zoo).mark if stem in names(zoo) else None
    return [name for _, name in sorted([*of_run, *([] if own is None else [(own, stem)])])]


def with_marks(zoo: str | Path | None = None) -> list[str]:
    """What the networks in the folder of marks are called: ``lpd`` for ``marks/lpd-1x``."""
    return sorted({stem for stem, _ in _of_marks(zoo)})


def _of_marks(zoo: str | Path | None) -> list[tuple[str, int]]:
    """Name and mark of each."""
    cards = (folder_of(zoo) / MARKS).glob("*.json")
    found = [_MARK.fullmatch(path.stem) for path in cards if path.with_suffix(".safetensors").is_file()]
    return [(match[1], int(match[2])) for match in found if match]


def first_of(network: str) -> str:
    """The network of the first training seed and the last mark that is trained as this one."""
    stem = network.removeprefix(ZOO_PREFIX).removeprefix(f"{MARKS}/")
    match = _MARK.fullmatch(stem) if stem != network.removeprefix(ZOO_PREFIX) else None
    return ZOO_PREFIX + _SEED.sub("", match[1] if match else stem)


def read_card(network: str, zoo: str | Path | None = None) -> Card:
    """The card of ``zoo/NAME``; UserError where it or its weights are missing or can't be read."""
    name = network.removeprefix(ZOO_PREFIX)
    if Path(name).name != name.removeprefix(f"{MARKS}/"):
        raise UserError(f"network '{network}': expected {ZOO_PREFIX}NAME or {ZOO_PREFIX}{MARKS}/NAME")
    weights = folder_of(zoo) / f"{name}.safetensors"
    path = weights.with_suffix(".json")
    for file in (weights, path):
        if not file.is_file():
            raise UserError(f"network '{network}': no file '{file}'; {_advice(name, zoo)}")
    try:
        content = json.loads(read_text(path))
        config = network_config(content["network"])
        card = Card(name, weights, content["strategy"], dict(content["options"]), config, content)
        _check_card(card)
        return card
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise UserError(f"card '{path}' can't be read: {type(error).__name__}: {error}") from None


def _advice(name: str, zoo: str | Path | None) -> str:
    """How to come by the network, or which there are, where nothing is trained under its name."""
    if name.startswith(f"{MARKS}/"):
        match = _MARK.fullmatch(name.removeprefix(f"{MARKS}/"))
        stem = match[1] if match else name.removeprefix(f"{MARKS}/")
        return f"marks that stand: {', '.join(marks(stem, zoo)) or 'none'}; {_advice(stem, zoo)}"
    strategy, _, seed = name.rpartition("-seed")
    if not strategy or not seed.isdecimal():
        strategy, seed = name, ""
    if strategy.removesuffix("-small") not in registry.names():
        return nearest(name, names(zoo))
    return f"make it with: {_command(strategy, zoo, seed)}"


def _command(what: str, zoo: str | Path | None, seed: str = "") -> str:
    """The command that trains a network or a shared file into the zoo."""
    small = what.endswith("-small") and what not in registry.names()
    words = ["pardec", "train", *([what.removesuffix("-small"), "--size", "small"] if small else [what])]
    words += ["--seed", seed] if seed else []
    plugin = registry.plugin_of(what)
    words += [] if plugin is None else ["--plugin", str(plugin)]
    words += [] if zoo is None else ["--out", str(zoo)]
    return shlex.join(words)


def _check_card(card: Card) -> None:
    """ValueError for values that a card can't have."""
    counts = {"parameters": card.content["parameters"], "steps_trained": card.content.get("steps_trained", 0)}
    counts |= {key: getattr(card.network.trunk, key) for key in ("depth", "width", "heads", "mlp_width")}
    counts |= {key: getattr(card.network, key) for key in ("codes", "classes")}
    counts |= dict(zip(("rows of the grid", "columns of the grid"), card.network.grid, strict=True))
    for key, value in counts.items():
        if not is_whole(value) or value < 0:
            raise ValueError(f"{key} must be a whole number of at least 0, not {value!r:.80}")
    if not isinstance(card.strategy, str):
        raise ValueError(f"strategy must be a name, not {card.strategy!r:.80}")


def shared_file(role: str, zoo: str | Path | None = None) -> Path:
    """The weights of a tokenizer, the feature network or the judge; UserError where they are missing.

    A folder without ``tokenizer`` holds networks on the codes of the shipped one: what it lacks is shipped.
    """
    folder = folder_of(zoo)
    own = any(_weights_of(name, folder).is_file() for name in (role, "tokenizer"))
    return own_file(role, zoo if own else None)


def own_file(role: str, zoo: str | Path | None = None) -> Path:
    """As ``shared_file``, in the folder itself."""
    path = _weights_of(role, folder_of(zoo))
    if not path.is_file():
        raise UserError(f"{role}: no file '{path}'; make it with: {_command(role, zoo)}")
    return path


def _weights_of(name: str, folder: Path) -> Path:
    return folder / f"{name}.safetensors"


def trunk_hash(config: TrunkConfig) -> str:
    """Names a trunk configuration: 16 hexadecimal digits."""
    return hash_of(asdict(config))


def hash_of(trunk: Mapping[str, Any]) -> str:
    """``trunk_hash`` of a configuration as a card holds it: with the settings that there were by then."""
    return text_key(json.dumps(trunk, sort_keys=True))
