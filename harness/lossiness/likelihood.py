"""Bits that held-out images cost a network, in any order that it can decode, and in a mixture of orders.

A decoder draws an image x of its class with the probability q(x): the product, over the steps of its plan, of
the probabilities of the step's tokens given those of earlier steps. One teacher-forced pass over the plan's
groups gives it exactly; a masked network takes a pass for each group. -log2 q(x) over the number of tokens is
the image's bits per token.

An ensemble of orders draws one of K orders for each image, so its probability of x is the mean of theirs; it
can't cost more than log2(K) bits an image over the best of them, and costs less than all where they disagree
(LMConv, arXiv 2006.12486).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from backbones.networks import Networks
from backbones.transformer import Network
from harness.images.data import Dataset, load_dataset, to_float
from harness.lossiness.conditionals import Undefined, log_probabilities
from harness.lossiness.worlds import OWN, ordered_plan
from harness.quality.assess.controlled import balanced
from harness.subject.subject import Subject
from pardec.errors import UserError
from reports.inference import Contrast, Estimate, mean_contrast, mean_estimate
from strategies.decoding.base import Lesson, Strategy, TrainingFree
from strategies.decoding.plan import Plan

BATCH = 50
"""Images judged at a time; a pass holds up to three times the grid's positions."""


@dataclass(frozen=True)
class Shown:
    """Held-out images as a network sees them: tokens int64 [n, N] (raster), labels [n], and their data."""

    tokens: Tensor
    labels: Tensor
    dataset: Dataset


@dataclass(frozen=True)
class Cost:
    """Bits per token of every image [n] in one order, or in an ensemble of them."""

    order: str
    bits: np.ndarray

    @property
    def mean(self) -> Estimate:
        """With its 95 % interval over images."""
        return mean_estimate(self.bits)

    def against(self, other: "Cost") -> Contrast | None:
        """What it costs more than the other, paired over images; None from a single one."""
        return mean_contrast(other.bits, self.bits) if len(self.bits) > 1 else None


def why_undefined(strategy: Strategy, plan: Plan | None = None) -> str | None:
    """Why the strategy's decoder, or it by this plan, gives images no probability by taught logits; None
    where it does."""
    name = f"strategy '{strategy.name}'"
    if type(strategy).taught_logits is TrainingFree.taught_logits:
        return (
            f"{name} decodes networks of '{strategy.base}' and is judged by them: ask for '{strategy.base}'"
        )
    if strategy.revises:
        return f"{name} overwrites tokens, so its draws are no factors of a probability"
    if strategy.decides_steps:
        return f"{name} decides its steps by what it draws"
    if not strategy.cached_equals_taught:
        return f"a pass over whole images of {name} doesn't give what its decoder draws from"
    if plan is not None and plan.opened:
        return f"{name} chooses the places of a step while decoding"
    return None


@torch.inference_mode()
def image_log_probabilities(
    network: Network | Networks, strategy: Strategy, plan: Plan, labels: Tensor, tokens: Tensor
) -> Tensor:
    """log q of tokens [B, N] (raster) of classes [B], in nats, as the plan decodes them: float64 [B].

    Raises Undefined where the decoder gives none (``why_undefined``), or for a canvas that codes of the grid
    don't fill.
    """
    why = why_undefined(strategy, plan)
    if why is not None:
        raise Undefined(why)
    tokens = strategy.canvas(network, tokens)
    if tokens.shape[1] != plan.places:
        raise Undefined(f"strategy '{strategy.name}' decodes other tokens than those of the grid")
    order = torch.as_tensor(plan.order, device=tokens.device).expand(len(tokens), -1)
    logits = strategy.taught_logits(network, tokens, labels, Lesson(order, plan.sizes))
    return log_probabilities(logits, tokens.gather(1, order)).sum(dim=1)


def shown(subject: Subject, images: int) -> Shown:
    """At most ``images`` held-out ones of the cell's data, classes in turn, as codes of its tokenizer."""
    cell, config, tokenizer = subject.prepared.cell, subject.prepared.config, subject.tokenizer
    if tokenizer is None:
        raise UserError(f"network '{cell.network}' has no tokenizer to read images with")
    held_out = load_dataset(cell.data, "held-out")
    if tuple(held_out.images.shape[-2:]) != tokenizer.image_size:
        sizes = [f"{height}x{width}" for height, width in (held_out.images.shape[-2:], tokenizer.image_size)]
        raise UserError(f"data '{cell.data}' has images of {sizes[0]} pixels; expected {sizes[1]}")
    if len(held_out.classes) != config.classes:
        classes = f"{len(held_out.classes)} classes, network '{cell.network}' {config.classes}"
        raise UserError(f"data '{cell.data}' has {classes}")
    pixels, labels = balanced(held_out, images)
    with torch.inference_mode():
        codes = [
            tokenizer.encode(to_float(part).to(subject.device)).flatten(1) for part in pixels.split(BATCH)
        ]
    return Shown(torch.cat(codes), labels.to(subject.device), held_out)


def cost(
    subject: Subject, seen: Shown, rule: str = OWN, report: Callable[[float], None] = lambda share: None
) -> Cost:
    """What the images cost at the cell's steps, in an order by ``worlds.RULES`` or the strategy's own.

    Random orders are those that the run's images of these numbers are decoded in. report: called with the
    share done. Raises Undefined, and UserError for an order that the strategy can't have.
    """
    prepared, cell = subject.prepared, subject.prepared.cell
    found: list[np.ndarray] = []
    for start in range(0, len(seen.tokens), BATCH):
        tokens, labels = seen.tokens[start : start + BATCH], seen.labels[start : start + BATCH]
        streams = prepared.streams(range(start, start + len(tokens)))
        plan = ordered_plan(prepared.strategy, prepared.config.grid, cell.steps, streams, rule)
        nats = image_log_probabilities(subject.network, prepared.strategy, plan, labels, tokens)
        found.append(nats.cpu().numpy())
        report((start + len(tokens)) / len(seen.tokens))
    return Cost(rule, -np.concatenate(found) / np.log(2) / prepared.config.places)


def ensemble(costs: Sequence[Cost], places: int) -> Cost:
    """What the mixture of the orders in equal parts costs."""
    log2 = -np.stack([one.bits for one in costs]) * places  # [K, n]
    mixed = np.logaddexp2.reduce(log2, axis=0) - np.log2(len(costs))
    return Cost(f"ensemble of {len(costs)}", -mixed / places)
