"""Codes in clusters of near vectors."""

import warnings

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

ITERATIONS = 100


def cluster_codes(vectors: Tensor, clusters: int) -> Tensor:
    """The cluster of each code, int64 [V] with values 0 .. clusters - 1, by k-means of float vectors [V, c].

    It begins with vectors far from one another and draws nothing. No cluster is empty: one that would be
    takes the code of the largest that is farthest from its centre. They are numbered by their first code.
    ValueError for more clusters than codes.
    """
    points = vectors.detach().double().cpu().numpy()
    if not 1 <= clusters <= len(points):
        raise ValueError(f"{clusters} clusters of {len(points)} codes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about clusters that come out empty
        centres, found = kmeans2(points, _far_apart(points, clusters), ITERATIONS, minit="matrix")
    found = found.astype(np.int64)
    while len(empty := np.setdiff1d(np.arange(clusters), found)):
        largest = np.bincount(found, minlength=clusters).argmax()
        members = np.flatnonzero(found == largest)
        far = members[_squared(points[members], centres[largest]).argmax()]
        found[far] = empty[0]
    _, first, numbers = np.unique(found, return_index=True, return_inverse=True)
    return torch.from_numpy(first.argsort().argsort()[numbers])


def _far_apart(points: np.ndarray, count: int) -> np.ndarray:
    """The point nearest to the mean, then always the one farthest from all that were chosen."""
    chosen = [int(_squared(points, points.mean(axis=0)).argmin())]
    nearest = _squared(points, points[chosen[0]])
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        np.minimum(nearest, _squared(points, points[chosen[-1]]), out=nearest)
    return points[chosen]


def _squared(points: np.ndarray, point: np.ndarray) -> np.ndarray:
    return np.square(points - point).sum(axis=1)
