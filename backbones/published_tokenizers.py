"""What is known about the published tokenizers before one is built; imports no torch.

``backbones.tokenizers.published`` builds them.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

PRESETS = Path(__file__).parent / "presets.toml"


@dataclass(frozen=True)
class TokenizerInfo:
    """Facts about one published tokenizer.

    stride: pixels per code along each axis. parameters: counted from the published definition, without the
    training log that a file may carry. reported: the size as the paper prints it. file: the authors' weights
    in the repository ``files``, under the terms ``licence``. names: the authors' hyper-parameters that differ
    from their defaults.
    """

    name: str
    title: str
    family: str
    codes: int
    stride: int
    parameters: int
    reported: str | None
    paper: str
    files: str
    file: str
    licence: str
    names: Mapping[str, Any]


@lru_cache(maxsize=1)
def _catalogue() -> dict[str, TokenizerInfo]:
    with PRESETS.open("rb") as file:
        content = tomllib.load(file)
    return {
        name: TokenizerInfo(
            name=name,
            names=body["config"],
            reported=body.get("reported"),
            **{key: value for key, value in body.items() if key not in ("config", "reported")},
        )
        for name, body in content["tokenizer"].items()
    }


def tokenizer_names() -> list[str]:
    """Names of all published tokenizers, e.g. ``vq-llamagen``."""
    return list(_catalogue())


def tokenizer_info(name: str) -> TokenizerInfo:
    """Facts about a published tokenizer; KeyError for an unknown name."""
    return _catalogue()[name]
