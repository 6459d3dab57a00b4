"""A whole decode as one recording: the same tokens, trace and counts, batch after batch."""

import pytest
import torch

from harness.gpu_check.decodes import decoded as as_checked
from harness.subject.compiled import record_decodes
from harness.subject.one_graph import ReplayedDecode
from strategies.decoding import registry
from strategies.decoding.contract.recording import subject
from strategies.decoding.decode import decode
from strategies.decoding.guidance import Guidance
from strategies.decoding.requests import Draft
from strategies.decoding.sampling import StreamSampler
from strategies.decoding.streams import Streams
from strategies.raster import Raster
from tests.backbones.test_graphs import BATCHES, BakedPasses

KNOWN_BEFOREHAND = tuple(
    name
    for name in registry.BUILT_IN
    if not registry.get(name).decides_steps
    and not subject(registry.get(name)).plan((0,), registry.get(name).allowed_steps((4, 4))[-1]).opened
)


def run(case, images, guidance=None, replayed=None, **changes):
    steps = None if case.strategy.decides_steps else case.strategy.allowed_steps((4, 4))[-1]
    given = {} if replayed is None else {"running": replayed}
    return decode(
        case.network,
        case.strategy,
        case.plan(images, steps),
        torch.tensor([image % 3 for image in images]),
        StreamSampler(Streams(0, images)),
        guidance,
        **given,
        **changes,
    )


def test_most_strategies_know_their_decode_beforehand():
    assert {
        "raster",
        "rar",
        "par",
        "lpd",
        "arpg",
        "randar",
        "nar",
        "zipar",
        "var",
        "ctf",
        "token-shuffle",
    } <= {*KNOWN_BEFOREHAND}


FAST = ("lpd", "zipar", "var", "ctf")


@pytest.mark.parametrize(
    ("name", "guidance"),
    [
        pytest.param(name, guidance, marks=[] if guidance and name in FAST else pytest.mark.slow)
        for name in KNOWN_BEFOREHAND
        for guidance in (None, Guidance(2.0, "linear"))
    ],
)
def test_a_decode_that_is_one_recording_is_the_same(name, guidance):
    case = subject(registry.get(name))
    replayed = ReplayedDecode(recorder := BakedPasses())
    for images in BATCHES:
        expected, found = run(case, images, guidance), run(case, images, guidance, replayed)
        assert torch.equal(found.tokens, expected.tokens)
        assert torch.equal(found.steps_of_image, expected.steps_of_image)
        assert (found.steps, found.counts) == (expected.steps, expected.counts)
        assert [(one.step, one.places) for one in found.trace] == [
            (one.step, one.places) for one in expected.trace
        ]
        for one, other in zip(found.trace, expected.trace, strict=True):
            assert torch.equal(one.tokens, other.tokens)
    # One for two images and one for three: what comes again is replayed.
    assert recorder.recorded == 2
    assert replayed.recordings.calls == len(BATCHES)


def test_given_tokens_are_fed():
    case, images = subject(registry.get("arpg")), (0, 1)
    known = torch.randint(0, case.config.codes, (2, 16), generator=torch.Generator().manual_seed(0))
    positions = [3, 4, 9]
    plans = [case.strategy.plan((4, 4), 4, Streams(0, images), positions) for _ in range(2)]
    replayed = ReplayedDecode(recorder := BakedPasses())
    for shift, plan in enumerate(plans):
        tokens = (known + shift) % case.config.codes
        arguments = (
            case.network,
            case.strategy,
            plan,
            torch.tensor([0, 1]),
            StreamSampler(Streams(0, images)),
        )
        expected = decode(*arguments, known=tokens)
        assert torch.equal(decode(*arguments, known=tokens, running=replayed).tokens, expected.tokens)
        assert torch.equal(expected.tokens[:, positions], tokens[:, positions])
    assert recorder.recorded == 1


def test_other_settings_are_other_recordings():
    case = subject(registry.get("raster"))
    replayed = ReplayedDecode(recorder := BakedPasses())
    for made, guidance in enumerate((None, Guidance(2.0), Guidance(3.0)), start=1):
        run(case, (0, 1), guidance, replayed)
        assert recorder.recorded == made
    run(case, (0, 1), Guidance(2.0), replayed)
    assert recorder.recorded == 3


@pytest.mark.parametrize("name", ["sjd", "maskgit"])
def test_what_is_decided_on_the_way_is_not_recorded(name):
    case = subject(registry.get(name))
    replayed = ReplayedDecode(recorder := BakedPasses())
    assert torch.equal(run(case, (0, 1), None, replayed).tokens, run(case, (0, 1)).tokens)
    assert recorder.recorded == 0


def test_the_host_is_told_of_every_step_afterwards():
    case, told = subject(registry.get("lpd")), []
    found = run(case, (0, 1), None, ReplayedDecode(BakedPasses()), observe=told.append)
    assert [one.step for one in told] == list(range(found.steps))


def test_a_strategy_that_draws_anew_against_its_plan_is_refused():
    class Twice(Raster):
        def decode(self, network, plan, rows):
            asking, answer = super().decode(network, plan, rows), None
            while True:
                try:
                    request = asking.send(answer)
                except StopIteration:
                    return
                yield Draft(request.logits, request.at)
                answer = yield request

    case = subject(Twice())
    with pytest.raises(ValueError, match="draws more than once for a place of its plan"):
        run(case, (0, 1), None, ReplayedDecode(BakedPasses()))


def test_recorded_decodes_count_as_graphs():
    case = subject(registry.get("raster"))
    recorded = record_decodes(BakedPasses())
    device = torch.device("cpu")
    assert torch.equal(
        as_checked(case, device, (0, 1), None, recorded).tokens, as_checked(case, device, (0, 1)).tokens
    )
    assert recorded.passes == 1
    assert recorded.seconds > 0
