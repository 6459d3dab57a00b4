"""Wrong second stages: which labels reach it, how often it is asked, what it may draw and what it learns."""

from dataclasses import replace

import torch

from strategies.ctf import CTF
from tests.mutants import Mutant
from tests.mutants.tools import relayed, unchanged


def second_stage(decoding, plan, logits=unchanged, before=lambda: None):
    """The same decode, whose last step's logits are changed, after something was done."""
    answer = None
    while True:
        try:
            ask = decoding.send(answer)
        except StopIteration:
            return
        if ask.at.start >= plan.codes_from:
            before()
            ask = replace(ask, logits=logits(ask.logits))
        answer = yield ask


class ShiftsLabels(CTF):
    def decode(self, network, plan, rows):
        return second_stage(super().decode(network, plan, rows), plan, lambda logits: logits.roll(1, dims=1))


class DrawsAnyCode(CTF):
    def decode(self, network, plan, rows):
        return second_stage(super().decode(network, plan, rows), plan, lambda logits: logits.clamp(min=-5.0))


class TellsOtherLabels(CTF):
    def decode(self, network, plan, rows):
        codes = network.config.codes
        return relayed(
            super().decode(network, plan, rows), tokens=lambda tokens: (tokens + codes // 2) % codes
        )


class RefinesTwice(CTF):
    def decode(self, network, plan, rows):
        places = plan.codes_from
        nothing = torch.zeros(len(rows), places, dtype=torch.int64)
        again = lambda: network["fine"](rows.labels, nothing)  # noqa: E731
        return second_stage(super().decode(network, plan, rows), plan, before=again)


class RefinesWithoutGuidance(CTF):
    def decode(self, network, plan, rows):
        def conditional(logits):
            return logits if rows.branches == 1 else logits.chunk(2)[0].repeat(2, 1, 1)

        return second_stage(super().decode(network, plan, rows), plan, conditional)


class ReadsLabelsOfTheCodes(CTF):
    def taught_logits(self, network, tokens, labels, lesson):
        codes = tokens[:, network.config.places :]
        return super().taught_logits(network, torch.cat([codes, codes], dim=1), labels, lesson)


class TeachesTheSecondAlone(CTF):
    def loss(self, network, tokens, labels, lesson):
        places = network.config.places
        logits = self.taught_logits(network, tokens, labels, lesson)[:, places:]
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, places:].flatten())


MUTANTS = [
    Mutant(
        "predicts each code from the label before its own",
        ShiftsLabels(),
        ("cached_equals_taught",),
        "decoded and taught logits",
    ),
    Mutant(
        "lets codes of other labels be drawn",
        DrawsAnyCode(),
        ("cached_equals_taught",),
        "decoded and taught logits",
    ),
    Mutant(
        "goes on with other labels than were drawn",
        TellsOtherLabels(),
        ("cached_equals_taught",),
        "decoded and taught logits",
    ),
    Mutant(
        "asks the second network once more than it draws",
        RefinesTwice(),
        ("used_through_the_loop_only",),
        "a network is called twice for one step",
    ),
    Mutant(
        "guides the labels but not the codes",
        RefinesWithoutGuidance(),
        ("guidance",),
        "u + s (c - u)",
    ),
    Mutant(
        "learns to predict codes from their own labels' codes",
        ReadsLabelsOfTheCodes(),
        ("lessons_leak_nothing", "cached_equals_taught"),
        "when its token is another one",
    ),
    Mutant(
        "leaves the labels out of the loss",
        TeachesTheSecondAlone(),
        ("loss_is_mean_cross_entropy", "every_parameter_learns"),
        "loss and mean cross-entropy",
    ),
]
