"""The published files: which there are, and where they lie; without torch."""

import os
from dataclasses import dataclass
from pathlib import Path

from backbones.published_tokenizers import TokenizerInfo, tokenizer_info, tokenizer_names
from pardec.errors import UserError, unknown
from strategies.decoding.presets import PresetInfo, preset_info, preset_names

HUB = "https://huggingface.co/"


@dataclass(frozen=True)
class PublishedFile:
    """A file of the authors; ``name`` is the network's or tokenizer's, ``repository`` the hub's."""

    name: str
    title: str
    repository: str
    file: str
    licence: str
    """Of the weights, as far as the authors state it."""
    part_of: str = ""
    """The preset that decodes it together with others, where ``name`` is no preset itself."""
    shapes_of: str = ""
    """The preset of whose shapes it then is."""

    @property
    def url(self) -> str:
        return f"{HUB}{self.repository}/resolve/main/{self.file}"


def published_files() -> dict[str, PublishedFile]:
    """Every published file by the name of its network or tokenizer."""
    infos: list[PresetInfo | TokenizerInfo] = [
        *map(preset_info, preset_names()),
        *map(tokenizer_info, tokenizer_names()),
    ]
    found: dict[str, PublishedFile] = {}
    for info in infos:
        parts = info.parts() if isinstance(info, PresetInfo) else {"network": (info.files, info.file)}
        several = info.networks if isinstance(info, PresetInfo) else {}
        if several and not (isinstance(info, PresetInfo) and info.role_files):
            continue  # the files are those of other presets
        for role, (files, file) in parts.items():
            name = f"{info.name}-{role}" if several else info.name
            if file is not None:
                part = (info.name, several[role]) if several else ()
                repository = files.removeprefix(HUB)
                found[name] = PublishedFile(name, info.title, repository, file, info.licence, *part)
    return found


def file_names(name: str) -> list[str]:
    """The names under which the files of a preset stand: its own, or one for each of its networks."""
    info = preset_info(name) if name in preset_names() else None
    if info is None or not info.networks:
        return [name]
    if info.role_files:
        return [f"{name}-{role}" for role in info.role_files]
    return list(dict.fromkeys(info.networks.values()))


def published_file(name: str) -> PublishedFile:
    """The file of a network or tokenizer; UserError where it is unknown or was not published."""
    files = published_files()
    if name not in files:
        if name in preset_names():
            raise UserError(f"network '{name}': its authors published no file")
        raise unknown("published file", name, files)
    return files[name]


def cache_folder() -> Path:
    """Where files come to lie: ``PARDEC_CHECKPOINTS``, else pardec/checkpoints in the user's cache."""
    chosen = os.environ.get("PARDEC_CHECKPOINTS")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "pardec" / "checkpoints"


def folders(first: str | Path | None) -> list[Path]:
    """Where files are looked for, in this order."""
    return [*([] if first is None else [Path(first)]), cache_folder()]


def locate(file: str, first: str | Path | None = None) -> Path | None:
    """The file in the first of ``folders(first)`` that has it."""
    return next((folder / file for folder in folders(first) if (folder / file).is_file()), None)
