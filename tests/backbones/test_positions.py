"""Rotary phases: zero for what has no place, the published pairs and frequencies elsewhere."""

import math

import pytest
import torch

from backbones.positions import PREFIX_ROW, rotary_table, rotate
from strategies.decoding.contract.recording import CONTROLLED
from strategies.raster import Raster
from tests.strategies.dressings import LEARNED

CPU = torch.device("cpu")


@pytest.mark.parametrize("base", [10_000.0, 100.0])
@pytest.mark.parametrize(("grid", "width"), [((4, 4), 8), ((3, 5), 16), ((2, 7), 100), ((1, 1), 4)])
def test_angles_by_formula(grid, width, base):
    table = rotary_table(grid, width, base, CPU)
    assert table.shape == (1 + grid[0] * grid[1], width // 2)
    half = width // 2
    for position in range(grid[0] * grid[1]):
        row, column = divmod(position, grid[1])
        for m in range(half // 2):
            frequency = base ** (-2 * m / half)
            for place, index in ((row, m), (column, half // 2 + m)):
                expected = complex(math.cos(place * frequency), math.sin(place * frequency))
                assert complex(table[1 + position, index]) == pytest.approx(expected, abs=1e-6)


def test_the_prefix_row_is_zero_not_one():
    table = rotary_table((4, 4), 8, 10_000.0, CPU)
    assert (table[PREFIX_ROW] == 0).all()
    assert torch.allclose(table[1:].abs(), torch.ones(16, 4))
    assert torch.equal(table[1], torch.ones(4, dtype=torch.complex64)), "position 0 turns nothing"
    x = torch.randn(1, 2, 3, 8)
    turned = rotate(x, table[:2].unsqueeze(-2))
    assert (turned[:, 0] == 0).all()
    assert torch.allclose(turned[:, 1], x[:, 1])


def test_adjacent_pairs_turn_row_half_then_column_half():
    table = rotary_table((5, 5), 8, 10_000.0, CPU)
    x = torch.randn(8)
    row, column = 3, 2
    found = rotate(x.view(1, 1, 1, 8), table[[1 + 5 * row + column]].unsqueeze(-2)).flatten()
    for pair, (place, m) in enumerate([(row, 0), (row, 1), (column, 0), (column, 1)]):
        angle = place * 10_000.0 ** (-2 * m / 4)
        a, b = float(x[2 * pair]), float(x[2 * pair + 1])
        assert float(found[2 * pair]) == pytest.approx(a * math.cos(angle) - b * math.sin(angle), abs=1e-5)
        assert float(found[2 * pair + 1]) == pytest.approx(
            b * math.cos(angle) + a * math.sin(angle), abs=1e-5
        )


def test_scores_depend_on_the_difference_of_positions_alone():
    side, width = 6, 16
    table = rotary_table((side, side), width, 10_000.0, CPU)[1:].unflatten(0, (side, side))
    q, k = torch.randn(1, 1, 1, width), torch.randn(1, 1, 1, width)

    def score(a, b):
        return float((rotate(q, table[a].view(1, 1, -1)) * rotate(k, table[b].view(1, 1, -1))).sum())

    assert score((1, 2), (3, 3)) == pytest.approx(score((2, 4), (4, 5)), abs=1e-4)
    assert score((1, 2), (3, 3)) != pytest.approx(score((1, 2), (3, 4)), abs=1e-3)


def test_rotation_keeps_type_and_length_and_is_done_in_single_precision():
    table = rotary_table((4, 4), 8, 10_000.0, CPU)[1:].unsqueeze(-2)
    x = torch.randn(2, 16, 3, 8)
    assert torch.allclose(rotate(x, table).norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    half = x.bfloat16()
    assert rotate(half, table).dtype == torch.bfloat16
    assert torch.equal(rotate(half, table), rotate(half.float(), table).bfloat16())


def test_phases_of_a_network():
    network = Raster().network(CONTROLLED)
    table = rotary_table((4, 4), 8, 10_000.0, CPU)
    rows = torch.tensor([[0, 5], [3, 16]])
    assert torch.equal(network.phases(rows), table[rows].unsqueeze(-2))
    assert network.bfloat16().phases(rows).dtype == torch.complex64, "casting a network rounds no phase"
    assert Raster().network(CONTROLLED).state_dict().keys() == dict(network.named_parameters()).keys()


def test_learned_positions_have_no_phases():
    from strategies.lpd import LPD

    assert LPD().network(LEARNED).phases(torch.arange(3)) is None
