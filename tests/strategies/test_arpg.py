"""ARPG: two passes, one shared key and value, block-wise reading."""

import numpy as np
import pytest
import torch

from backbones.transformer import parameter_count
from strategies.arpg import ARPG, block_views
from strategies.decoding.base import Lesson
from strategies.decoding.contract.recording import CONTROLLED, run, subject
from strategies.decoding.contract.requirements import close
from strategies.decoding.guidance import Guidance
from strategies.decoding.sampling import ForcedSampler
from strategies.decoding.streams import Streams
from strategies.published.arpg import PUBLISHED
from strategies.raster import Raster
from tests.strategies.dressings import with_trunk


@pytest.fixture(scope="module")
def tiny():
    return subject(ARPG(), with_trunk(depth=4))


@pytest.mark.parametrize("steps", [1, 5, 16])
def test_rows_through_the_trunks(tiny, steps):
    plan = tiny.plan((0, 1), steps)
    found = run(tiny, plan, torch.zeros(2, dtype=torch.int64), ForcedSampler(tiny.tokens(2))).decoded
    assert found.forwards == steps
    assert found.tokens_processed == 1 + 16 - plan.sizes[-1] + 16
    assert tiny.strategy.cache_shape(tiny.config) == (4 // 2 + 1, 17)


def test_one_token_per_step_is_the_strictly_causal_lesson(tiny):
    tokens, labels = tiny.tokens(2), torch.tensor([0, 3])
    plan = tiny.plan((0, 1), 16)
    found = run(tiny, plan, labels, ForcedSampler(tokens))
    with torch.no_grad():
        taught = tiny.strategy.taught_logits(
            tiny.network, tokens, labels, Lesson(torch.as_tensor(plan.order))
        )
    close(found.logits, taught)


def test_fewer_steps_are_not_the_strictly_causal_lesson(tiny):
    """Block-wise reading is another function than causal reading; the difference is not rounding."""
    tokens, labels = tiny.tokens(2), torch.tensor([0, 3])
    plan = tiny.plan((0, 1), 4)
    found = run(tiny, plan, labels, ForcedSampler(tokens))
    with torch.no_grad():
        taught = tiny.strategy.taught_logits(
            tiny.network, tokens, labels, Lesson(torch.as_tensor(plan.order))
        )
    assert float((found.logits - taught).abs().max()) > 1e-2


def test_the_block_masks_by_hand():
    content, queries = block_views((1, 2, 1), torch.device("cpu"))
    expected_content = ["1000", "1100", "1111", "1111"]  # condition, then places 0, 1, 2
    expected_queries = ["1000", "1100", "1100", "1111"]  # places 0, 1, 2, 3
    for view, expected in ((content, expected_content), (queries, expected_queries)):
        assert torch.equal(view.mask, torch.tensor([[c == "1" for c in row] for row in expected]))


def test_targets_of_one_step_do_not_see_one_another(tiny):
    """Asked alone or with others, a target has the same logits."""
    tokens, labels, order = tiny.tokens(1), torch.tensor([1]), np.arange(16)
    wide = tiny.strategy.arrange((4, 4), order, (4, 12))
    narrow = tiny.strategy.arrange((4, 4), order, (4, 1, 11))
    found = [run(tiny, plan, labels, ForcedSampler(tokens)).logits[:, 4] for plan in (wide, narrow)]
    close(*found, 1e-5)


def test_the_order_inside_a_read_block_does_not_matter(tiny):
    tokens, labels = tiny.tokens(1), torch.tensor([1])
    logits = []
    for order in (np.arange(16), np.array([2, 0, 1, *range(3, 16)])):
        plan = tiny.strategy.arrange((4, 4), order, (3, 13))
        logits.append(run(tiny, plan, labels, ForcedSampler(tokens)).combined[1])
    close(*logits, 1e-5)


def test_guidance_counts_after_the_step():
    plan = ARPG().plan((16, 16), 32, Streams(0, (0,)))
    weights = Guidance(5.0, "linear").weights(plan)
    ends = np.cumsum(plan.sizes)
    for group, end in zip(plan.groups(), ends, strict=True):
        assert np.allclose(weights[group], 1 + 4 * end / 256)
    assert weights[-1] == 5.0
    known = ARPG().plan((4, 4), 3, Streams(0, (0,)), known=np.arange(6))
    expected = np.repeat(np.cumsum(known.sizes) / 10, known.sizes)
    assert np.allclose(known.progress[6:], expected)


@pytest.mark.parametrize(("prefill", "forwards"), [("split", 4), ("joint", 3)])
def test_prefill_modes(prefill, forwards):
    case, known = subject(ARPG(prefill=prefill)), np.array([0, 5, 6])
    tokens, labels = case.tokens(2), torch.tensor([0, 1])
    plan = case.strategy.plan((4, 4), 3, Streams(0, (0, 1)), known=known)
    found = run(case, plan, labels, ForcedSampler(tokens), known=tokens).decoded
    assert found.forwards == forwards
    assert found.tokens_processed == 1 + 3 + (13 - plan.sizes[-1]) + 13
    assert torch.equal(found.tokens[:, known], tokens[:, known])


def test_which_rows_of_the_one_table_are_read(tiny):
    tiny.network.zero_grad(set_to_none=True)
    tokens, order = tiny.tokens(1), torch.randperm(16, generator=torch.Generator().manual_seed(0))
    tiny.strategy.loss(tiny.network, tokens, torch.tensor([3]), Lesson(order[None])).backward()
    gradient = tiny.network.embeddings.weight.grad
    read = set(gradient.abs().amax(dim=1).nonzero().flatten().tolist())
    tiny.network.zero_grad(set_to_none=True)
    codes, classes = 11, 3
    mask, dropped, reserved = codes, codes + 1 + classes, codes + classes + 2
    assert read == {*tokens[0][order[:-1]].tolist(), mask, dropped}
    assert tiny.network.embeddings.num_embeddings == reserved + 1
    assert reserved not in read


def test_there_is_no_unguided_published_path():
    assert PUBLISHED.setting({"guidance_scale": 1.0}).guidance == Guidance(1.0, "linear")
    setting = PUBLISHED.setting({"guidance_scale": 4.0, "cfg_schedule": "constant", "num_iter": 64})
    assert (setting.guidance, setting.steps) == (Guidance(4.0, "constant"), 64)


@pytest.mark.parametrize("drop", ["key.weight", "value.weight", "content_norm.weight"])
def test_every_query_block_reads_the_one_shared_key_and_value(drop):
    network = ARPG().network(CONTROLLED)
    names = dict(network.named_parameters())
    assert drop in names
    assert not [name for name in names if name.startswith("queries") and ("qkv" in name or "key" in name)]


def test_the_cross_attending_half_is_lighter():
    width, depth = CONTROLLED.trunk.width, CONTROLLED.trunk.depth
    raster, arpg = (parameter_count(kind().network(CONTROLLED)) for kind in (Raster, ARPG))
    # Two of four attention products gone per cross block; shared key, value and norm, mask and reserved rows.
    assert arpg - raster == -(depth // 2) * 2 * width**2 + 2 * width**2 + width + 2 * width
