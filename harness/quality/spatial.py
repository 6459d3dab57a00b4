"""Spatial features of the Inception network, behind sFID (Nash et al., arXiv 2103.03841).

The ADM evaluator reads ``mixed_6/conv`` of the 2015 TensorFlow graph, a map of 17 x 17, and keeps its first 7
channels: 2,023 values. The graph's blocks ``mixed`` to ``mixed_10`` are ``Mixed_5b`` to ``Mixed_7c`` of the
PyTorch ports in order, so ``mixed_6`` is ``Mixed_6d``, and ``conv``, the first of a block, is its branch of
one 1 x 1 convolution, after its rectifier. That identity follows from names, order and shapes; it could not
be checked against the TensorFlow graph, whose file was not at hand. The published sFID of
``admnet_guided_upsampled_imagenet256.npz``, 6.14043, would show it.
"""

import dataclasses

import numpy as np
import torch
from torch import Tensor, nn

from harness.quality.sets import Extractor, Features

CHANNELS = 7
SIDE = 17
WIDTH = CHANNELS * SIDE * SIDE


class WithSpatial(nn.Module):
    """torch-fidelity's Inception, its pooled features followed by the spatial ones of the same pass.

    uint8 [B, 3, H, W] -> (float [B, 2048 + 2023], logits float [B, 1008]).
    """

    def __init__(self, inception: nn.Module) -> None:
        super().__init__()
        self.inception = inception
        self._maps: list[Tensor] = []
        inception.get_submodule("Mixed_6d.branch1x1").register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._maps.append(output[:, :CHANNELS])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self._maps.clear()
        pooled, logits = self.inception(images)
        # TensorFlow flattens rows, columns, channels; the order matters beside statistics from a file.
        spatial = self._maps.pop().permute(0, 2, 3, 1).flatten(1)  # [B, 2023]
        return torch.cat([pooled, spatial], dim=1), logits


def with_spatial(inception: Extractor) -> Extractor:
    """The same extractor with the spatial features behind its own."""
    assert isinstance(inception.network, nn.Module)
    return dataclasses.replace(inception, network=WithSpatial(inception.network).eval())


def split(both: Features) -> tuple[Features, Features]:
    """Pooled features [n, 2048] and spatial ones [n, 2023] of an extraction by ``with_spatial``."""
    pooled, spatial = np.split(both.features, [both.features.shape[1] - WIDTH], axis=1)
    return dataclasses.replace(both, features=pooled), dataclasses.replace(both, features=spatial)
