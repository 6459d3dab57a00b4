"""All metrics of a set together: names, intervals, reasons, refusals."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from harness import quality as q
from harness.quality.intervals import balanced_groups
from pardec.errors import NotFinite
from tests.harness.quality_standins import TinyRandomConv, of_points, pictures


@pytest.fixture(autouse=True, scope="module")
def one_core() -> Iterator[None]:
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def extractor() -> q.Extractor:
    return q.Extractor.of("standin", TinyRandomConv())


@pytest.fixture(scope="module")
def sets(extractor: q.Extractor) -> tuple[q.Features, q.ReferenceStats]:
    fake = q.extract(pictures(300, 1, 10), extractor)
    return fake, q.ReferenceStats.of(q.extract(pictures(400, 2), extractor), "blocks")


def test_every_metric_is_named_by_extractor_and_number_of_images(
    sets: tuple[q.Features, q.ReferenceStats],
) -> None:
    fake, reference = sets
    labels = np.arange(300) % 10
    seen = np.where(np.arange(300) < 270, labels, -1)
    found = q.quality(fake, reference, labels, seen)
    stems = ["fd_standin", "fd_standin_clean", "fd_standin_inf", "kid_standin", "is_standin"]
    stems += ["precision", "recall", "accuracy"]
    assert list(found) == [f"{stem}@300" for stem in stems]
    for metric in found.values():
        assert metric.value is not None
        assert metric.low <= metric.value <= metric.high  # type: ignore[operator]
        assert metric.n == 300
        assert metric.without is not None
        assert len(metric.without) == 15  # 30 images of a class
        assert np.mean(metric.without) == pytest.approx(metric.value, rel=0.05)
        assert set(metric.row()) == {"value", "low", "high", "n", "reference"}
    assert found["fd_standin_clean@300"].value == pytest.approx(found["fd_standin@300"].value, rel=1e-3)
    assert found["accuracy@300"].value == 0.9
    assert [m.reference for m in found.values()] == ["blocks"] * 4 + [None] + ["blocks"] * 2 + [None]
    assert q.unmeasured(found) == {}
    assert found == q.quality(fake, reference, labels, seen)
    json.dumps({name: metric.row() for name, metric in found.items()}, allow_nan=False)


def test_the_order_of_the_images_changes_what_is_split_or_subsampled_alone(
    sets: tuple[q.Features, q.ReferenceStats],
) -> None:
    fake, reference = sets
    labels = np.arange(300) % 10
    order = np.random.default_rng(0).permutation(300)
    turned = q.Features(fake.features[order], fake.logits[order], fake.extractor, fake.extractor_sha256)
    first, second = q.quality(fake, reference, labels), q.quality(turned, reference, labels[order])
    for name in first:
        if not name.startswith("is_") and "_inf@" not in name:
            assert second[name].value == pytest.approx(first[name].value, rel=1e-5), name


def test_a_set_against_itself_is_at_distance_zero(extractor: q.Extractor) -> None:
    real = q.extract(pictures(300, 2), extractor)
    found = q.quality(real, real, np.arange(300) % 10)
    for name in ("fd_standin@300", "fd_standin_clean@300"):
        assert found[name].value == pytest.approx(0, abs=1e-5)
    assert found["precision@300"].value == found["recall@300"].value == 1


@pytest.mark.parametrize("n", [4, 12, 16, 60, 300])
def test_equal_sets_are_at_distance_zero_with_an_interval_that_begins_there(n: int) -> None:
    """Rounding takes such a distance to either side of zero, most of all with fewer images than features."""
    points = np.random.default_rng(n).gamma(1, 3, size=(n, 64)).astype(np.float32)
    found = q.quality(of_points(points), of_points(points), np.arange(n) % 4)
    distances = {
        name: one for name, one in found.items() if name in (f"fd_standin@{n}", f"fd_standin_clean@{n}")
    }
    for name, metric in distances.items():
        if metric.value is not None:
            assert 0 <= metric.value < 0.01, name
            assert 0 <= metric.low <= metric.value <= metric.high, name
    assert distances[f"fd_standin@{n}"].value is not None


def test_a_distance_far_below_zero_is_no_distance() -> None:
    points = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    wrong = q.ReferenceStats("wrong", "", None, np.zeros(4), -10 * np.eye(4), "standin", "0" * 64)
    found = q.quality(of_points(points), wrong, np.arange(40) % 4)
    for name in ("fd_standin@40", "fd_standin_clean@40"):
        assert found[name].value is None
        assert found[name].reason


@pytest.mark.parametrize(("n", "measured"), [(9, False), (10, False), (19, False), (20, True)])
def test_a_split_of_one_image_is_no_score(n: int, measured: bool) -> None:
    logits = np.random.default_rng(0).normal(size=(n, 10)).astype(np.float32) * 3
    found = q.quality(of_points(logits), of_points(logits), np.arange(n) % 10)[f"is_standin@{n}"]
    if measured:
        assert found.value > 1  # type: ignore[operator]
    else:
        assert found.reason == f"a score over 10 splits needs at least 20 images, two for each, got {n}"


def test_metrics_that_cannot_be_measured_have_a_reason(sets: tuple[q.Features, q.ReferenceStats]) -> None:
    fake, reference = sets
    few = q.Features(fake.features[:3], fake.logits[:3], fake.extractor, fake.extractor_sha256)
    found = q.quality(few, reference, np.arange(3))
    assert found["is_standin@3"].value is None
    assert found["precision@3"].value is None
    reasons = q.unmeasured(found)
    assert "at least 20 images" in reasons["quality.is_standin@3"]
    assert "k = 3 need more than 3 images" in reasons["quality.recall@3"]
    assert found["fd_standin@3"].value is not None

    published = q.ReferenceStats(
        "published", "", None, reference.mu, reference.sigma, reference.extractor, reference.extractor_sha256
    )
    found = q.quality(fake, published, np.arange(300) % 10)
    assert set(q.unmeasured(found)) == {f"quality.{m}@300" for m in ("kid_standin", "precision", "recall")}
    assert all("no images" in reason for reason in q.unmeasured(found).values())


def test_values_without_each_group_are_kept_for_paired_differences(
    sets: tuple[q.Features, q.ReferenceStats],
) -> None:
    fake, reference = sets
    labels = np.arange(300) % 10
    hits = np.arange(300) % 7 > 0
    found = q.quality(fake, reference, labels, np.where(hits, labels, -1))
    kept = q.replicates(found)
    assert list(kept) == list(found)
    assert {len(values) for values in kept.values()} == {15}
    groups = balanced_groups(labels)
    expected = [hits[groups != g].mean() for g in range(15)]
    assert kept["accuracy@300"] == pytest.approx(expected)
    few = q.Features(fake.features[:3], fake.logits[:3], fake.extractor, fake.extractor_sha256)
    assert "is_standin@3" not in q.replicates(q.quality(few, reference, np.arange(3)))


def test_sets_that_do_not_belong_together_are_refused(sets: tuple[q.Features, q.ReferenceStats]) -> None:
    fake, reference = sets
    other = q.Features(fake.features, fake.logits, fake.extractor, "f" * 64)
    with pytest.raises(ValueError, match="can't be compared with a reference"):
        q.quality(other, reference, np.zeros(300))
    with pytest.raises(ValueError, match=r"labels must be \[300\]"):
        q.quality(fake, reference, np.zeros(299))
    with pytest.raises(ValueError, match="judge_predictions have shape"):
        q.quality(fake, reference, np.zeros(300), np.zeros(1))


def test_features_that_are_not_finite_are_refused() -> None:
    points = np.ones((5, 4), np.float32)
    points[2, 1] = np.nan
    with pytest.raises(NotFinite, match="1 of 5 images are not finite"):
        of_points(points)


def test_intervals_of_all_metrics_match_fresh_draws() -> None:
    generator = np.random.default_rng(1)
    centres = generator.normal(size=(10, 16))
    labels = np.arange(400) % 10

    def draw(n: int, shift: float) -> q.Features:
        points = centres[np.arange(n) % 10] + generator.normal(size=(n, 16)) * np.linspace(1.5, 0.2, 16)
        return of_points(points + shift, points @ centres.T / 2)

    reference = q.ReferenceStats.of(draw(500, 0), "true")
    runs = [q.quality(draw(400, 0.05), reference, labels) for _ in range(25)]
    for name in runs[0]:
        values = np.array([run[name].value for run in runs])
        halves = np.mean([(run[name].high - run[name].low) / 2 for run in runs])  # type: ignore[operator]
        assert 0.6 < halves / 2.05 / values.std(ddof=1) < 2.0, name
