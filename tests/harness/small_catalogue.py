"""Presets from a file of the test's own, without torch: a worker reads its order before it imports that."""

from pathlib import Path

from backbones import published_tokenizers
from strategies.decoding import presets


def use_catalogue(file: Path, networks: Path | None = None) -> None:
    """Make the presets of this process those of a file and of its folder, or of another folder."""
    presets.TABLES, published_tokenizers.PRESETS = networks or file.parent, file
    for module in (presets, published_tokenizers):
        module._catalogue.cache_clear()
