"""Zero-shot uses of a strategy that takes given tokens: inpainting, outpainting, editing by class.

A mask says which pixels are drawn anew. A code is known only if all pixels of its patch are; known codes are
given to the plan and come back as they were.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from backbones.tokenizers import Tokenizer
from harness.images.data import load_dataset, to_float
from harness.images.names import is_fashion
from harness.images.pictures import open_image, open_with_alpha
from harness.images.pixels import GREY
from harness.subject.subject import Given, Subject, run_batch
from pardec.errors import UserError
from reports.artifacts import Edits


@dataclass(frozen=True)
class Edit:
    """An image of which a part is kept.

    pixels: uint8 [3, H, W]. drawn_anew: bool [H, W]. known: bool [h, w], the patches that are kept.
    codes: int64 [N] of the whole image.
    """

    pixels: Tensor
    drawn_anew: Tensor
    known: Tensor
    codes: Tensor

    @property
    def given(self) -> Given:
        return Given(self.known.flatten().nonzero().flatten().numpy(), self.codes)

    def masked(self) -> Tensor:
        """The image with its unknown patches grey, uint8 [3, H, W]."""
        factors = [side // count for side, count in zip(self.pixels.shape[1:], self.known.shape, strict=True)]
        shown = self.known.repeat_interleave(factors[0], 0).repeat_interleave(factors[1], 1)
        return torch.where(shown, self.pixels, torch.full_like(self.pixels, GREY))

    def paste(self, images: Tensor) -> Tensor:
        """Images uint8 [B, 3, H, W] with the pixels outside the mask as they were."""
        return torch.where(self.drawn_anew, images, self.pixels)


def make_edit(tokenizer: Tokenizer, pixels: Tensor, drawn_anew: Tensor, where: str = "the mask") -> Edit:
    """An edit of ``pixels`` uint8 [3, H, W] by a mask bool [H, W]; ``where`` opens the errors.

    Raises UserError where nothing is drawn anew or nothing is known.
    """
    rows, columns = tokenizer.grid
    patches = drawn_anew.unflatten(1, (columns, -1)).unflatten(0, (rows, -1))  # [h, H/h, w, W/w]
    known = ~patches.any(dim=3).any(dim=1)
    if known.all():
        raise UserError(f"{where} is black everywhere, so nothing is drawn anew; expected white where it is")
    if not known.any():
        size = f"{patches.shape[3]}x{patches.shape[1]}"
        raise UserError(f"{where} leaves no {size} patch whole; for images without given tokens leave it out")
    device = next(tokenizer.parameters()).device
    with torch.inference_mode():
        codes = tokenizer.encode(to_float(pixels).unsqueeze(0).to(device))
    return Edit(pixels, drawn_anew, known, codes.flatten().cpu())


def read_edit(tokenizer: Tokenizer, image: Path, mask: Path) -> Edit:
    """The edit of two files of the tokenizer's image size; white in the mask is drawn anew."""
    pixels = _sized(tokenizer, "--image", image, open_image)[..., :3]
    where = f"--mask '{mask}'"
    drawn_anew = _drawn_anew(_sized(tokenizer, "--mask", mask, open_with_alpha), pixels, where)
    return make_edit(tokenizer, pixels.permute(2, 0, 1).contiguous(), drawn_anew, where)


def _sized(tokenizer: Tokenizer, flag: str, path: Path, read: Callable[[Path], Image.Image]) -> Tensor:
    """A picture uint8 [H, W, channels] of the tokenizer's image size."""
    height, width = tokenizer.image_size
    if not path.is_file():
        raise UserError(f"{flag} '{path}': no such file")
    picture = read(path)
    if picture.size != (width, height):
        raise UserError(
            f"{flag} '{path}' is {picture.width}x{picture.height} pixels; expected {width}x{height}"
        )
    return torch.from_numpy(np.array(picture))


def _drawn_anew(mask: Tensor, pixels: Tensor, where: str) -> Tensor:
    """Which pixels a mask uint8 [H, W, 4] asks for, bool [H, W].

    Some editors paint white on a transparent layer, others erase a hole into black or into the picture
    ``pixels`` uint8 [H, W, 3] itself: UserError where a mask may be read either way.
    """
    white = mask[..., :3].float().mean(dim=2) >= 128
    clear = mask[..., 3] < 128
    shown = white[~clear]
    if not clear.any() or (len(shown) and shown.all()):
        return white & ~clear
    if not shown.any() or torch.equal(mask[..., :3][~clear], pixels[~clear]):
        return clear
    raise UserError(
        f"{where} has black, white and transparent parts, so it doesn't say which are drawn anew; "
        "expected black and white alone, or the picture with a transparent hole"
    )


def complete(subject: Subject, edit: Edit, images: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Completions for these image indices: pixels uint8 [B, 3, H, W] and tokens [B, N], both on the CPU.

    They are as large as the image of which they keep a part, whatever the cell's ``evaluation_size``. Raises
    RuntimeError should a known token not come back unchanged.
    """
    cell = dataclasses.replace(subject.prepared.cell, evaluation_size=None)
    subject = dataclasses.replace(subject, prepared=dataclasses.replace(subject.prepared, cell=cell))
    batch, given = cell.batch, edit.given
    done = [
        run_batch(subject, images[start : start + batch], given) for start in range(0, len(images), batch)
    ]
    tokens = torch.cat([one.decoded.tokens.cpu() for one in done])
    if not (tokens[:, given.positions] == edit.codes[given.positions]).all():
        raise RuntimeError(f"strategy '{subject.prepared.strategy.name}' changed a given token")
    return torch.cat([one.pixels for one in done if one.pixels is not None]), tokens


# A demonstration on real images ----------------------------------------------------------------------------

DEMONSTRATED = ((2, 3), (7, 9), (6, 4))
"""Class of the image, and another that its kept part may also become: pullover and dress, sneaker and ankle
boot, shirt and coat."""
COMPLETIONS = 4


def task_masks(size: tuple[int, int]) -> dict[str, Tensor]:
    """Masks bool [H, W] of three tasks: inpainting of two halves, outpainting around the middle."""
    height, width = size
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    inner = ((2 * rows + 1 - height).abs() < height // 2) & ((2 * columns + 1 - width).abs() < width // 2)
    anywhere = torch.ones(size, dtype=torch.bool)
    return {
        "lower half anew": anywhere & (rows >= height // 2),
        "right half anew": anywhere & (columns >= width // 2),
        "all around anew": ~inner,
    }


def demonstrate(subject: Subject, progress: Callable[[], None] = lambda: None) -> Edits:
    """Held-out images of which a part is kept, completed to their own class and edited to another."""
    tokenizer, cell = subject.tokenizer, subject.prepared.cell
    if tokenizer is None or tokenizer.image_size != (32, 32) or not is_fashion(cell.data):
        raise UserError("--inpaint-demo shows Fashion-MNIST, so it needs a network of the controlled tier")
    held_out = load_dataset(cell.data, "held-out")
    classes = subject.prepared.config.classes
    labels, rows = [], []
    for own, other in DEMONSTRATED:
        pixels = held_out.images[int((held_out.labels == own).nonzero()[0])]
        for task, mask in task_masks(tokenizer.image_size).items():
            edit = make_edit(tokenizer, pixels, mask)
            shown = [pixels, edit.masked()]
            for label in (own, other):
                images = [label + classes * column for column in range(COMPLETIONS)]
                shown += list(complete(subject, edit, images)[0])
                progress()
            rows.append(torch.stack(shown).permute(0, 2, 3, 1).numpy())
            names = held_out.classes
            labels.append(f"{names[own]}, {task}\nedited to {names[other]}")
    blank = [""] * (COMPLETIONS - 1)
    heads = ("image", "given", "completed", *blank, "edited", *blank)
    caption = f"{cell.describe()}, seed {cell.seed}; real held-out images of Fashion-MNIST"
    return Edits(subject.prepared.strategy.name, caption, tuple(labels), heads, np.stack(rows))
