"""A naive ZipAR (arXiv 2412.04062) on LlamaGen's network, from the specification alone.

Instead of a cache there is one sequence of all inputs that the steps feed. An input sees those fed no later
and standing no later in the image, of those at the same place the last one fed; places of which nothing was
fed yet count in its softmax with a score and a value of zero.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests.naive.parts import (
    Config,
    Weights,
    embed_class,
    embed_tokens,
    forward,
    grid_phases,
    guided,
    network_weights,
    null_labels,
    random_inputs,
    recorded_steps,
    recording,
    seeded,
    side_of,
    small_config,
)
from tests.replays.common import Golden

CLASS = -1
NOTHING = -2


class Input(NamedTuple):
    """Raster places: whose token is fed, where it stands, and which one it predicts."""

    source: int
    place: int
    predicts: int


def input_of_row(row: int, filled: list[int], side: int) -> Input:
    """What predicts the next token of a row, of which and of those above so many tokens are there."""
    start = row * side
    if filled[row] > 0:
        latest = start + filled[row] - 1
        return Input(latest, latest, latest + 1)
    if filled[row - 1] == side:
        return Input(start - 1, start - 1, start)
    stand_in = (row - 2) * side + filled[row - 2] - 1
    return Input(stand_in, start - 1, start)


def steps_of(side: int, window: int) -> list[list[Input]]:
    """The inputs of every step."""
    steps = [[Input(place - 1, place - 1, place)] for place in range(side)]
    filled = [side] + [0] * (side - 1)
    running, completed = [1], list[int]()
    while sum(filled) < side * side:
        overwrites = [Input(row * side + side - 1, row * side + side - 1, NOTHING) for row in completed]
        steps.append(overwrites + [input_of_row(row, filled, side) for row in running])
        completed = []
        for row in list(running):
            filled[row] += 1
            if filled[row] == window and row < side - 1:
                running.append(row + 1)
            if filled[row] == side:
                running.remove(row)
                if row < side - 1 and window < side:
                    completed.append(row)
        running.sort()
    return steps


def predicted_places(inputs: list[Input]) -> list[int]:
    return [entry.predicts for entry in inputs if entry.predicts != NOTHING]


def visibility(steps: list[list[Input]]) -> tuple[Tensor, Tensor]:
    """bool [n, n]: which of all inputs each input sees; int [n]: how many empty places each sees besides."""
    fed = [(step, entry.place) for step, inputs in enumerate(steps) for entry in inputs]
    mask = torch.zeros(len(fed), len(fed)).bool()
    empty = []
    for index, (step, place) in enumerate(fed):
        last_at = {}
        for other, (other_step, other_place) in enumerate(fed):
            if other_step <= step and other_place <= place:
                last_at[other_place] = other
        mask[index, list(last_at.values())] = True
        empty.append(place - CLASS + 1 - len(last_at))
    return mask, torch.tensor(empty)


def logits_of(
    config: Config, weights: Weights, labels: Tensor, tokens: Tensor, steps: list[list[Input]]
) -> list[Tensor]:
    """Logits [B, n, V] of every step, one for each of its inputs."""
    inputs = [entry for step in steps for entry in step]
    sources = [entry.source for entry in inputs if entry.source != CLASS]
    x = torch.cat([embed_class(weights, labels), embed_tokens(weights, tokens[:, sources])], dim=1)
    phases = grid_phases(config, torch.tensor([entry.place for entry in inputs]))
    mask, empty = visibility(steps)
    logits = forward(config, weights, x, phases, mask, empty)
    return list(logits.split([len(step) for step in steps], dim=1))


def is_guided(step: int, generated: int, side: int, interval: float) -> bool:
    """Row 0 counts its steps behind the class; from row 1 on the tokens that came since row 0 are counted."""
    if step == 0 or interval < 0:
        return True
    return (step - 1 if step < side else generated - side) <= interval


def decode(
    config: Config, sampling: dict[str, Any], weights: Weights, labels: Tensor, tokens: Tensor
) -> list[Tensor]:
    """Guided logits [B, n, V] of every step, one for each token that it predicts."""
    scale, interval, side = sampling["cfg_scale"], sampling.get("cfg_interval", -1), side_of(config)
    steps = steps_of(side, sampling["window"])
    predicting = [[entry.predicts != NOTHING for entry in step] for step in steps]
    found = logits_of(config, weights, labels, tokens, steps)
    if scale > 1:
        without = logits_of(config, weights, null_labels(config, labels), tokens, steps)
        for step in range(len(steps)):
            if is_guided(step, sum(map(sum, predicting[:step])), side, interval):
                found[step] = guided(found[step], without[step], scale)
    return [logits[:, chosen] for logits, chosen in zip(found, predicting, strict=True)]


def decoded(name: str, config: Config, sampling: dict[str, Any], batch: int = 2) -> Golden:
    generator = seeded(0)
    weights, io = network_weights(config, generator), random_inputs(config, batch, generator)
    steps = steps_of(side_of(config), sampling["window"])
    predicted = [torch.tensor(predicted_places(inputs)) for inputs in steps]
    logits = decode(config, sampling, weights, io["labels"], io["tokens"])
    io |= {"order": torch.cat(predicted), "steps": torch.tensor(len(steps))}
    io |= recorded_steps(logits, predicted)
    for step, inputs in enumerate(steps[1:], start=1):
        io[f"fed_positions.{step}"] = torch.tensor([entry.place for entry in inputs])
        io[f"fed_tokens.{step}"] = io["tokens"][:, [entry.source for entry in inputs]]
    return recording("zipar", "decode", name, io, config, sampling, weights)


def scheduled(name: str, side: int) -> Golden:
    """The schedules of all windows of a grid."""
    io, windows = dict[str, Tensor](), list(range(1, side + 1))
    for window in windows:
        steps = steps_of(side, window)
        step_of = torch.zeros(side * side).long()
        for step, inputs in enumerate(steps):
            step_of[predicted_places(inputs)] = step
        order = [place for inputs in steps for place in predicted_places(inputs)]
        io |= {
            f"step_of.{window}": step_of,
            f"order.{window}": torch.tensor(order),
            f"steps.{window}": torch.tensor(len(steps)),
            f"n_fed.{window}": torch.tensor([len(inputs) for inputs in steps]),
        }
    return recording("zipar", "other", name, io, {"grid": side}, {"windows": windows})


MAKERS: dict[str, Callable[[str], Golden]] = {
    "one-token": partial(decoded, config=small_config(1), sampling={"window": 1, "cfg_scale": 1.5}),
    "two-rows": partial(
        decoded,
        config=small_config(2, dim=24, n_head=3, multiple_of=8),
        sampling={"window": 1, "cfg_scale": 1.75},
        batch=1,
    ),
    "three-rows-scale-half": partial(
        decoded, config=small_config(3), sampling={"window": 2, "cfg_scale": 0.5}, batch=1
    ),
    "even-grid-half-a-row-ahead": partial(
        decoded, config=small_config(4), sampling={"window": 2, "cfg_scale": 2.0}, batch=3
    ),
    "odd-grid-one-layer-unguided": partial(
        decoded,
        config=small_config(7, dim=24, n_layer=1, n_head=3, num_classes=1),
        sampling={"window": 3, "cfg_scale": 1.0, "top_k": 5, "top_p": 0.9},
        batch=1,
    ),
    "many-rows-at-once": partial(
        decoded, config=small_config(7, n_layer=1), sampling={"window": 2, "cfg_scale": 4.0}
    ),
    "one-token-ahead": partial(decoded, config=small_config(5), sampling={"window": 1, "cfg_scale": 1.75}),
    "all-but-one-ahead": partial(decoded, config=small_config(5), sampling={"window": 4, "cfg_scale": 1.5}),
    "a-whole-row-ahead-is-raster": partial(
        decoded, config=small_config(5), sampling={"window": 5, "cfg_scale": 1.75}
    ),
    "interval-0-in-both-phases": partial(
        decoded,
        config=small_config(5, n_layer=1),
        sampling={"window": 2, "cfg_scale": 2.5, "cfg_interval": 0, "temperature": 0.7},
    ),
    "interval-restarts-behind-row-0": partial(
        decoded,
        config=small_config(6, n_layer=1),
        sampling={"window": 2, "cfg_scale": 2.5, "cfg_interval": 3},
    ),
    "interval-past-row-0": partial(
        decoded,
        config=small_config(6, n_layer=1),
        sampling={"window": 5, "cfg_scale": 2.5, "cfg_interval": 9},
        batch=4,
    ),
    "interval-of-a-whole-row-ahead": partial(
        decoded, config=small_config(4), sampling={"window": 4, "cfg_scale": 2.5, "cfg_interval": 1.5}
    ),
    "grouped-heads": partial(
        decoded,
        config=small_config(5, dim=48, n_head=6, n_kv_head=2),
        sampling={"window": 2, "cfg_scale": 2.0},
    ),
    "no-null-class-norm-epsilon-and-rotary-base": partial(
        decoded,
        config=small_config(5, class_dropout_prob=0.0, rope_base=500, norm_eps=1e-2, ffn_dim_multiplier=0.7),
        sampling={"window": 3, "cfg_scale": 1.0},
    ),
    "schedules-of-2-rows": partial(scheduled, side=2),
    "schedules-of-7-rows": partial(scheduled, side=7),
    "schedules-of-12-rows": partial(scheduled, side=12),
}
CASES: dict[str, Callable[[], Golden]] = {name: partial(make, name) for name, make in MAKERS.items()}
