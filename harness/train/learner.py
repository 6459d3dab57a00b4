"""A strategy and its network as one module: what is compiled, and what processes share gradients of."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from backbones.config import NetworkConfig
from backbones.first_weights import ALIKE, FirstWeights, initialise
from backbones.networks import Networks
from backbones.transformer import Network
from harness.machine.distributed import Group
from harness.measure.measure import flop_counter
from pardec.errors import UserError
from strategies.decoding.base import Lesson, Strategy
from strategies.decoding.meter import by_role


def new_network(
    strategy: Strategy,
    config: NetworkConfig,
    seed: int,
    code_vectors: Tensor | None,
    tokenizer: nn.Module | None = None,
    first: FirstWeights = ALIKE,
) -> Network | Networks:
    """What a strategy trains, with initial weights, and told the vectors of codes [V, c] where it learns from
    them.

    UserError where it does and the tokenizer has none, and where the tokenizer is not one for the network.
    """
    network, generator = strategy.network(config), torch.Generator().manual_seed(seed)
    for one in by_role(network).values():
        initialise(one, generator, first)
        try:
            one.borrow(tokenizer)
        except ValueError as error:
            raise UserError(f"strategy '{strategy.name}' and its tokenizer: {error}") from None
    if strategy.learns_from_code_vectors:
        if code_vectors is None:
            raise UserError(
                f"strategy '{strategy.name}' learns from vectors of codes, and none are known here"
            )
        strategy.meet_codes(network, code_vectors)
    return network


class Learner(nn.Module):
    """Its forward pass is the strategy's loss; DDP and the compiler see nothing but that."""

    def __init__(self, strategy: Strategy, network: Network | Networks) -> None:
        super().__init__()
        self.strategy, self.network = strategy, network

    def forward(
        self,
        tokens: Tensor,
        labels: Tensor,
        order: Tensor,
        sizes: tuple[int, ...] | None,
        shown: Tensor | None,
    ) -> Tensor:
        """Mean loss of tokens [B, N] (raster), labels [B], by the parts of a lesson."""
        return self.strategy.loss(self.network, tokens, labels, Lesson(order, sizes, shown))


class SharedLearner:
    """A learner whose gradients are the mean over all processes of a group, compiled where asked for."""

    def __init__(self, learner: Learner, group: Group, device: torch.device, compiled: bool) -> None:
        self.parallel: DistributedDataParallel | None = None
        self.group = group
        module: nn.Module = learner
        if group.size > 1:
            # Buffers: networks have none that training changes.
            devices = [device.index or 0] if device.type == "cuda" else None
            self.parallel = module = DistributedDataParallel(
                learner, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True
            )
        self.run: Any = torch.compile(module) if compiled else module

    def loss(self, tokens: Tensor, labels: Tensor, lesson: Lesson) -> Tensor:
        return self.run(tokens, labels, lesson.order, lesson.sizes, lesson.shown)

    def accumulating(self, more: bool) -> AbstractContextManager[None]:
        """While ``more`` micro-batches of the step follow, gradients stay in this process."""
        return self.parallel.no_sync() if more and self.parallel is not None else nullcontext()

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over the processes, in place."""
        if self.group.size > 1:
            torch.distributed.all_reduce(value)
        return value


def forward_flops(strategy: Strategy, network: Network | Networks, config: NetworkConfig) -> int:
    """Floating-point operations of one image's teacher-forced pass; masked attention counts in full.

    With gradients recorded, as the counter asks of parameters that need them."""
    was_training = network.training
    generator = torch.Generator().manual_seed(0)
    lesson = strategy.lesson(1, config.grid, generator, 0.0).to(network.device)
    tokens = torch.zeros(1, strategy.places(config.grid), dtype=torch.long, device=network.device)
    with flop_counter() as counter:
        strategy.loss(network.eval(), tokens, tokens[:, 0], lesson)
    network.train(was_training)
    return int(counter.get_total_flops())
