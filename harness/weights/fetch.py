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

    @property
    def url(self) -> str:
        return f"{HUB}{self.repository}/resolve/main/{self.file}"


def published_files() -> dict[str, PublishedFile]:
    """Every published file by the name of its network or tokenizer."""
    infos: list[PresetInfo | TokenizerInfo] = [
        *map(preset_info, preset_names()),
        *map(tokenizer_info, tokenizer_names()),
    ]
    return {
        info.name: PublishedFile(info.name, info.title, info.files.removeprefix(HUB), info.file, info.licence)
        for info in infos
        if info.file is not None
    }


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
