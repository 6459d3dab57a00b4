"""From rows of older schemas to today's: what each version added, and what older rows have in its place."""

from collections.abc import Callable
from typing import Any

_NUMBERS_SINCE_2 = (
    "warmup_s",
    "steady",
    "stopped_by",
    "paired",
    "latency_percentiles_s",
    "compile_s",
    "graphs",
    "energy_per_image_j",
    "calibration_s",
    "lossiness_bits",
)
"""Those whose absence needs a reason."""
_OTHERS_SINCE_2 = ("guidance_power", "tokens_sha256", "quality_replicates")


def _from_1(values: dict[str, Any]) -> dict[str, Any]:
    """Schema 2 adds how a time was measured, beside what, and what paired comparisons need."""
    added = {"size": ""} | values | dict.fromkeys((*_NUMBERS_SINCE_2, *_OTHERS_SINCE_2))
    known = values.get("unmeasured")
    if not isinstance(known, dict):
        return added
    return added | {"unmeasured": dict.fromkeys(_NUMBERS_SINCE_2, "not recorded before schema 2") | known}


def _from_2(values: dict[str, Any]) -> dict[str, Any]:
    """Schema 3 can tell recorded passes from compiled ones; before, there were none."""
    return {"cuda_graphs": False} | values


def _from_3(values: dict[str, Any]) -> dict[str, Any]:
    """Schema 4 has the training seed of a network, and the files of clean-fid's own protocol."""
    return {"training_seed": None, "clean_reference": None, "clean_protocol": None} | values


UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1, 2: _from_2, 3: _from_3}
"""``UPGRADES[v]`` turns the JSON object of schema v into that of schema v + 1."""
