"""Host arrays on a device, without waiting for what the device is at."""

import numpy as np
import torch
from torch import Tensor


def upload(values: np.ndarray, device: torch.device) -> Tensor:
    """``values`` on ``device``; on the CPU the same memory.

    A copy out of pageable memory would wait until all that was asked of a GPU is done.
    """
    held = torch.as_tensor(values)
    return (held.pin_memory() if device.type == "cuda" else held).to(device, non_blocking=True)
