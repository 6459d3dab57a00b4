"""The two classifiers behind the quality metrics of the controlled tier.

The feature network gives the features of the Fréchet and kernel distances, precision and recall, and the
logits of the score; the judge, of another architecture and never used for a distance, says whether a sample
shows the class it was asked for.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.checkpoints import CheckpointError
from backbones.weights import ZOO, load_half, load_into
from harness.images.data import to_float
from harness.weights.finite import check_finite
from pardec.errors import UserError


@dataclass(frozen=True)
class ClassifierConfig:
    architecture: Literal["residual", "plain"] = "residual"
    width: int = 32
    features: int = 64
    classes: int = 10
    dropout: float = 0.2


class FeatureNetwork(nn.Module):
    """uint8 images [B, 3, H, W] to penultimate features [B, D] and logits [B, classes].

    The features come from a linear product that is only normalised, with no rectifier after it, so a Gaussian
    is a fair summary of them.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.sha256 = ""
        """Of the weights file; empty for a network that was not loaded from one."""
        trunk, channels = (_residual if config.architecture == "residual" else _plain)(config.width)
        self.trunk = trunk
        self.project = nn.Linear(channels, config.features, bias=False)
        self.normalise = nn.BatchNorm1d(config.features)
        self.classify = nn.Linear(config.features, config.classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.from_floats(to_float(images))

    def from_floats(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The same for images in [-1, 1]."""
        features = self.normalise(self.project(self.trunk(images)))  # [B, D]
        return features, self.classify(F.dropout(features, self.config.dropout, self.training))


class _Block(nn.Module):
    """Two normalised convolutions around a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_convolution(width, width), nn.ReLU(), _convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


def _convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


def _residual(width: int) -> tuple[nn.Sequential, int]:
    """Residual blocks at a half, a quarter and an eighth of the size, then the mean over the image."""
    layers: list[nn.Module] = []
    inputs = 3
    for outputs in (width, 2 * width, 4 * width):
        layers += [_convolution(inputs, outputs, stride=2), nn.ReLU(), _Block(outputs)]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), inputs


def _plain(width: int) -> tuple[nn.Sequential, int]:
    """Three 5 x 5 convolutions with pooling, then all places of a 4 x 4 map side by side."""
    layers: list[nn.Module] = []
    inputs = 3
    for outputs in (width // 2, width, 2 * width):
        layers += [_convolution(inputs, outputs, size=5), nn.SiLU(), nn.MaxPool2d(2)]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten()), inputs * 16


def load_features(path: Path | None = None) -> FeatureNetwork:
    """The frozen feature network, by default the zoo's.

    Raises:
        UserError: the file is missing, truncated, or holds something else, NaN among it.
    """
    return _load(path or ZOO / "features.safetensors")


def load_judge(path: Path | None = None) -> FeatureNetwork:
    """The frozen judge, by default the zoo's; errors as in ``load_features``."""
    return _load(path or ZOO / "judge.safetensors")


def _load(path: Path) -> FeatureNetwork:
    try:
        weights = load_half(path)
        with torch.random.fork_rng(devices=[]):  # the first values, soon replaced, are drawn at random
            network = FeatureNetwork(ClassifierConfig(**weights.config))
        load_into(network, weights, path)
    except (CheckpointError, ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise UserError(f"no classifier can be read from '{path}': {error}") from error
    check_finite(network, f"'{path}': weight")
    network.sha256 = weights.sha256
    return network


@torch.inference_mode()
def predictions(network: FeatureNetwork, images: Tensor, batch: int = 500) -> Tensor:
    """The likeliest class of each uint8 image [n, 3, H, W], int64 [n]."""
    device = next(network.parameters()).device
    return torch.cat([network(part.to(device))[1].argmax(1).cpu() for part in images.split(batch)])


def accuracy(network: FeatureNetwork, images: Tensor, labels: Tensor) -> float:
    """Share of uint8 images [n, 3, H, W] whose likeliest class is their label."""
    return (predictions(network, images) == labels).float().mean().item()
