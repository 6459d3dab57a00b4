"""The Fréchet distance of a tokenizer's reconstructions: the floor under every network on its codes."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backbones.tokenizers.base import Tokenizer
from backbones.weights import write_card
from harness.images.codes import decode_images, encode_variants
from harness.images.data import Dataset
from harness.images.names import metric_name
from harness.quality import Extractor, ReferenceStats, extract
from harness.quality.classifiers import FeatureNetwork
from harness.quality.frechet import torch_fidelity_distance
from pardec.files import read_text


def reconstruct(dataset: Dataset, tokenizer: Tokenizer) -> Tensor:
    """The images of a split encoded and decoded again, uint8 [n, 3, H, W]."""
    codes = encode_variants(dataset, tokenizer, 1, seed=0).codes[0]  # [n, h * w]
    return decode_images(torch.from_numpy(codes.astype(np.int64)), tokenizer)


def reconstruction_distances(
    train: Dataset, held_out: Dataset, tokenizer: Tokenizer, network: FeatureNetwork
) -> dict[str, float | str]:
    """Fréchet distances of held-out images and of their reconstructions.

    Distances from the training images are those of the anchor rows of a result table. The distance from the
    held-out originals is what is usually called reconstruction FID; it has no sampling noise in common with
    the others and can't be compared with them.
    """
    name = metric_name(train.name)
    extractor = Extractor.of(name, network, network.sha256)
    rebuilt = extract(reconstruct(held_out, tokenizer), extractor)
    originals = extract(held_out.images, extractor)
    against_train = ReferenceStats.of(extract(train.images, extractor))
    against_originals = ReferenceStats.of(originals)
    return {
        "metric": f"fd_{name}@{len(held_out)}",
        "extractor_sha256": network.sha256,
        "reconstructions_from_originals": torch_fidelity_distance(rebuilt.features, against_originals),
        "reconstructions_from_train": torch_fidelity_distance(rebuilt.features, against_train),
        "originals_from_train": torch_fidelity_distance(originals.features, against_train),
    }


def record_distances(card: Path, distances: dict[str, float | str]) -> None:
    """Write the distances into a tokenizer's card, in place of older ones."""
    write_card(card, json.loads(read_text(card)) | {"reconstruction_distance": distances})
