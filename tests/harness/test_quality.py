"""Quality metrics: recorded values, agreement of implementations, honest intervals, and the two libraries' paths."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn
from torch_fidelity import calculate_metrics
from torch_fidelity.metric_prc import prc_features_to_metric

from harness import quality as q
from harness.quality import diversity, frechet, kernel, neighbours
from harness.quality.sets import file_sha256
from harness.statistics import balanced_groups, jackknife_sd
from strategies.decoding.errors import UserError

DATA = Path(__file__).parent / "data"
Recorded = dict[str, NDArray[np.float32]]


class TinyRandomConv(nn.Module):
    """Stand-in for the trained feature network: one fixed random convolution, 12 features, 10 logits."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 5, stride=4)
        self.head = nn.Linear(12, 10)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 4

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = torch.relu(self.conv(images.float() / 64 - 1))  # [B, 12, 7, 7]
        features = maps.mean(dim=(2, 3))  # [B, 12]
        return features, self.head(features)


def pictures(n: int, seed: int, brightness: int = 0) -> NDArray[np.uint8]:
    blocks = np.random.default_rng(seed).integers(0, 200, (n, 3, 8, 8))
    return (blocks.repeat(4, axis=2).repeat(4, axis=3) + brightness).astype(np.uint8)


def of_points(points: NDArray[Any], logits: NDArray[Any] | None = None) -> q.Features:
    values = np.asarray(points, dtype=np.float32)
    given = values if logits is None else np.asarray(logits, dtype=np.float32)
    return q.Features(values, given, "standin", "0" * 64)


def column(*values: float) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)[:, None]


def recorded(name: str) -> tuple[Recorded, dict[str, Any]]:
    with safe_open(DATA / f"metrics-other-{name}.safetensors", "np") as file:
        return {key.removeprefix("io."): file.get_tensor(key) for key in file.keys()}, json.loads(
            file.metadata()["golden"]
        )["config"]


@pytest.fixture(scope="module")
def extractor() -> q.Extractor:
    return q.Extractor.of("standin", TinyRandomConv())


@pytest.fixture(scope="module")
def sets(extractor: q.Extractor) -> tuple[q.Features, q.ReferenceStats]:
    fake = q.extract(pictures(300, 1, 10), extractor)
    return fake, q.ReferenceStats.of(q.extract(pictures(400, 2), extractor), "blocks")


# --- recorded values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adm", "torch-fidelity"])
def test_recorded_distances_precision_and_recall(name: str) -> None:
    io, config = recorded(name)
    reference = q.ReferenceStats.of(of_points(io["real"]))
    own = frechet.distance(*frechet.moments(io["fake"]), reference)
    for found in (
        own,
        frechet.torch_fidelity_distance(io["fake"], reference),
        frechet.clean_fid_distance(io["fake"], reference),
    ):
        assert found == pytest.approx(float(io["fid"]), rel=1e-4)
    both = neighbours.precision_recall(io["fake"], io["real"], k=config["neighbourhood"])
    assert both.precision == pytest.approx(float(io["precision"]), rel=1e-6)
    assert both.recall == pytest.approx(float(io["recall"]), rel=1e-6)


def test_recorded_score_of_the_adm_evaluator() -> None:
    io, config = recorded("adm")
    found = diversity.score_of_chunks(io["probs"], config["split_size"])
    assert found == pytest.approx(float(io["inception_score"]), rel=1e-4)


def test_recorded_score_and_kernel_distance_of_torch_fidelity() -> None:
    io, config = recorded("torch-fidelity")
    mean, spread = diversity.score(io["logits"], config["isc_splits"], shuffle=False)
    assert mean == pytest.approx(float(io["inception_score"]), rel=1e-4)
    assert spread == pytest.approx(float(io["inception_score_std"]), rel=1e-4)
    n = min(len(io["fake"]), len(io["real"]))
    fake, real = io["fake"][:n], io["real"][:n]
    assert kernel.distance(fake, real) == pytest.approx(float(io["kid"]), rel=1e-4)
    whole = kernel.torch_fidelity_distance(fake, real, subset_size=n, subsets=1)
    assert whole == pytest.approx(float(io["kid"]), rel=1e-4)


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


@pytest.mark.parametrize("width", [4, 64])
def test_three_frechet_distances_agree(width: int) -> None:
    generator = np.random.default_rng(width)
    mix = generator.normal(size=(width, width)) / np.sqrt(width)
    real = np.maximum(generator.normal(size=(900, width)) @ mix, 0)
    fake = np.maximum(generator.normal(size=(500, width)) @ mix + 0.1, 0)
    reference, points = q.ReferenceStats.of(of_points(real)), of_points(fake).features
    own = frechet.distance(*frechet.moments(points), reference)
    assert frechet.torch_fidelity_distance(points, reference) == pytest.approx(own, rel=1e-6)
    assert frechet.clean_fid_distance(points, reference) == pytest.approx(own, rel=1e-6)


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


def test_intervals_of_all_metrics_match_fresh_draws() -> None:
    generator = np.random.default_rng(1)
    centres = generator.normal(size=(10, 16))
    labels = np.arange(600) % 10

    def draw(n: int, shift: float) -> q.Features:
        points = centres[np.arange(n) % 10] + generator.normal(size=(n, 16)) * np.linspace(1.5, 0.2, 16)
        return of_points(points + shift, points @ centres.T / 2)

    reference = q.ReferenceStats.of(draw(800, 0), "true")
    runs = [q.quality(draw(600, 0.05), reference, labels) for _ in range(30)]
    for name in runs[0]:
        values = np.array([run[name].value for run in runs])
        halves = np.mean([(run[name].high - run[name].low) / 2 for run in runs])  # type: ignore[operator]
        assert 0.6 < halves / 2.05 / values.std(ddof=1) < 2.0, name


def test_extrapolation_removes_most_of_the_bias() -> None:
    generator = np.random.default_rng(4)
    reference = q.ReferenceStats("exact", "", None, np.zeros(32), np.eye(32) / 32, "standin", "0" * 64)
    draws = [(generator.normal(size=(400, 32)) / np.sqrt(32)).astype(np.float32) for _ in range(10)]
    plain = np.mean([frechet.distance(*frechet.moments(points), reference) for points in draws])
    extrapolated = [frechet.distance_at_infinity(points, reference, smallest=100, seed=7) for points in draws]
    assert plain == pytest.approx((1 + 33 / 4) / 400, rel=0.1)  # the second-order bias
    assert abs(np.mean(extrapolated)) < 0.3 * plain
    assert extrapolated[0] == frechet.distance_at_infinity(draws[0], reference, smallest=100, seed=7)


# --- quality() ---------------------------------------------------------------------------------------------


def test_every_metric_is_named_by_extractor_and_number_of_images(
    sets: tuple[q.Features, q.ReferenceStats],
) -> None:
    fake, reference = sets
    labels = np.arange(300) % 10
    seen = np.where(np.arange(300) < 270, labels, -1)
    found = q.quality(fake, reference, labels, seen)
    stems = ["fd_standin", "fd_standin_clean", "kid_standin", "is_standin", "precision", "recall", "accuracy"]
    assert list(found) == [f"{stem}@300" for stem in stems]
    for metric in found.values():
        assert metric.value is not None
        assert metric.low <= metric.value <= metric.high  # type: ignore[operator]
        assert metric.n == 300
        assert set(metric.row()) == {"value", "low", "high", "n", "reference"}
    assert found["fd_standin_clean@300"].value == pytest.approx(found["fd_standin@300"].value, rel=1e-3)
    assert found["accuracy@300"].value == 0.9
    assert [m.reference for m in found.values()] == ["blocks"] * 3 + [None] + ["blocks"] * 2 + [None]
    assert q.unmeasured(found) == {}
    assert found == q.quality(fake, reference, labels, seen)
    json.dumps({name: metric.row() for name, metric in found.items()}, allow_nan=False)


def test_the_order_of_the_images_changes_the_score_alone(sets: tuple[q.Features, q.ReferenceStats]) -> None:
    fake, reference = sets
    labels = np.arange(300) % 10
    order = np.random.default_rng(0).permutation(300)
    turned = q.Features(fake.features[order], fake.logits[order], fake.extractor, fake.extractor_sha256)
    first, second = q.quality(fake, reference, labels), q.quality(turned, reference, labels[order])
    for name in first:
        if not name.startswith("is_"):
            assert second[name].value == pytest.approx(first[name].value, rel=1e-5), name


def test_a_set_against_itself_is_at_distance_zero(extractor: q.Extractor) -> None:
    real = q.extract(pictures(300, 2), extractor)
    found = q.quality(real, real, np.arange(300) % 10)
    for name in ("fd_standin@300", "fd_standin_clean@300"):
        assert found[name].value == pytest.approx(0, abs=1e-5)
    assert found["precision@300"].value == found["recall@300"].value == 1


def test_metrics_that_cannot_be_measured_have_a_reason(sets: tuple[q.Features, q.ReferenceStats]) -> None:
    fake, reference = sets
    few = q.Features(fake.features[:3], fake.logits[:3], fake.extractor, fake.extractor_sha256)
    found = q.quality(few, reference, np.arange(3))
    assert found["is_standin@3"].value is None
    assert found["precision@3"].value is None
    reasons = q.unmeasured(found)
    assert "at least 10 images" in reasons["quality.is_standin@3"]
    assert "k = 3 need more than 3 images" in reasons["quality.recall@3"]
    assert found["fd_standin@3"].value is not None

    published = q.ReferenceStats(
        "published", "", None, reference.mu, reference.sigma, reference.extractor, reference.extractor_sha256
    )
    found = q.quality(fake, published, np.arange(300) % 10)
    assert set(q.unmeasured(found)) == {f"quality.{m}@300" for m in ("kid_standin", "precision", "recall")}
    assert all("no images" in reason for reason in q.unmeasured(found).values())


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
    with pytest.raises(ValueError, match="1 of 5 images are not finite"):
        of_points(points)


def test_a_thousand_images_take_less_than_two_seconds() -> None:
    generator = np.random.default_rng(0)
    fake, real = (of_points(np.maximum(generator.normal(size=(n, 128)), 0)) for n in (1000, 4000))
    before = time.process_time()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        q.quality(fake, real, np.arange(1000) % 10)
    finally:
        torch.set_num_threads(threads)
    assert time.process_time() - before < 4  # 0.8 s on one idle core


# --- extraction and what makes rows comparable -------------------------------------------------------------


def test_extraction_is_the_network_in_batches(extractor: q.Extractor) -> None:
    images = pictures(37, 0)
    whole, batched = (q.extract(images, extractor, batch=b) for b in (64, 8))
    with torch.no_grad():
        features, logits = TinyRandomConv()(torch.from_numpy(images))
    for found in (whole, batched):
        np.testing.assert_allclose(found.features, features, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.logits, logits, rtol=1e-5, atol=1e-6)
    assert whole.images_sha256 == batched.images_sha256 != q.extract(images[:36], extractor).images_sha256
    assert whole.extractor_sha256 == q.weights_sha256(TinyRandomConv()) != q.weights_sha256(TinyRandomConv(1))
    with pytest.raises(ValueError, match="images must be uint8"):
        q.extract(images.astype(np.float32), extractor)  # type: ignore[arg-type]


def test_rows_are_comparable_at_equal_number_reference_and_protocol(
    sets: tuple[q.Features, q.ReferenceStats],
) -> None:
    fake, reference = sets
    row = {
        "images": fake.n,
        "reference": reference.row(),
        "protocol": q.protocol(fake, colour="round", labels="class i % 10"),
    }
    assert q.comparable(row, {**row, "steps": 8}) == []
    assert q.comparable(row, {**row, "images": 1000}) == ["images"]
    other = {**row, "reference": {**reference.row(), "sha256": "f", "n": 7}, "protocol": None}
    assert q.comparable(row, other) == ["reference.sha256", "reference.n"] + [
        f"protocol.{key}" for key in ("colour", "labels", "extractor", "extractor_sha256")
    ]


# --- the two libraries' own paths --------------------------------------------------------------------------


class Images(torch.utils.data.Dataset[Tensor]):
    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images = torch.from_numpy(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def test_calculate_metrics_of_torch_fidelity_equals_the_feature_path(
    sets: tuple[q.Features, q.ReferenceStats],
) -> None:
    fake, reference = sets
    name = q.register_pardec_extractor("standin", TinyRandomConv())
    assert name == q.register_pardec_extractor("standin", TinyRandomConv()) == "pardec-standin"
    with pytest.raises(ValueError, match="another network registered as pardec-standin"):
        q.register_pardec_extractor("standin", TinyRandomConv(1))
    theirs = calculate_metrics(
        input1=Images(pictures(300, 1, 10)),
        input2=Images(pictures(400, 2)),
        feature_extractor=name,
        fid=True,
        isc=True,
        kid=True,
        prc=True,
        kid_subset_size=200,
        kid_subsets=5,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    ours = q.quality(fake, reference, np.arange(300) % 10)
    assert ours["fd_standin@300"].value == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)
    assert ours["is_standin@300"].value == pytest.approx(theirs["inception_score_mean"], rel=1e-5)
    assert ours["precision@300"].value == pytest.approx(theirs["precision"], abs=1 / 300)
    assert ours["recall@300"].value == pytest.approx(theirs["recall"], abs=1 / 400)
    subsets = kernel.torch_fidelity_distance(fake.features, reference.points, subset_size=200, subsets=5)
    assert subsets == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)


def test_folder_of_pngs_through_clean_fid_equals_the_feature_path(
    extractor: q.Extractor, tmp_path: Path
) -> None:
    images = pictures(40, 5)
    for i, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"{i:04d}.png")
    found = q.clean_fid_folder_features(tmp_path, extractor, batch=16)
    np.testing.assert_allclose(found, q.extract(images, extractor).features, rtol=1e-5, atol=1e-6)


# --- Inception and ADM files -------------------------------------------------------------------------------


def test_inception_without_a_file_and_without_a_network_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def no_network(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(UserError) as error:
        q.inception_extractor()
    text = str(error.value)
    assert str(tmp_path / "hub/checkpoints/weights-inception-2015-12-05-6726825d.pth") in text
    assert "no route to host" in text
    assert "\n" not in text


class Payload:
    """A pickle of this writes a file when it is loaded without restrictions."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_inception_files_that_are_none_are_one_line(tmp_path: Path) -> None:
    run = tmp_path / "code-ran"
    torch.save({"fc.bias": Payload(run)}, tmp_path / "code.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"fc.bias": torch.zeros(3)}, tmp_path / "keys.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "keys.pth").read_bytes()[:200])
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0")
    expected = {
        "missing.pth": "not found",
        "code.pth": "can't be read",
        "cut.pth": "can't be read",
        "cut.safetensors": "can't be read",
        "list.pth": "plain state dict",
        "keys.pth": "Missing key",
    }
    for name, text in expected.items():
        with pytest.raises(UserError, match=text) as error:
            q.inception_extractor(tmp_path / name)
        assert name in str(error.value)
        assert "\n" not in str(error.value)
    assert not run.exists()


@pytest.mark.slow
def test_inception_from_a_local_file(tmp_path: Path) -> None:
    from torch_fidelity import feature_extractor_inceptionv3 as module

    class RandomInception(module.FeatureExtractorInceptionV3):
        def load_state_dict(self, *_: object, **__: object) -> None:
            """Keeps the random initialisation."""

    torch.manual_seed(0)
    torch.save({}, tmp_path / "none.pth")
    network = RandomInception("inception-v3-compat", ["2048"], str(tmp_path / "none.pth"))
    path = tmp_path / "random.pth"
    torch.save(network.state_dict(), path)
    images = pictures(3, 0)
    extractor = q.inception_extractor(path)
    found = q.extract(images, extractor)
    assert (found.extractor, found.extractor_sha256) == ("inception", file_sha256(path))
    assert found.logits.shape == (3, 1008)
    with torch.no_grad():
        (direct,) = network(torch.from_numpy(images))
    np.testing.assert_allclose(found.features, direct, rtol=1e-4, atol=1e-5)


def test_adm_files(extractor: q.Extractor, tmp_path: Path) -> None:
    images = pictures(50, 3)
    q.write_adm(tmp_path / "samples.npz", images)
    with np.load(tmp_path / "samples.npz") as file:
        assert file["arr_0"].shape == (50, 32, 32, 3)
    np.testing.assert_array_equal(q.read_adm(tmp_path / "samples.npz").images, images)
    own = q.adm_reference(tmp_path / "samples.npz", extractor)
    np.testing.assert_allclose(own.mu, own.points.mean(axis=0), rtol=1e-5)
    assert own.n == 50

    np.savez(tmp_path / "virtual.npz", arr_0=images.transpose(0, 2, 3, 1), mu=np.ones(12), sigma=np.eye(12))
    given = q.adm_reference(tmp_path / "virtual.npz", extractor)
    np.testing.assert_array_equal(given.mu, np.ones(12))
    assert (given.n, given.points.shape) == (None, (50, 12))
    assert q.quality(q.extract(images, extractor), given, np.zeros(50))["fd_standin@50"].value is not None


def test_adm_files_that_are_none_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no zip")
    np.savez(tmp_path / "empty.npz", other=np.zeros(3))
    np.savez(tmp_path / "floats.npz", arr_0=np.zeros((2, 4, 4, 3)))
    np.savez(tmp_path / "objects.npz", arr_0=np.array([{}], dtype=object))
    expected = {
        "text": "can't be read",
        "empty": "neither images",
        "floats": "must be uint8",
        "objects": "can't be read",
        "absent": "can't be read",
    }
    for name, text in expected.items():
        with pytest.raises(UserError, match=text) as error:
            q.read_adm(tmp_path / f"{name}.npz")
        assert "\n" not in str(error.value)
