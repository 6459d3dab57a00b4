"""Each metric: agreement of implementations, and honest spreads."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from cleanfid.fid import frechet_distance
from numpy.typing import NDArray
from torch_fidelity.metric_fid import fid_statistics_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from harness import quality as q
from harness.quality import diversity, frechet, kernel, neighbours
from harness.quality.intervals import balanced_groups, jackknife_sd
from tests.harness.quality_standins import of_points


def column(*values: float) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)[:, None]


# --- precision and recall ----------------------------------------------------------------------------------


def test_a_point_on_the_rim_of_a_ball_is_inside() -> None:
    real = column(0, 1, 2, 3, 100, 101, 102, 103)
    fake = column(-3, 500, 501, 502, 503)  # -3 lies exactly as far from 0 as 0's third neighbour
    assert neighbours.precision_recall(fake, real).precision == 0.2


def test_ties_count_at_widths_where_products_round() -> None:
    generator = np.random.default_rng(0)
    real = generator.normal(size=(60, 40)).astype(np.float32)
    shuffled = real[generator.permutation(60)]
    reach = neighbours.radii(real)
    both = neighbours.precision_recall(shuffled, real, real_radii=np.zeros_like(reach))
    assert both.precision == 1  # balls of radius 0 still hold the identical point


def by_definition(fake: NDArray[Any], real: NDArray[Any], k: int = 3) -> tuple[float, float]:
    """Loops over differences in float64."""

    def distances(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
        return ((a[:, None].astype(np.float64) - b[None]) ** 2).sum(axis=2)

    def reach(points: NDArray[Any]) -> NDArray[np.float64]:
        return np.sort(distances(points, points), axis=1)[:, k]

    across = distances(fake, real)
    return (across <= reach(real)).any(axis=1).mean(), (across <= reach(fake)[:, None]).any(axis=0).mean()


def test_precision_and_recall_by_definition_by_torch_fidelity_and_without_each_group() -> None:
    generator = np.random.default_rng(3)
    fake = generator.normal(size=(157, 5)).astype(np.float32)
    real = (generator.normal(size=(211, 5)) * 1.2 + 0.3).astype(np.float32)
    groups = balanced_groups(np.arange(157) % 4, 13)
    found = neighbours.precision_recall(fake, real, groups)
    assert (found.precision, found.recall) == by_definition(fake, real)
    theirs = prc_features_to_metric(
        torch.from_numpy(fake),
        torch.from_numpy(real),
        prc_neighborhood=3,
        prc_batch_size=64,
        save_cpu_ram=True,
        verbose=False,
    )
    assert (found.precision, found.recall) == pytest.approx((theirs["precision"], theirs["recall"]), abs=1e-6)
    without = [by_definition(fake[groups != g], real)[1] for g in range(13)]
    np.testing.assert_array_equal(found.recall_without, without)


def test_radii_without_a_group_that_holds_all_near_neighbours() -> None:
    near, far = np.linspace(0, 1e-3, 40), np.array([5.0, 6.0, 7.0, 8.0])
    points = column(*near, *far)
    groups = np.array([0] * 40 + [1] * 4)
    found = neighbours.radii_without(points, groups)
    assert found[0, 40:] == pytest.approx([9, 4, 4, 9])
    assert (found[0, :40] == -np.inf).all()
    assert (found[1, :40] < 1e-6).all()


# --- agreement of implementations --------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
@pytest.mark.parametrize("width", [4, 64])
def test_three_frechet_distances_agree(width: int) -> None:
    generator = np.random.default_rng(width)
    mix = generator.normal(size=(width, width)) / np.sqrt(width)
    real = np.maximum(generator.normal(size=(900, width)) @ mix, 0)
    fake = np.maximum(generator.normal(size=(500, width)) @ mix + 0.1, 0)
    reference, points = q.ReferenceStats.of(of_points(real)), of_points(fake).features
    own = frechet.distance(*frechet.moments(points), reference)
    # Whole paths: both libraries keep the generated set's mean in float32.
    assert frechet.torch_fidelity_distance(points, reference) == pytest.approx(own, rel=1e-5)
    assert frechet.clean_fid_distance(points, reference) == pytest.approx(own, rel=1e-5)
    # Arithmetic alone, from the same float64 statistics.
    mu, sigma = frechet.moments(points)
    theirs = fid_statistics_to_metric(
        {"mu": mu, "sigma": sigma}, {"mu": reference.mu, "sigma": reference.sigma}, False
    )
    assert theirs["frechet_inception_distance"] == pytest.approx(own, rel=1e-9)
    clean = frechet_distance(mu, sigma, reference.mu, reference.sigma)
    assert clean == pytest.approx(own, rel=1e-9)


@pytest.mark.parametrize("n", [5, 20])
def test_frechet_distances_agree_where_covariances_are_singular(n: int) -> None:
    generator = np.random.default_rng(n)
    reference = q.ReferenceStats.of(of_points(generator.normal(size=(300, 24))))
    points = (generator.normal(size=(n, 24)) + 0.2).astype(np.float32)
    own = frechet.distance(*frechet.moments(points), reference)
    assert frechet.torch_fidelity_distance(points, reference) == pytest.approx(own, rel=1e-3)
    assert frechet.clean_fid_distance(points, reference) == pytest.approx(own, rel=1e-3)


def test_distance_of_known_gaussians() -> None:
    reference = q.ReferenceStats("known", "", None, np.zeros(2), np.diag([4.0, 9.0]), "standin", "0" * 64)
    assert frechet.distance(np.array([3.0, 4.0]), np.eye(2), reference) == pytest.approx(25 + 1 + 4)


def test_frechet_jackknife_from_sums_equals_a_refit() -> None:
    points = np.random.default_rng(0).normal(loc=50, size=(101, 6)).astype(np.float32)
    groups = balanced_groups(np.arange(101) % 3, 7)
    for g, (mu, sigma) in enumerate(frechet.moments_without_groups(points, groups)):
        left = points[groups != g].astype(np.float64)
        np.testing.assert_allclose(mu, left.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(sigma, np.cov(left, rowvar=False), atol=1e-10)


def test_kernel_distance_and_its_jackknife_by_definition() -> None:
    generator = np.random.default_rng(0)
    fake, real = (generator.normal(size=(n, 5)).astype(np.float32) for n in (60, 45))
    groups = balanced_groups(np.zeros(60), 8)

    def by_pairs(x: NDArray[Any], y: NDArray[Any]) -> float:
        k = lambda a, b: (a.astype(np.float64) @ b.astype(np.float64).T / 5 + 1) ** 3  # noqa: E731
        off = [m[~np.eye(len(m), dtype=bool)].mean() for m in (k(x, x), k(y, y))]
        return float(sum(off) - 2 * k(x, y).mean())

    value, without = kernel.value_and_jackknife(fake, real, groups, kernel.mean_of_pairs(real))
    assert value == pytest.approx(by_pairs(fake, real), rel=1e-12)
    np.testing.assert_allclose(without, [by_pairs(fake[groups != g], real) for g in range(8)], rtol=1e-10)


def test_kernel_distance_is_unbiased() -> None:
    generator = np.random.default_rng(5)
    found = [kernel.distance(*generator.normal(size=(2, 50, 8)).astype(np.float32)) for _ in range(300)]
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(300)
    assert 0.3 < np.mean(np.array(found) < 0) < 0.75


def test_score_jackknife_equals_scores_of_the_rest() -> None:
    logits = np.random.default_rng(2).normal(size=(90, 7)).astype(np.float32) * 2
    groups = balanced_groups(np.zeros(90), 6)
    left = [diversity.score(logits[groups != g], splits=1)[0] for g in range(6)]
    np.testing.assert_allclose(diversity.jackknife(logits, groups), left, rtol=1e-9)


def test_score_of_certain_and_of_clueless_logits() -> None:
    certain = np.eye(10, dtype=np.float32)[np.arange(1000) % 10] * 1000  # probabilities of exactly 0
    assert diversity.score(certain, splits=1)[0] == pytest.approx(10)
    assert np.isfinite(diversity.jackknife(certain, balanced_groups(np.arange(1000) % 10))).all()
    assert diversity.score(np.zeros((40, 10), np.float32))[0] == pytest.approx(1)


# --- intervals ---------------------------------------------------------------------------------------------


def test_jackknife_spread_of_the_frechet_distance_is_that_of_fresh_draws() -> None:
    generator = np.random.default_rng(0)
    width, n = 16, 500
    scale = 1 / np.sqrt(np.arange(1, width + 1))
    reference = q.ReferenceStats("exact", "", None, np.zeros(width), np.diag(scale**2), "standin", "0" * 64)
    draws = [(generator.normal(size=(n, width)) * scale + 0.05).astype(np.float32) for _ in range(80)]
    values = np.array([frechet.distance(*frechet.moments(points), reference) for points in draws])
    groups = balanced_groups(np.zeros(n))
    spreads = [jackknife_sd(frechet.jackknife(points, reference, groups)) for points in draws]
    assert np.mean(spreads) == pytest.approx(values.std(ddof=1), rel=0.25)
    # The bootstrap adds the finite-sample bias a second time: its centre is not the statistic.
    resampled = [points[generator.integers(n, size=n)] for points in draws]
    again = np.array([frechet.distance(*frechet.moments(points), reference) for points in resampled])
    true_distance = width * 0.05**2
    assert (again - values).mean() == pytest.approx((values - true_distance).mean(), rel=0.25)


def test_extrapolation_removes_most_of_the_bias() -> None:
    generator = np.random.default_rng(4)
    reference = q.ReferenceStats("exact", "", None, np.zeros(32), np.eye(32) / 32, "standin", "0" * 64)
    draws = [(generator.normal(size=(1000, 32)) / np.sqrt(32)).astype(np.float32) for _ in range(10)]
    plain = np.mean([frechet.distance(*frechet.moments(points), reference) for points in draws])
    one_class = np.zeros(1000)
    extrapolated = [frechet.distance_at_infinity(points, reference, one_class) for points in draws]
    assert plain == pytest.approx((1 + 33 / 4) / 1000, rel=0.1)  # the second-order bias
    assert abs(np.mean(extrapolated)) < 0.3 * plain
    with pytest.raises(q.Unmeasurable, match=r"takes 640 images.*width 32, got 638"):
        frechet.distance_at_infinity(draws[0][:638], reference, one_class[:638])


def test_distance_at_infinity_is_the_intercept_of_a_straight_line() -> None:
    generator = np.random.default_rng(5)
    reference = q.ReferenceStats("exact", "", None, np.zeros(8), np.eye(8), "standin", "0" * 64)
    points = generator.normal(size=(1000, 8)).astype(np.float32)
    numbers = np.array([1, 2, 4, 5, 10])
    means = [
        np.mean([frechet.distance(*frechet.moments(points[part::parts]), reference) for part in range(parts)])
        for parts in numbers
    ]
    line = np.linalg.lstsq(np.stack([np.ones(5), numbers / 1000], axis=1), np.array(means), rcond=None)[0]
    found = frechet.distance_at_infinity(points, reference, np.zeros(1000))
    assert found == pytest.approx(line[0], rel=1e-9)


@pytest.mark.parametrize(
    ("n", "classes", "width", "parts"),
    [
        (300, 10, 9.2, [1, 2]),  # the controlled tier's features
        (500, 10, 9.2, [1, 2, 4, 5]),
        (1000, 10, 9.2, [1, 2, 4, 5, 10]),
        (300, 10, 1, [1, 2, 5, 10]),  # thirty of a class are no four parts
        (6250, 10, 256, [1, 2]),
        (2000, 1000, 48, [1, 2]),
        (5000, 1000, 48, [1, 5]),  # no halves of five
        (50_000, 1000, 2048, [1, 2]),
    ],
)
def test_sizes_of_the_line_follow_width_and_classes(
    n: int, classes: int, width: float, parts: list[int]
) -> None:
    assert frechet.line_parts(np.arange(n) % classes, width) == parts


@pytest.mark.parametrize(
    ("n", "classes", "width", "needed"),
    [
        (299, 10, 9.2, 300),
        (1000, 1, 2048, 40_960),
        (1280, 10, 256, 5120),
        (1000, 1000, 48, 2000),
        (3000, 1000, 48, 4000),  # three of a class
    ],
)
def test_too_few_images_for_a_line_say_how_many_it_takes(
    n: int, classes: int, width: float, needed: int
) -> None:
    with pytest.raises(q.Unmeasurable, match=f"takes {needed} images, .* width {width:.0f}, got {n}"):
        frechet.line_parts(np.arange(n) % classes, width)
    assert len(frechet.line_parts(np.arange(needed) % classes, width)) >= 2


def test_effective_width_counts_equal_variances_and_hardly_small_ones() -> None:
    def width(variances: NDArray[Any]) -> float:
        zero = np.zeros(len(variances))
        return q.ReferenceStats("", "", None, zero, np.diag(variances), "", "").effective_width

    assert width(np.full(7, 3.0)) == pytest.approx(7)
    assert width(np.array([1.0, 1.0, 0.0])) == pytest.approx(2)
    assert width(np.concatenate([np.ones(8), np.full(56, 1e-3)])) == pytest.approx(8, abs=1)
    assert width(np.zeros(3)) == 0


def test_interval_at_infinity_covers_where_features_are_wide() -> None:
    """Down to a tenth of 1280 images, parts of 128 for a width of 64, the distance is no line in 1/N."""
    generator = np.random.default_rng(2)
    reference = q.ReferenceStats("exact", "", None, np.zeros(64), np.eye(64) / 64, "standin", "0" * 64)
    covered = []
    for _ in range(30):
        points = generator.normal(size=(1280, 64)) / np.sqrt(64) + 0.01
        found = q.quality(of_points(points), reference, np.zeros(1280))["fd_standin_inf@1280"]
        covered.append(found.low <= 64 * 0.01**2 <= found.high)  # type: ignore[operator]
    assert np.mean(covered) >= 0.85


@pytest.mark.parametrize("n", [128, 300])
def test_jackknife_of_few_images_a_class_has_the_spread_of_fresh_draws(n: int) -> None:
    """Classes far apart: twenty groups hold them in unequal shares and claim up to thrice the spread."""
    generator = np.random.default_rng(8)
    centres = generator.normal(size=(10, 16)) * 2
    labels = np.arange(n) % 10
    sigma = np.cov(centres, rowvar=False, bias=True) + 0.25 * np.eye(16)
    reference = q.ReferenceStats("exact", "", None, centres.mean(axis=0), sigma, "standin", "0" * 64)
    groups = balanced_groups(labels)
    draws = [(centres[labels] + 0.5 * generator.normal(size=(n, 16))).astype(np.float32) for _ in range(60)]
    values = np.array([frechet.distance_of_images(points, reference) for points in draws])
    spreads = [jackknife_sd(frechet.jackknife(points, reference, groups)) for points in draws]
    assert 0.8 < np.mean(spreads) / values.std(ddof=1) < 1.65


def test_extrapolated_interval_has_the_width_of_the_spread_over_sets_dealt_to_classes() -> None:
    """Far apart classes in equal numbers, as feature networks see them: random subsets of such a set have
    unequal classes, and a jackknife over them claims twice to ten times the spread, about a value too low.
    """
    generator = np.random.default_rng(6)
    width, n = 24, 1000
    labels = np.arange(n) % 10
    centres = generator.normal(size=(10, width)) * 2
    other = generator.normal(size=(10, width)) * 2

    def draw(count: int, share_of_wrong: float) -> q.Features:
        classes = np.arange(count) % 10
        wrong = generator.random(count) < share_of_wrong
        middle = np.where(wrong[:, None], (centres + other)[classes] / 2, centres[classes])
        return of_points(middle + 0.2 * generator.normal(size=(count, width)))

    images = q.ReferenceStats.of(draw(4000, 0))
    reference = replace(images, features=None)  # no precision and recall: they take longest
    truth = frechet.distance_of_images(draw(100_000, 0.05).features, reference)
    found = [q.quality(draw(n, 0.05), reference, labels)["fd_standin_inf@1000"] for _ in range(40)]
    values = np.array([metric.value for metric in found])
    half = np.array([(metric.high - metric.low) / 2 for metric in found])  # type: ignore[operator]
    real = values.std(ddof=1)
    assert values.mean() == pytest.approx(truth, abs=3 * real / np.sqrt(40))
    assert 0.8 < half.mean() / (1.96 * real) < 1.4
    assert (abs(values - truth) < half).mean() >= 0.9
