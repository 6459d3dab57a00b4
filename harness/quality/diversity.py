"""Inception-Score-like score: exp of the mean divergence of class probabilities from their average.

exp( mean_i sum_c p_ic (log p_ic - log mean_i p_ic) ) per split, averaged over splits (Salimans et al., arXiv
1606.03498). torch-fidelity's arithmetic: 10 nearly equal splits after a shuffle with a fixed seed. The ADM
evaluator takes consecutive chunks of 5,000 rows in file order instead, and a file sorted by class gives it a
fraction of the score.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from harness.quality.errors import Unmeasurable

SPLITS = 10
SPLIT_SEED = 2020  # torch-fidelity's

Array = NDArray[np.float64]


def score(
    logits: NDArray[np.float32], splits: int = SPLITS, shuffle: bool = True, seed: int = SPLIT_SEED
) -> tuple[float, float]:
    """torch-fidelity's score and its spread over splits (no standard error). logits: float32 [n, C], n at
    least ``splits``; see :func:`require_images`."""
    from torch_fidelity.metric_isc import isc_features_to_metric

    metric = isc_features_to_metric(torch.from_numpy(logits), splits, shuffle, seed)
    return float(metric["inception_score_mean"]), float(metric["inception_score_std"])


def jackknife(logits: NDArray[np.float32], groups: NDArray[np.int64]) -> Array:
    """The score over one split of the whole set, with one group of images deleted at a time [G].

    One split rather than ten: splits shift the score but hardly its response to the images, whereas a group
    can't be balanced over splits and classes at once, and its chance imbalance within splits (which fixed
    labels and a fixed shuffle don't have) would triple the spread.
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))  # [n, C]
    p = np.exp(log_p)
    entropy = (p * log_p).sum(axis=1)  # [n]
    member = np.eye(int(groups.max()) + 1)[groups]  # [n, G]
    left = len(logits) - member.sum(axis=0)  # [G]
    mean_p = (p.sum(axis=0) - member.T @ p) / left[:, None]  # [G, C]
    mean_entropy = (entropy.sum() - member.T @ entropy) / left  # [G]
    mean_p = mean_p.clip(min=np.finfo(np.float64).tiny)  # 0 log 0 = 0
    return np.asarray(np.exp(mean_entropy - (mean_p * np.log(mean_p)).sum(axis=1)))


def require_images(logits: NDArray[np.float32], splits: int = SPLITS) -> None:
    """Unmeasurable where a split has one image: it scores exactly 1, whatever it shows."""
    if len(logits) < 2 * splits:
        needed = f"{2 * splits} images, two for each" if splits > 1 else "2 images"
        raise Unmeasurable(f"a score over {splits} splits needs at least {needed}, got {len(logits)}")
