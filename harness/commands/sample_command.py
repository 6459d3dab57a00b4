"""pardec sample: a PNG grid of images, a row per class."""

import argparse
from pathlib import Path

from harness.commands.common import add_machine_flags, overrides, progress_bar
from strategies.decoding.errors import UserError

SUMMARY = "draw images of some classes into a PNG grid"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "cell", metavar="CELL", help="settings as for explain: strategy=lpd,steps=10,guidance=2"
    )
    command.add_argument("--classes", metavar="LIST", help="e.g. 0,1,7 (default: all, at most 10)")
    command.add_argument("--per-class", type=int, default=8, metavar="N", help="images a row (default: 8)")
    command.add_argument("--seed", type=int, help="another seed draws other images")
    command.add_argument("--out", type=Path, default=Path("samples.png"), help="default: %(default)s")
    command.add_argument("--scale", type=int, default=3, help="pixels per pixel (default: 3)")
    add_machine_flags(command)


def run(options: argparse.Namespace) -> int:
    import torch
    from PIL import Image

    from harness.commands.explain_command import find_cell
    from harness.generate import load, run_batch
    from harness.prepare import check_tokenizer, prepare

    for name in ("per_class", "scale"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(options, name)}: expected at least 1")
    if options.out.suffix.lower() != ".png":
        raise UserError(f"--out '{options.out}': expected a name that ends with .png")
    cell = find_cell(options.cell, overrides(options), None)
    torch.set_num_threads(cell.threads)
    prepared = prepare(cell)
    check_tokenizer(cell)
    subject = load(prepared)
    total = subject.prepared.config.classes
    classes = _classes(options.classes, total)
    # Image i shows class i % C, as in every sweep, so these are a sweep's first images of each class.
    images = [label + total * column for label in classes for column in range(options.per_class)]
    with progress_bar() as bar:
        starts = bar.track(range(0, len(images), cell.batch), description="images")
        batches = [run_batch(subject, images[start : start + cell.batch]) for start in starts]
    pixels = torch.cat([batch.pixels for batch in batches if batch.pixels is not None]).unflatten(
        0, (len(classes), options.per_class)
    )  # [rows, columns, 3, H, W]
    grid = pixels.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)  # [rows H, columns W, 3]
    large = grid.repeat_interleave(options.scale, 0).repeat_interleave(options.scale, 1)
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(large.numpy()).save(options.out)
    except OSError as error:
        raise UserError(f"--out '{options.out}' can't be written: {error.strerror or error}") from None
    print(options.out)
    return 0


def _classes(text: str | None, total: int) -> list[int]:
    if text is None:
        return list(range(min(total, 10)))
    try:
        chosen = [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--classes '{text}': expected whole numbers, e.g. 0,1,7") from None
    wrong = [label for label in chosen if not 0 <= label < total]
    if wrong:
        raise UserError(f"--classes '{text}': no class {wrong[0]}; valid: 0 to {total - 1}")
    return chosen
