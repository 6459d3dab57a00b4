"""References that are none: refused in one line before anything is generated, by value as by shape."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from harness import quality as q
from harness.cli import main
from harness.quality import clean
from harness.quality.assess.kept import kept
from harness.quality.gaussians import check_gaussian
from pardec.errors import UserError
from tests.harness.small_published import small_presets  # noqa: F401

WIDTH = 2048
Arrays = dict[str, NDArray[np.float64]]


def whole(width: int = WIDTH) -> Arrays:
    return {"mu": np.zeros(width), "sigma": np.eye(width)}


def with_value(name: str, place: tuple[int, ...], value: float) -> Callable[..., Arrays]:
    def make(width: int = WIDTH) -> Arrays:
        arrays = whole(width)
        arrays[name][place] = value
        return arrays

    return make


def negative_eigenvalue(width: int = WIDTH) -> Arrays:
    arrays = whole(width)
    arrays["sigma"][0, 1] = arrays["sigma"][1, 0] = 2
    return arrays


HARMS = {
    "nan mu": (with_value("mu", (3,), np.nan), "mu holds NaN or infinite values"),
    "infinite mu": (with_value("mu", (3,), np.inf), "mu holds NaN or infinite values"),
    "nan sigma": (with_value("sigma", (3, 4), np.nan), "sigma holds NaN or infinite values"),
    "negative sigma": (
        lambda width=WIDTH: {**whole(width), "sigma": -np.eye(width)},
        "sigma has negative variances",
    ),
    "one negative variance": (with_value("sigma", (5, 5), -1e-3), "sigma has negative variances"),
    "not symmetric": (with_value("sigma", (0, 1), 0.5), "sigma is not symmetric"),
    "negative eigenvalue": (negative_eigenvalue, "sigma has negative eigenvalues"),
}


def generate(folder: Path, *flags: str) -> int:
    text = "strategy=par,network=small-par,checkpoint=random,tokenizer_checkpoint=random,batch=2"
    return main(["generate", text, "--images", "2", "--out", str(folder / "out"), "--threads", "1", *flags])


@pytest.mark.parametrize("harm", HARMS)
def test_statistics_of_no_distribution_are_refused(harm):
    make, words = HARMS[harm]
    with pytest.raises(UserError, match=f"^file: {words}"):
        check_gaussian("file", **make(8))


@pytest.mark.parametrize("flag", ["--reference", "--clean-reference"])
def test_they_are_refused_before_anything_is_generated(tmp_path, capsys, flag):
    make, words = HARMS["one negative variance"]
    np.savez(tmp_path / "stats.npz", **make())
    assert generate(tmp_path, flag, str(tmp_path / "stats.npz")) == 2
    error = capsys.readouterr().err
    assert f"stats.npz: {words}" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_spatial_statistics_are_looked_at_too(tmp_path, capsys):
    np.savez(tmp_path / "stats.npz", **whole(), mu_s=np.full(2023, np.nan), sigma_s=np.eye(2023))
    assert generate(tmp_path, "--reference", str(tmp_path / "stats.npz")) == 2
    assert "(mu_s, sigma_s): mu holds NaN" in capsys.readouterr().err


@pytest.mark.parametrize(("there", "missing"), [("mu", "sigma"), ("sigma", "mu")])
def test_half_a_pair_beside_images_is_refused(tmp_path, capsys, there, missing):
    images = np.zeros((6, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "half.npz", arr_0=images, **{there: whole()[there]})
    assert generate(tmp_path, "--reference", str(tmp_path / "half.npz")) == 2
    assert f"holds {there} without {missing}" in capsys.readouterr().err


def test_readers_refuse_what_the_check_refuses(tmp_path):
    np.savez(tmp_path / "stats.npz", **HARMS["negative sigma"][0]())
    with pytest.raises(UserError, match="negative variances"):
        q.read_adm(tmp_path / "stats.npz")
    with pytest.raises(UserError, match="negative variances"):
        clean.read_clean_statistics(
            tmp_path / "stats.npz", "", q.Extractor("x", "", lambda images: (images, images))
        )


@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("n", [2, 30, 500])
def test_rounding_makes_no_covariance_a_wrong_one(precision, n):
    """Of few images: most eigenvalues are zero, and rounding takes them below."""
    points = np.random.default_rng(n).gamma(0.5, size=(n, 200)) * np.logspace(-3, 3, 200)
    sigma = np.cov(points.astype(precision), rowvar=False).astype(precision).astype(np.float64)
    check_gaussian("file", points.mean(axis=0), sigma)
    check_gaussian("file", np.zeros(3), np.zeros((3, 3)))


# What is kept of them ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 500, None])
def test_a_kept_reference_that_is_torn_is_made_again(tmp_path, size):
    path, made = tmp_path / "kept.npz", []

    def make() -> Arrays:
        made.append(1)
        return {"mu": np.arange(300.0), "n": np.array(7)}

    kept(path, ("mu", "n"), make)
    content = path.read_bytes()
    path.write_bytes(content[:size])
    found = kept(path, ("mu", "n"), make)
    assert len(made) == (1 if size is None else 2)
    assert (int(found["n"]), found["mu"].sum()) == (7, 44850)
    assert kept(path, ("mu", "n"), make)["mu"].shape == (300,)
    assert kept(path, ("mu",), make).keys() == {"mu"}
