"""Replays recordings of the evaluators behind published figures: distances, scores, precision and recall."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import quality as q
from harness.quality import diversity, frechet, kernel, neighbours
from tests.replays.common import Golden

SMALL = 1e-3
"""Distances of like sets are zero but for rounding."""
Recorded = Mapping[str, NDArray[np.float32]]


def replay_metrics(config: Mapping[str, Any], io: Recorded) -> float:
    """The largest relative difference; every recorded figure must be one that is replayed.

    Of a figure below ``SMALL`` relative to that. Shares of images are held to the last digit of float32.
    """
    figures = {name: float(value) for name, value in io.items() if value.ndim == 0}
    found = _of_features(config, io, "fid" in figures) if "fake" in io else {}
    if "probs" in io:
        found["inception_score"] = [_score_of_chunks(io["probs"], config.get("split_size", 5000))]
    if "logits" in io:
        mean, spread = diversity.score(io["logits"], config.get("isc_splits", 10), shuffle=False)
        found |= {"inception_score": [mean], "inception_score_std": [spread]}
    if "kid" in figures:
        found["kid"] = _kernel_distances(config, io["fake"], io["real"])
    assert figures.keys() == found.keys() & figures.keys() != set(), "a figure that nothing replays"
    for name in {"precision", "recall"} & figures.keys():
        assert np.float32(found[name][0]) == np.float32(figures[name])
    differences = [
        abs(one - value) / max(abs(value), SMALL) for name, value in figures.items() for one in found[name]
    ]
    assert np.isfinite(differences).all(), "not finite"
    return max(differences)


def _of_features(config: Mapping[str, Any], io: Recorded, distances: bool) -> dict[str, list[float]]:
    """The shares by ours; on request distances, by ours and by two libraries that take no single feature."""
    fake, real = io["fake"], io["real"]
    shares = neighbours.precision_recall(fake, real, k=config.get("neighbourhood", 3))
    found = {"precision": [shares.precision], "recall": [shares.recall]}
    if distances:
        reference = q.ReferenceStats.of(q.Features(real, real, "recorded", ""))
        found["fid"] = [frechet.distance(*frechet.moments(fake), reference)]
        if fake.shape[1] > 1:
            found["fid"] += [
                frechet.torch_fidelity_distance(fake, reference),
                frechet.clean_fid_distance(fake, reference),
            ]
    return found


def _score_of_chunks(probabilities: NDArray[np.float32], size: int) -> float:
    """The mean over consecutive chunks, of which a shorter last one counts as a full one."""
    logits = np.log(probabilities)
    chunks = [logits[start : start + size] for start in range(0, len(logits), size)]
    return float(np.mean([diversity.score(chunk, splits=1, shuffle=False)[0] for chunk in chunks]))


def _kernel_distances(
    config: Mapping[str, Any], fake: NDArray[np.float32], real: NDArray[np.float32]
) -> list[float]:
    """By torch-fidelity, and by ours where the kernel is the usual one."""
    n, factor = min(len(fake), len(real)), config.get("kid_gamma", "1/D")
    settings: dict[str, Any] = {
        "degree": config.get("kid_degree", 3),
        "factor": None if factor == "1/D" else factor,
        "offset": config.get("kid_coef0", 1.0),
    }
    whole = kernel.torch_fidelity_distance(fake[:n], real[:n], subset_size=n, subsets=1, **settings)
    usual = {"degree": 3, "factor": None, "offset": 1.0}
    return [whole, kernel.distance(fake[:n], real[:n])] if settings == usual else [whole]


def replay_other(golden: Golden) -> float:
    return replay_metrics(golden.config, {name: value.numpy() for name, value in golden.io.items()})


REPLAYS = {"other": replay_other}
