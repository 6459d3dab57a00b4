"""ZipAR: schedule, stand-ins, what empty slots do, the clock of a guidance interval."""

import numpy as np
import pytest
import torch

from pardec.errors import UserError
from strategies.decoding.contract.recording import run, subject
from strategies.decoding.contract.requirements import close
from strategies.decoding.sampling import ForcedSampler
from strategies.decoding.streams import Streams
from strategies.raster import Raster
from strategies.zipar import ZipAR, inputs, step_of

PUBLISHED = {
    16: {2: 60, 4: 88, 8: 144, 12: 200, 15: 242, 16: 256, 99: 256},
    24: {3: 114, 8: 224, 16: 400},
    32: {4: 184, 16: 544},
}


@pytest.mark.parametrize(
    ("side", "window", "steps"), [(side, *entry) for side, one in PUBLISHED.items() for entry in one.items()]
)
def test_published_step_counts(side, window, steps):
    plan = ZipAR(window).plan((side, side), None, Streams(0, (0,)))
    assert plan.steps == steps
    assert window > side or steps == 2 * side + (side - 2) * window


@pytest.mark.parametrize("grid", [(4, 4), (3, 6), (6, 3), (1, 5), (5, 1)])
@pytest.mark.parametrize("window", [1, 2, 3, 5])
def test_a_row_starts_a_window_after_the_one_above(grid, window):
    step = step_of(grid, window)
    assert step[0].tolist() == list(range(grid[1]))
    assert (np.diff(step, axis=1) == 1).all()
    assert (np.diff(step[1:], axis=0) == min(window, grid[1])).all()


@pytest.mark.parametrize("grid", [(4, 4), (5, 3), (2, 4)])
def test_a_window_of_a_row_is_raster_decoding(grid):
    assert all(fed.unasked == 0 for fed in inputs(grid, grid[1]))
    tiny, labels = subject(ZipAR(4)), torch.tensor([0, 2])
    zipped = run(tiny, tiny.plan((0, 1)), labels, tiny.sampler((0, 1)))
    plain = subject(Raster())
    whole = run(plain, plain.plan((0, 1)), labels, plain.sampler((0, 1)))
    assert torch.equal(zipped.decoded.tokens, whole.decoded.tokens)
    close(zipped.logits, whole.logits, 1e-5)


def test_a_row_that_starts_early_is_fed_the_latest_token_two_rows_above():
    fed = inputs((5, 5), 2)
    start = int(step_of((5, 5), 2)[3, 0])  # row 3: row 2 has two tokens, row 1 has four
    place = fed[start].at.tolist().index(2 * 5 + 4)
    assert fed[start].token[place] == 1 * 5 + 3
    assert int(step_of((5, 5), 2)[2, 0]) < start
    second = int(step_of((5, 5), 2)[2, 0])
    assert fed[second].token[fed[second].at.tolist().index(1 * 5 + 4)] == 4  # the end of row 0


def test_a_stand_in_is_written_over_once_its_row_is_complete():
    fed, step = inputs((5, 5), 2), step_of((5, 5), 2)
    for row in (1, 2, 3):
        after = int(step[row, -1]) + 1
        last = row * 5 + 4
        assert fed[after].unasked == 1
        assert (fed[after].token[0], fed[after].at[0]) == (last, last)
    assert sum(step.unasked for step in fed) == 3


def test_empty_slots_change_what_follows_and_masked_ones_do_not_leak():
    labels, tokens = torch.tensor([0, 1]), subject(Raster()).tokens(2)
    logits = {}
    for kind in ("attend", "mask"):
        tiny = subject(ZipAR(2, kind))
        logits[kind] = run(tiny, tiny.plan((0, 1)), labels, ForcedSampler(tokens)).logits
    first_rows = slice(0, 8 - 2)  # until row 2 starts, no slot below a fed one is empty
    close(logits["attend"][:, first_rows], logits["mask"][:, first_rows], 1e-6)
    assert float((logits["attend"] - logits["mask"]).abs().max()) > 1e-3


def test_the_interval_starts_anew_after_the_first_row():
    plan = ZipAR(2).plan((4, 4), None, Streams(0, (0,)))
    assert plan.count[:4].tolist() == [0, 0, 1, 2]
    assert plan.count[4:8].tolist() == [0, 1, 2, 2]


def test_a_window_below_one_is_refused():
    with pytest.raises(UserError, match="option 'window' of strategy 'zipar' is 0; at least 1 is needed"):
        ZipAR(0)
