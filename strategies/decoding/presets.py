"""The published networks by name: the same classes as ours, with another configuration.

Names and facts are read from ``strategies/published/*.toml`` without importing torch; only ``preset`` builds.
A network that was trained on the codes of a published tokenizer goes by the path of its weights, whose header
tells the same facts.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backbones.config import network_config
from backbones.headers import stored_header
from backbones.published_tokenizers import tokenizer_info
from pardec.errors import UserError, one_line, unknown
from strategies.decoding import registry

if TYPE_CHECKING:
    from backbones.config import NetworkConfig
    from strategies.decoding.base import Strategy

TRAINED = ".safetensors"
"""How the name of a network ends that is the path of its weights."""
TABLES = Path(__file__).parents[1] / "published"


@dataclass(frozen=True)
class PublishedRun:
    """One setting with which the authors drew samples.

    options: of our strategy. sampling: the authors' arguments under their names, for ``Published.setting``.
    strategy: a training-free one, where samples were drawn by that.
    """

    steps: int
    options: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    strategy: str | None = None


@dataclass(frozen=True)
class PresetInfo:
    """What is known about a published network before it is built.

    parameters: counted from the published definition. reported: the size as the paper prints it. file: the
    authors' checkpoint in the repository ``files``, or None where none was published. licence: of the
    weights, as far as the authors state it. tokenizer: whose codes the network speaks
    (``backbones.published_tokenizers``). names: the authors' hyper-parameters that differ from their
    defaults.
    """

    name: str
    title: str
    family: str
    strategy: str
    tokenizer: str
    image_size: int
    parameters: int
    reported: str | None
    paper: str
    files: str
    licence: str
    file: str | None
    runs: tuple[PublishedRun, ...]
    names: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the strategy, where the family has no naming of its own."""
    naming: str | None = None
    """The family in whose hyper-parameters ``names`` are told, where no file of these networks is known."""
    networks: Mapping[str, str] = field(default_factory=dict)
    """Where several networks decode together: role -> the preset that each is of; ``names`` are then options
    of the strategy."""
    role_files: Mapping[str, str] = field(default_factory=dict)
    """Role -> file in ``files``, where they are other weights than the presets' own."""

    def parts(self) -> dict[str, tuple[str, str | None]]:
        """Repository and file of every network by its role; one alone has the role ``network``."""
        if not self.networks:
            return {"network": (self.files, self.file)}
        if self.role_files:
            return {role: (self.files, file) for role, file in self.role_files.items()}
        infos = {role: preset_info(name) for role, name in self.networks.items()}
        return {role: (info.files, info.file) for role, info in infos.items()}


@lru_cache(maxsize=1)
def _catalogue() -> dict[str, PresetInfo]:
    tables = [tomllib.loads(path.read_text(encoding="utf-8")) for path in TABLES.glob("*.toml")]
    infos: dict[str, PresetInfo] = {}
    for table in sorted(tables, key=_place):
        infos |= _presets_of(table)
    return infos


def _place(table: Mapping[str, Any]) -> int:
    """Families follow one another as their strategies do."""
    return min(registry.BUILT_IN.index(family["strategy"]) for family in table["family"].values())


def _presets_of(content: Mapping[str, Any]) -> dict[str, PresetInfo]:
    infos: dict[str, PresetInfo] = {}
    for key, model in content["preset"].items():
        family = content["family"][model["family"]]
        sizes = {size: body for size, body in model.items() if size.isdigit()}
        for size, body in sizes.items():
            name = f"{key}-{size}" if len(sizes) > 1 else key
            infos[name] = PresetInfo(
                name=name,
                title=model["title"],
                family=model["family"],
                strategy=family["strategy"],
                tokenizer=model.get("tokenizer", family["tokenizer"]),
                image_size=int(size),
                parameters=body.get("parameters", model.get("parameters")),
                reported=model.get("reported"),
                paper=family["paper"],
                files=body.get("files", family["files"]),
                licence=family["licence"],
                file=None if model.get("networks") else body.get("file"),
                runs=tuple(PublishedRun(**run) for run in body.get("settings", ())),
                names={**model["config"], **body["config"]},
                options=model.get("options", {}),
                naming=family.get("naming"),
                networks=model.get("networks", {}),
                role_files=body.get("file", {}) if model.get("networks") else {},
            )
    return infos


def preset_names() -> list[str]:
    """Names of all published networks, e.g. ``llamagen-l-256``; imports no torch."""
    return list(_catalogue())


def preset_info(name: str) -> PresetInfo:
    """Facts about a published network, without building it; UserError for an unknown name, and for a file
    that isn't of training at scale."""
    if is_trained(name):
        return _trained(name)[2]
    infos = _catalogue()
    if name not in infos:
        raise unknown("network", name, infos)
    return infos[name]


def is_trained(name: str) -> bool:
    """Whether a network's name is the path of weights that training at scale wrote."""
    return name.endswith(TRAINED)


def trained_header(name: str) -> dict[str, Any]:
    """What the weights of such a network say of themselves; UserError for another file."""
    if not Path(name).is_file():
        raise UserError(f"network '{name}': no such file")
    try:
        return stored_header(Path(name))
    except ValueError as error:
        raise UserError(f"network '{name}' {one_line(error)[:120]}") from None


def _trained(name: str) -> tuple[Strategy, NetworkConfig, PresetInfo]:
    header = trained_header(name)
    if "tokenizer" not in header:
        raise UserError(
            f"network '{name}': not trained on the codes of a published tokenizer; a network of a zoo is "
            "named zoo/NAME, with zoo = its folder"
        )
    try:
        strategy = registry.get(header["strategy"], **header["options"])
        config, tokenizer = network_config(header["network"]), tokenizer_info(header["tokenizer"])
        return strategy, config, _info_of(name, header, strategy, config.grid[0] * tokenizer.stride)
    except (LookupError, TypeError, AttributeError) as error:
        raise UserError(f"network '{name}': its header can't be read: {one_line(error)[:120]}") from None


def _info_of(name: str, header: Mapping[str, Any], strategy: Strategy, image_size: int) -> PresetInfo:
    return PresetInfo(
        name=name,
        title=f"{strategy.title}, {Path(name).parent.name or Path(name).stem}",
        family="",
        strategy=strategy.name,
        tokenizer=header["tokenizer"],
        image_size=image_size,
        parameters=header["parameters"],
        reported=None,
        paper=strategy.paper,
        files="",
        licence="",
        file=name,
        runs=(),
        names={},
    )


def trunk_presets(name: str) -> list[PresetInfo]:
    """Published networks whose trunk is ``name``: a network's name, or it without its image size.

    UserError for an unknown name.
    """
    found = [info for info in _catalogue().values() if name in (info.name, _trunk(info))]
    if not found:
        raise unknown("trunk", name, {_trunk(info) for info in _catalogue().values()})
    return found


def _trunk(info: PresetInfo) -> str:
    return info.name.removesuffix(f"-{info.image_size}")


def preset(name: str) -> tuple[Strategy, NetworkConfig, PresetInfo]:
    """A published network: its strategy, its configuration and what is known about it.

    Raises UserError for an unknown name, and for a file that isn't of training at scale.
    """
    if is_trained(name):
        return _trained(name)
    info = preset_info(name)
    if info.networks:
        *others, (_, last) = ((role, preset(one)[1]) for role, one in info.networks.items())
        return registry.get(info.strategy, **info.names), replace(last, others=tuple(others)), info
    published = registry.by_family(info.naming or info.family)
    strategy, config = published.configure({**published.defaults, **info.names})
    return registry.get(info.strategy, **info.options) if info.naming else strategy, config, info
