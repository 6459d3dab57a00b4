"""The published tokenizers by name: built for a grid, filled from the authors' file or at random."""

from pathlib import Path

import torch

from backbones.checkpoints import load_published, read_state_dict
from backbones.empty import with_memory, without_memory
from backbones.published_tokenizers import tokenizer_info
from backbones.tokenizers import vq_llamagen, vq_maskgit, vq_var
from backbones.tokenizers.base import Tokenizer
from backbones.tokenizers.vq import PublishedTokenizer, initialise_tokenizer

_FAMILIES = {
    family.family: family for family in (vq_llamagen.PUBLISHED, vq_maskgit.PUBLISHED, vq_var.PUBLISHED)
}


def tokenizer_families() -> list[str]:
    return sorted(_FAMILIES)


def tokenizer_by_family(family: str) -> PublishedTokenizer:
    """The naming of a family of tokenizers, e.g. ``vq-llamagen``; KeyError for another."""
    return _FAMILIES[family]


def build_tokenizer(name: str, grid: tuple[int, int]) -> Tokenizer:
    """The published tokenizer ``name`` for images of ``grid`` codes, on the default device, with the
    framework's first weights; KeyError for an unknown name."""
    info = tokenizer_info(name)
    return _FAMILIES[info.family].build(info.names, (grid[0] * info.stride, grid[1] * info.stride))


def load_published_tokenizer(
    name: str, grid: tuple[int, int], path: Path, weights: str | None = None
) -> Tokenizer:
    """The tokenizer with the weights of the authors' file, in float32, frozen and in evaluation mode.

    weights: which of several in the file. Raises CheckpointError where the file is missing, damaged, or
    holds something else.
    """
    state = read_state_dict(path, weights)
    tokenizer = _empty(name, grid)
    load_published(tokenizer, state, _FAMILIES[tokenizer_info(name).family].keys, str(path))
    return tokenizer.requires_grad_(False).eval()


def random_tokenizer(name: str, grid: tuple[int, int], seed: int) -> Tokenizer:
    """The tokenizer with the first weights of ``seed``, in float32, frozen and in evaluation mode."""
    tokenizer = _empty(name, grid)
    initialise_tokenizer(tokenizer, torch.Generator().manual_seed(seed))
    return tokenizer.requires_grad_(False).eval()


def _empty(name: str, grid: tuple[int, int]) -> Tokenizer:
    """Memory without values: first weights that are soon replaced cost time and global random numbers."""
    with without_memory():
        tokenizer = build_tokenizer(name, grid)
    return with_memory(tokenizer, "cpu")
