"""Small decodes of every strategy on the device: equal tokens by every way, and where the host waits."""

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from harness.gpu_check.check import Bench, Finding, NotHere
from harness.gpu_check.recordings import exact_float32
from harness.gpu_check.waits import forget_tables, waits_of
from harness.subject.compiled import NOTHING_RECORDED, Recorded, compile_trunks, record_decodes, record_passes
from strategies.decoding import registry
from strategies.decoding.contract.recording import CONTROLLED, Case, subject
from strategies.decoding.decode import Decoded, decode

IMAGES = (0, 1, 2, 3, 4, 5, 6, 7)
FLIPS = 2
"""Images of a check that may differ from the CPU's or the eager ones: sums in another order move a logit by
its last bits, and a draw that lies there falls to the neighbouring token; all after it follow."""
COMPILED = ("raster", "rar", "par", "lpd", "arpg")
"""Strategies whose passes are compiled: compiling takes longer than all else; the others share their code."""
REPEATS = ((0, 1), (2, 3), (4, 5, 6), (0, 1))
"""Batches by which recorded passes are held to eager ones: first met, met again, of another size."""


def on_device(case: Case, device: torch.device) -> Case:
    """A copy whose network lies on the device."""
    network = copy.deepcopy(case.network).to(device)
    if case.strategy.reads_code_vectors and network.code_vectors is not None:
        network.code_vectors = network.code_vectors.to(device)
    return replace(case, network=network)


def decoded(
    case: Case,
    device: torch.device,
    images: tuple[int, ...] = IMAGES,
    steps: int | None = None,
    recorded: Recorded = NOTHING_RECORDED,
) -> Decoded:
    """A guided decode; the case's network lies on ``device``."""
    labels = case.labels(images).to(device)
    return decode(
        case.network,
        case.strategy,
        case.plan(images, steps),
        labels,
        case.sampler(images),
        case.guidance(2.0),
        drawing=recorded.drawing,
        running=recorded.running,
    )


def flipped(found: Tensor, expected: Tensor) -> int:
    """Images of which a token differs, of [B, N] each."""
    return int((found.cpu() != expected.cpu()).any(dim=1).sum())


def _finding(flips: Counter[str], images: int, most: int, against: str) -> Finding:
    total = sum(flips.values())
    wrong = ", ".join(f"{name} {count}" for name, count in flips.items() if count)
    reason = "" if total <= most else f"{total} images differ from {against}, {most} may: {wrong}"
    return Finding(total <= most, {"images": images, "flipped": total, "bound": most}, reason)


def tokens_of_cpu(bench: Bench) -> Finding:
    """Every strategy's float32 tokens on the device against the CPU's."""
    if bench.device.type == "cpu":
        raise NotHere("the device is the CPU itself")
    flips = Counter[str]()
    with exact_float32():
        for name in registry.BUILT_IN:
            case = subject(registry.get(name))
            expected = decoded(case, torch.device("cpu")).tokens
            found = decoded(on_device(case, bench.device), bench.device).tokens
            flips[name] = flipped(found, expected)
    return _finding(flips, len(IMAGES) * len(flips), FLIPS, "the CPU's")


def recorded_tokens(bench: Bench, names: Sequence[str] = registry.BUILT_IN) -> Finding:
    """Recorded passes read more of the cache than eager ones, behind a mask, and so may sum in another order:
    tokens are equal up to counted flips."""
    flips, passes = Counter[str](), 0
    with exact_float32():
        for name in names:
            case = on_device(subject(registry.get(name)), bench.device)
            expected = [decoded(case, bench.device, images).tokens for images in REPEATS]
            recorded = record_passes(case.network, bench.recorder())
            found = [decoded(case, bench.device, images, None, recorded).tokens for images in REPEATS]
            flips[name] = sum(map(flipped, found, expected))
            passes += recorded.passes
    finding = _finding(flips, len(names) * sum(map(len, REPEATS)), FLIPS, "the eager ones")
    return replace(finding, figures={**finding.figures, "graphs": passes})


def whole_decodes(bench: Bench, names: Sequence[str] = registry.BUILT_IN) -> Finding:
    """Decodes of plans known beforehand, recorded as one, give eager tokens up to counted flips."""
    flips, graphs = Counter[str](), 0
    with exact_float32():
        for name in names:
            case = on_device(subject(registry.get(name)), bench.device)
            if case.plan(IMAGES, None).opened:
                continue
            expected = [decoded(case, bench.device, images).tokens for images in REPEATS]
            recorded = record_decodes(bench.recorder())
            found = [decoded(case, bench.device, images, None, recorded).tokens for images in REPEATS]
            flips[name] = sum(map(flipped, found, expected))
            graphs += recorded.passes
    finding = _finding(flips, len(flips) * sum(map(len, REPEATS)), FLIPS, "the eager ones")
    return replace(finding, figures={**finding.figures, "strategies": len(flips), "graphs": graphs})


GRID = (16, 16)
"""Places of the papers' own images."""


def graphs_of(bench: Bench, names: Sequence[str] = registry.BUILT_IN) -> Finding:
    """How many recordings serve a decode of 16x16 places, and that a second one adds none; of strategies that
    decide while decoding, whose windows differ at the end, that is not asked."""
    figures: dict[str, str | int] = {}
    wrong, nbytes = [], 0
    for name in names:
        config = replace(CONTROLLED, grid=GRID)
        case = on_device(subject(registry.get(name), config), bench.device)
        recorded = record_passes(case.network, bench.recorder())
        decoded(case, bench.device, (0, 1), None, recorded)
        graphs, calls = recorded.passes, sum(part.calls for part in recorded.parts)
        figures[name] = f"{graphs} for {calls} passes and draws"
        nbytes += recorded.nbytes or 0
        decoded(case, bench.device, (2, 3), None, recorded)
        if recorded.passes > graphs and not case.strategy.decides_steps:
            wrong.append(f"{name}: a second decode adds {recorded.passes - graphs}")
    return Finding(not wrong, {"bytes": nbytes, **figures}, "; ".join(wrong))


def compiled_tokens(bench: Bench, names: Sequence[str] = COMPILED) -> Finding:
    """Compiled blocks fuse and so round otherwise: tokens are equal up to counted flips."""
    flips = Counter[str]()
    with exact_float32():
        for name in names:
            case = on_device(subject(registry.get(name)), bench.device)
            expected = decoded(case, bench.device).tokens
            compile_trunks(case.network, bench.backend)
            flips[name] = flipped(decoded(case, bench.device).tokens, expected)
    return _finding(flips, len(IMAGES) * len(names), FLIPS, "the eager ones")


@dataclass(frozen=True)
class Waits:
    """How often the host waits in a decode of a strategy that has run before.

    fewest, most: (steps, waits) of a decode in the fewest and in the most steps; the same where the strategy
    decides its steps. places: of the latter, ``file:line`` -> waits.
    """

    strategy: str
    decides: bool
    fewest: tuple[int, int]
    most: tuple[int, int]
    places: Counter[str]

    @property
    def per_step(self) -> float:
        """Waits that each further step adds; of a strategy that decides, waits over steps."""
        steps, waits = self.most[0] - self.fewest[0], self.most[1] - self.fewest[1]
        return waits / steps if steps else self.most[1] / self.most[0] if self.decides else 0.0

    @property
    def as_declared(self) -> bool:
        """None in a step, but for strategies that decide while decoding."""
        return self.decides or (self.most[1] == self.fewest[1] and self.most[1] <= AROUND)


AROUND = 8
"""Waits around the steps of a decode that may stand: labels and order go in, soundness comes out."""


def waits_in(name: str, device: torch.device) -> Waits:
    """Of a small guided decode of two images."""
    if device.type == "cpu":
        forget_tables()
    case = on_device(subject(registry.get(name)), device)
    counts = case.step_counts()
    found: list[tuple[int, int]] = []
    places = Counter[str]()
    for steps in (counts[0], counts[-1]):
        run = partial(decoded, case, device, (0, 1), steps)
        waits_of(run, device)  # what is kept for later decodes is made here
        places = waits_of(run, device)
        found.append((run().steps, sum(places.values())))
    return Waits(name, case.strategy.decides_steps, found[0], found[1], places)


def host_waits(bench: Bench, names: Sequence[str] = registry.BUILT_IN) -> Finding:
    """No strategy waits for the device in a step, but those that decide while decoding."""
    all_waits = [waits_in(name, bench.device) for name in names]
    wrong = [
        f"{one.strategy} waits {one.most[1]} times in {one.most[0]} steps, {one.fewest[1]} in {one.fewest[0]}"
        f" ({', '.join(place for place, _ in one.places.most_common(3))})"
        for one in all_waits
        if not one.as_declared
    ]
    per_step = {f"{one.strategy} per step": round(one.per_step, 2) for one in all_waits if one.per_step}
    around = max((one.most[1] for one in all_waits if not one.decides), default=0)
    return Finding(not wrong, {"most around the steps": around, **per_step}, "; ".join(wrong))
