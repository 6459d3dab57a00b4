"""Our feature networks inside torch-fidelity and clean-fid; the Inception network of the published tier."""

import tempfile
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from backbones.checkpoints import CheckpointError, read_state_dict
from harness.quality.sets import Extractor, Network, weights_sha256
from pardec.errors import UserError
from pardec.hashing import file_sha256

INCEPTION: Final = "inception"
URL_INCEPTION: Final = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
"""torch-fidelity's, written out because a sweep asks for the file's place before it needs the library."""
_registered: dict[
    str, str
] = {}  # torch-fidelity's registry is global and refuses a second entry: name -> sha256


def register_pardec_extractor(name: str, network: nn.Module) -> str:
    """Make a feature network known to torch-fidelity; returns its name there, ``pardec-<name>``.

    ``calculate_metrics(feature_extractor="pardec-mnist", ...)`` then works on data sets and folders of
    images. Registering the same weights again changes nothing; other weights under a used name raise
    ValueError, since torch-fidelity caches features under names alone.
    """
    from torch_fidelity import register_feature_extractor

    full_name = f"pardec-{name}"
    sha256 = weights_sha256(network)
    if full_name in _registered:
        if _registered[full_name] != sha256:
            raise ValueError(f"torch-fidelity already has another network registered as {full_name}")
        return full_name
    register_feature_extractor(full_name, _torch_fidelity_class(network.eval().requires_grad_(False)))
    _registered[full_name] = sha256
    return full_name


def _torch_fidelity_class(wrapped: nn.Module) -> type[Any]:
    from torch_fidelity import FeatureExtractorBase

    class PardecExtractor(FeatureExtractorBase):
        def __init__(
            self, name: str, features_list: list[str], feature_extractor_weights_path: None = None, **_: Any
        ) -> None:
            super().__init__(name, features_list)
            self.network = wrapped

        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            features, logits = self.network(images)
            layers = {"features": features, "logits": logits}
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

    return PardecExtractor


def clean_fid_folder_features(
    folder: Path, extractor: Extractor, batch: int = 128, device: str | torch.device = "cpu"
) -> NDArray[np.float32]:
    """Features [n, D] of a folder of images through clean-fid's own file path, by sorted name.

    clean-fid's resize to 299 is switched off: our networks take the images' own size.
    """
    from cleanfid.fid import get_folder_features

    def of_batch(pixels: Tensor) -> Tensor:
        # clean-fid divides by 255 and multiplies again, which leaves bytes off by a rounding error.
        return extractor.network(pixels.round().to(torch.uint8))[0]

    found = get_folder_features(
        str(folder),
        model=of_batch,
        num_workers=0,
        batch_size=batch,
        device=torch.device(device),
        mode="clean",
        custom_fn_resize=lambda image: image,
        verbose=False,
    )
    return np.asarray(found, dtype=np.float32)


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
        return read_state_dict(path)
    except CheckpointError as error:
        raise UserError(f"Inception weights {error}; get {URL_INCEPTION}") from error
