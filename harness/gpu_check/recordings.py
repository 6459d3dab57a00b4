"""Recordings of published implementations, replayed on the device: by the public loader, loss and loop."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from backbones.checkpoints import load_published
from backbones.tokenizers.multiscale import lend
from backbones.tokenizers.vq_var import load_quantiser
from backbones.transformer import Network
from harness.gpu_check.check import Bench, Finding, NotHere
from strategies.decoding.base import Lesson, Strategy
from strategies.decoding.decode import decode
from strategies.decoding.registry import by_family, get
from strategies.decoding.sampling import ForcedSampler
from strategies.decoding.streams import Streams

TOLERANCE = 1e-4
"""Of float32 without TF32: the largest difference of a logit."""
ROUNDED = 0.06
"""Of bfloat16: root mean square of the differences over that of the recorded float32 logits. A CPU's products
come to 0.010 to 0.042."""
FAMILIES = ("llamagen", "rar", "par", "lpd", "arpg", "randar", "nar", "maskgit", "var")
"""Whose recordings are one network and forced tokens; the others need rules of their own, and have them in
the tests."""
IN_FILE = {"var": "var_wo_ddp."}
"""What the names of a network's weights begin with, where a file holds a tokenizer too."""
KINDS = ("decode", "loss")


@dataclass(frozen=True)
class Recorded:
    """One recording; tensors stay on the CPU."""

    name: str
    family: str
    kind: str
    config: dict[str, Any]
    sampling: dict[str, Any]
    tensors: dict[str, Tensor]

    def part(self, start: str) -> dict[str, Tensor]:
        """The tensors whose names begin so, by the rest of their names."""
        return {key.removeprefix(start): one for key, one in self.tensors.items() if key.startswith(start)}

    def io(self, name: str) -> Tensor | None:
        return self.tensors.get(f"io.{name}")

    def need(self, name: str) -> Tensor:
        return self.tensors[f"io.{name}"]

    def per_step(self, name: str) -> list[Tensor]:
        start = f"io.{name}."
        keys = sorted((key for key in self.tensors if key.startswith(start)), key=_number)
        return [self.tensors[key] for key in keys]


def _number(key: str) -> int:
    return int(key.rpartition(".")[2])


def read_recordings(folder: Path) -> Iterator[Recorded]:
    """Those that are replayed here, in order of their names."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            meta = json.loads((file.metadata() or {}).get("golden", "{}"))
            family, kind = meta.get("family"), meta.get("kind")
            sampling = meta.get("sampling") or {}
            if family not in FAMILIES or kind not in KINDS or _by_confidence(kind, sampling):
                continue
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        yield Recorded(path.stem, family, kind, meta.get("config") or {}, sampling, tensors)


def _by_confidence(kind: str, sampling: dict[str, Any]) -> bool:
    """Its order comes from recorded noise."""
    return kind == "decode" and sampling.get("sampler") == "confidence"


@contextmanager
def exact_float32() -> Iterator[None]:
    """No TF32 inside."""
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


def _built(one: Recorded, device: torch.device, dtype: torch.dtype) -> tuple[Strategy, Network]:
    published = by_family(one.family)
    strategy, config = published.configure({**published.defaults, **one.config})
    network = strategy.network(config).eval()
    load_published(network, one.part("weights." + IN_FILE.get(one.family, "")), published.keys, one.name)
    if one.family == "var":
        names = {**published.defaults, **one.config}
        lend(network.quantiser, load_quantiser(names, one.part("weights.vae_local."), one.name))
    if "prefill" in one.sampling:
        options: dict[str, Any] = {"prefill": one.sampling["prefill"]}
        strategy = replace(strategy, **options)
    return strategy, network.to(device).in_precision(dtype)


@dataclass(frozen=True)
class _Kept(ForcedSampler):
    """Forces the recorded tokens and keeps the logits that it is shown."""

    seen: list[Tensor] = field(default_factory=list)

    def draw(self, logits: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.append(logits)
        return super().draw(logits, noise)


def _decoded(one: Recorded, device: torch.device, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    strategy, network = _built(one, device, dtype)
    if one.sampling.get("sampler") == "halton":
        strategy = get("halton")
    sizes = tuple(positions.shape[-1] for positions in one.per_step("step_positions"))
    order = np.atleast_2d(one.need("order").numpy())
    grid = network.config.grid
    if one.family == "var":  # its maps make the plan
        plan = strategy.plan(grid, None, Streams(0, tuple(range(len(one.need("labels"))))))
    else:
        plan = strategy.arrange(grid, order, sizes)
    sampler = _Kept(one.need("tokens").to(device))
    guidance = by_family(one.family).setting(one.sampling).guidance
    decode(network, strategy, plan, one.need("labels").to(device), sampler, guidance)
    return list(zip(sampler.seen, one.per_step("step_logits"), strict=True))


def _taught(one: Recorded, device: torch.device, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    strategy, network = _built(one, device, dtype)
    tokens, labels = one.need("tokens"), one.need("labels")
    dropped = one.io("label_dropped")
    if dropped is not None:
        labels = torch.where(dropped, network.config.classes, labels)
    lesson = _lesson(one, strategy, network).to(device)
    with torch.no_grad():
        logits = strategy.taught_logits(network, tokens.to(device), labels.to(device), lesson)
    return [(logits, one.need("logits"))]


def _lesson(one: Recorded, strategy: Strategy, network: Network) -> Lesson:
    tokens, mask = one.need("tokens"), one.io("mask")
    raster = torch.arange(tokens.shape[1]).expand_as(tokens)
    if mask is not None:
        return Lesson(raster, shown=~mask)
    lesson = strategy.lesson(len(tokens), network.config.grid, torch.Generator().manual_seed(0), 1.0)
    order = raster if one.family == "nar" else None if one.family == "var" else one.io("order")
    if order is not None:
        lesson = replace(lesson, order=order)
    sizes = one.sampling.get("group_sizes") if one.io("group_sizes") is None else one.need("group_sizes")
    return lesson if sizes is None else replace(lesson, sizes=tuple(int(size) for size in sizes))


def pairs_of(one: Recorded, device: torch.device, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """(found, recorded) logits, float32 on the CPU."""
    pairs = (_decoded if one.kind == "decode" else _taught)(one, device, dtype)
    return [(found.float().cpu(), recorded) for found, recorded in pairs]


def largest(found: Tensor, recorded: Tensor) -> float:
    """Largest difference; infinite where a number is not finite or the shapes differ."""
    if found.shape != recorded.shape or not found.isfinite().all():
        return float("inf")
    return float((found - recorded).abs().max())


def relative(found: Tensor, recorded: Tensor) -> float:
    """Root mean square of the differences over that of the recorded; infinite as ``largest``."""
    if found.shape != recorded.shape or not found.isfinite().all():
        return float("inf")
    return float((found - recorded).square().mean().sqrt() / recorded.square().mean().sqrt())


def replay_on(bench: Bench, dtype: torch.dtype) -> Finding:
    """All recordings of the families at one precision; the figures are each family's worst.

    What is there is judged, and the reason names the families that are not. NotHere where none is.
    """
    if bench.goldens is None:
        raise NotHere("no folder of recordings here: name one with --goldens")
    measure, most = (largest, TOLERANCE) if dtype == torch.float32 else (relative, ROUNDED)
    worst: dict[str, float] = {}
    wrong: list[str] = []
    count = 0
    with exact_float32():
        for one in read_recordings(bench.goldens):
            count += 1
            difference = max(measure(*pair) for pair in pairs_of(one, bench.device, dtype))
            worst[one.family] = max(worst.get(one.family, 0.0), difference)
            if not difference <= most:
                wrong.append(f"{one.name} is off by {difference:.1e}")
    missing = ", ".join(family for family in FAMILIES if family not in worst)
    if not count:
        raise NotHere(f"'{bench.goldens}' holds no recordings of {missing}")
    said = [*wrong, *([f"no recordings of {missing}"] if missing else [])]
    return Finding(not wrong, {"recordings": count, "bound": most, **worst}, "; ".join(said))
