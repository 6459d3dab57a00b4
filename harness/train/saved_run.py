"""A run on disk: read only by what is made of the same, and set aside where it is begun anew."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from backbones.checkpoints import UNREADABLE
from harness.train.mark_recipe import goes_on
from pardec.errors import UserError, one_line


def read_run(path: Path, content: Mapping[str, Any], device: torch.device | str) -> dict[str, Any] | None:
    """The saved state of a run made of ``content``; None where there is no file.

    UserError for what can't be read as a saved run, and for a run that is made of something else.
    """
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        stored = dict(json.loads(state["content"])) if isinstance(state, dict) and "content" in state else {}
    except (pickle.UnpicklingError, TypeError, *UNREADABLE) as error:
        raise UserError(f"'{path}' can't be read as a saved run: {one_line(error)[:120]}") from None
    if not stored:
        raise UserError(f"'{path}' is a run of an older pardec, or none; choose another --runs")
    if not goes_on(stored, content):
        differing = [key for key in stored if not goes_on(stored[key], content.get(key))]
        named = f" ({', '.join(differing)} differ)" if differing else ""
        raise UserError(
            f"'{path}' is a run of another recipe, trunk, tokenizer or data set{named}; choose another --runs"
        )
    return state


def set_aside(path: Path) -> None:
    """Keep a saved run, where there is one, under another name, in place of what was kept there before."""
    if path.is_file():
        path.replace(path.with_name("run-before.pt"))
