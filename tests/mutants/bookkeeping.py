"""Wrong bookkeeping: places, plans, steps, work, inputs and randomness."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch

from backbones.transformer import View
from strategies.arpg import ARPG
from strategies.decoding.decode import Ask
from strategies.lpd import LPD
from strategies.raster import Raster, RasterNetwork
from tests.mutants import Mutant
from tests.mutants.tools import relayed


class WritesTwice(Raster):
    def decode(self, network, plan, rows):
        yield from super().decode(network, plan, rows)
        again = next(super().decode(network, plan, rows))
        yield Ask(again.logits, plan.groups()[-1])


class SkipsOne(ARPG):
    def decode(self, network, plan, rows):
        decoding, answer = super().decode(network, plan, rows), None
        for _ in range(plan.steps - 1):
            answer = yield decoding.send(answer)


class AsksForNothing(ARPG):
    def decode(self, network, plan, rows):
        yield from super().decode(network, plan, rows)
        if not plan.steps:
            yield Ask(torch.zeros(len(rows), 0, network.config.codes), slice(plan.places, plan.places))


class OrderOfTheRow(ARPG):
    def orders(self, grid, sizes, streams, known):
        return super().orders(grid, sizes, replace(streams, images=tuple(range(len(streams.images)))), known)


class ClampsSteps(ARPG):
    def plan(self, grid, steps, streams, known=None, sizes=None):
        allowed = self.allowed_steps(grid)
        steps = None if steps is None else min(max(steps, allowed[0]), allowed[-1])
        return super().plan(grid, steps, streams, known, sizes)


class Memoised(Raster):
    memory: ClassVar[dict] = {}

    def decode(self, network, plan, rows):
        key = tuple(rows.labels.tolist())
        if key in self.memory:
            for ask in self.memory[key]:
                yield Ask(ask.logits, ask.at)  # answers are not read
            return
        decoding, answer, asks = super().decode(network, plan, rows), None, []
        for _ in range(plan.steps):
            asks.append(decoding.send(answer))
            answer = yield asks[-1]
        self.memory[key] = asks


class WorksInWarmUp(Raster):
    """Answers a decode that it has seen, token by token, from memory; one row keeps the step count right."""

    memory: ClassVar[dict] = {}

    def decode(self, network, plan, rows):
        prefix = network.class_embedding(rows.labels).unsqueeze(1)
        seen = (id(network), tuple(rows.labels.tolist()))
        decoding, answer, live = super().decode(network, plan, rows), None, seen not in self.memory
        for at in plan.groups():
            if live:
                self.memory[seen] = decoding.send(answer).logits
            else:
                network(prefix[:1], None, View(), None)
            answer = yield Ask(self.memory[seen], at)
            seen = (*seen, *answer.flatten().tolist())


class RunsOutsideTheSteps(ARPG):
    def decode(self, network, plan, rows):
        def refined(logits):
            prefix = network.embeddings(network.class_ids(rows.labels)[:, None])
            hidden = network.content.forward(prefix, None, View())
            return logits + 0 * hidden.sum()

        return relayed(super().decode(network, plan, rows), logits=refined)


class TwoPassesNetwork(RasterNetwork):
    def forward(self, x, phases, view, cache=None):
        super().forward(x, phases, view, cache)
        return super().forward(x, phases, view, cache)


class HidesASecondPass(Raster):
    def network(self, config):
        return TwoPassesNetwork(config)


class OneForwardMore(Raster):
    def decode(self, network, plan, rows):
        yield from super().decode(network, plan, rows)
        next(super().decode(network, plan, rows))


class WritesLabels(Raster):
    def decode(self, network, plan, rows):
        yield from super().decode(network, plan, rows)
        rows.labels.zero_()


class WritesOrder(ARPG):
    def decode(self, network, plan, rows):
        yield from super().decode(network, plan, rows)
        rows.order.copy_(rows.order.sort(dim=1).values)


class WritesTokens(LPD):
    def decode(self, network, plan, rows):
        return relayed(super().decode(network, plan, rows), tokens=lambda tokens: tokens.clamp_(max=4))


class WritesWeights(Raster):
    def decode(self, network, plan, rows):
        yield from super().decode(network, plan, rows)
        network.head.weight.mul_(1.001)


class GlobalGenerator(Raster):
    def decode(self, network, plan, rows):
        return relayed(
            super().decode(network, plan, rows), logits=lambda logits: logits + 1e-6 * torch.rand(())
        )


class GlobalOrders(ARPG):
    def orders(self, grid, sizes, streams, known):
        orders = super().orders(grid, sizes, streams, known)
        return np.concatenate([known, np.random.permutation(orders[0][len(known) :])])  # noqa: NPY002


class FreshEntropy(LPD):
    def decode(self, network, plan, rows):
        generator = torch.Generator()
        generator.seed()
        noise = 1e-3 * torch.rand((), generator=generator)
        return relayed(super().decode(network, plan, rows), logits=lambda logits: logits + noise)


class RunsItsClockBackwards(LPD):
    def arrange(self, grid, order, sizes, given=0):
        plan = super().arrange(grid, order, sizes, given)
        return replace(plan, progress=1 - plan.progress)


class LeavesTrainingMode(Raster):
    def decode(self, network, plan, rows):
        yield from super().decode(network, plan, rows)
        network.train()


MUTANTS = [
    Mutant(
        "runs its clock backwards", RunsItsClockBackwards(), ("plans_are_valid",), "progress runs backwards"
    ),
    Mutant(
        "leaves the network in training mode",
        LeavesTrainingMode(),
        ("used_through_the_loop_only",),
        "left in training mode",
    ),
    Mutant(
        "writes the last position twice",
        WritesTwice(),
        ("every_position_once", "used_through_the_loop_only"),
        "step 16 writes places 15..16, its plan says no further step",
    ),
    Mutant(
        "skips the last group",
        SkipsOne(),
        ("every_position_once",),
        "decoding ended before places 0..16 of its plan",
    ),
    Mutant(
        "takes a step where all tokens are given",
        AsksForNothing(),
        ("everything_given",),
        "step 0 writes places 16..16, its plan says no further step",
    ),
    Mutant(
        "gives an image the order of its row in the batch",
        OrderOfTheRow(),
        ("plans_are_valid", "batch_equals_singles"),
        "an image's order is not its own",
    ),
    Mutant(
        "takes the nearest step count for one it cannot have",
        ClampsSteps(),
        ("plans_are_valid",),
        "is accepted, expected a UserError",
    ),
    Mutant(
        "repeats memoised logits for the same labels",
        Memoised(),
        ("causal", "uses_the_network_it_is_given", "repeats_its_work"),
        "no token is ever seen",
    ),
    Mutant(
        "works in warm-up: answers a decode it has seen from memory, with the right number of calls",
        WorksInWarmUp(),
        ("repeats_its_work", "uses_the_network_it_is_given"),
        "work of the second decode",
    ),
    Mutant(
        "claims fewer steps: runs the trunk outside the counted calls",
        RunsOutsideTheSteps(),
        ("hides_no_work",),
        "outside the counted forward calls",
    ),
    Mutant(
        "claims fewer steps: two passes through the trunk in one counted call",
        HidesASecondPass(),
        ("hides_no_work",),
        "runs a trunk 2 times",
    ),
    Mutant(
        "calls the network once more than it has steps",
        OneForwardMore(),
        ("used_through_the_loop_only",),
        "forward calls of a plan",
    ),
    Mutant("writes into the labels", WritesLabels(), ("leaves_its_inputs_alone",), "writes into labels"),
    Mutant(
        "sorts the plan's order", WritesOrder(), ("leaves_its_inputs_alone",), "writes into the plan's order"
    ),
    Mutant(
        "writes into the tokens it is sent",
        WritesTokens(),
        ("leaves_its_inputs_alone", "every_position_once"),
        "writes into the tokens",
    ),
    Mutant(
        "changes a weight", WritesWeights(), ("used_through_the_loop_only",), "decoding changes head.weight"
    ),
    Mutant(
        "draws from torch's global generator",
        GlobalGenerator(),
        ("deterministic",),
        "torch's global generator",
    ),
    Mutant(
        "draws orders from NumPy's global generator",
        GlobalOrders(),
        ("deterministic", "plans_are_valid"),
        "NumPy's global generator",
    ),
    Mutant("is not deterministic", FreshEntropy(), ("deterministic",), "one seed gives two sets of logits"),
]
