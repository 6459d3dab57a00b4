"""Weights with a value that is no number, or that makes one, in otherwise whole files."""

import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file


def harmed_zoo(zoo: Path, folder: Path, name: str, key: str = "", value: float = torch.nan) -> Path:
    """A copy of a zoo whose file ``name`` has ``value`` in the first tensor called like ``key``."""
    copy = Path(shutil.copytree(zoo, folder / "zoo"))
    path = copy / f"{name}.safetensors"
    with safe_open(path, "pt") as file:
        header = file.metadata()
        tensors = {each: file.get_tensor(each) for each in file.keys()}  # noqa: SIM118
    chosen = next(each for each in tensors if key in each and tensors[each].is_floating_point())
    tensors[chosen].flatten()[0] = value
    save_file(tensors, path, header)
    return copy
