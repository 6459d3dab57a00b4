"""Energy of a GPU from NVML's total counter; other devices don't tell.

The counter (millijoules, Volta and later) refreshes slowly, so a window lasts at least a second. Written for
``pynvml`` (package ``nvidia-ml-py``), which is optional. Not run on a GPU yet.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

WINDOW_S = 1.0


@dataclass(frozen=True)
class EnergyMeter:
    """``read_j``: joules since some fixed moment; None where they can't be had, and ``reason`` says why."""

    read_j: Callable[[], float] | None
    reason: str = ""

    @classmethod
    def of(cls, device: torch.device) -> "EnergyMeter":
        if device.type != "cuda":
            return cls(None, f"no energy counter for device '{device}'")
        try:
            nvml: Any = importlib.import_module("pynvml")
        except ImportError:
            return cls(None, "package nvidia-ml-py is not installed")
        try:
            nvml.nvmlInit()
            handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
            nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except nvml.NVMLError as error:
            return cls(None, f"NVML: {error}")
        return cls(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3)

    def per_image_j(self, run: Callable[[], float], images: int) -> float | None:
        """Joules for one image, over runs of ``images`` that fill a window; ``run`` returns its seconds."""
        if self.read_j is None:
            return None
        start, seconds, runs = self.read_j(), 0.0, 0
        while seconds < WINDOW_S:
            seconds += run()
            runs += 1
        return (self.read_j() - start) / (runs * images)
