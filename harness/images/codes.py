"""Images as codes, encoded once: what the networks of a comparison are trained on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from backbones.tokenizers.base import Tokenizer
from harness.images.arrays import write_npz
from harness.images.data import Augmentation, Dataset, to_float
from harness.images.pixels import detokenize
from pardec.errors import UserError
from results.arrays import read_arrays

BATCH = 50  # activations of more images fall out of a core's cache


@dataclass(frozen=True)
class Codes:
    """Several encodings of the images of a split."""

    codes: np.ndarray
    """uint8 or int64 [variants, n, h * w], raster order; variant 0 is of the images as they are, the others
    of randomly augmented copies."""
    labels: np.ndarray
    """int64 [n]."""

    def save(self, path: Path) -> None:
        """Write an .npz with the keys codes and labels, whole or not at all."""
        write_npz(path, codes=self.codes, labels=self.labels)

    @classmethod
    def load(cls, path: Path) -> "Codes":
        """What ``save`` wrote; UserError for anything else."""
        arrays = read_arrays(path, ("codes", "labels"))
        if len(arrays) < 2:
            raise UserError(f"'{path}' is not a file of codes: expected the arrays codes and labels")
        codes, labels = arrays["codes"], arrays["labels"]
        whole = all(array.dtype.kind in "iu" and array.size for array in arrays.values())
        if not whole or codes.ndim != 3 or labels.shape != codes.shape[1:2]:
            shapes = f"{codes.dtype} {list(codes.shape)} and {labels.dtype} {list(labels.shape)}"
            raise UserError(
                f"'{path}' is not a file of codes: expected [variants, n, N] and [n], got {shapes}"
            )
        return cls(codes, labels)


@torch.inference_mode()
def encode_variants(dataset: Dataset, tokenizer: Tokenizer, variants: int, seed: int) -> Codes:
    """Encode a split ``variants`` times; variant v > 0 is augmented with a stream of (seed, v) alone."""
    device = next(tokenizer.parameters()).device
    rows = []
    for variant in tqdm(
        range(variants), desc="encode", unit="variant", disable=None if variants > 4 else True
    ):
        source = dataset.images  # [n, 3, H, W]
        if variant:
            source = Augmentation()(to_float(source), generator_of(seed, variant))
        codes = [
            tokenizer.encode((part if variant else to_float(part)).to(device)).flatten(1).cpu()
            for part in source.split(BATCH)
        ]
        rows.append(torch.cat(codes))  # [n, h * w]
    stacked = torch.stack(rows).numpy()  # [variants, n, h * w]
    return Codes(stacked.astype(np.uint8) if tokenizer.codes <= 256 else stacked, dataset.labels.numpy())


def generator_of(*words: int) -> torch.Generator:
    """A random stream that is a function of the words alone, such as a seed, a purpose and a step."""
    (state,) = np.random.SeedSequence(words).generate_state(1, dtype=np.uint64)
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


@torch.inference_mode()
def decode_images(codes: Tensor, tokenizer: Tokenizer) -> Tensor:
    """Codes [n, h * w] or [n, h, w] to uint8 images [n, 3, H, W], in batches on the tokenizer's device."""
    device = next(tokenizer.parameters()).device
    rows = codes.flatten(1)  # [n, h * w]
    return torch.cat([detokenize(tokenizer, part.to(device)).cpu() for part in rows.split(BATCH)])
