"""SJD-MC: every draft of a window is tested and settles, whatever became of those before it."""

import pytest
import torch

from strategies.decoding.contract import judge
from strategies.decoding.contract import lossless as contract
from strategies.decoding.contract.card import CHECKS
from strategies.decoding.contract.recording import subject
from strategies.decoding.contract.worlds import world
from strategies.decoding.decode import decode
from strategies.decoding.requests import Accept, Commit, Draft, Redraw
from strategies.decoding.sampling import StreamSampler
from strategies.decoding.streams import Streams
from strategies.sjd import SJD
from strategies.sjd_mc import SJDMC

MADE = subject(SJDMC(window=5))


def decoded(method, images=6, sampler=StreamSampler, **settings):
    streams = Streams(1, tuple(range(images)))
    plan, labels = method.plan(MADE.config.grid, None, streams), torch.arange(images) % MADE.config.classes
    return decode(MADE.network, method, plan, labels, sampler(streams, **settings))


class Watched:
    """Answers of tests, and tokens fed and committed, forward by forward."""

    def __init__(self, method):
        self.method, self.tests, self.commits = method, [], []

    def __getattr__(self, name):
        return getattr(self.method, name)

    def decode(self, network, plan, rows):
        inner, answer = self.method.decode(network, plan, rows), None
        while True:
            try:
                request = inner.send(answer)
            except StopIteration:
                return
            answer = yield request
            if isinstance(request, Accept):
                self.tests.append((request.at, answer, request.stops))
            if isinstance(request, Commit):
                self.commits.append((request.at, request.tokens, request.where))
            assert not isinstance(request, Draft) or request.noise == "fresh"
            if isinstance(request, Redraw):
                at, accepted, _ = self.tests[-1]
                assert torch.equal(request.at >= 0, (at >= 0) & ~accepted), "all that is rejected is redrawn"


def test_tests_go_on_behind_a_rejection():
    watched = Watched(SJDMC(window=5))
    found = decoded(watched)
    assert not any(stops for *_, stops in watched.tests)
    behind = 0
    for at, accepted, _ in watched.tests:
        rejected_before = (~accepted).cumsum(dim=1) > 0
        behind += int((accepted & rejected_before & (at >= 0)).sum())
    assert behind > 0, "drafts behind a rejection pass too"
    tested = sum(int((at >= 0).sum()) for at, *_ in watched.tests)
    passed = sum(int((accepted & (at >= 0)).sum()) for at, accepted, _ in watched.tests)
    assert (int(found.tested.sum()), int(found.accepted.sum())) == (tested, passed)


def test_what_passed_is_carried_on_unchanged():
    """A place that is not yet final keeps a draft that passed: the next forward tests that very token."""
    watched = Watched(SJDMC(window=5))
    decoded(watched, images=1)
    kept = 0
    for (at, tokens, where), (later, again, _) in zip(watched.commits, watched.commits[1:], strict=False):
        waiting = {
            int(p): int(t) for p, t, w in zip(at[0], tokens[0], where[0], strict=True) if not w and p >= 0
        }
        tests = dict(zip(later[0, :-1].tolist(), again[0, :-1].tolist(), strict=True))
        kept += sum(tests.get(place) == token for place, token in waiting.items())
    assert kept > 0


def test_drafts_pass_more_often_than_sjd_s():
    coupled, plain = (
        decoded(method, images=64).steps_of_image for method in (SJDMC(window=8), SJD(window=8))
    )
    assert float(coupled.double().mean()) <= float(plain.double().mean())


def test_what_is_promised_depends_on_the_law_that_is_kept():
    assert SJDMC().lossless
    assert not SJDMC(kept="stale").lossless
    assert SJDMC(kept="stale").batch_exact


@pytest.mark.parametrize(("kept", "found"), [("renewed", False), ("stale", True)])
def test_five_places_and_windows_of_three_tell_a_stale_law(kept, found):
    small = world(subject(SJDMC(window=3, init="repeat_horizon", kept=kept)), (1, 5), 2)
    tokens, steps, masses = contract.branches_of(small, first_given=True)
    index = (tokens * small.powers).sum(dim=1)
    joint = torch.zeros(2**5, dtype=torch.float64).index_add_(0, index, masses)
    expected = small.joint(small.sampler((0,)))
    possible = small.images[:, 0] == tokens[0, 0]
    distance = float((joint[possible] - expected[possible] / expected[possible].sum()).abs().sum()) / 2
    assert (distance > 2e-3) == found
    assert found or distance < 1e-6
    assert len(steps.unique()) > 1


@pytest.mark.slow
@pytest.mark.parametrize("check", ["lossless", "lossless_in_a_batch"])
def test_it_is_lossless_at_its_own_setting(check):
    assert judge(CHECKS[check], SJDMC()).status == "pass"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kept", "images", "batch", "exact"),
    [("renewed", 12_000, 4, True), ("renewed", 150_000, 1000, True), ("stale", 150_000, 1000, False)],
)
def test_many_images_at_paces_of_their_own(kept, images, batch, exact):
    """A lossless method fails once in a million."""
    small = world(subject(SJDMC(window=4, kept=kept)), (2, 3))
    statistic, threshold, paces = contract.sampled(small, images, batch)
    assert paces > 2
    assert (statistic < threshold) == exact
