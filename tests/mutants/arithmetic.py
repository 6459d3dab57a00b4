"""Wrong arithmetic: guidance, sampling, lessons, loss and declarations."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from strategies.arpg import ARPG
from strategies.decoding.base import Lesson
from strategies.decoding.contract import Parts
from strategies.decoding.guidance import Guidance
from strategies.decoding.sampling import StreamSampler, draw_by_inversion, filter_logits
from strategies.decoding.streams import Streams
from strategies.lpd import LPD
from strategies.rar import RAR
from strategies.raster import Raster, RasterNetwork
from tests.mutants import Mutant
from tests.mutants.foreign import ReadsTheClock
from tests.mutants.tools import is_guided, relayed


class IgnoresGuidance(Raster):
    def decode(self, network, plan, rows):
        def both_conditional(logits):
            return logits.chunk(2)[0].repeat(2, 1, 1) if is_guided(rows, network) else logits

        return relayed(super().decode(network, plan, rows), logits=both_conditional)


class SwapsHalves(LPD):
    def decode(self, network, plan, rows):
        def swapped(logits):
            return torch.cat(logits.chunk(2)[::-1]) if is_guided(rows, network) else logits

        return relayed(super().decode(network, plan, rows), logits=swapped)


class NoClassIsClassZero(Raster):
    def decode(self, network, plan, rows):
        return super().decode(network, plan, replace(rows, labels=rows.labels % network.config.classes))


class SharpensLogits(RAR):
    def decode(self, network, plan, rows):
        return relayed(super().decode(network, plan, rows), logits=lambda logits: 1.01 * logits)


@dataclass(frozen=True)
class SwappedScale(Guidance):
    def weights(self, plan):
        return 1.0 - super().weights(plan)


@dataclass(frozen=True)
class IgnoresInterval(Guidance):
    def weights(self, plan):
        return replace(self, interval=-1).weights(plan) if self.interval >= 0 else super().weights(plan)


@dataclass(frozen=True)
class MultipliesTemperature(StreamSampler):
    def draw(self, logits, noise):
        filtered = filter_logits(logits * self.temperature, self.top_k, self.top_p)
        return draw_by_inversion(filtered.softmax(dim=-1), noise)


@dataclass(frozen=True)
class FiltersFirst(StreamSampler):
    def draw(self, logits, noise):
        filtered = filter_logits(logits, self.top_k, self.top_p) / self.temperature
        return draw_by_inversion(filtered.softmax(dim=-1), noise)


@dataclass(frozen=True)
class OneNumberPerStep(StreamSampler):
    def draw(self, logits, noise):
        return super().draw(logits, noise[:, :1].expand_as(noise))


@dataclass(frozen=True)
class GlobalNoise(StreamSampler):
    def noise(self, order, purpose="token", visit=0):
        return torch.rand(order.shape)


@dataclass(frozen=True)
class GlobalMultinomial(StreamSampler):
    def draw(self, logits, noise):
        probabilities = filter_logits(logits / self.temperature, self.top_k, self.top_p).softmax(dim=-1)
        drawn = torch.multinomial(probabilities.flatten(0, 1), 1).reshape(noise.shape)
        return drawn, torch.ones_like(noise)


class NoiseOfTheRow(StreamSampler):
    def __init__(self, streams: Streams, **settings: float) -> None:
        super().__init__(replace(streams, images=tuple(range(len(streams.images)))), **settings)


class SumsTheLoss(Raster):
    def loss(self, network, tokens, labels, lesson):
        return super().loss(network, tokens, labels, lesson) * tokens.shape[1]


class DeadEndNetwork(RasterNetwork):
    def __init__(self, config):
        super().__init__(config)
        self.unused = nn.Linear(config.trunk.width, config.trunk.width)


class HasADeadParameter(Raster):
    def network(self, config):
        return DeadEndNetwork(config)


class UnseededLessons(RAR):
    def lesson(self, batch, grid, generator, progress):
        return Lesson(torch.rand(batch, grid[0] * grid[1]).argsort(dim=1))


class ClaimsToBeLossless(ARPG):
    lossless: ClassVar[bool] = True


class HasNoTitle(Raster):
    title: ClassVar[str] = ""


def part(wrong: str, killers: tuple[str, ...], says: str, **parts: type) -> Mutant:
    return Mutant(wrong, Raster(), killers, says, Parts(**parts))


class LessonsOfOnePlace(Raster):
    def lesson(self, batch, grid, generator, progress):
        return Lesson(torch.zeros(batch, grid[0] * grid[1], dtype=torch.int64))


class LessonsThatEndEarly(LPD):
    def lesson(self, batch, grid, generator, progress):
        lesson = super().lesson(batch, grid, generator, progress)
        return replace(lesson, sizes=lesson.sizes[:-1])


class LearnsFromNothing(Raster):
    def taught_logits(self, network, tokens, labels, lesson):
        return super().taught_logits(network, torch.zeros_like(tokens), labels, lesson)


class IgnoresTheClass(Raster):
    def decode(self, network, plan, rows):
        return super().decode(network, plan, replace(rows, labels=torch.zeros_like(rows.labels)))


class OneSeedForAll(StreamSampler):
    def __init__(self, streams, **settings):
        super().__init__(replace(streams, seed=4), **settings)


PROBED = "sampler_draws_the_filtered_softmax"
MUTANTS = [
    Mutant("ignores guidance", IgnoresGuidance(), ("guidance",), "guided logits and u + s (c - u)"),
    Mutant("swaps the halves of guidance", SwapsHalves(), ("guidance",), "guided by scale 1 and unguided"),
    Mutant(
        "takes class 0 for no class",
        NoClassIsClassZero(),
        ("cached_equals_taught",),
        "decoded and taught logits",
    ),
    Mutant("decodes 1 % too sharp", SharpensLogits(), ("cached_equals_taught",), "decoded and taught logits"),
    part(
        "guides with swapped halves, c + s (u - c)",
        ("guidance_scales",),
        "and their definition",
        guidance=SwappedScale,
    ),
    part("guides beyond its interval", ("guidance_scales",), "up to prediction 4", guidance=IgnoresInterval),
    part("multiplies by the temperature", (PROBED,), "shares of tokens", sampler=MultipliesTemperature),
    part("filters before the temperature", (PROBED,), "shares of tokens", sampler=FiltersFirst),
    part(
        "draws all tokens of a step by one number",
        (PROBED,),
        "shares of tokens",
        sampler=OneNumberPerStep,
    ),
    part(
        "takes its noise from the global generator",
        ("noise_belongs_to_images", "deterministic"),
        "noise is not the images' own",
        sampler=GlobalNoise,
    ),
    part(
        "draws from the global generator",
        ("deterministic", PROBED),
        "torch's global generator",
        sampler=GlobalMultinomial,
    ),
    part(
        "gives noise to rows of the batch instead of images",
        ("noise_belongs_to_images", "batch_equals_singles"),
        "noise is not the images' own",
        sampler=NoiseOfTheRow,
    ),
    part("has one seed for all", ("deterministic",), "two seeds", sampler=OneSeedForAll),
    Mutant("ignores the class", IgnoresTheClass(), ("guidance",), "the class has no effect"),
    Mutant("teaches one place", LessonsOfOnePlace(), ("lessons",), "order is no permutation"),
    Mutant("teaches too few places", LessonsThatEndEarly(), ("lessons",), "do not fill 16 places"),
    Mutant("learns from no token", LearnsFromNothing(), ("lessons_leak_nothing",), "reads no token at all"),
    Mutant("sums the loss", SumsTheLoss(), ("loss_is_mean_cross_entropy",), "mean cross-entropy"),
    Mutant(
        "has a parameter that nothing reads",
        HasADeadParameter(),
        ("every_parameter_learns",),
        "unused.weight gets no gradient",
    ),
    Mutant(
        "draws lessons from the global generator",
        UnseededLessons(),
        ("lessons",),
        "depends on more than its generator",
    ),
    Mutant("claims to be lossless", ClaimsToBeLossless(), ("lossless",), "an image's probability is off by"),
    Mutant("has no title", HasNoTitle(), ("declares_itself",), "title is ''"),
    Mutant("reads the clock", ReadsTheClock(), ("imports_nothing_foreign",), "imports time"),
]
