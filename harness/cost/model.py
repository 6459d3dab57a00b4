"""From counted work and a device card to seconds and bytes: what a cell will take before it runs.

A kind of work in a step takes max(bytes / bandwidth, FLOPs / rate) (roofline: Williams, Waterman, Patterson,
CACM 52(4), 2009). Launching adds to that on a CPU; a GPU works while the host launches ahead, so there only
what launching takes longer than working is added.
"""

import copy
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from backbones.products import KERNEL_BYTES, KERNELS_KEPT
from backbones.tokenizers import Tokenizer
from harness.cost.recorder import META, Operations
from harness.cost.work import DecodeWork, decode_work, tokenizer_work, unguided
from harness.images.pixels import images_at_a_time
from harness.machine.cards import DeviceCard
from harness.machine.precision import type_name
from harness.subject.prediction import predict
from harness.subject.prepare import Prepared
from pardec.files import write_whole


@dataclass(frozen=True)
class Seconds:
    """Predicted seconds of one batch, by what they are spent on."""

    tokens: float
    """Matrix products and element-wise work, sampling included."""
    cache: float
    """Reading and writing the key/value cache."""
    attention: float
    """Attention beyond its cache traffic."""
    launch: float
    """Host time of launching that working doesn't hide."""

    @property
    def total(self) -> float:
        return self.tokens + self.cache + self.attention + self.launch


def step_seconds(works: Iterable[Operations], card: DeviceCard, precision: str) -> Seconds:
    """Seconds of one step."""
    tokens = cache = attention = 0.0
    launches = moved = 0
    for work in works:
        arithmetic_s = work.flops / card.product_rate(precision, work.rows) if work.flops else 0.0
        roofline_s = max(work.nbytes / card.bandwidth_bytes_per_s, arithmetic_s)
        cached_s = work.cache_bytes / card.bandwidth_bytes_per_s
        cache += cached_s
        if work.kind == "attention":
            attention += roofline_s - cached_s
        else:
            tokens += roofline_s - cached_s
        launches += work.launches
        moved += work.nbytes
    launch = launches * card.launch_seconds(moved / launches) if launches else 0.0
    if card.asynchronous:
        launch = max(0.0, launch - tokens - cache - attention)
    return Seconds(tokens, cache, attention, launch)


def decode_seconds(work: DecodeWork, card: DeviceCard, precision: str) -> Seconds:
    """Seconds of all steps of one batch."""
    steps = [step_seconds(works, card, precision) for works in work.steps]
    return Seconds(
        tokens=sum(step.tokens for step in steps),
        cache=sum(step.cache for step in steps),
        attention=sum(step.attention for step in steps),
        launch=sum(step.launch for step in steps),
    )


@dataclass(frozen=True)
class Cost:
    """A cell's predicted cost. Seconds are of one batch, and sum to ``total_s``; planning is not in them."""

    card: str
    batch: int
    steps: int
    tokens_s: float
    """Products and element-wise work as they would be without guidance."""
    guidance_s: float
    """What the unconditional half adds to them."""
    cache_s: float
    attention_s: float
    launch_s: float
    detokenize_s: float | None
    """None where tokens stay tokens."""
    latency_s: float
    """Seconds of one image at batch 1."""
    flops_per_image: float
    weight_bytes: int
    cache_bytes: int
    activation_bytes: int
    kernel_bytes: int

    @property
    def total_s(self) -> float:
        parts = (self.tokens_s, self.guidance_s, self.cache_s, self.attention_s, self.launch_s)
        return sum(parts) + (self.detokenize_s or 0.0)

    @property
    def step_s(self) -> float:
        """Mean seconds of a step."""
        return (self.total_s - (self.detokenize_s or 0.0)) / self.steps

    @property
    def throughput_images_per_s(self) -> float:
        return self.batch / self.total_s

    @property
    def peak_bytes(self) -> int:
        """Weights, cache, activations at the fullest moment, and what the product library keeps."""
        return self.weight_bytes + self.cache_bytes + self.activation_bytes + self.kernel_bytes

    def to_dict(self) -> dict[str, float | int | str | None]:
        """Fields and derived numbers, for storage."""
        derived = {name: getattr(self, name) for name in ("total_s", "step_s", "throughput_images_per_s")}
        return asdict(self) | derived | {"peak_bytes": self.peak_bytes}

    def write(self, path: Path) -> None:
        text = json.dumps(self.to_dict(), indent=1) + "\n"
        write_whole(path, lambda file: file.write(text.encode()))


def predict_cost(
    prepared: Prepared,
    card: DeviceCard,
    tokenizer: Tokenizer | None = None,
    latency: bool = True,
    acceptance: float | None = None,
) -> Cost:
    """The cost of a cell on the device of ``card``.

    latency: whether batch 1 is counted too; without it ``latency_s`` is that of the cell's batch. acceptance:
    share of tested drafts that are accepted, where steps follow from it (default: the cell's). Raises
    ``Unforeseeable`` for a strategy whose course depends on what it draws, UserError for a precision that
    the card has no rate for.
    """
    cell = prepared.cell
    precision = precision_of(prepared, card)
    on_cpu = not card.asynchronous
    work = decode_work(prepared, None, on_cpu, acceptance)
    whole = decode_seconds(work, card, precision)
    bare = whole
    if prepared.guidance is not None:
        bare = decode_seconds(decode_work(unguided(prepared), None, on_cpu, acceptance), card, precision)
    first_s = whole.total
    if latency and cell.batch != 1:
        first_s = decode_seconds(decode_work(prepared, 1, on_cpu, acceptance), card, precision).total
    detokenize_s, activations = None, work.activation_bytes
    if tokenizer is not None:
        shadow = copy.deepcopy(tokenizer).to(META)
        # A few images at a time, the cache being free again.
        few = min(cell.batch, images_at_a_time(tokenizer))
        rounds, rest = divmod(cell.batch, few)
        works = {images: tokenizer_work(shadow, images) for images in {few, rest, 1} - {0}}
        seconds = {images: decode_seconds(one, card, "float32").total for images, one in works.items()}
        detokenize_s = rounds * seconds[few] + seconds.get(rest, 0.0)
        first_s += seconds[1]
        activations = max(activations, works[few].activation_bytes - work.cache_bytes)
    return Cost(
        card=card.name,
        batch=cell.batch,
        steps=len(work.steps),
        tokens_s=bare.tokens,
        guidance_s=whole.tokens - bare.tokens,
        cache_s=whole.cache,
        attention_s=whole.attention,
        launch_s=whole.launch,
        detokenize_s=detokenize_s,
        latency_s=first_s,
        flops_per_image=work.flops / cell.batch,
        weight_bytes=predict(prepared).weight_bytes,
        cache_bytes=work.cache_bytes,
        activation_bytes=activations,
        kernel_bytes=kernel_bytes(work, card),
    )


def kernel_bytes(work: DecodeWork, card: DeviceCard | None = None) -> int:
    """What the product library keeps by the end; a card that doesn't say counts as ``KERNEL_BYTES`` each."""
    total = count = 0.0
    for kernel, shapes in work.kernels.items():
        precision = type_name(kernel.dtype) + (" packed" if kernel.packed else "")
        size = None if card is None else card.kernel_size(precision, kernel.rows)
        total += shapes * (KERNEL_BYTES if size is None else size)
        count += shapes
    return round(total * min(1.0, KERNELS_KEPT / max(count, 1.0)))


def precision_of(prepared: Prepared, card: DeviceCard) -> str:
    """The card's name of the cell's products: ``bfloat16 packed`` where they are packed and so measured."""
    cell = prepared.cell
    packed = f"{cell.dtype} packed"
    return packed if cell.products == "packed" and packed in card.product_flops_per_s else cell.dtype
