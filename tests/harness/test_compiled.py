"""Compiled blocks and recorded passes: the same tokens, few graphs, their time apart, and clear refusals."""

import dataclasses

import pytest
import torch
import torch._dynamo

from harness import compiled
from harness.cell import Cell
from harness.generate import load, run_batch
from harness.prepare import prepare
from strategies.decoding.errors import UserError
from tests.backbones.test_graphs import BakedPasses


@pytest.fixture
def lpd(small_zoo):
    return Cell("lpd", steps=6, guidance=3.0, batch=2, images=2, zoo=str(small_zoo))


@pytest.fixture(autouse=True)
def forget_graphs():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "name", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("raster", "randar")), "lpd", "arpg"]
)
def test_compiled_blocks_give_the_same_tokens_in_few_graphs(name, lpd):
    cell = dataclasses.replace(lpd, strategy=name, steps=None)
    subject = load(prepare(cell))
    expected = [run_batch(subject, images).decoded for images in ((0, 1), (2, 3, 4))]
    before = compiled.graphs()
    compiled.compile_blocks(subject.network, backend="eager")
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
    run_batch(subject, (0, 1))
    assert recorded.passes == 6
    assert compiled.graphs(recorded) == compiled.graphs() + 6
    seconds = compiled.compile_s(recorded)
    assert seconds is not None
    assert seconds >= recorded.seconds > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cuda_graphs": True}, "cuda_graphs = true on device 'cpu': expected cuda or cuda:N"),
        ({"compile": True, "products": "packed"}, "products 'packed' with compile = true: expected 'plain'"),
    ],
)
def test_what_cant_be_switched_on_is_said(lpd, settings, message):
    with pytest.raises(UserError, match=message):
        prepare(dataclasses.replace(lpd, **settings))


def test_automatic_products_are_plain_under_the_compiler(lpd):
    assert prepare(dataclasses.replace(lpd, compile=True, products="auto")).cell.products == "plain"


def test_switches_that_are_off_leave_earlier_names_as_they_were(lpd):
    assert "compile" not in lpd.content()
    assert (
        len({lpd.key, *(dataclasses.replace(lpd, **{name: True}).key for name in ("compile", "cuda_graphs"))})
        == 3
    )
