"""Replays recordings of the evaluators behind published figures: distances, scores, precision and recall."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import quality as q
from harness.quality import diversity, frechet, kernel, neighbours
from tests.replays.common import Golden

Recorded = Mapping[str, NDArray[np.float32]]


def replay_metrics(config: Mapping[str, Any], io: Recorded) -> float:
    """The largest relative difference; every recorded figure must be one that is replayed.

    Shares of images are held to the last digit of float32.
    """
    figures = {name: float(value) for name, value in io.items() if value.ndim == 0}
    found = _of_features(config, io)
    if "probs" in io:
        found["inception_score"] = [_score_of_chunks(io["probs"], config["split_size"])]
    if "logits" in io:
        mean, spread = diversity.score(io["logits"], config["isc_splits"], shuffle=False)
        found |= {"inception_score": [mean], "inception_score_std": [spread]}
    if "kid" in figures:
        found["kid"] = _kernel_distances(io["fake"], io["real"])
    assert figures.keys() == found.keys() & figures.keys() != set(), "a figure that nothing replays"
    for name in ("precision", "recall"):
        assert np.float32(found[name][0]) == np.float32(figures[name])
    differences = [abs(one / figures[name] - 1) for name in figures for one in found[name]]
    assert np.isfinite(differences).all(), "not finite"
    return max(differences)


def _of_features(config: Mapping[str, Any], io: Recorded) -> dict[str, list[float]]:
    """By three implementations of the distance, and by ours of the shares."""
    fake, real = io["fake"], io["real"]
    reference = q.ReferenceStats.of(q.Features(real, real, "recorded", ""))
    shares = neighbours.precision_recall(fake, real, k=config["neighbourhood"])
    distances = [
        frechet.distance(*frechet.moments(fake), reference),
        frechet.torch_fidelity_distance(fake, reference),
        frechet.clean_fid_distance(fake, reference),
    ]
    return {"fid": distances, "precision": [shares.precision], "recall": [shares.recall]}


def _score_of_chunks(probabilities: NDArray[np.float32], size: int) -> float:
    """The mean over consecutive chunks, of which a shorter last one counts as a full one."""
    logits = np.log(probabilities)
    chunks = [logits[start : start + size] for start in range(0, len(logits), size)]
    return float(np.mean([diversity.score(chunk, splits=1, shuffle=False)[0] for chunk in chunks]))


def _kernel_distances(fake: NDArray[np.float32], real: NDArray[np.float32]) -> list[float]:
    n = min(len(fake), len(real))
    whole = kernel.torch_fidelity_distance(fake[:n], real[:n], subset_size=n, subsets=1)
    return [kernel.distance(fake[:n], real[:n]), whole]


def replay_other(golden: Golden) -> float:
    return replay_metrics(golden.config, {name: value.numpy() for name, value in golden.io.items()})


REPLAYS = {"other": replay_other}
