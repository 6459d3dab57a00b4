"""Precision of the products of training: bfloat16 where the machine has instructions for it, else float32."""

from collections.abc import Mapping
from typing import Any

import torch


def product_type(device: torch.device | str = "cpu") -> torch.dtype:
    """Of products in training on ``device``: bfloat16, or float32 on a CPU that has no instructions for it.

    Such a CPU does a bfloat16 product through float32, at a fraction of the speed of a plain float32 one.
    """
    if torch.device(device).type != "cpu" or does_bfloat16(capabilities()):
        return torch.bfloat16
    return torch.float32


def taught_products(device: torch.device | str = "cpu") -> torch.autocast:
    """The context of a loss whose products are of ``product_type``; weights stay float32."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, product_type(device) == torch.bfloat16)


def capabilities() -> Mapping[str, Any]:
    """Of the CPU, by name; none where this torch does not tell."""
    told: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return told


def does_bfloat16(known: Mapping[str, Any]) -> bool:
    """Whether a CPU of these capabilities multiplies bfloat16; one of which nothing is known is taken to."""
    return not known or any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def type_name(dtype: torch.dtype) -> str:
    """As cards name it: ``bfloat16``."""
    return str(dtype).removeprefix("torch.")
