"""NAR: diagonals, where predictions come from, mask, counts, the clock of a guidance interval."""

import numpy as np
import pytest
import torch

from backbones.controlled import controlled_network
from backbones.transformer import parameter_count
from strategies.decoding.contract.recording import run, subject
from strategies.decoding.contract.requirements import close
from strategies.decoding.orders import diagonal, diagonal_sizes
from strategies.decoding.presets import preset
from strategies.decoding.sampling import ForcedSampler
from strategies.decoding.streams import Streams
from strategies.nar import NAR, diagonal_mask, sources_of
from strategies.raster import Raster

CPU = torch.device("cpu")


@pytest.mark.parametrize(("side", "steps"), [(16, 31), (24, 47)])
def test_published_step_counts(side, steps):
    plan = NAR().plan((side, side), None, Streams(0, (0,)))
    assert plan.steps == steps == 2 * side - 1
    assert plan.sizes == (*range(1, side), *range(side, 0, -1))


@pytest.mark.parametrize("grid", [(1, 1), (1, 4), (4, 1), (3, 5), (5, 3), (4, 4)])
def test_a_step_is_a_diagonal_from_the_top(grid):
    row, column = np.divmod(diagonal(grid), grid[1])
    groups = np.split(row + column, np.cumsum(diagonal_sizes(grid))[:-1])
    assert [set(group) for group in groups] == [{step} for step in range(sum(grid) - 1)]
    starts = np.concatenate([[True], np.diff(row + column) > 0])
    assert (np.diff(row)[~starts[1:]] == 1).all()


@pytest.mark.parametrize("grid", [(4, 4), (2, 3), (3, 2), (1, 3)])
def test_predictions_come_from_the_neighbours(grid):
    height, width = grid
    sources = sources_of(grid, tuple(range(height * width)), CPU)
    for place in range(height * width):
        row, column = divmod(place, width)
        share = float(sources.share[place])
        if (row, column) == (0, 0):
            assert (int(sources.left[0]), int(sources.upper[0]), share) == (0, 0, 0.5)
            continue
        if column:
            assert int(sources.left[place]) == place  # row 0 is the class
        if row:
            assert int(sources.upper[place]) == 1 + place - width
        assert share == {(True, True): 0.5, (False, True): 1.0, (True, False): 0.0}[row > 0, column > 0]


def test_a_token_sees_the_class_and_all_diagonals_up_to_its_own():
    mask = diagonal_mask((2, 3), CPU)
    assert mask[0].tolist() == [True] + [False] * 6
    diagonals = [0, 1, 2, 1, 2, 3]
    for query in range(6):
        assert mask[1 + query].tolist() == [True] + [diagonals[key] <= diagonals[query] for key in range(6)]


def test_an_edge_reads_one_head_alone_and_the_middle_their_mean():
    tiny = subject(NAR())
    plan, labels, tokens = tiny.plan((0,)), tiny.labels((0,)), tiny.tokens(1)
    before = run(tiny, plan, labels, ForcedSampler(tokens)).logits
    with torch.no_grad():
        tiny.network.below_head.weight.zero_()
    without = run(tiny, plan, labels, ForcedSampler(tokens)).logits
    row, column = np.divmod(plan.order[0], 4)
    top, side = (row == 0) & (column > 0), (column == 0) & (row > 0)
    close(before[:, top], without[:, top], 1e-6)
    assert not without[:, side].any()
    assert float((before - without)[:, (row > 0) & (column > 0)].abs().min()) > 0


def test_the_interval_counts_the_tokens_before_a_step():
    plan = NAR().plan((4, 4), None, Streams(0, (0,)))
    starts = [plan.count[at.start] for at in plan.groups()]
    assert starts[:4] == [0, 1, 3, 6]
    assert all(len(set(plan.count[at])) == 1 for at in plan.groups())


@pytest.mark.parametrize(
    ("size", "counted"),
    [
        ("b", 130_551_552), ("m", 295_453_696), ("l", 372_536_320), ("xl", 815_991_040),
        ("xxl", 1_464_454_656), ("xxxl", 4_014_277_120),
    ],
)  # fmt: skip
def test_published_sizes(size, counted):
    strategy, config, info = preset(f"nar-{size}")
    with torch.device("meta"):
        assert parameter_count(strategy.network(config)) == info.parameters == counted


def test_it_adds_a_block_a_norm_and_a_head_to_raster():
    config = controlled_network(64, 10, (8, 8))
    with torch.device("meta"):
        nar, raster = NAR().network(config), Raster().network(config)
    block = parameter_count(raster.trunk.blocks[0])
    assert parameter_count(nar) - parameter_count(raster) == block + config.trunk.width * (1 + 64)
