"""Replays a recording of a published implementation through the public loader and decode loop.

What to replay is read off the family, the kind and the tensors of the file, never off its name. Every
replay returns the largest difference found; codes, orders, sizes and step counts must agree exactly.
"""

import json
from collections.abc import Callable, Mapping
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
from strategies.arpg import ARPG
from strategies.decoding.base import Strategy
from strategies.decoding.decode import decode
from strategies.decoding.orders import LocalityDraws, locality_orders, region_order
from strategies.decoding.plan import Plan
from strategies.decoding.registry import by_family
from strategies.decoding.sampling import ForcedSampler, filter_logits
from strategies.decoding.schedules import arpg_sizes, par_sizes, randar_sizes
from strategies.decoding.streams import Streams
from strategies.randar import RandAR, RandARNetwork
from strategies.zero_shot.randar import ContextGuidance, Extrapolation, extrapolate, small_orders
from tests.metric_replay import replay_metrics


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


def recorded_plan(golden: Golden, strategy: Strategy, network: Network) -> Plan:
    """The plan of a decode recording: its order, and sizes by the strategy's own rule where it has one."""
    grid, order = network.config.grid, golden.io["order"].numpy()
    known = golden.io.get("known_positions")
    given = 0 if known is None else len(known)
    if known is not None:
        lead = np.broadcast_to(known.numpy(), (*order.shape[:-1], given))
        order = np.concatenate([lead, order], axis=-1)
    if "group_sizes" in golden.io:
        sizes = tuple(golden.io["group_sizes"].tolist())
    elif "num_inference_steps" in golden.sampling:
        sizes = recorded_randar_sizes(network.config.places - given, golden.sampling)
    else:
        steps = golden.sampling.get("num_iter") or strategy.allowed_steps(grid)[-1]
        sizes = strategy.sizes(grid, steps, given)
    return strategy.arrange(grid, order, sizes, given)


def recorded_randar_sizes(places: int, sampling: Mapping[str, Any]) -> tuple[int, ...]:
    """RandAR's sizes for the published count, where -1 means one token a step."""
    steps = sampling["num_inference_steps"]
    return randar_sizes(places, places if steps == -1 else steps)


def replay_decode(golden: Golden) -> float:
    strategy, network = build(golden)
    if isinstance(strategy, ARPG):
        strategy = replace(
            strategy,
            schedule=golden.sampling.get("sample_schedule", "arccos"),
            prefill=golden.sampling.get("prefill", "split"),
        )
    setting = by_family(golden.family).setting(golden.sampling)
    plan = recorded_plan(golden, strategy, network)
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


def replay_loss(golden: Golden) -> float:
    strategy, network = build(golden)
    tokens, labels = golden.io["tokens"], golden.io["labels"]
    dropped = golden.io.get("label_dropped", torch.zeros(len(labels), dtype=torch.bool))
    labels = torch.where(dropped, network.config.classes, labels)
    lesson = strategy.lesson(len(labels), network.config.grid, torch.Generator().manual_seed(0), 1.0)
    if golden.family == "nar":  # recorded in raster order
        lesson = replace(lesson, order=torch.arange(tokens.shape[1]).expand_as(tokens))
    if "order" in golden.io:
        lesson = replace(lesson, order=golden.io["order"])
    if "group_sizes" in golden.io or "group_sizes" in golden.sampling:
        sizes = golden.io.get("group_sizes", golden.sampling.get("group_sizes"))
        lesson = replace(lesson, sizes=tuple(int(size) for size in sizes))
    with torch.no_grad():
        logits = strategy.taught_logits(network, tokens, labels, lesson)
        loss = strategy.loss(network, tokens, labels, lesson)
    return max(difference(logits, golden.io["logits"]), difference(loss, golden.io["loss"]))


def replay_tokenizer(golden: Golden) -> float:
    """Codes of an image and an image of codes, whichever was recorded; ``vq-maskgit`` recorded [0, 1]."""
    published, io = tokenizer_by_family(golden.family), golden.io
    image = io.get("image", io.get("image_in"))
    assert image is not None, "neither an image nor codes to replay"
    tokenizer = published.build(golden.config, (image.shape[2], image.shape[3])).eval()
    load_published(tokenizer, golden.weights, published.keys, golden.path.name)
    unit = golden.family == "vq-maskgit"
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


def replay_order(golden: Golden) -> float:
    sizes = golden.io["group_sizes"].tolist()
    if golden.family == "par":
        side, regions = round(golden.config["block_size"] ** 0.5), golden.config["ar_token_num"]
        assert list(par_sizes(side * side, regions)) == sizes
        found = region_order((side, side), regions)[None]
    elif golden.family == "lpd":
        draws = LocalityDraws(*(golden.io[name].numpy() for name in ("first", "tie_rank", "fps_first")))
        config = golden.config
        found = locality_orders(
            config["grid_size"], sizes, config["proximity_threshold"], config["repulsion_threshold"], draws
        )
    else:
        raise ValueError(f"family '{golden.family}' records no orders")
    assert np.array_equal(found, golden.io["order"].numpy())
    return 0.0


def replay_extrapolation(golden: Golden) -> float:
    strategy, network = build(golden)
    assert isinstance(strategy, RandAR)
    assert isinstance(network, RandARNetwork)
    assert golden.sampling["extrapolation_factor"] == 2
    grid, labels, kept = network.config.grid, golden.io["labels"], golden.io["spatial_keep"]
    settings = Extrapolation(
        golden.sampling["num_inference_steps"],
        tuple(golden.sampling["cfg_scales"]),
        tuple(golden.sampling["spatial_cfg_scales"]),
        golden.sampling["spatial_masking_ratio"],
        golden.sampling["ntk_boundary"],
    )
    guidance = settings.guidance(kept.shape[1], Streams(0, tuple(range(len(labels)))))
    if isinstance(guidance, ContextGuidance):
        assert (guidance.kept.sum(axis=1) == kept.sum(dim=1).numpy()).all()
        guidance = replace(guidance, kept=kept.numpy())
    plan = settings.plan(grid, golden.io["order"].numpy())
    assert np.array_equal(small_orders(grid, plan.order), golden.io["low_order"].numpy())
    large = network.enlarged(settings.boundary)
    table = large.phases(torch.arange(1 + plan.places))[:, 0]
    worst = difference(torch.view_as_real(table), golden.io["rope"])
    sampler = RecordingSampler(golden.io["tokens"])
    low = golden.io["low_tokens"]
    arguments = (large, strategy, plan, labels, low, sampler, guidance)
    whole, cut = extrapolate(*arguments), extrapolate(*arguments, published_tail=True)
    assert torch.equal(whole.tokens, golden.io["tokens"])
    assert torch.equal(cut.tokens, golden.io["result_tokens"])
    expected_logits, expected_positions = golden.per_step("step_logits"), golden.per_step("step_positions")
    # The published script stops before the last group.
    assert whole.steps - 1 == len(expected_logits) == len(expected_positions)
    order = torch.from_numpy(plan.order)
    for commit, positions in zip(whole.trace[:-1], expected_positions, strict=True):
        assert torch.equal(order[:, commit.places], positions)
    found = sampler.seen[: len(expected_logits)]
    return max(worst, *(difference(*pair) for pair in zip(found, expected_logits, strict=True)))


def replay_other(golden: Golden) -> float:
    if golden.family == "arpg" and "known_positions" in golden.io:
        return replay_decode(golden)
    if golden.family == "arpg" and "cases" in golden.sampling:
        recorded = golden.per_step("group_sizes")
        assert len(recorded) == len(golden.sampling["cases"]) > 0
        for case, sizes in zip(golden.sampling["cases"], recorded, strict=True):
            found = arpg_sizes(case["positions"], case["num_iter"], case["sample_schedule"])
            assert list(found) == sizes.tolist(), case
        return 0.0
    if golden.family == "randar" and "cases" in golden.sampling:
        recorded = golden.per_step("group_sizes")
        assert len(recorded) == len(golden.sampling["cases"]) > 0
        for case, sizes in zip(golden.sampling["cases"], recorded, strict=True):
            assert list(recorded_randar_sizes(case["positions"], case)) == sizes.tolist(), case
        return 0.0
    if golden.family == "randar" and "low_tokens" in golden.io:
        return replay_extrapolation(golden)
    if golden.family == "metrics":
        return replay_metrics(golden.config, {name: value.numpy() for name, value in golden.io.items()})
    raise ValueError(f"no rule replays '{golden.kind}' of family '{golden.family}' with {sorted(golden.io)}")


REPLAYS: dict[str, Callable[[Golden], float]] = {
    "decode": replay_decode,
    "loss": replay_loss,
    "tokenizer": replay_tokenizer,
    "filter": replay_filter,
    "order": replay_order,
    "other": replay_other,
}
