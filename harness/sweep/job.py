"""What a worker does: measures one cell with its artifacts, or times cells in turn."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from backbones.tokenizers import load_tokenizer
from harness.cell.cell import RANDOM, RECONSTRUCTING, Cell, unscored
from harness.cost.model import predict_cost
from harness.cost.sweep_hours import card_for
from harness.cost.work import Unforeseeable
from harness.images.arrays import write_npz
from harness.images.codes import decode_images
from harness.images.data import load_dataset, to_float
from harness.images.shards import Shards
from harness.images.stores import ImageStore
from harness.lossiness.conditionals import Undefined
from harness.lossiness.estimate import estimate
from harness.machine.environment import environment
from harness.measure.measure import measure
from harness.measure.turns import time_in_turn
from harness.quality.assess.adm import assess
from harness.quality.assess.controlled import Assessor, balanced, check_data
from harness.subject.method import store_method
from harness.subject.prepare import prepare
from harness.subject.subject import Gallery, Subject, load
from harness.sweep.messages import Channel
from harness.sweep.process import TurnGroup
from harness.weights import zoo
from pardec.errors import UserError

SAMPLES = 50
"""Images kept of every cell."""
UNPREDICTED = "artifacts.cost"
"""Where ``unmeasured`` says why the cost model predicted nothing."""


def measure_cell(cell: Cell, folder: Path, channel: Channel) -> dict[str, Any]:
    """The measured fields of the cell's row; its artifacts are on disk when this returns."""
    limit_device_memory(cell)
    torch.set_num_threads(cell.threads or 1)
    channel.send(share=0.0, doing="start", measured={"environment": environment(cell.device)})
    return _anchor(cell, folder, channel) if cell.is_anchor else _decoded(cell, folder, channel)


def limit_device_memory(cell: Cell) -> None:
    """Give torch its share of a CUDA device; the parent limits a process on the CPU."""
    if cell.memory_limit_gb is not None and cell.device != "cpu":
        total = torch.cuda.get_device_properties(cell.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, cell.memory_limit_gb * 1e9 / total), cell.device)


def time_cells(group: TurnGroup, channel: Channel) -> dict[str, Any]:
    """``turns`` of every cell by its key, timed in turn."""
    limited = group.limited
    limit_device_memory(limited)
    torch.set_num_threads(limited.threads or 1)
    channel.send(share=0.0, doing="in turn", measured={"environment": environment(limited.device)})
    return {"turns": time_in_turn(group.cells, group.rounds, group.chosen)}


def _decoded(cell: Cell, folder: Path, channel: Channel) -> dict[str, Any]:
    if not cell.is_published:
        check_data(cell, folder)
    subject = load(prepare(cell))
    gallery = Gallery(store=_store_of(cell, folder) if cell.is_published else None)
    found = measure(subject, lambda share, doing: channel.progress(0.75 * share, doing), gallery=gallery)
    made = found.at(subject, cell.batch)
    lost, why_not = _lossiness(made, channel)
    found.row |= lost.row | taught(cell) | {"weights_taken": subject.weights_taken}
    found.unmeasured |= why_not
    trace = {
        "step_of_position": gallery.step_of_position,
        **gallery.by_position,
        **gallery.race.arrays(),
        **lost.arrays,
    }
    method = store_method(made.prepared, folder)
    if subject.tokenizer is None:
        predicted, unpredicted = store_prediction(made, folder, found.row)
        why = unpredicted | {"quality": "no tokenizer_checkpoint: tokens stay tokens"}
        artifacts = _store(cell, folder, **trace) | method | predicted
        return found.row | {"artifacts": artifacts, "unmeasured": found.unmeasured | why}
    channel.send(share=0.8, doing="quality", measured=found.row)
    labels = subject.labels(range(cell.images)).cpu()
    quality, why = _generated_quality(cell, folder, gallery, labels)
    if gallery.film is not None:
        trace["film"] = gallery.film
    pictures = _store(cell, folder, **trace, **_samples(_first_pixels(gallery), labels))
    predicted, unpredicted = store_prediction(made, folder, found.row)
    why = found.unmeasured | why | unpredicted
    return found.row | quality | {"artifacts": pictures | method | predicted, "unmeasured": why}


def taught(cell: Cell) -> dict[str, int | None]:
    """How the cell's network was trained, where it is one of a zoo and has its trained weights."""
    if cell.is_published or cell.checkpoint == RANDOM:
        return {}
    card = zoo.read_card(cell.network, cell.zoo)
    return {"training_seed": card.training_seed, "training_images": card.training_images}


def _store_of(cell: Cell, folder: Path) -> ImageStore:
    """Where a published cell's images go, and are found again after a kill, whatever they are judged by."""
    made = unscored(cell)
    return ImageStore.of(Shards.open(folder / "images" / made.key, made), made)


def _first_pixels(gallery: Gallery) -> Any:
    """At least the first ``SAMPLES`` images, or all: uint8 [n, 3, H, W]."""
    if gallery.store is None:
        return torch.cat(gallery.pixels)
    parts: list[Any] = []
    for part in gallery.store.shards.parts("images"):
        parts.append(torch.from_numpy(part))
        if sum(map(len, parts)) >= SAMPLES:
            break
    return torch.cat(parts)


def store_prediction(
    subject: Subject, folder: Path, measured: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, str]]:
    """Store what the cost model says of the cell, of one that tests drafts at the share of them that was
    ``measured`` to be accepted: the row's artifact, or why there is none."""
    cell = subject.prepared.cell
    card = card_for(cell)
    if card is None:
        return {}, {UNPREDICTED: "no device card of this machine and thread count; run 'pardec calibrate'"}
    try:
        cost = predict_cost(
            subject.prepared, card, subject.tokenizer, acceptance=measured.get("accepted_share")
        )
    except (Unforeseeable, UserError) as error:
        return {}, {UNPREDICTED: str(error)}
    path = folder / "artifacts" / f"{cell.key}.cost.json"
    cost.write(path)
    return {"cost": path.relative_to(folder).as_posix()}, {}


def _anchor(cell: Cell, folder: Path, channel: Channel) -> dict[str, Any]:
    """The held-out images, or their reconstructions: what quality is at best."""
    channel.progress(0.0, "images")
    pixels, labels = balanced(load_dataset(cell.data, "held-out"), cell.images)
    if cell.strategy in RECONSTRUCTING:
        file = zoo.shared_file(RECONSTRUCTING[cell.strategy], cell.zoo)
        tokenizer = load_tokenizer(file).to(cell.device)
        with torch.inference_mode():
            parts = [tokenizer.encode(to_float(part).to(cell.device)) for part in pixels.split(256)]
        pixels = decode_images(torch.cat(parts), tokenizer)
    channel.progress(0.5, "quality")
    quality, why = _quality(cell, folder, pixels, labels)
    artifacts = _store(cell, folder, **_samples(pixels, labels))
    return quality | {"images": len(pixels), "artifacts": artifacts, "unmeasured": why}


@dataclass(frozen=True)
class Extra:
    """Fields of the row and arrays beside it."""

    row: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Any] = field(default_factory=dict)


def _lossiness(subject: Subject, channel: Channel) -> tuple[Extra, dict[str, str]]:
    """Bits lost by decoding in groups, by image and step, and why they are not known."""
    images = subject.prepared.cell.lossiness_images or 0
    if not images:
        return Extra(), {"lossiness_bits": "switched off by lossiness_images = 0"}
    channel.progress(0.75, "lossiness")
    try:
        found = estimate(subject, images)
    except Undefined as error:
        return Extra(), {"lossiness_bits": str(error)}
    value, low, high = found.total
    row = {"lossiness_bits": {"value": value, "low": low, "high": high, "n": images}}
    why = {"lossiness_bits.low": "one image", "lossiness_bits.high": "one image"} if images == 1 else {}
    return Extra(row, {"lossiness_bits": found.bits}), why


def _generated_quality(
    cell: Cell, folder: Path, gallery: Gallery, labels: Any
) -> tuple[dict[str, Any], dict[str, str]]:
    if gallery.store is None:
        return _quality(cell, folder, torch.cat(gallery.pixels), labels)
    shards = gallery.store.shards
    return assess(cell, folder / "artifacts", lambda: shards.parts("images"), labels.numpy())


def _quality(cell: Cell, folder: Path, pixels: Any, labels: Any) -> tuple[dict[str, Any], dict[str, str]]:
    return Assessor.of(cell, folder / "artifacts").fields(pixels, labels)


def _samples(pixels: Any, labels: Any) -> dict[str, Any]:
    """The first images uint8 [n, H, W, 3] and their classes [n]."""
    samples = pixels[:SAMPLES].permute(0, 2, 3, 1).contiguous().numpy()
    return {"samples": samples, "classes": labels[:SAMPLES].numpy()}


def _store(cell: Cell, folder: Path, **arrays: Any) -> dict[str, str]:
    """Write the pictures beside the rows; returns the row's ``artifacts``."""
    path = folder / "artifacts" / f"{cell.key}.npz"
    write_npz(path, **arrays)
    name = path.relative_to(folder).as_posix()
    kinds = {
        "trace": "step_of_position",
        "samples": "samples",
        "lossiness": "lossiness_bits",
        "acceptance": "drafts_tested",
    }
    return {kind: name for kind, array in kinds.items() if array in arrays}
