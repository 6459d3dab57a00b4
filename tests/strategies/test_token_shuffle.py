"""Token-Shuffle: windows, steps, what a window is told, the network's size."""

import numpy as np
import pytest
import torch

from backbones.controlled import controlled_network
from backbones.transformer import parameter_count
from pardec.errors import UserError
from strategies.decoding.contract.recording import run, subject
from strategies.decoding.orders import window_order
from strategies.decoding.sampling import ForcedSampler
from strategies.decoding.streams import Streams
from strategies.raster import Raster
from strategies.token_shuffle import MIXERS, TokenShuffle


@pytest.mark.parametrize(("side", "window", "steps"), [(16, 2, 64), (16, 4, 16), (24, 2, 144), (16, 1, 256)])
def test_a_step_writes_a_window(side, window, steps):
    plan = TokenShuffle(window).plan((side, side), None, Streams(0, (0,)))
    assert plan.steps == steps == side * side // window**2
    row, column = np.divmod(plan.order[0].reshape(steps, -1), side)
    assert (row // window == row[:, :1] // window).all()
    assert (column // window == column[:, :1] // window).all()


def test_windows_and_their_tokens_go_row_by_row():
    assert window_order((2, 4), 2).tolist() == [0, 1, 4, 5, 2, 3, 6, 7]


def test_a_grid_without_whole_windows_is_refused():
    with pytest.raises(UserError, match="a grid of 5x4 has no windows of 2x2"):
        TokenShuffle().plan((5, 4), None, Streams(0, (0,)))


@pytest.mark.parametrize("side", [0, -2])
def test_a_window_has_a_side(side):
    with pytest.raises(UserError, match=f"option 'side' of strategy 'token-shuffle' is {side}"):
        TokenShuffle(side=side)


def test_tokens_of_a_window_do_not_see_each_other():
    tiny = subject(TokenShuffle())
    plan, labels, tokens = tiny.plan((0,)), tiny.labels((0,)), tiny.tokens(1)
    base = run(tiny, plan, labels, ForcedSampler(tokens)).logits
    changed = tokens.clone()
    changed[0, plan.order[0, 0]] = (changed[0, plan.order[0, 0]] + 1) % tiny.config.codes
    other = run(tiny, plan, labels, ForcedSampler(changed)).logits
    assert torch.equal(base[:, :4], other[:, :4])
    assert float((base - other)[:, 4:8].abs().min()) > 0


def test_it_adds_two_narrow_maps_and_mixers_to_raster():
    config = controlled_network(64, 10, (8, 8))
    width = config.trunk.width
    with torch.device("meta"):
        shuffled, raster = TokenShuffle().network(config), Raster().network(config)
    added = 2 * width * width // 4 + 2 * MIXERS * 2 * width**2
    assert parameter_count(shuffled) - parameter_count(raster) == added


def test_an_interval_counts_the_tokens_before_a_step():
    plan = TokenShuffle().plan((4, 4), None, Streams(0, (0,)))
    assert plan.count.tolist() == np.repeat([0, 4, 8, 12], 4).tolist()
