"""Where features come from: our networks in the two libraries, Inception, ADM files."""

import os
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_fidelity import (
    FeatureExtractorBase,
    calculate_metrics,
    feature_extractor_inceptionv3,
    register_feature_extractor,
)

from harness import quality as q
from harness.quality import inception, kernel
from harness.quality.adm import statistics_of
from pardec.errors import UserError
from pardec.hashing import file_sha256
from tests.harness.quality_standins import TinyRandomConv, pictures


@pytest.fixture(scope="module")
def extractor() -> q.Extractor:
    return q.Extractor.of("standin", TinyRandomConv())


@pytest.fixture(scope="module")
def sets(extractor: q.Extractor) -> tuple[q.Features, q.ReferenceStats]:
    fake = q.extract(pictures(300, 1, 10), extractor)
    return fake, q.ReferenceStats.of(q.extract(pictures(400, 2), extractor), "blocks")


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
        q.extract(images.astype(np.float32), extractor)


# --- the two libraries' own paths --------------------------------------------------------------------------


class Images(torch.utils.data.Dataset[Tensor]):
    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images = torch.from_numpy(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


class StandIn(FeatureExtractorBase):
    """A feature network as torch-fidelity takes one."""

    def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
        super().__init__(name, features_list)
        self.network = TinyRandomConv()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        layers = dict(zip(("features", "logits"), self.network(images), strict=True))
        return tuple(layers[layer] for layer in self.features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return ("features", "logits")

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "logits" if metric == "isc" else "features"

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    @staticmethod
    def get_dummy_input_for_compile() -> Tensor:
        return torch.zeros(1, 3, 32, 32, dtype=torch.uint8)


def test_calculate_metrics_of_torch_fidelity_equals_the_feature_path(
    sets: tuple[q.Features, q.ReferenceStats],
) -> None:
    fake, reference = sets
    register_feature_extractor("pardec-standin", StandIn)
    theirs = calculate_metrics(
        input1=Images(pictures(300, 1, 10)),
        input2=Images(pictures(400, 2)),
        feature_extractor="pardec-standin",
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


# --- Inception and ADM files -------------------------------------------------------------------------------


def test_inception_without_a_file_and_without_a_network_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def no_network(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    assert inception.URL_INCEPTION == feature_extractor_inceptionv3.URL_INCEPTION_V3
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
        "missing.pth": "no such file",
        "code.pth": "refused, the pickle wants to run",
        "cut.pth": "truncated or damaged",
        "cut.safetensors": "truncated",
        "list.pth": "no state dict found",
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
    class RandomInception(feature_extractor_inceptionv3.FeatureExtractorInceptionV3):
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


def adm_reference(path: Path, extractor: q.Extractor) -> q.ReferenceStats:
    found = q.read_adm(path)
    assert found.images is not None
    stats = statistics_of(found, found.mu, found.sigma, q.extract(found.images, extractor), extractor, "")
    assert stats is not None
    return stats


def test_adm_files(extractor: q.Extractor, tmp_path: Path) -> None:
    images = pictures(50, 3)
    np.savez(tmp_path / "samples.npz", arr_0=images.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(q.read_adm(tmp_path / "samples.npz").images, images)
    own = adm_reference(tmp_path / "samples.npz", extractor)
    np.testing.assert_allclose(own.mu, own.points.mean(axis=0), rtol=1e-5)
    assert own.n == 50

    np.savez(tmp_path / "virtual.npz", arr_0=images.transpose(0, 2, 3, 1), mu=np.ones(12), sigma=np.eye(12))
    given = adm_reference(tmp_path / "virtual.npz", extractor)
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
