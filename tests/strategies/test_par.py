"""PAR: sequence, phases, mask and step counts of the paper."""

import numpy as np
import pytest
import torch

from backbones.transformer import parameter_count
from pardec.errors import UserError
from strategies.decoding.contract.recording import CONTROLLED, run, subject
from strategies.decoding.sampling import ForcedSampler
from strategies.decoding.streams import Streams
from strategies.par import PAR, group_mask
from strategies.raster import Raster


@pytest.mark.parametrize(
    ("side", "regions", "steps"),
    [(16, 4, 67), (16, 16, 31), (24, 4, 147), (24, 9, 72), (24, 16, 51), (32, 4, 259), (32, 16, 79)],
)
def test_published_step_counts(side, regions, steps):
    plan = PAR(regions).plan((side, side), None, Streams(0, (0,)))
    assert plan.steps == steps
    assert plan.sizes == (1,) * regions + (regions,) * (side * side // regions - 1)


@pytest.mark.parametrize(("side", "regions"), [(16, 9), (32, 9), (16, 2), (16, 1), (5, 4)])
def test_grids_that_do_not_divide_are_refused_in_one_line(side, regions):
    with pytest.raises(UserError, match="strategy 'par'") as caught:
        PAR(regions).plan((side, side), None, Streams(0, (0,)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("regions", [-4, 0, 1, 3])
def test_regions_are_a_square(regions):
    with pytest.raises(UserError, match=f"option 'regions' of strategy 'par' is {regions}"):
        PAR(regions)


def test_a_group_is_the_same_local_place_of_every_region():
    plan = PAR(4).plan((6, 6), None, Streams(0, (0,)))
    rows, columns = np.divmod(plan.order.reshape(-1, 4), 6)
    assert (rows % 3 == rows[:, :1] % 3).all()
    assert (columns % 3 == columns[:, :1] % 3).all()
    assert (rows // 3 * 2 + columns // 3 == np.arange(4)).all()
    assert (rows[:, 0] * 3 + columns[:, 0] == np.arange(9)).all()


def test_class_and_transition_tokens_have_no_phase():
    tiny = subject(PAR(4))
    order = torch.as_tensor(tiny.plan((0,)).order[0])
    rows = tiny.network.table_rows(order, 4)
    assert len(rows) == 16 + 3
    assert rows.tolist() == [0, *(1 + order[:4]).tolist(), 0, 0, 0, *(1 + order[4:-1]).tolist()]


def test_the_mask_is_causal_then_opens_block_by_block():
    mask = group_mask(12, 4, torch.device("cpu"))
    for q in range(12):
        reach = q if q < 4 else 4 * (q // 4) + 3
        assert mask[q].tolist() == [k <= reach for k in range(12)]


def test_cutting_the_sequence_to_n_positions_is_exact():
    """The whole sequence of N + n - 1 inputs under the whole mask gives the same N outputs."""
    from backbones.transformer import View

    tiny, n = subject(PAR(4)), 4
    tokens, labels = tiny.tokens(2), torch.tensor([0, 2])
    lesson = tiny.strategy.lesson(2, (4, 4), torch.Generator(), 0.0)
    network, embedded = tiny.network, tiny.network.token_embedding(tokens.gather(1, lesson.order))
    prefix, extra = network.class_embedding(labels)[:, None], network.transition.weight.expand(2, -1, -1)
    x = torch.cat([prefix, embedded[:, :n], extra, embedded[:, n:-1]], dim=1)
    phases = network.phases(network.table_rows(lesson.order[0], n))
    with torch.no_grad():
        whole = network(x, phases, View(mask=group_mask(19, n, x.device)))[:, :16]
        cut = tiny.strategy.taught_logits(network, tokens, labels, lesson)
    assert float((whole - cut).abs().max()) < 1e-5


def test_every_input_position_passes_the_trunk_once():
    tiny = subject(PAR(4))
    plan = tiny.plan((0, 1))
    found = run(tiny, plan, torch.zeros(2, dtype=torch.int64), ForcedSampler(tiny.tokens(2))).decoded
    assert found.forwards == 16 // 4 + 3
    assert found.tokens_processed == 16  # class, 4 tokens, 3 transition tokens, groups but the last


def test_only_the_transition_tokens_are_added():
    for regions in (4, 16):
        added = parameter_count(PAR(regions).network(CONTROLLED)) - parameter_count(
            Raster().network(CONTROLLED)
        )
        assert added == (regions - 1) * CONTROLLED.trunk.width
