"""clean-fid's own protocol (Parmar et al., arXiv 2104.11222): its resize, its network, its statistics.

Every image is resized to 299 x 299 outside the network, channel by channel in floats, by PIL's antialiased
bicubic filter; features are those of the 2015 Inception network as TorchScript, ``inception-2015-12-05.pt``.
Both differ from the ADM protocol, and so do the numbers: ``fid_clean@N`` is never set beside another FID.
"""

import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.images.folders import clean_files
from harness.images.pictures import BrokenPicture, open_plainly
from harness.quality import frechet
from harness.quality.gaussians import check_gaussian
from harness.quality.inception import fetched
from harness.quality.sets import Extractor, ReferenceStats
from harness.weights.finite import check_finite
from pardec.errors import NotFinite, UserError, one_line, visible
from pardec.file_forms import mistaken
from pardec.hashing import file_sha256
from results.arrays import UNREADABLE, array_headers, read_arrays

CLEAN: Final = "inception-clean"
WIDTH = 2048
"""Of the features."""
SIDE = 299
"""Pixels to which images are resized."""
_FILE = "inception-2015-12-05.pt"
_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"


class CleanInception(nn.Module):
    """clean-fid's network behind its resize: uint8 [B, 3, H, W] -> (features float [B, 2048], [B, 0]).

    It has no logits: clean-fid takes no score.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = images.permute(0, 2, 3, 1).cpu().numpy()  # [B, H, W, 3]
        return self.of_resized(torch.from_numpy(resized(pixels)).to(images.device))

    def of_resized(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The same of float [B, 3, 299, 299] in 0..255."""
        features: Tensor = self.network(images)
        return features, features[:, :0]


def resized(pictures: Iterable[Any], read: Callable[[Any], NDArray[Any]] = np.asarray) -> NDArray[np.float32]:
    """clean-fid's resize of pictures that ``read`` gives, [H, W, 3], each of its own size.

    float32 [n, 3, 299, 299] in 0..255. A picture is let go before its thread reads the next.
    """
    from cleanfid.resize import build_resizer  # here and below, since clean-fid takes seconds to import

    resize = build_resizer("clean")

    def one(picture: Any) -> NDArray[np.float32]:
        found: NDArray[np.float32] = resize(read(picture)).transpose(2, 0, 1)
        return found

    # PIL lets other threads run while it filters.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return np.stack(list(pool.map(one, pictures)))


def clean_weights_file() -> Path:
    """Where the TorchScript file is looked for: ``$TORCH_HOME/hub/checkpoints``.

    Not clean-fid's own place, ``/tmp``: anyone may write there, and the file is a program.
    """
    return Path(torch.hub.get_dir()) / "checkpoints" / _FILE


def download_clean_inception() -> Path:
    """The file of :func:`clean_weights_file`, fetched and checked if missing; UserError where that fails."""
    from cleanfid.downloads_helper import inception_url

    return fetched("clean-fid's Inception", inception_url, clean_weights_file(), _SHA256)


def clean_extractor(path: Path) -> Extractor:
    """clean-fid's network from a local file; nothing is downloaded.

    A TorchScript file is a program of torch operations: unlike a pickle it can't call Python, but what it
    computes when it is run is up to its author, so the hash of the published file is worth checking.
    Raises UserError for a file that is no such network, NotFinite for weights that are no numbers.
    """
    from cleanfid.downloads_helper import inception_url
    from cleanfid.inception_torchscript import InceptionV3W

    reason = mistaken(path, "zip")
    if reason is not None:
        raise UserError(f"clean-fid's Inception {path}: {reason}; get {inception_url}")
    # clean-fid takes a folder and expects the published name in it.
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / _FILE).symlink_to(path.absolute())
        try:
            with warnings.catch_warnings(), torch.inference_mode():
                # Of torch.jit.load, for which such files have no successor.
                warnings.simplefilter("ignore", FutureWarning)
                network = InceptionV3W(folder, download=False, resize_inside=False).eval()
                features = network.requires_grad_(False)(torch.zeros(2, 3, SIDE, SIDE))
        except (RuntimeError, AttributeError, TypeError, ValueError) as error:
            detail = " ".join(str(error).split())[:200]
            raise UserError(f"{path} is no TorchScript Inception of clean-fid: {detail}") from error
    assert list(features.shape) == [2, WIDTH]  # InceptionV3W reshapes to it or raises
    check_finite(network, f"{path}: weight")
    if not features.isfinite().all():  # constants of the program have no name
        raise NotFinite(f"{path}: features of a black image are NaN or infinite")
    return Extractor(CLEAN, file_sha256(path), CleanInception(network).eval())


def check_clean_reference(path: Path) -> None:
    """UserError unless the path is a folder of images or an npz of clean-fid's statistics."""
    if path.is_dir():
        clean_files(path)
        return
    arrays = array_headers(path)
    theirs = [name for name in ("arr_0", "mu_s", "sigma_s") if name in arrays]
    if theirs:
        raise UserError(
            f"{path} is an ADM reference ({', '.join(theirs)}), whose statistics are of another resize; "
            "expected a folder of images or an npz of clean-fid's mu and sigma"
        )
    for name, shape in (("mu", (WIDTH,)), ("sigma", (WIDTH, WIDTH))):
        if name not in arrays:
            raise UserError(f"{path} lacks {name}; expected an npz of clean-fid's mu and sigma")
        if arrays[name].shape != shape or arrays[name].dtype.kind != "f":
            got = f"{arrays[name].dtype} {list(arrays[name].shape)}"
            raise UserError(f"{path}: {name} must be floats {list(shape)}, got {got}")
    _check_statistics(path, file_sha256(path))


@lru_cache(maxsize=4)
def _check_statistics(path: Path, sha256: str) -> None:
    """UserError for statistics of no distribution; once for every content."""
    found = read_arrays(path, ("mu", "sigma"))
    check_gaussian(str(path), found["mu"].astype(np.float64), found["sigma"].astype(np.float64))


def read_clean_statistics(path: Path, sha256: str, extractor: Extractor) -> ReferenceStats:
    """A reference from an npz as clean-fid's ``make_custom_stats`` writes it: mu [2048], sigma [2048, 2048].

    The file doesn't say of how many images, nor by which network: the published one is taken for granted.
    """
    _check_statistics(path, file_sha256(path))
    found = read_arrays(path, ("mu", "sigma"))
    mu, sigma = (found[name].astype(np.float64) for name in ("mu", "sigma"))
    return ReferenceStats(visible(path.stem), sha256, None, mu, sigma, extractor.name, extractor.sha256)


def folder_statistics(
    folder: Path, sha256: str, extractor: Extractor, batch: int, device: str
) -> ReferenceStats:
    """A reference from a folder of images of any size, sub-folders included; UserError for a broken one."""
    features = np.concatenate(list(_folder_features(folder, extractor, batch, device)))
    mu, sigma = statistics(features)
    return ReferenceStats(
        visible(folder.name), sha256, len(features), mu, sigma, extractor.name, extractor.sha256
    )


def _folder_features(
    folder: Path, extractor: Extractor, batch: int, device: str
) -> Iterator[NDArray[np.float32]]:
    assert isinstance(extractor.network, CleanInception)
    network = extractor.network.to(device)
    files = clean_files(folder)
    with torch.inference_mode():
        for start in range(0, len(files), batch):
            images = torch.from_numpy(resized(files[start : start + batch], _read))
            yield network.of_resized(images.to(device))[0].float().cpu().numpy()


def _read(file: Path) -> NDArray[Any]:
    """A picture [H, W, 3] as clean-fid reads it: by Pillow's own conversion, or the array of an .npy."""
    if file.suffix != ".npy":
        return np.asarray(open_plainly(file))
    try:
        values = np.load(file, mmap_mode="r", allow_pickle=False)
    except UNREADABLE as error:
        raise BrokenPicture(file, one_line(error)) from error
    if values.dtype.kind not in "fiu" or values.ndim != 3 or values.shape[2] < 3 or 0 in values.shape:
        raise BrokenPicture(file, f"expected numbers [H, W, 3], got {values.dtype} {list(values.shape)}")
    if not np.isfinite(values).all():
        raise BrokenPicture(file, "its values are NaN or infinite")
    return np.asarray(values)


def statistics(features: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """clean-fid's mean [D], summed in float32, and covariance [D, D] of features [n, D]."""
    return np.mean(features, axis=0).astype(np.float64), np.atleast_2d(np.cov(features, rowvar=False))


def clean_fid(features: NDArray[np.float32], reference: ReferenceStats) -> float:
    """The Fréchet distance by clean-fid's arithmetic. features: float32 [n, D].

    clean-fid's root is scipy's, of a product that is singular where there are no more images than features:
    it then adds 1e-6 to the diagonals, which is no rounding error at a width of 2,048. There the distance
    is taken by :func:`frechet.distance_of_images`, which needs no regular product.
    """
    if len(features) <= features.shape[1]:
        return frechet.distance_of_images(features, reference)
    return frechet.scipy_distance(*statistics(features), reference)
