"""What a cell may be asked for: every setting with its type, default, meaning and declaration. Plain data."""

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from results.annotations import fault
from results.fields import Setting, declared, setting
from results.rules import guidance_scale, number, options, switch, text, texts, whole

SCHEDULES = ("constant", "linear", "power-cosine")
DTYPES = ("float32", "bfloat16", "float16")
PRODUCTS = ("plain", "packed", "auto")
ATTENTIONS = ("mask", "parts", "auto")


@dataclass(frozen=True)
class Settings:
    """One setting of one strategy; ``harness.cell.cell.Cell`` is what does something with it.

    Fields that a strategy doesn't know are ``options``.
    """

    strategy: str = setting(rule=text("the name of a strategy or anchor"), joins=True, draws=True)
    """Who decodes, or an anchor, which decodes nothing: ``real``, ``reconstruction``."""
    options: Mapping[str, Any] = setting(
        factory=dict, rule=options(), applies="decoding", joins=True, draws=True
    )
    """Strategy options that differ from those of the stored network."""
    network: str = setting(
        "",
        rule=text("zoo/NAME, a published preset or the path of weights"),
        joins=True,
        shared="network",
        label="{}",
    )
    """``zoo/NAME``, a published preset, or the path of what ``train --trunk`` wrote; empty: the zoo's own."""
    checkpoint: str | None = setting(
        None,
        rule=text("the path of a published file, or random"),
        applies="decoding",
        shared="network",
        pin="network",
    )
    """None for the zoo's weights, the path of a published file, or ``random``."""
    roles: Mapping[str, str] = setting(
        factory=dict,
        before={},
        rule=texts("a table of roles: zoo/NAME, or the path of a published file"),
        late=True,
        applies="decoding",
        joins=True,
        draws=True,
        shared="network",
    )
    """Of a strategy that decodes several networks: role -> ``zoo/NAME``, or of a published preset the path of
    its file. Roles that are missing are filled in."""
    tokenizer_checkpoint: str | None = setting(
        None,
        rule=text("the path of a published tokenizer's file, or random"),
        applies="decoding",
        pin="tokenizer",
    )
    """Weights of a published network's tokenizer: the path of a published file, ``random``, or None, where
    tokens stay tokens. The zoo's tokenizer has weights of its own, which ``random`` leaves as they are."""
    weights: str | None = setting(
        None,
        rule=text("the name of one state dict in the published file, e.g. ema"),
        late=True,
        applies="decoding",
        joins=True,
        draws=True,
        shared="network",
        label="weights {}",
    )
    """Which of several state dicts in ``checkpoint``, by its keys joined by dots: ``ema``."""
    tokenizer_weights: str | None = setting(
        None,
        rule=text("the name of one state dict in the tokenizer's file, e.g. ema"),
        late=True,
        applies="decoding",
        joins=True,
    )
    """The same of ``tokenizer_checkpoint``."""
    decoder: str = setting(
        "own",
        rule=text(choices=("own", "robust")),
        late=True,
        applies="decoding",
        joins=True,
        label="{} decoder",
    )
    """What draws images from the controlled tier's codes: the tokenizer's ``own`` decoder, or the ``robust``
    one of the same encoder and codes, taught on codes of which some were wrong."""
    data: str = setting(
        "fashion", rule=text("fashion, idx:DIR or imagefolder:PATH"), before="mnist", shared="network"
    )
    """Where the reference images come from: ``fashion``, ``idx:DIR`` or ``imagefolder:PATH``."""
    reference: str | None = setting(
        None,
        rule=text("the path of an ADM reference npz"),
        late=True,
        applies="decoding",
        pin="reference",
        scores=True,
    )
    """Path of the ADM npz that a published network's images are compared with; None: they are not scored."""
    inception: str | None = setting(
        None,
        rule=text("the path of Inception weights, or download"),
        late=True,
        applies="decoding",
        pin="inception",
        scores=True,
    )
    """Path of the Inception weights behind that, or ``download``; None for the file where torch-fidelity
    keeps its own, if it is there."""
    clean_reference: str | None = setting(
        None,
        rule=text("the path of a folder of images or of an npz of clean-fid's mu and sigma"),
        late=True,
        applies="decoding",
        pin="clean_reference",
        scores=True,
    )
    """Path of a folder of images, or of an npz of clean-fid's mu and sigma: what the images are compared with
    by clean-fid's own protocol."""
    clean_inception: str | None = setting(
        None,
        rule=text("the path of clean-fid's TorchScript Inception, or download"),
        late=True,
        applies="decoding",
        pin="clean_inception",
        scores=True,
    )
    """Path of clean-fid's TorchScript Inception, or ``download``; None for ``inception-2015-12-05.pt`` where
    torch keeps downloaded files, if it is there."""
    steps: int | None = setting(
        None, rule=whole(1), applies="decoding", joins=True, draws=True, label="{} steps"
    )
    """None for as many as the strategy can take."""
    guidance: float | str | None = setting(
        None, rule=guidance_scale(), applies="decoding", joins=True, draws=True
    )
    """The scale; None for none. ``tuned`` for that of the network's card, with its schedule, until the card
    was looked up (``Cell.scale``)."""
    guidance_schedule: str = setting(
        "constant", rule=text(choices=SCHEDULES), applies="guidance", joins=True, draws=True, label="{}"
    )
    """How the scale grows with the plan's clock."""
    guidance_power: float = setting(
        1.0,
        rule=number("a number of at least 0", lambda value: value >= 0),
        applies="power-cosine",
        joins=True,
        draws=True,
    )
    """Of the power-cosine schedule."""
    guidance_interval: int = setting(-1, rule=whole(-1), applies="guidance", joins=True, draws=True)
    """Only places whose prediction count is at most this are guided; -1 for all."""
    temperature: float = setting(
        1.0,
        rule=number("a number above 0", lambda value: value > 0),
        applies="decoding",
        joins=True,
        draws=True,
    )
    """What guided logits are divided by."""
    top_k: int = setting(0, rule=whole(0), applies="decoding", joins=True, draws=True)
    """Only the k likeliest codes can be drawn; 0 for all."""
    top_p: float = setting(
        1.0,
        rule=number("a number above 0 and at most 1", lambda value: 0 < value <= 1),
        applies="decoding",
        joins=True,
        draws=True,
    )
    """Only the likeliest codes that together reach this probability can be drawn; 1 for all."""
    acceptance: float | None = setting(
        None,
        rule=number("a share from 0 to 1", lambda value: 0 <= value <= 1),
        late=True,
        applies="random weights",
        joins=True,
        draws=True,
        caveat=True,
        label="declared acceptance {}",
    )
    """Share of drafts that counts as accepted, where random weights give no honest count of steps;
    trained ones say themselves."""
    batch: int = setting(64, rule=whole(1, 10**6), applies="decoding", joins=True, shared="machine")
    """Images decoded together, and timed so."""
    images: int = setting(1000, rule=whole(1, 10**8))
    """How many are generated and judged: the N of every quality metric."""
    once: bool = setting(False, rule=switch(), applies="decoding")
    """Generate the images (by default one batch) in one pass and time that alone: no warm-up, no repeats, no
    other batch sizes."""
    by_batch: bool = setting(True, rule=switch(), late=True, applies="decoding")
    """Measure throughput and memory at batch 1, 16 and 64; without it at batch 1 and the cell's own."""
    evaluation_size: int | None = setting(None, rule=whole(1, 4096), applies="decoding", unit="pixels")
    """Side in pixels to which images are resized before they become bytes; None for their own."""
    dtype: str = setting(
        "float32",
        rule=text(choices=DTYPES),
        applies="decoding",
        joins=True,
        draws=True,
        shared="machine",
        label="{}",
    )
    device: str = setting("cpu", rule=text("cpu, cuda or cuda:N"), shared="machine")
    """Where the network runs."""
    products: str = setting(
        "plain",
        rule=text(choices=PRODUCTS),
        applies="decoding",
        joins=True,
        shared="machine",
        label="{} products",
    )
    """``packed``: weights in the layout of the CPU's product kernel (``backbones.products``); ``auto``: that
    where device and dtype have it, else plain."""
    attention: str = setting(
        "mask",
        rule=text(choices=ATTENTIONS),
        late=True,
        applies="decoding",
        joins=True,
        shared="machine",
        label="attention by {}",
    )
    """Of rows that see different numbers of slots (LPD, RandAR, CoDe): one call behind a ``mask``, or by
    ``parts`` without one; ``auto``: what the device's card found faster, else a mask."""
    compile: bool = setting(False, rule=switch(), late=True, applies="decoding", joins=True, shared="machine")
    """Run the trunks as compiled graphs."""
    cuda_graphs: bool = setting(
        False, rule=switch(), late=True, applies="decoding", joins=True, shared="machine"
    )
    """Record the trunk's passes on a CUDA device once, and replay them."""
    one_graph: bool = setting(
        False, rule=switch(), late=True, applies="decoding", joins=True, shared="machine"
    )
    """With ``cuda_graphs``: a decode whose plan is known beforehand is one recording, labels to tokens."""
    lossiness_images: int | None = setting(None, rule=whole(0, 10**8))
    """Images from which the bits lost by decoding in groups are estimated; 0 for none, None for at
    most 200 of a zoo network and none of a published one."""
    seed: int = setting(0, rule=whole(0), applies="decoding", joins=True, draws=True)
    """Of labels and noise; cells of one seed are compared pairwise."""
    threads: int = setting(0, rule=whole(0, 4096), shared="machine")
    """CPU threads; 0 for every core that this process may use."""
    timeout_s: float = setting(
        3600.0, rule=number("a number above 0", lambda value: value > 0), in_key=False, unit="s"
    )
    """Longest time that the cell may take, seconds."""
    memory_limit_gb: float | None = setting(
        None, rule=number("a number above 0", lambda value: value > 0), in_key=False, unit="GB"
    )
    """Most memory that the cell may ask for, 10^9 bytes: its process's data on the CPU, torch's share of the
    device on CUDA; None for no limit."""
    gated: bool = setting(True, rule=switch(), in_key=False)
    """Whether the exit status of a sweep tells of this cell's failure."""
    size: str = setting("", rule=text(), in_key=False)
    """Size class of the network (B, L, XL), by which ``-k size=L`` takes one cell per method."""
    label: str = setting("", rule=text(), in_key=False)
    """Short display name; empty for the strategy's title and options."""
    checkpoints: str | None = setting(None, in_key=False)
    """Folder in which the published files of a network without ``checkpoint`` are looked for first."""
    zoo: str | None = setting(None, in_key=False, shared="machine")
    """Folder of trained weights; None for the one that ships."""
    plugin: tuple[str, ...] = setting((), in_key=False, shared="machine")
    """Strategy files to load first."""
    pins: Mapping[str, str] = setting(factory=dict)
    """SHA-256 of every file that the result depends on, by role."""


DECLARED: dict[str, Setting] = declared(Settings, Setting)
"""Setting -> its declaration."""
_HINTS = typing.get_type_hints(Settings)


def wrong_setting(values: Mapping[str, Any]) -> str | None:
    """The end of "setting 'name..." that says what a stored setting has to be, or None; names that nothing
    declares may be of a newer pardec."""
    for name, value in values.items():
        if name in DECLARED:
            found = fault(tuple(value) if isinstance(value, list) else value, _HINTS[name])
            if found:
                return f"{name}{found}, not {value!r:.80}"
    return None
