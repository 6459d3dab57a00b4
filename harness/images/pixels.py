"""From a cell's tokens to pixels: its tokenizer, images decoded a few at a time, how one image appeared."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.checkpoints import CheckpointError
from backbones.config import NetworkConfig
from backbones.tokenizers import Tokenizer, load_tokenizer
from backbones.tokenizers.published import load_published_tokenizer, random_tokenizer
from harness.cell.cell import RANDOM, Cell
from harness.images.data import to_uint8
from harness.weights import zoo
from pardec.errors import NotFinite
from strategies.decoding import presets
from strategies.decoding.trace import Committed, of_image, states_after

GREY = 127
PIXELS = 2**19
"""Pixels decoded at a time, eight images of 256x256: a published decoder takes about 2 kB for each."""
FEWEST_FRAMES = 4


def cell_tokenizer(cell: Cell, config: NetworkConfig, own: str = "tokenizer") -> Tokenizer | None:
    """The tokenizer of a cell's network on the CPU; None where the cell has none and its tokens stay tokens.

    own: the one of the zoo whose codes the strategy's networks speak.
    Raises CheckpointError for weights that don't fit, or a tokenizer that speaks other codes.
    """
    if not cell.is_published:
        tokenizer = load_tokenizer(zoo.shared_file(own, cell.zoo))
    elif cell.tokenizer_checkpoint is None:
        return None
    else:
        name = presets.preset_info(cell.network).tokenizer
        if cell.tokenizer_checkpoint == RANDOM:
            tokenizer = random_tokenizer(name, config.grid, cell.seed)
        else:
            tokenizer = load_published_tokenizer(
                name, config.grid, Path(cell.tokenizer_checkpoint), cell.tokenizer_weights
            )
        tokenizer = tokenizer.to(memory_format=torch.channels_last)
    if (tokenizer.codes, tokenizer.grid) != (config.codes, config.grid):
        raise CheckpointError(
            f"network '{cell.network}' has {config.codes} codes on a grid {config.grid}, the tokenizer "
            f"{tokenizer.codes} on {tokenizer.grid}"
        )
    return tokenizer


def images_at_a_time(tokenizer: Tokenizer) -> int:
    """How many images take ``PIXELS`` pixels, at least one."""
    height, width = tokenizer.image_size
    return max(1, PIXELS // (height * width))


def detokenize(tokenizer: Tokenizer, tokens: Tensor, size: int | None = None) -> Tensor:
    """Tokens [B, N] -> uint8 [B, 3, H, W] on the tokenizer's device, a few images at a time.

    Raises NotFinite where the decoder overflows.

    size: side in pixels to which an image is resized while it is still float, bicubic without antialiasing,
    as the networks of 384 pixels are evaluated at 256 (LlamaGen's and PAR's sampling).
    """
    parts = []
    for codes in tokens.unflatten(1, tokenizer.code_shape).split(images_at_a_time(tokenizer)):
        images = tokenizer.decode(codes)
        if size is not None and images.shape[-2:] != (size, size):
            images = F.interpolate(images, size=(size, size), mode="bicubic")
        parts.append(whole_bytes(images))
    return torch.cat(parts)


def whole_bytes(images: Tensor) -> Tensor:
    """Decoded images [B, 3, H, W] as bytes; NotFinite where the decoder overflowed to black or white."""
    whole = images.isfinite().flatten(1).all(dim=1)  # [B]
    if not whole.all():
        raise NotFinite(f"pixels of {int((~whole).sum())} of {len(whole)} images are NaN or infinite")
    return to_uint8(images)


@torch.inference_mode()
def film_of(
    tokenizer: Tokenizer, order: Tensor, trace: Sequence[Committed], codes_from: int = 0
) -> np.ndarray:
    """The first image of a batch as it appears: uint8 [frames, H, W, 3], unwritten positions grey.

    order: position at each place [B, N]. There is a frame before the first step and one after each of the K;
    of large images there are only as many as are decoded at a time, and frame i follows step
    round((i + 1) K / frames).

    codes_from: positions of the canvas before it hold labels, each a code that stands for it until the
    position's own is written.
    """
    device = trace[0].tokens.device
    height, width = tokenizer.image_size
    black = tokenizer.encode(-torch.ones(1, 3, height, width, device=device))
    start = torch.cat([black.flatten(1)[:, :codes_from], black.flatten(1)], dim=1)
    states = [_seen(state, codes_from) for state in states_after(of_image(trace, 0), order[:1], start)]
    kept = shown_steps(len(states) - 1, max(FEWEST_FRAMES, images_at_a_time(tokenizer)))
    if tokenizer.code_shape != tokenizer.grid:  # every map is of the whole image
        parts = [tokenizer.decode_written(*states[k]) for k in kept]
        return to_uint8(torch.cat(parts)).permute(0, 2, 3, 1).cpu().numpy()
    frames = detokenize(tokenizer, torch.cat([states[k][0] for k in kept]))  # [F, 3, H, W]
    grid = torch.cat([states[k][1] for k in kept]).unflatten(1, tokenizer.grid)  # [F, h, w]
    rows, columns = height // grid.shape[1], width // grid.shape[2]
    shown = grid.repeat_interleave(rows, dim=1).repeat_interleave(columns, dim=2).unsqueeze(1)  # [F, 1, H, W]
    return torch.where(shown, frames, torch.full_like(frames, GREY)).permute(0, 2, 3, 1).cpu().numpy()


def _seen(state: tuple[Tensor, Tensor], codes_from: int) -> tuple[Tensor, Tensor]:
    """Codes [B, N] of a canvas and which are known, those that stand for labels where no others are."""
    if not codes_from:
        return state
    (labels, codes), (labelled, written) = (one.split(codes_from, dim=1) for one in state)
    return torch.where(written | ~labelled, codes, labels), labelled | written


def shown_steps(steps: int, frames: int) -> list[int]:
    """After how many of the steps the frames of a film are taken: all, from none on, where they fit."""
    if steps + 1 <= frames:
        return list(range(steps + 1))
    return [round((frame + 1) * steps / frames) for frame in range(frames)]
