"""Rows that see different numbers of slots: behind one mask, or by parts without."""

import pytest
import torch

from backbones.attention import View, attend, last_runs
from backbones.transformer import Trunk
from strategies.decoding import registry
from strategies.decoding.contract.recording import run, subject
from strategies.decoding.guidance import Guidance
from strategies.decoding.sampling import StreamSampler
from strategies.decoding.streams import Streams

VIEWS = {
    "two runs": View(5, runs=((3, 8), (4, 12))),
    "one run": View(5, runs=((7, 12),)),
    "causal": View(5, causal=True),
    "causal from the first slot": View(0, causal=True),
}


def tensors(heads: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(2, 4, 7, 8, generator=generator),
        torch.randn(2, heads, 12, 8, generator=generator),
        torch.randn(2, heads, 12, 8, generator=generator),
    )


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("heads", [4, 2])
@torch.inference_mode()
def test_by_parts_is_behind_a_mask(name, heads):
    view, (queries, keys, values) = VIEWS[name], tensors(heads)
    x = queries.transpose(1, 2).flatten(2)
    if view.start == 0:
        keys, values = keys[:, :, :7], values[:, :, :7]
    masked, parts = view.placed(x, 12), view.placed(x, 12, by_parts=True)
    assert parts.mask is None
    found, expected = (attend(queries, keys, values, one) for one in (parts, masked))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_of_the_last_rows_runs_are_cut():
    assert last_runs(((3, 8), (4, 12)), 4) == ((4, 12),)
    assert last_runs(((3, 8), (4, 12)), 5) == ((1, 8), (4, 12))
    assert last_runs(((3, 8), (4, 12)), 7) == ((3, 8), (4, 12))
    assert last_runs(((3, 8), (4, 12)), 2) == ((2, 12),)
    assert last_runs(None, 2) is None


def test_a_pass_that_is_recorded_goes_behind_a_mask():
    x = torch.zeros(2, 7, 32)
    assert VIEWS["two runs"].placed(x, 16, 8, by_parts=True).mask is not None


@pytest.mark.parametrize("name", ["lpd", "randar", "code"])
def test_tokens_are_the_same_by_parts(name):
    case, images = subject(registry.get(name)), (0, 1, 2)
    steps = case.strategy.allowed_steps((4, 4))[len(case.strategy.allowed_steps((4, 4))) // 2]
    found = []
    for by_parts in (False, True):
        for part in case.network.modules():
            if isinstance(part, Trunk):
                part.by_parts = by_parts
        sampler = StreamSampler(Streams(0, images))
        found.append(run(case, case.plan(images, steps), torch.tensor(images), sampler, Guidance(2.0)))
    # On so few tokens no rounding is met at an edge.
    assert torch.equal(found[0].decoded.tokens, found[1].decoded.tokens)
