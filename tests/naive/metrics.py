"""Naive figures of images' features and class probabilities, from the specification of evaluators alone.

Fréchet distance (arXiv 1706.08500), Inception Score (1606.03498), kernel distance (1801.01401), precision and
recall (1904.06991): by plain formulas in double precision, and by torch-fidelity's own functions.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.naive.parts import Config, normal, recording, seeded
from tests.replays.common import Golden

Array = NDArray[np.float64]
Figures = dict[str, float]
DEFAULTS: Config = {
    "neighbourhood": 3,
    "isc_splits": 10,
    "kid_degree": 3,
    "kid_gamma": "1/D",
    "kid_coef0": 1.0,
}
"""torch-fidelity's."""


def frechet_distance(fake: Array, real: Array) -> float:
    """Of features [n, D] and [m, D]; the trace of a root is the sum of the roots of the eigenvalues."""
    shift = fake.mean(axis=0) - real.mean(axis=0)
    fake_covariance, real_covariance = np.cov(fake, rowvar=False), np.cov(real, rowvar=False)
    eigenvalues = np.linalg.eigvals(fake_covariance @ real_covariance).astype(np.complex128)
    traces = np.trace(fake_covariance) + np.trace(real_covariance)
    return float(shift @ shift + traces - 2 * np.sqrt(eigenvalues).real.sum())


def inception_score(probabilities: Array) -> float:
    """Of class probabilities [n, C]."""
    mean = probabilities.mean(axis=0)
    return float(np.exp((probabilities * (np.log(probabilities) - np.log(mean))).sum(axis=1).mean()))


def score_of_chunks(probabilities: Array, size: int) -> float:
    """The mean over consecutive chunks; a shorter last one counts as a full one."""
    starts = range(0, len(probabilities), size)
    return float(np.mean([inception_score(probabilities[start : start + size]) for start in starts]))


def scores_of_splits(probabilities: Array, splits: int) -> list[float]:
    ends = [index * len(probabilities) // splits for index in range(splits + 1)]
    return [inception_score(probabilities[ends[i] : ends[i + 1]]) for i in range(splits)]


def softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def kernel_distance(fake: Array, real: Array, degree: int, gamma: float, coef0: float) -> float:
    """Unbiased: no pair of a point with itself counts within a set."""
    count = min(len(fake), len(real))
    fake, real = fake[:count], real[:count]

    def kernel(x: Array, y: Array) -> Array:
        return (gamma * (x @ y.T) + coef0) ** degree

    within = sum(float(kernel(x, x).sum() - kernel(x, x).trace()) for x in (fake, real))
    return within / (count * (count - 1)) - 2 * float(kernel(fake, real).mean())


def squared_distances(x: Array, y: Array) -> Array:
    """[n, m]."""
    return np.square(x[:, None, :] - y[None, :, :]).sum(axis=2)


def share_in_balls(points: Array, centres: Array, neighbour: int) -> float:
    """The share of points that lie in at least one ball around a centre, or on its rim.

    neighbour: which of the other centres a ball reaches, 1 for the nearest.
    """
    among = squared_distances(centres, centres)
    radii = np.sort(among, axis=1)[:, neighbour]  # of which the nearest is the centre itself
    return float((squared_distances(points, centres) <= radii).any(axis=1).mean())


def random_features(count: int, width: int, shift: float, generator: torch.Generator) -> Tensor:
    return normal(generator, count, width, scale=1 + shift / 4) + shift


def of_features(fake: Tensor, real: Tensor, neighbour: int) -> Figures:
    x, y = fake.double().numpy(), real.double().numpy()
    return {
        "fid": frechet_distance(x, y),
        "precision": share_in_balls(x, y, neighbour),
        "recall": share_in_balls(y, x, neighbour),
    }


def recorded(
    name: str, config: Config, tensors: dict[str, Tensor], figures: Figures, kept: tuple[str, ...]
) -> Golden:
    """With the settings that are not None. kept: what is recorded, where not all is."""
    told = {key: value for key, value in config.items() if value is not None}
    io = {**tensors, **{key: torch.tensor(value) for key, value in figures.items()}}
    io = {key: value for key, value in io.items() if not kept or key in kept}
    return recording("metrics", "other", name, io, told)


def as_adm(
    name: str,
    seed: int,
    fakes: int = 60,
    reals: int = 90,
    width: int = 8,
    shift: float = 0.4,
    neighbourhood: int | None = 3,
    rows: int = 23,
    split_size: int | None = 5,
    kept: tuple[str, ...] = (),
    points: tuple[Tensor, Tensor] | None = None,
) -> Golden:
    """As the ADM evaluator. points: features of generated and of real images."""
    generator = seeded(seed)
    fake = random_features(fakes, width, shift, generator)
    real = random_features(reals, width, 0.0, generator)
    fake, real = points or (fake, real)
    probabilities = normal(generator, rows, 11, scale=2.0).softmax(dim=1)
    score = score_of_chunks(probabilities.double().numpy(), split_size or 5000)
    figures = {**of_features(fake, real, neighbourhood or 3), "inception_score": score}
    tensors = {"fake": fake, "real": real, "probs": probabilities}
    config = {"neighbourhood": neighbourhood, "split_size": split_size}
    return recorded(name, config, tensors, figures, kept)


def plain_figures(fake: Tensor, real: Tensor, logits: Tensor, settings: Config) -> Figures:
    """settings: None stands for the default."""
    said = DEFAULTS | {key: value for key, value in settings.items() if value is not None}
    gamma = 1 / fake.shape[1] if said["kid_gamma"] == "1/D" else said["kid_gamma"]
    kernel = said["kid_degree"], gamma, said["kid_coef0"]
    scores = scores_of_splits(softmax(logits.double().numpy()), said["isc_splits"])
    return {
        **of_features(fake, real, said["neighbourhood"]),
        "kid": kernel_distance(fake.double().numpy(), real.double().numpy(), *kernel),
        "inception_score": float(np.mean(scores)),
        "inception_score_std": float(np.std(scores)),
    }


def published_figures(fake: Tensor, real: Tensor, logits: Tensor, settings: Config) -> Figures:
    """By torch-fidelity's own functions, at the usual kernel."""
    # here, since it takes seconds to import
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    count = min(len(fake), len(real))
    statistics = fid_features_to_statistics(fake), fid_features_to_statistics(real)
    distance = fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    kernel = kid_features_to_metric(
        fake[:count], real[:count], kid_subsets=1, kid_subset_size=count, verbose=False
    )["kernel_inception_distance_mean"]
    balls = prc_features_to_metric(fake, real, prc_neighborhood=settings["neighbourhood"], verbose=False)
    score = isc_features_to_metric(logits, settings["isc_splits"], False, 2020)
    return {
        "fid": float(distance),
        "kid": float(kernel),
        "precision": float(balls["precision"]),
        "recall": float(balls["recall"]),
        "inception_score": float(score["inception_score_mean"]),
        "inception_score_std": float(score["inception_score_std"]),
    }


def as_torch_fidelity(
    name: str,
    seed: int,
    fakes: int = 50,
    reals: int = 60,
    width: int = 8,
    shift: float = 0.4,
    rows: int = 47,
    same: bool = False,
    kept: tuple[str, ...] = (),
    figures: Callable[[Tensor, Tensor, Tensor, Config], Figures] = plain_figures,
    **settings: Any,
) -> Golden:
    """As torch-fidelity, without its shuffle. same: the generated images are real ones."""
    config = DEFAULTS | settings
    generator = seeded(seed)
    real = random_features(reals, width, 0.0, generator)
    fake = real[:fakes].clone() if same else random_features(fakes, width, shift, generator)
    logits = normal(generator, rows, 9, scale=2.0)
    tensors = {"fake": fake, "real": real, "logits": logits}
    return recorded(name, config, tensors, figures(fake, real, logits, config), kept)


def on_a_line(*places: float) -> Tensor:
    """Features of two numbers, of which one is zero."""
    return torch.tensor([[place, 0.0] for place in places])


TIES = (on_a_line(-3, 500, 501, 502, 503), on_a_line(0, 1, 2, 3, 100, 101, 102, 103))
NOTHING_SAID = dict.fromkeys(DEFAULTS)

SETTINGS: dict[str, tuple[Callable[..., Golden], dict[str, Any]]] = {
    "adm-more-generated-than-real": (as_adm, {"fakes": 90, "reals": 60}),
    "adm-far-apart": (as_adm, {"shift": 40.0}),
    "adm-nearest-neighbour": (as_adm, {"neighbourhood": 1}),
    "adm-five-neighbours": (as_adm, {"neighbourhood": 5}),
    "adm-last-chunk-of-one": (as_adm, {"rows": 21}),
    "adm-chunk-longer-than-the-file": (as_adm, {"rows": 4}),
    "adm-defaults-unsaid": (as_adm, {"neighbourhood": None, "split_size": None}),
    "adm-fewer-images-than-features": (as_adm, {"fakes": 10, "reals": 12, "width": 16, "shift": 1.0}),
    "adm-score-alone": (as_adm, {"kept": ("probs", "inception_score")}),
    "adm-features-alone": (as_adm, {"kept": ("fake", "real", "fid", "precision", "recall")}),
    "adm-points-on-rims": (as_adm, {"points": TIES}),
    "torch-fidelity-plain": (as_torch_fidelity, {}),
    "torch-fidelity-more-generated-than-real": (as_torch_fidelity, {"fakes": 120}),
    "torch-fidelity-far-apart": (as_torch_fidelity, {"shift": 40.0}),
    "torch-fidelity-square-kernel": (as_torch_fidelity, {"kid_degree": 2}),
    "torch-fidelity-straight-kernel": (as_torch_fidelity, {"kid_degree": 1}),
    "torch-fidelity-kernel-of-a-half": (as_torch_fidelity, {"kid_gamma": 0.5}),
    "torch-fidelity-kernel-without-offset": (as_torch_fidelity, {"kid_coef0": 0.0}),
    "torch-fidelity-other-kernel": (
        as_torch_fidelity,
        {"kid_degree": 4, "kid_gamma": 0.05, "kid_coef0": 2.5},
    ),
    "torch-fidelity-one-split": (as_torch_fidelity, {"isc_splits": 1}),
    "torch-fidelity-uneven-splits": (as_torch_fidelity, {"isc_splits": 3, "rows": 20}),
    "torch-fidelity-splits-of-one": (as_torch_fidelity, {"rows": 15}),
    "torch-fidelity-five-neighbours": (as_torch_fidelity, {"neighbourhood": 5}),
    "torch-fidelity-defaults-unsaid": (as_torch_fidelity, NOTHING_SAID),
    "torch-fidelity-by-its-functions": (as_torch_fidelity, {"figures": published_figures}),
    "torch-fidelity-same-images": (
        as_torch_fidelity,
        {"same": True, "fakes": 60, "kept": ("fake", "real", "kid", "precision", "recall")},
    ),
    "torch-fidelity-few-by-its-functions": (
        as_torch_fidelity,
        {"figures": published_figures, "fakes": 12, "reals": 10, "width": 16, "isc_splits": 4},
    ),
}

CASES: dict[str, Callable[[], Golden]] = {
    name: partial(make, name, seed=seed, **setting)
    for seed, (name, (make, setting)) in enumerate(SETTINGS.items())
}
