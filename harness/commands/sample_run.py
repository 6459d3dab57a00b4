"""Images of asked classes in a grid: whole, around a given part, or grown to twice the side."""

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from harness.cell.cell import checked
from harness.commands.common import introduce_strategies, overrides
from harness.images.arrays import write_npz
from harness.machine.terminal import progress_bar
from harness.subject.editing import DEMONSTRATED, GREY, complete, demonstrate, read_edit, task_masks
from harness.subject.enlarging import enlarge, settings_of
from harness.subject.prepare import check_tokenizer, prepare
from harness.subject.subject import Subject, load, run_batch
from harness.sweep.find import find_cell
from pardec.errors import UserError
from reports.artifacts import edits_path
from reports.pictures import edit_grid


def sample(options: argparse.Namespace) -> int:
    _check(options)
    cell = find_cell(options.cell, overrides(options), None)
    torch.set_num_threads(cell.threads)
    around_given = bool(options.image or options.inpaint_demo)
    prepared = prepare(cell, around_given)
    check_tokenizer(prepared.cell)
    subject = load(prepared)
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        if options.inpaint_demo:
            _demonstrate(subject, options.inpaint_demo, options.out)
        else:
            draw = _edited if options.image else _enlarged if options.enlarge else _whole
            _write(draw(subject, options), options.scale, options.out)
    except OSError as error:
        place = options.inpaint_demo or options.out
        raise UserError(f"'{error.filename or place}' can't be written: {error.strerror or error}") from None
    print(options.out)
    return 0


def _check(options: argparse.Namespace) -> None:
    """UserError for flags that can't go together, before anything is loaded."""
    for name, most in (("per_class", 1000), ("scale", 64)):
        if not 1 <= getattr(options, name) <= most:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag} {getattr(options, name)}: expected at least 1 and at most {most}")
    checked("guidance", options.context_guidance, "--context-guidance")
    if options.out.suffix.lower() != ".png":
        raise UserError(f"--out '{options.out}': expected a name that ends with .png")
    if (options.image is None) != (options.mask is None):
        given, missing = ("image", "mask") if options.mask is None else ("mask", "image")
        raise UserError(
            f"--{given} needs --{missing}: an image, and a mask that is white where it is drawn anew"
        )
    if options.paste_known and options.image is None:
        raise UserError("--paste-known needs --image and --mask")
    if options.enlarge and (options.image or options.inpaint_demo):
        raise UserError("--enlarge draws whole images: leave out --image, --mask and --inpaint-demo")
    if options.image and options.inpaint_demo:
        raise UserError("--inpaint-demo brings its own images: leave out --image and --mask")
    if options.only is not None and options.classes is not None:
        raise UserError("--class and --classes say the same: give one of them")
    if options.image and options.only is None and options.classes is None:
        raise UserError("--image needs --class N (or --classes LIST): what the image shows or shall become")


def _whole(subject: Subject, options: argparse.Namespace) -> Tensor:
    """Images of the asked classes, uint8 [classes, images, 3, H, W]."""
    total, batch = subject.prepared.config.classes, subject.prepared.cell.batch
    classes = _classes(options, total)
    # Image i shows class i % C, as in every sweep, so these are a sweep's first images of each class.
    images = [label + total * column for label in classes for column in range(options.per_class)]
    with progress_bar() as bar:
        starts = bar.track(range(0, len(images), batch), description="images")
        batches = [run_batch(subject, images[start : start + batch]) for start in starts]
    pixels = torch.cat([one.pixels for one in batches if one.pixels is not None])
    return pixels.unflatten(0, (len(classes), options.per_class))


def _edited(subject: Subject, options: argparse.Namespace) -> Tensor:
    """The image, its given part and completions to each class, uint8 [classes, 2 + images, 3, H, W]."""
    assert subject.tokenizer is not None
    total = subject.prepared.config.classes
    edit = read_edit(subject.tokenizer, options.image, options.mask)
    rows = []
    with progress_bar() as bar:
        for label in bar.track(_classes(options, total), description="classes"):
            images = [label + total * column for column in range(options.per_class)]
            pixels = complete(subject, edit, images)[0]
            pixels = edit.paste(pixels) if options.paste_known else pixels
            rows.append(torch.cat([torch.stack([edit.pixels, edit.masked()]), pixels]))
    return torch.stack(rows)


def _enlarged(subject: Subject, options: argparse.Namespace) -> Tensor:
    """Each image at half size in the corner of a square and at full size, [classes, 2 images, 3, 2H, 2W]."""
    settings = settings_of(subject, options.context_guidance)
    total = subject.prepared.config.classes
    rows = []
    with progress_bar() as bar:
        for label in bar.track(_classes(options, total), description="classes"):
            images = [label + total * column for column in range(options.per_class)]
            small, large = enlarge(subject, images, settings)
            height, width = small.shape[2:]
            framed = pad(small, (0, width, 0, height), value=GREY)
            rows.append(torch.stack([framed, large], dim=1).flatten(0, 1))
    return torch.stack(rows)


def _demonstrate(subject: Subject, results: Path, out: Path) -> None:
    """Real images around given tokens: the npz among the artifacts of ``results``, the picture as ``out``."""
    with progress_bar() as bar:
        task = bar.add_task("images", total=2 * len(DEMONSTRATED) * len(task_masks((1, 1))))
        edits = demonstrate(subject, lambda: bar.advance(task))
    introduce_strategies()
    path = edits_path(results, edits.strategy)
    write_npz(path, **edits.arrays())
    edit_grid(edits).savefig(out, bbox_inches="tight")
    print(path)


def _write(rows: Tensor, scale: int, out: Path) -> None:
    """Images uint8 [rows, columns, 3, H, W] as one PNG."""
    grid = rows.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)  # [rows H, columns W, 3]
    large = grid.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    Image.fromarray(large.numpy()).save(out)


def _classes(options: argparse.Namespace, total: int) -> list[int]:
    flag, text = ("--class", options.only) if options.only is not None else ("--classes", options.classes)
    if text is None:
        return list(range(min(total, 10)))
    try:
        chosen = [int(text)] if flag == "--class" else [int(part) for part in text.split(",")]
    except ValueError:
        example = "a whole number, e.g. 7" if flag == "--class" else "whole numbers, e.g. 0,1,7"
        raise UserError(f"{flag} '{text}': expected {example}") from None
    wrong = [label for label in chosen if not 0 <= label < total]
    if wrong:
        raise UserError(f"{flag} '{text}': no class {wrong[0]}; valid: 0 to {total - 1}")
    return chosen
