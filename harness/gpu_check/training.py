"""A training step of a network of full size: images/s, and the share of the device's peak."""

import statistics

import torch

from harness.gpu_check.check import Bench, Finding
from harness.gpu_check.speed import Workbench, cell_of, figures_per_s, peak_rate
from harness.machine.clock import Clock
from harness.machine.distributed import Group
from harness.measure.repeats import Budget, repeat
from harness.subject.prepare import prepare
from harness.train.learner import Learner, SharedLearner, forward_flops, new_network
from harness.train.log import FORWARD_AND_BACKWARD

REPEATS = Budget(seconds=4.0, least=3, most=20, patience_s=30.0)


def training_step(bench: Bench, workbench: Workbench, network: str, batch: int) -> Finding:
    """Loss, gradient and AdamW's step of one batch, on CUDA with products in bfloat16."""
    prepared = prepare(cell_of(network, bench.device, batch))
    strategy, config, device = prepared.strategy, prepared.config, bench.device
    on_cuda = device.type == "cuda"
    made = new_network(strategy, config, 0, None).to(device).train()
    flops = forward_flops(strategy, made, config) * FORWARD_AND_BACKWARD
    learner = SharedLearner(Learner(strategy, made), Group(), device, compiled=False)
    optimiser = torch.optim.AdamW(made.parameters(), lr=1e-4, fused=True)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(config.codes, (batch, strategy.places(config.grid)), generator=generator)
    tokens = tokens.to(device)
    labels = torch.zeros(batch, dtype=torch.int64, device=device)
    lesson = strategy.lesson(batch, config.grid, generator, 0.5).to(device)
    clock, losses = Clock.of(device), list[torch.Tensor]()

    def step() -> float:
        started = clock.now()
        optimiser.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, on_cuda):
            loss = learner.loss(tokens, labels, lesson)
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
        return clock.now() - started

    step()
    seconds = statistics.median(repeat(step, REPEATS).seconds)
    peak = peak_rate(workbench.sheet(bench), "bfloat16" if on_cuda else "float32")
    first, last = float(losses[0]), float(losses[-1])
    figures = {"batch": batch, "step s": seconds, "first loss": first, "last loss": last}
    reason = (
        "" if last < first else f"the loss of one batch learned again went from {first:.3f} to {last:.3f}"
    )
    return Finding(not reason, {**figures, **figures_per_s(batch / seconds, flops, peak)}, reason)
