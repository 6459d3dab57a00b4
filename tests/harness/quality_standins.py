"""Stand-ins of the quality tests: a network, pictures, and features made of given points."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness import quality as q


class TinyRandomConv(nn.Module):
    """Stand-in for the trained feature network: one fixed random convolution, 12 features, 10 logits."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 5, stride=4)
        self.head = nn.Linear(12, 10)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 4

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = torch.relu(self.conv(images.float() / 64 - 1))  # [B, 12, 7, 7]
        features = maps.mean(dim=(2, 3))  # [B, 12]
        return features, self.head(features)


def pictures(n: int, seed: int, brightness: int = 0) -> NDArray[np.uint8]:
    blocks = np.random.default_rng(seed).integers(0, 200, (n, 3, 8, 8))
    return (blocks.repeat(4, axis=2).repeat(4, axis=3) + brightness).astype(np.uint8)


def of_points(points: NDArray[Any], logits: NDArray[Any] | None = None) -> q.Features:
    values = np.asarray(points, dtype=np.float32)
    given = values if logits is None else np.asarray(logits, dtype=np.float32)
    return q.Features(values, given, "standin", "0" * 64)
