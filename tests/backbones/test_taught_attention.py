"""Attention by tiles in bfloat16: its value, its gradient, and that no tile leaves anything out."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones import attention
from backbones.attention import View, attend
from backbones.taught_attention import TILE, attend_taught, causal_tiles, tiles_of
from strategies.lpd import teaching_mask


def random_mask(rows: int, columns: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    seen = torch.rand(rows, columns, generator=generator) < torch.rand((), generator=generator)
    seen[:, int(torch.randint(columns, (), generator=generator))] = True
    return seen


def lpd_mask() -> torch.Tensor:
    return teaching_mask((1, 3, 20, 40, 66), torch.device("cpu"))


@given(st.integers(1, 150), st.integers(1, 150), st.integers(0, 2**20))
@settings(max_examples=40, deadline=None)
def test_tiles_cover_all_that_is_seen_and_hide_the_rest(rows, columns, seed):
    seen = random_mask(rows, columns, seed)
    found = torch.zeros_like(seen)
    for tile in tiles_of(seen):
        hidden = torch.zeros(tile.rows.stop - tile.rows.start, 0)
        assert tile.rows.stop - tile.rows.start <= TILE
        width = sum(run.stop - run.start for run in tile.columns)
        hidden = torch.zeros(len(seen[tile.rows]), width) if tile.hidden is None else tile.hidden
        done = 0
        for run in tile.columns:
            part = hidden[:, done : done + run.stop - run.start]
            found[tile.rows, run] = part == 0
            done += run.stop - run.start
    assert torch.equal(found, seen)


@pytest.mark.parametrize(
    "seen",
    [torch.ones(100, 100, dtype=torch.bool).tril(), lpd_mask(), random_mask(70, 130, 3)],
    ids=["causal", "lpd", "random"],
)
def test_value_and_gradient_are_those_of_exact_attention(seen):
    rows, columns = seen.shape
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3, rows, 16), (2, 3, columns, 16), (2, 3, columns, 16))
    given_ = [torch.randn(shape, generator=generator).bfloat16() for shape in shapes]
    slope = torch.randn(shapes[0], generator=generator).bfloat16()
    ours = [part.clone().requires_grad_() for part in given_]
    exact = [part.double().requires_grad_() for part in given_]
    found = attend_taught(*ours, tiles_of(seen))
    expected = F.scaled_dot_product_attention(*exact, attn_mask=seen)
    found.backward(slope)
    expected.backward(slope.double())
    torch.testing.assert_close(found.double(), expected, atol=0.02, rtol=0.02)
    for one, other in zip(ours, exact, strict=True):
        error = (one.grad.double() - other.grad).norm() / other.grad.norm()
        assert error < 0.01


def test_causal_tiles_read_no_column_behind_their_rows():
    tiles = causal_tiles(4 * TILE)
    assert [tile.columns for tile in tiles] == [(slice(0, (k + 1) * TILE),) for k in range(4)]


@pytest.mark.parametrize("view", [View(causal=True), View(mask=torch.ones(40, 40).tril().bool())])
def test_a_pass_that_is_taught_in_bfloat16_goes_by_tiles(view, monkeypatch):
    calls = []
    monkeypatch.setattr(attention, "attend_taught", lambda *parts: calls.append(1) or attend_taught(*parts))
    parts = [torch.randn(1, 2, 40, 8).bfloat16().requires_grad_() for _ in range(3)]
    attend(*parts, view)
    assert len(calls) == 1
    attend(*(part.detach() for part in parts), view)
    attend(*(part.detach().float().requires_grad_() for part in parts), view)
    assert len(calls) == 1
