"""A whole decode as one recording, where its plan is known beforehand: no host work between its steps.

Only labels, orders, given tokens and the places' own numbers differ from batch to batch; all else (group
sizes, masks, phases, weights of guidance, filters) is fixed by the plan and the cell, and with it the
recording. What the host still sees at each step (commits, phases) is told when the decode is over.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from backbones.graphs import Key, Outputs, Recorder, Recordings
from backbones.networks import Networks
from backbones.transformer import Network
from strategies.decoding.base import Strategy
from strategies.decoding.decode import Loop, Rows, answer_all
from strategies.decoding.plan import Plan
from strategies.decoding.sampling import StreamSampler
from strategies.decoding.trace import Committed


class ReplayedDecode:
    """Stands in for ``answer_all``."""

    def __init__(self, recorder: Recorder) -> None:
        self.recordings = Recordings(recorder)
        self.calls: dict[Key, list[tuple[str, int]]] = {}
        """Of the networks in one decode, as ``Meter.calls``."""

    def __call__(self, network: Network | Networks, strategy: Strategy, loop: Loop) -> None:
        """As ``answer_all``; a decode whose places or draws are decided on the way is not recorded."""
        if not foreseeable(loop):
            answer_all(network, strategy, loop)
            return
        fixed, rows = fixed_by(strategy, loop), loop.rows
        # Weights of guidance never change, but a recording keeps none of the tensors that it reads.
        fed = (rows.labels, rows.order, loop.numbers.own, rows.known, *loop.weights)

        def run(fed: Sequence[Tensor | None]) -> Outputs:
            labels, order, own, *weights = (tensor for tensor in fed if tensor is not None)
            known = None if rows.known is None else weights.pop(0)
            inside = loop.on(Rows(labels, order, known, rows.branches), own, weights)
            before = len(inside.meter.calls)
            answer_all(network, strategy, inside)
            if inside.numbers.fresh:
                raise ValueError(f"strategy '{strategy.name}' draws more than once for a place of its plan")
            self.calls[fixed] = inside.meter.calls[before:]
            return inside.tokens, inside.done_at, inside.soundness

        loop.tokens, loop.done_at, loop.soundness = self.recordings.run(fixed, fed, run)
        loop.meter.calls[:] = self.calls[fixed]
        tell(loop)


def foreseeable(loop: Loop) -> bool:
    """Whether the plan and one number for each place say all that will happen."""
    return not (loop.plan.opened or loop.keep_drafts) and isinstance(loop.sampler, StreamSampler)


def fixed_by(strategy: Strategy, loop: Loop) -> Key:
    """All that the recording of a decode holds for good. Orders that images have of their own are fed."""
    plan: Plan = loop.plan
    sampler: Any = loop.sampler
    arrays = [plan.progress, plan.count, *([plan.order] if len(plan.order) == 1 else [])]
    return (
        strategy,
        (plan.grid, plan.sizes, plan.given, plan.maps, plan.codes_from),
        *(array.tobytes() for array in arrays),
        loop.guidance,
        (type(sampler), sampler.temperature, sampler.top_k, sampler.top_p),
    )


def tell(loop: Loop) -> None:
    """What ``Loop.commit`` would have told step by step."""
    by_place = loop.tokens[:, : loop.plan.places]
    for step, at in enumerate(loop.plan.groups()):
        loop.step = step
        loop.trace.append(Committed(step, at, by_place[:, at], None))
        if loop.observe is not None:
            loop.observe(loop.trace[-1])
    loop.groups = iter(())
