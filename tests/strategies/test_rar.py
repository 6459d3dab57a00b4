"""RAR: two kinds of position, the annealing of random orders, step-wise modulation."""

import pytest
import torch

from backbones.transformer import parameter_count
from strategies import rar
from strategies.decoding.base import Lesson
from strategies.decoding.contract.recording import CONTROLLED, run, subject
from strategies.decoding.sampling import ForcedSampler
from strategies.published.rar import PUBLISHED, configure
from strategies.rar import PREFIX_ROWS, RAR, Modulations
from strategies.raster import Raster
from tests.strategies.dressings import ADALN, LEARNED


@pytest.fixture(scope="module")
def published():
    return subject(RAR(), ADALN)


@pytest.mark.parametrize(
    ("progress", "share"), [(0.0, 1.0), (0.5, 1.0), (0.625, 0.5), (0.75, 0.0), (1.0, 0.0)]
)
def test_random_orders_give_way_to_raster(progress, share):
    assert RAR().random_share(progress) == pytest.approx(share)
    lesson = RAR().lesson(2000, (4, 4), torch.Generator().manual_seed(0), progress)
    raster = (lesson.order == torch.arange(16)).all(dim=1).float().mean()
    assert float(raster) == pytest.approx(1 - share, abs=0.04)


@pytest.mark.parametrize(("start", "share"), [(0.0, 0.0), (0.25, 1.0), (1.0, 1.0)])
def test_annealing_may_be_sudden_or_never_happen(start, share):
    """The paper's ablations: pure raster, a switch, pure random orders."""
    rar = RAR(anneal_start=start, anneal_end=start)
    assert rar.random_share(0.2) == share
    assert rar.random_share(0.99) == float(start == 1.0)


@pytest.mark.parametrize(("published_tables", "fed"), [(False, 16), (True, 17)])
def test_rows_through_the_trunk(published_tables, fed):
    tiny = subject(RAR(), ADALN if published_tables else CONTROLLED)
    plan = tiny.plan((0,))
    found = run(tiny, plan, torch.zeros(1, dtype=torch.int64), ForcedSampler(tiny.tokens(1))).decoded
    assert found.forwards == 16
    assert found.tokens_processed == fed
    assert tiny.strategy.cache_shape(tiny.config) == (2, fed)


def used_rows(case, order):
    """Rows of each table that the loss reads, for one order."""
    case.network.zero_grad(set_to_none=True)
    tokens, labels = case.tokens(1), torch.tensor([1])
    case.strategy.loss(case.network, tokens, labels, Lesson(order[None])).backward()
    tables = {
        name: parameter.grad.flatten(0, -2).abs().amax(dim=-1).nonzero().flatten().tolist()
        for name, parameter in case.network.named_parameters()
        if name in ("positions", "target_positions", "step_embeddings", "embeddings.weight")
    }
    case.network.zero_grad(set_to_none=True)
    return tables, tokens


def test_which_rows_of_the_tables_are_read(published):
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    rows, tokens = used_rows(published, order)
    places = PREFIX_ROWS + order
    assert rows["positions"] == sorted([0, 1, *places[:-1].tolist()])
    assert rows["target_positions"] == sorted(places.tolist())  # never 0 and 1: the start has no target
    assert rows["step_embeddings"] == list(range(17))  # by generation step, not by cell
    mask_id, class_id = 11, 11 + 1 + 1
    fed = {*tokens[0][order[:-1]].tolist(), class_id}
    assert set(rows["embeddings.weight"]) == fed
    assert mask_id not in fed


def test_the_two_tables_are_not_exchangeable(published):
    """Under a random order, cell and step differ; only the cell's tables follow the order."""
    network = published.network
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    found = network.positional(order)
    table, target = network.positions[0], network.target_positions[0]
    assert torch.equal(found[0], table[1] + target[2 + order[0]])
    for j in range(1, 16):
        assert torch.equal(found[j], table[2 + order[j - 1]] + target[2 + order[j]])


def test_raster_positions_merge_into_one_table(published):
    network, order = published.network, torch.arange(16)
    table, target = network.positions[0], network.target_positions[0]
    assert torch.equal(network.positional(order)[1:], (table[2:17] + target[3:18]))


def test_the_final_modulation_is_scale_then_shift(published):
    network = published.network
    x, labels = torch.randn(1, 3, 32), torch.tensor([1])
    normed = torch.nn.functional.layer_norm(x, (32,), eps=1e-6)
    index = network.step_embeddings[:, :3] + network.embeddings.weight[network.class_ids(labels)]
    condition = torch.nn.functional.silu(index)
    scale, shift = network.final_modulation(condition).chunk(2, dim=-1)
    for block in network.trunk.blocks:
        torch.nn.init.zeros_(block.modulation.weight)
        torch.nn.init.zeros_(block.modulation.bias)
    from backbones.transformer import View

    with torch.no_grad():
        found = network(x, None, View(causal=True), None, Modulations(labels, 3))
        expected = network.head(normed * (1 + scale) + shift)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("modulated_rows", [1, 8, 12, 20, 400])
def test_modulations_made_ahead_are_those_of_their_steps(monkeypatch, modulated_rows):
    """However many steps share a product: 1, 2, 3, 5 or all; 17 indices are no multiple of most."""
    case = subject(RAR(), ADALN)
    tokens = case.tokens(2)

    def logits():
        found = run(case, case.plan((0, 1)), torch.tensor([0, 2]), ForcedSampler(tokens))
        return torch.cat(found.asked, dim=1)

    expected = logits()
    monkeypatch.setattr(rar, "MODULATED_ROWS", modulated_rows)
    assert torch.allclose(logits(), expected, atol=1e-5)
    assert (case.network.modulations(torch.tensor([0]), slice(0, 17))[0].diff(dim=1).abs() > 1e-2).any()


def test_the_key_bias_of_the_norm_is_dead_and_the_query_bias_is_not():
    case = subject(RAR(), ADALN)
    lesson = RAR().lesson(4, (4, 4), torch.Generator().manual_seed(0), 0.0)
    RAR().loss(case.network, case.tokens(4), torch.arange(4), lesson).backward()
    for name, parameter in case.network.named_parameters():
        if name.endswith("k_norm.bias"):
            assert float(parameter.grad.abs().max()) < 1e-6
        if name.endswith("q_norm.bias"):
            assert float(parameter.grad.abs().max()) > 1e-4


def test_the_mlp_width_loses_one_where_the_published_ratio_does():
    names = {**PUBLISHED.defaults, "num_hidden_layers": 1, "num_attention_heads": 4}
    _, config = configure({**names, "hidden_size": 56, "intermediate_size": 244})
    assert config.trunk.mlp_width == 243
    _, config = configure({**names, "hidden_size": 768, "intermediate_size": 3072})
    assert config.trunk.mlp_width == 3072


@pytest.mark.parametrize("scale", [0.0, 1.0, 4.0])
def test_published_scale_zero_alone_switches_guidance_off(scale):
    setting = PUBLISHED.setting({"guidance_scale": scale, "guidance_scale_pow": 2.0})
    assert (setting.guidance is None) == (scale == 0.0)


def test_on_the_shared_trunk_the_target_table_is_all_it_adds():
    raster, rar = (parameter_count(kind().network(CONTROLLED)) for kind in (Raster, RAR))
    mask_row = CONTROLLED.trunk.width
    assert rar - raster == CONTROLLED.places * CONTROLLED.trunk.width + mask_row


def test_learned_positions_without_modulation_need_no_start_vector():
    names = dict(RAR().network(LEARNED).named_parameters())
    assert "positions" in names
    assert "start" not in names
