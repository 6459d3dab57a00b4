"""What replays of all families share: the recording, its network by the public loader, the common kinds."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from backbones.checkpoints import load_published
from backbones.tokenizers.published import tokenizer_by_family
from backbones.transformer import Network
from strategies.decoding.base import Strategy
from strategies.decoding.decode import decode
from strategies.decoding.plan import Plan
from strategies.decoding.registry import by_family
from strategies.decoding.sampling import ForcedSampler, filter_logits

Sizes = tuple[int, ...] | None


@dataclass(frozen=True)
class Golden:
    path: Path
    family: str
    kind: str
    config: dict[str, Any]
    sampling: dict[str, Any]
    io: dict[str, Tensor]
    weights: dict[str, Tensor]

    def per_step(self, name: str) -> list[Tensor]:
        """Tensors ``name``.k in order of the number k."""
        keys = [key for key in self.io if key.startswith(f"{name}.")]
        return [self.io[key] for key in sorted(keys, key=lambda key: int(key.rpartition(".")[2]))]


def read_golden(path: Path) -> Golden:
    with safe_open(path, "pt") as file:
        meta = json.loads(file.metadata()["golden"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    part = lambda prefix: {  # noqa: E731
        key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
    }
    return Golden(
        path,
        meta["family"],
        meta["kind"],
        meta.get("config") or {},
        meta.get("sampling") or {},
        part("io."),
        part("weights."),
    )


def difference(found: Tensor, expected: Tensor) -> float:
    """Largest absolute difference; NaN and shapes that differ are errors."""
    assert found.shape == expected.shape, f"shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    assert torch.isfinite(found).all(), "not finite"
    assert torch.isfinite(expected).all(), "the recording is not finite"
    return float((found - expected).abs().max()) if found.numel() else 0.0


def build(golden: Golden) -> tuple[Strategy, Network]:
    """The strategy and its network, filled through the public loader."""
    published = by_family(golden.family)
    names = {**published.defaults, **golden.config}
    strategy, config = published.configure(names)
    network = strategy.network(config).eval()
    load_published(network, golden.weights, published.keys, golden.path.name)
    return strategy, network


class RecordingSampler(ForcedSampler):
    """Forces the recorded tokens and keeps what the loop hands over."""

    def __init__(self, tokens: Tensor) -> None:
        super().__init__(tokens)
        object.__setattr__(self, "seen", [])

    def draw(self, logits: Tensor, noise: Tensor) -> Tensor:
        self.seen.append(logits)
        return super().draw(logits, noise)


def recorded_plan(golden: Golden, strategy: Strategy, network: Network, sizes: Sizes = None) -> Plan:
    """The plan of a recording: its order, and its sizes, else ``sizes``, else the strategy's own."""
    grid, order = network.config.grid, golden.io["order"].numpy()
    known = golden.io.get("known_positions")
    given = 0 if known is None else len(known)
    if known is not None:
        lead = np.broadcast_to(known.numpy(), (*order.shape[:-1], given))
        order = np.concatenate([lead, order], axis=-1)
    if "group_sizes" in golden.io:
        sizes = tuple(golden.io["group_sizes"].tolist())
    elif "group_sizes" in golden.sampling:
        sizes = tuple(golden.sampling["group_sizes"])
    elif sizes is None:
        sizes = strategy.sizes(grid, strategy.allowed_steps(grid)[-1], given)
    return strategy.arrange(grid, order, sizes, given)


def replay_decode(golden: Golden, sizes: Sizes = None, **options: Any) -> float:
    """options: of the strategy, where the recording's sampling says some."""
    strategy, network = build(golden)
    strategy = replace(strategy, **options)
    setting = by_family(golden.family).setting(golden.sampling)
    plan = recorded_plan(golden, strategy, network, sizes)
    tokens = golden.io["tokens"]
    sampler = RecordingSampler(tokens)
    decoded = decode(
        network,
        strategy,
        plan,
        golden.io["labels"],
        sampler,
        setting.guidance,
        known=tokens if plan.given else None,
    )
    expected_logits, expected_positions = golden.per_step("step_logits"), golden.per_step("step_positions")
    assert decoded.steps == len(expected_logits) == len(expected_positions)
    assert torch.equal(decoded.tokens, tokens)
    if "input_lengths" in golden.sampling:
        assert decoded.tokens_processed == sum(golden.sampling["input_lengths"])
    order = torch.from_numpy(np.atleast_2d(plan.order))
    for commit, positions in zip(decoded.trace, expected_positions, strict=True):
        assert torch.equal(
            order[:, commit.places].expand(len(positions), -1)
            if positions.ndim == 2
            else order[0, commit.places],
            positions,
        )
    return max(difference(*pair) for pair in zip(sampler.seen, expected_logits, strict=True))


def with_dropped(golden: Golden, labels: Tensor, null: int) -> Tensor:
    """Labels [B] with ``null`` where the recording says that they were dropped."""
    dropped = golden.io.get("label_dropped", torch.zeros_like(labels))
    return torch.where(dropped.bool(), null, labels)


def replay_loss(golden: Golden) -> float:
    strategy, network = build(golden)
    tokens, labels = golden.io["tokens"], golden.io["labels"]
    labels = with_dropped(golden, labels, network.config.classes)
    lesson = strategy.lesson(len(labels), network.config.grid, torch.Generator().manual_seed(0), 1.0)
    if "order" in golden.io:
        lesson = replace(lesson, order=golden.io["order"])
    if "group_sizes" in golden.io or "group_sizes" in golden.sampling:
        sizes = golden.io.get("group_sizes", golden.sampling.get("group_sizes"))
        lesson = replace(lesson, sizes=tuple(int(size) for size in sizes))
    with torch.no_grad():
        logits = strategy.taught_logits(network, tokens, labels, lesson)
        loss = strategy.loss(network, tokens, labels, lesson)
    return max(difference(logits, golden.io["logits"]), difference(loss, golden.io["loss"]))


def replay_tokenizer(golden: Golden, unit: bool = False) -> float:
    """Codes of an image and an image of codes, whichever was recorded; unit: its pixels are in [0, 1]."""
    published, io = tokenizer_by_family(golden.family), golden.io
    image = io.get("image_in", io.get("image"))  # the decoder's levels may be others than the encoder's
    assert image is not None, "neither an image nor codes to replay"
    tokenizer = published.build(golden.config, (image.shape[2], image.shape[3])).eval()
    load_published(tokenizer, golden.weights, published.keys, golden.path.name)
    worst = 0.0
    with torch.no_grad():
        if "image_in" in io:
            codes = tokenizer.encode(io["image_in"] * 2 - 1 if unit else io["image_in"])
            assert torch.equal(codes, io["codes_out"])
        if "codes" in io:
            found = tokenizer.decode(io["codes"])
            worst = difference((found + 1) / 2 if unit else found, io["image"])
    return worst


def replay_filter(golden: Golden) -> float:
    sampling = golden.sampling
    logits = golden.io["logits"] / max(sampling.get("temperature", 1.0), 1e-5)
    found = filter_logits(logits, sampling.get("top_k", 0), sampling.get("top_p", 1.0))
    expected = golden.io["filtered"]
    assert torch.equal(found.isneginf(), expected.isneginf())
    kept = ~expected.isneginf()
    return difference(found[kept], expected[kept])


COMMON: dict[str, Callable[[Golden], float]] = {
    "decode": replay_decode,
    "loss": replay_loss,
    "tokenizer": replay_tokenizer,
    "filter": replay_filter,
}
"""Rules by kind, for families that have none of their own."""


def replay_sizes(golden: Golden, rule: Callable[[dict[str, Any]], Sequence[int]]) -> float:
    """Group sizes of recorded cases by the strategy's own rule."""
    recorded = golden.per_step("group_sizes")
    assert len(recorded) == len(golden.sampling["cases"]) > 0
    for case, sizes in zip(golden.sampling["cases"], recorded, strict=True):
        assert list(rule(case)) == sizes.tolist(), case
    return 0.0
