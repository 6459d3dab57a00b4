"""The Inception network of the published tier, in torch-fidelity's port: file, download, features."""

import tempfile
from pathlib import Path
from typing import Final
from urllib.error import URLError

import torch
from torch import Tensor

from backbones.checkpoints import CheckpointError, read_state_dict
from harness.quality.sets import Extractor, Network
from harness.weights.finite import check_finite
from pardec.errors import UserError
from pardec.hashing import file_sha256

INCEPTION: Final = "inception"
URL_INCEPTION: Final = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
"""torch-fidelity's, written out because a sweep asks for the file's place before it needs the library."""


def inception_weights_file() -> Path:
    """Where torch-fidelity keeps its Inception weights: ``$TORCH_HOME/hub/checkpoints``."""
    return Path(torch.hub.get_dir()) / "checkpoints" / URL_INCEPTION.rsplit("/", 1)[1]


def inception_extractor(weights_path: Path | None = None) -> Extractor:
    """The 2015 Inception network of the published tier, torch-fidelity's port ``inception-v3-compat``.

    Features are ``2048`` (pool_3), logits ``logits_unbiased`` (without the bias, as in the ADM protocol);
    images of any size are resized to 299 x 299 by the TensorFlow-1 bilinear filter inside. It always
    computes in float32: torch-fidelity's ``feature_extractor_internal_dtype="float64"`` has no effect in
    0.4.0.

    weights_path: state dict (``.pth`` or ``.safetensors``) with torch-fidelity's keys; None: the file in
    :func:`inception_weights_file`, downloaded there if missing. Raises UserError in one line otherwise.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = download_inception() if weights_path is None else weights_path
    state = _state_dict(path)
    # torch-fidelity unpickles its file without restrictions, so it gets a file written
    # here, from tensors alone.
    with tempfile.TemporaryDirectory() as folder:
        checked = Path(folder) / "weights.pth"
        torch.save(state, checked)
        try:
            network: Network = FeatureExtractorInceptionV3(
                "inception-v3-compat",
                ["2048", "logits_unbiased"],
                feature_extractor_weights_path=str(checked),
            )
        except RuntimeError as error:
            detail = " ".join(str(error).split())[:300]
            raise UserError(f"{path} is no torch-fidelity Inception state dict: {detail}") from error
    return Extractor(INCEPTION, file_sha256(path), network)


def download_inception() -> Path:
    """The file of :func:`inception_weights_file`, fetched if missing; UserError where that fails."""
    path = inception_weights_file()
    return fetched("Inception weights", URL_INCEPTION, path, sha256=path.stem.rsplit("-", 1)[1])


def fetched(what: str, url: str, path: Path, sha256: str) -> Path:
    """``path``, filled from ``url`` if missing and checked against the first digits of its hash.

    UserError naming ``what``, where it lies and where to put a copy, if that fails.
    """
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256)
        except (URLError, OSError, RuntimeError) as error:
            raise UserError(
                f"{what} can't be downloaded ({' '.join(str(error).split())}): "
                f"put {url} at {path} or give the path of a local copy"
            ) from error
    return path


def _state_dict(path: Path) -> dict[str, Tensor]:
    try:
        state = read_state_dict(path)
    except CheckpointError as error:
        raise UserError(f"Inception weights {error}; get {URL_INCEPTION}") from error
    check_finite(state, f"{path}: weight")
    return state
