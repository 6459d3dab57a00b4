"""Image sets as the metrics see them: features read once, and the reference."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from harness.quality import kernel, neighbours
from harness.quality.errors import Unmeasurable
from pardec.errors import NotFinite

Network = Callable[[Tensor], tuple[Tensor, Tensor]]


def array_sha256(array: NDArray[Any]) -> str:
    """Hash of shape, type and content, so equal bytes of another shape differ."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def weights_sha256(network: nn.Module) -> str:
    """Hash over names, shapes and values of a state dict, in the order of the names."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        digest.update(f"{key}{array_sha256(value.detach().cpu().float().numpy())}".encode())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Extractor:
    """A feature network and the name its distances carry (``fashion`` -> ``fd_fashion@N``).

    network: uint8 [B, 3, H, W] -> (features float [B, D], logits float [B, C]).
    """

    name: str
    sha256: str
    network: Network

    @classmethod
    def of(cls, name: str, network: nn.Module, sha256: str | None = None) -> "Extractor":
        """Name a network; without a hash of its file, the hash is taken over its weights."""
        network.eval().requires_grad_(False)
        return cls(name, sha256 or weights_sha256(network), network)


@dataclass(frozen=True, eq=False)
class Features:
    """What an extractor says about one image set.

    features: float32 [n, D]; logits: float32 [n, C]; extractor, extractor_sha256: who says it;
    images_sha256: hash of the uint8 images, empty where the features did not come from :func:`extract`.
    """

    features: NDArray[np.float32]
    logits: NDArray[np.float32]
    extractor: str
    extractor_sha256: str
    images_sha256: str = ""

    def __post_init__(self) -> None:
        for what, array in (("features", self.features), ("logits", self.logits)):
            if array.ndim != 2 or array.dtype != np.float32:
                raise ValueError(f"{what} must be float32 [n, width], got {array.dtype} {array.shape}")
            broken = int((~np.isfinite(array)).any(axis=1).sum())
            if broken:
                raise NotFinite(f"{what} of {broken} of {len(array)} images are not finite")
        if len(self.features) != len(self.logits):
            raise ValueError(f"{len(self.features)} rows of features but {len(self.logits)} of logits")

    @property
    def n(self) -> int:
        return len(self.features)


def extract(
    images: NDArray[np.uint8] | Tensor,
    extractor: Extractor,
    batch: int = 256,
    device: str | torch.device = "cpu",
) -> Features:
    """Run the extractor once over an image set; every metric reads the result.

    images: uint8 [n, 3, H, W].
    """
    pixels = torch.as_tensor(images)
    return extract_parts([pixels.cpu().numpy()], len(pixels), extractor, batch, device)


def extract_parts(
    parts: Iterable[NDArray[np.uint8]],
    total: int,
    extractor: Extractor,
    batch: int = 256,
    device: str | torch.device = "cpu",
) -> Features:
    """:func:`extract` of ``total`` images that come in parts, one part in memory at a time.

    The batches are those of the whole set, so features and hash are the same however it was cut.
    parts: uint8 [n_i, 3, H, W].
    """
    if isinstance(extractor.network, nn.Module):
        extractor.network.to(device)
    digest = hashlib.sha256()
    features: list[Tensor] = []
    logits: list[Tensor] = []
    bar = tqdm(total=total, desc=f"features ({extractor.name})", leave=False, disable=None, delay=2)
    with torch.inference_mode(), bar:
        for pixels in _batches(parts, batch):
            if not features:
                digest.update(f"{pixels.dtype.str}{(total, *pixels.shape[1:])}".encode())
            digest.update(np.ascontiguousarray(pixels).data)
            both = extractor.network(torch.as_tensor(pixels).to(device))
            features.append(both[0].float().cpu())
            logits.append(both[1].float().cpu())
            bar.update(len(pixels))
    if sum(map(len, features)) != total:
        raise ValueError(f"{total} images expected, got {sum(map(len, features))}")
    return Features(
        features=torch.cat(features).numpy(),  # [n, D]
        logits=torch.cat(logits).numpy(),  # [n, C]
        extractor=extractor.name,
        extractor_sha256=extractor.sha256,
        images_sha256=digest.hexdigest(),
    )


def _batches(parts: Iterable[NDArray[np.uint8]], size: int) -> Iterator[NDArray[np.uint8]]:
    """The images of all parts in batches of one size, the last one shorter."""
    waiting: list[NDArray[np.uint8]] = []
    held = 0
    for part in parts:
        if part.dtype != np.uint8 or part.ndim != 4 or part.shape[1] != 3 or len(part) == 0:
            raise ValueError(f"images must be uint8 [n, 3, H, W], got {part.dtype} {part.shape}")
        waiting.append(part)
        held += len(part)
        if held < size:
            continue
        whole = np.concatenate(waiting) if len(waiting) > 1 else part
        cut = held - held % size
        yield from (whole[start : start + size] for start in range(0, cut, size))
        waiting, held = ([whole[cut:]] if held > cut else []), held - cut
    if held:
        yield np.concatenate(waiting)


@dataclass(frozen=True, eq=False)
class ReferenceStats:
    """The set that generated images are compared with.

    mu: float64 [D] and sigma: float64 [D, D] (divisor n - 1) of the Fréchet distance; n: images behind them,
    None where a published file doesn't say; sha256: of the reference images or of the published file;
    features: the set itself, needed by KID, precision and recall. In the ADM protocol mu and sigma describe
    the training set while the features are those of 10,000 of its images, so the two need not agree.
    """

    name: str
    sha256: str
    n: int | None
    mu: NDArray[np.float64]
    sigma: NDArray[np.float64]
    extractor: str
    extractor_sha256: str
    features: Features | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        width = self.mu.shape[0]
        if self.mu.ndim != 1 or self.sigma.shape != (width, width):
            raise ValueError(f"mu [D] and sigma [D, D] expected, got {self.mu.shape} and {self.sigma.shape}")

    @classmethod
    def of(cls, features: Features, name: str = "reference") -> "ReferenceStats":
        """Statistics of a reference set from its features."""
        if features.n < 2:
            raise ValueError("a reference needs at least 2 images")
        values = features.features.astype(np.float64)
        return cls(
            name=name,
            sha256=features.images_sha256 or array_sha256(features.features),
            n=features.n,
            mu=values.mean(axis=0),
            sigma=np.atleast_2d(np.cov(values, rowvar=False)),
            extractor=features.extractor,
            extractor_sha256=features.extractor_sha256,
            features=features,
        )

    def row(self) -> dict[str, Any]:
        """The ``reference`` entry of a result row."""
        return {"name": self.name, "sha256": self.sha256, "n": self.n}

    @property
    def points(self) -> NDArray[np.float32]:
        """Features of the reference images [n, D]."""
        if self.features is None:
            raise Unmeasurable(f"reference {self.name} has statistics but no images")
        return self.features.features

    @cached_property
    def sigma_root(self) -> NDArray[np.float64]:
        """Symmetric square root of sigma [D, D]."""
        values, vectors = np.linalg.eigh(self.sigma)
        return np.asarray((vectors * np.sqrt(values.clip(min=0))) @ vectors.T)

    @cached_property
    def effective_width(self) -> float:
        """Independent features of one variance whose Fréchet distance would have the same bias at N images.

        At a distance of zero that bias is about tr sigma (1 + width / 4) / N; D equal variances have width D,
        and features of small variance count for little.
        """
        values = np.linalg.eigvalsh(self.sigma)
        values = values[values > 0]
        pairs = np.outer(values, values) / (values[:, None] + values)
        return float(2 * pairs.sum() / values.sum()) if len(values) else 0.0

    @cached_property
    def kernel_mean(self) -> float:
        """Mean KID kernel over pairs of different reference images."""
        return kernel.mean_of_pairs(self.points)

    @cached_property
    def radii(self) -> NDArray[np.float64]:
        """Squared distance of each reference image to its third neighbour [n]."""
        return neighbours.radii(self.points)


def protocol(of: Features | ReferenceStats, colour: str, labels: str) -> dict[str, str]:
    """The ``protocol`` entry of a row: what must be equal before two figures may stand side by side.

    colour: how float images became bytes; labels: how classes were dealt.
    """
    return {
        "colour": colour,
        "labels": labels,
        "extractor": of.extractor,
        "extractor_sha256": of.extractor_sha256,
    }
