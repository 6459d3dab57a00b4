"""Compiled trunks and recorded passes: the same tokens, few graphs, their time apart, and clear refusals."""

import dataclasses

import pytest
import torch
import torch._dynamo

from backbones.cache import KVCache
from backbones.products import PackedLinear, can_pack
from harness.cell.cell import Cell
from harness.machine.cards import card_named, write_card
from harness.machine.environment import cpu_name
from harness.subject import compiled
from harness.subject import prepare as preparing
from harness.subject.prepare import prepare
from harness.subject.subject import load, run_batch
from pardec.errors import UserError
from tests.backbones.test_graphs import BakedPasses

ONEDNN = pytest.mark.skipif(not can_pack(torch.device("cpu"), torch.float32), reason="needs oneDNN")


@pytest.fixture
def lpd(small_zoo):
    return Cell("lpd", steps=6, guidance=3.0, batch=2, images=2, zoo=str(small_zoo))


@pytest.fixture(autouse=True)
def forget_graphs():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


SLOW = pytest.mark.slow


FAST = [("lpd", "packed")]


@pytest.mark.parametrize(
    ("name", "products"),
    [
        pytest.param(
            name,
            products,
            marks=[
                *([ONEDNN] if products == "packed" else []),
                *([] if (name, products) in FAST else [SLOW]),
            ],
        )
        for name in ("raster", "rar", "lpd", "arpg", "randar")
        for products in ("plain", "packed")
    ],
)
def test_compiled_trunks_give_the_same_tokens_in_few_graphs(name, products, lpd):
    cell = dataclasses.replace(lpd, strategy=name, steps=None, products=products)
    subject = load(prepare(cell))
    expected = [run_batch(subject, images).decoded for images in ((0, 1), (2, 3, 4))]
    before = compiled.graphs()
    compiled.compile_trunks(subject.network, backend="eager")
    for images, eager in zip(((0, 1), (2, 3, 4)), expected, strict=True):
        found = run_batch(subject, images).decoded
        assert (found.tokens == eager.tokens).float().mean() > 0.97  # rounding may flip a token
        assert (found.forwards, found.tokens_processed) == (eager.forwards, eager.tokens_processed)
    made = compiled.graphs() - before
    assert 1 <= made <= 8
    run_batch(subject, (5, 6))
    assert compiled.graphs() - before == made


def test_recorded_passes_count_as_graphs_with_their_time(lpd):
    subject = load(prepare(lpd))
    recorded = compiled.record_passes(subject.network, BakedPasses())
    assert compiled.graphs(recorded) == compiled.graphs()
    run_batch(dataclasses.replace(subject, recorded=recorded), (0, 1))
    passes, draws = recorded.parts
    assert (passes.calls, draws.calls) == (6, 6)
    assert recorded.passes == len(passes.made) + len(draws.made) <= 12
    assert compiled.graphs(recorded) == compiled.graphs() + recorded.passes
    assert (recorded.nbytes, recorded.cache_parts) == (0, 1)
    seconds = compiled.compile_s(recorded)
    assert seconds is not None
    assert seconds >= recorded.seconds > 0


def test_a_cache_is_read_in_the_fewest_parts_that_are_as_fast(lpd):
    assert compiled.fewest({1: 1.04, 2: 1.0, 4: 1.2}) == 1
    assert compiled.fewest({1: 2.0, 2: 1.5, 4: 1.04, 8: 1.0}) == 4
    cache = KVCache(prepare(lpd).config.trunk, 2, 40, torch.float32, torch.device("cpu"))
    seconds = compiled.reading_seconds(cache, calls=2)
    assert set(seconds) == set(compiled.PARTS)
    assert min(seconds.values()) > 0
    assert compiled.NOTHING_RECORDED.nbytes is compiled.NOTHING_RECORDED.cache_parts is None


class WholeGraphs:
    """Passes compiled without a break, for their shapes alone."""

    nbytes = 0

    def record(self, run):
        compiled_run = torch.compile(run, fullgraph=True, dynamic=False, backend="eager")
        outputs = tuple(output.clone() for output in compiled_run())

        def replay():
            for output, again in zip(outputs, compiled_run(), strict=True):
                output.copy_(again)

        return replay, outputs


@torch._dynamo.config.patch(recompile_limit=compiled.RECOMPILE_LIMIT)
@pytest.mark.parametrize(
    "name", ["raster", pytest.param("arpg", marks=SLOW), pytest.param("sjd", marks=SLOW)]
)
def test_a_recorded_pass_is_one_graph_that_serves_all_its_steps(name, lpd):
    cell = dataclasses.replace(lpd, strategy=name, steps=None)
    subject = load(prepare(cell))
    expected = run_batch(subject, (0, 1)).decoded
    subject = dataclasses.replace(subject, recorded=compiled.record_passes(subject.network, WholeGraphs()))
    before = compiled.graphs()
    found = run_batch(subject, (0, 1)).decoded
    assert torch.equal(found.tokens, expected.tokens)
    assert compiled.graphs() - before == subject.recorded.passes
    if name == "raster":
        assert subject.recorded.passes == 2
    run_batch(subject, (0, 1))
    assert compiled.graphs() - before == subject.recorded.passes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cuda_graphs": True}, "cuda_graphs = true on device 'cpu': expected cuda or cuda:N"),
        ({"one_graph": True}, "one_graph = true: expected cuda_graphs = true with it"),
    ],
)
def test_what_cant_be_switched_on_is_said(lpd, settings, message):
    with pytest.raises(UserError, match=message):
        prepare(dataclasses.replace(lpd, **settings))


def test_attention_by_parts_is_what_the_device_s_card_says(lpd, tmp_path, monkeypatch):
    monkeypatch.setenv("PARDEC_CARDS", str(tmp_path / "cards.toml"))
    auto = dataclasses.replace(lpd, attention="auto", threads=1)
    assert prepare(auto).cell.attention == "mask"
    card = dataclasses.replace(
        card_named("h200"), name="here-1", hardware=(cpu_name(),), threads=1, attention="parts"
    )
    write_card(card, tmp_path / "cards.toml")
    assert prepare(auto).cell.attention == "parts"
    found = run_batch(load(prepare(auto)), (0, 1)).decoded
    assert torch.equal(found.tokens, run_batch(load(prepare(lpd)), (0, 1)).decoded.tokens)


def test_recorded_passes_go_behind_a_mask_and_the_cell_says_so(lpd, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    by_parts = dataclasses.replace(card_named("h200"), attention="parts")
    monkeypatch.setattr(preparing, "card_here", lambda device, threads: by_parts)
    on_cuda = dataclasses.replace(lpd, device="cuda", products="plain", attention="auto")
    assert prepare(on_cuda).cell.attention == "parts"
    recorded = dataclasses.replace(on_cuda, cuda_graphs=True)
    assert prepare(recorded).cell.attention == "mask"
    assert prepare(dataclasses.replace(recorded, one_graph=True)).cell.attention == "parts"
    with pytest.raises(UserError, match="attention = 'parts' with cuda_graphs = true: expected mask or auto"):
        prepare(dataclasses.replace(recorded, attention="parts"))


def test_switches_that_are_off_leave_earlier_names_as_they_were(lpd):
    assert "compile" not in lpd.content()
    assert (
        len({lpd.key, *(dataclasses.replace(lpd, **{name: True}).key for name in ("compile", "cuda_graphs"))})
        == 3
    )


@ONEDNN
def test_packed_layers_of_one_shape_share_a_graph():
    first, second = (PackedLinear(torch.randn(8, 4), torch.randn(8), 3) for _ in range(2))
    x = torch.randn(3, 4)
    run = torch.compile(lambda layer, x: layer(x) + 1, backend="eager", dynamic=True)
    before = compiled.graphs()
    for layer in (first, second):
        assert torch.equal(run(layer, x), layer(x) + 1)
    assert compiled.graphs() - before == 1
    assert not first.state_dict()
