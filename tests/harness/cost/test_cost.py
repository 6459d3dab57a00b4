"""The cost model: counted work equals what a real decode counts, rooflines by hand, cards and commands."""

import dataclasses
import io
import math
from collections.abc import Callable

import pytest
import torch

from backbones.products import KERNEL_BYTES
from harness.cell.cell import Cell, normalised
from harness.cli import main
from harness.cost import published
from harness.cost.calibrate import Sizes, calibrate
from harness.cost.model import decode_seconds, kernel_bytes, predict_cost, step_seconds
from harness.cost.recorder import Operations
from harness.cost.sweep_hours import predicted_hours
from harness.cost.work import Unforeseeable, decode_work, tokenizer_work, unguided
from harness.machine import cards
from harness.machine.cards import DeviceCard, card_named, card_of, read_cards, write_card
from harness.measure.measure import count_flops
from harness.subject.pins import finished
from harness.subject.prediction import predict
from harness.subject.prepare import Prepared, prepare
from harness.subject.subject import load
from harness.sweep.job import measure_cell, store_prediction
from harness.sweep.messages import Channel
from harness.weights.empty import on_meta
from pardec.errors import UserError
from strategies.decoding.decode import Ask
from strategies.raster import Raster

PLANS = {
    "raster": (64,),
    "rar": (64,),
    "par": (19,),
    "lpd": (7, 20),
    "arpg": (1, 9, 24),
    "maskgit": (12,),
    "halton": (5,),
}
CASES = [(strategy, steps) for strategy, counts in PLANS.items() for steps in counts]
TINY = Sizes(
    stream_bytes=1 << 16,
    inputs=8,
    outputs=16,
    weights_bytes=1 << 12,
    rows=(1, 4),
    passes=2,
    read_bytes=(1 << 12,),
    kernels=2,
    kernel_rows=(3,),
    repeats=1,
)
CARD = DeviceCard(
    name="made",
    title="made up",
    hardware=("Made Up",),
    bandwidth_bytes_per_s=100.0,
    product_flops_per_s={"float32": {1: 10.0, 100: 1000.0}, "bfloat16": {1: 50.0}},
    launch_s={1: 0.5},
    source="this test",
    asynchronous=False,
)


@pytest.fixture
def cell(small_zoo) -> Callable[..., Prepared]:
    def make(strategy: str, **changes) -> Prepared:
        whole = dataclasses.replace(Cell(strategy, zoo=str(small_zoo), threads=1, batch=3), **changes)
        return prepare(normalised(whole))

    return make


@pytest.fixture(autouse=True)
def own_cards(tmp_path, monkeypatch):
    """No test reads or writes the user's cards."""
    monkeypatch.setenv("PARDEC_CARDS", str(tmp_path / "cards.toml"))
    return tmp_path / "cards.toml"


# Work -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "steps", "guidance"),
    [
        pytest.param(strategy, steps, guidance, marks=[pytest.mark.slow] * (guided != (at % 2 == 1)))
        for at, (strategy, steps) in enumerate(CASES)
        for guided, guidance in enumerate((None, 2.0))
    ],
)
def test_foreseen_flops_steps_and_cache_are_those_of_a_real_decode(cell, strategy, steps, guidance):
    prepared = cell(strategy, steps=steps, guidance=guidance)
    foreseen = decode_work(prepared, 1, on_cpu=guidance is None)  # a CPU's attention and a GPU's
    assert foreseen.flops == count_flops(load(prepared))
    assert len(foreseen.steps) == steps
    assert foreseen.cache_bytes == predict(prepared, 1).cache_bytes


@pytest.mark.parametrize(
    ("strategy", "steps", "dressing"),
    [
        ("par", 19, {}),
        ("lpd", 7, {}),
        ("arpg", 9, {}),
        ("rar", 64, {"conditioning": "adaln", "positions": "learned"}),
        ("halton", 3, {"conditioning": "adaln", "positions": "learned", "qk_norm": "rms"}),
    ],
)
def test_tracing_three_blocks_counts_them_all(cell, strategy, steps, dressing, monkeypatch):
    """RAR's blocks have a part each, adaLN's, that runs apart and makes something to be kept."""
    prepared = cell(strategy, steps=steps, guidance=2.0)
    deep = dataclasses.replace(prepared.config.trunk, depth=8, **dressing)
    prepared = dataclasses.replace(prepared, config=dataclasses.replace(prepared.config, trunk=deep))
    short = decode_work(prepared)
    monkeypatch.setattr("harness.cost.work._few_blocks", lambda network: [])
    whole = decode_work(prepared)

    def totals(foreseen):
        fields = ("flops", "weight_bytes", "cache_bytes", "other_bytes", "launches")
        works = [work for step in foreseen.steps for work in step]
        return {name: sum(getattr(work, name) for work in works) for name in fields}

    assert totals(short) == totals(whole)
    assert short.activation_bytes == whole.activation_bytes


def test_every_step_reads_all_weights_but_the_tables_and_the_cache_filled_so_far(cell):
    prepared = cell("raster")
    foreseen = decode_work(prepared)
    trunk, network = prepared.config.trunk, on_meta(prepared.strategy, prepared.config)
    tables = sum(e.weight.nbytes for e in (network.class_embedding, network.token_embedding))
    dense = sum(p.nbytes for p in network.parameters()) - tables
    for filled, step in enumerate(foreseen.steps, start=1):
        gathered = 2 * 3 * trunk.width * 4  # rows of one table, read and written
        weights = sum(work.weight_bytes for work in step)
        assert dense <= weights <= dense + gathered
        attended = sum(work.cache_bytes for work in step if work.kind == "attention")
        assert attended == trunk.depth * 2 * 3 * trunk.width * filled * 4


def test_guidance_doubles_rows_not_weights(cell):
    guided = cell("lpd", steps=7, guidance=2.0)
    both, one = decode_work(guided), decode_work(unguided(guided))
    assert both.flops == 2 * one.flops
    assert both.cache_bytes == 2 * one.cache_bytes
    products = [sum(w.weight_bytes for s in t.steps for w in s if w.kind == "product") for t in (both, one)]
    assert products[0] == products[1]


def test_work_does_not_depend_on_what_ran_before(cell):
    from backbones.positions import rotary_table

    prepared = cell("arpg", steps=4)
    rotary_table.cache_clear()
    assert decode_work(prepared) == decode_work(prepared)


def test_a_strategy_that_reads_its_tokens_is_said_to_be_unforeseeable(cell):
    class Reading(Raster):
        def decode(self, network, plan, rows):
            for logits_at in plan.groups():
                logits = network.head(network.token_embedding(rows.labels)[:, None])
                tokens = yield Ask(logits, logits_at)
                if tokens.sum().item() > 0:
                    break

    prepared = dataclasses.replace(cell("raster"), strategy=Reading())
    with pytest.raises(Unforeseeable, match="'raster' depends on what it draws"):
        decode_work(prepared)


def test_activations_hold_at_least_the_logits_and_grow_with_the_batch(cell):
    prepared = cell("arpg", steps=1)
    logits = 3 * 64 * prepared.config.codes * 4
    activations = [decode_work(prepared, batch).activation_bytes for batch in (3, 6)]
    assert activations[0] >= 2 * logits
    assert activations[1] == pytest.approx(2 * activations[0], rel=0.1)


@pytest.mark.parametrize(
    ("dtype", "products", "shapes"),
    [("float32", "plain", 0), ("float32", "packed", 5), ("bfloat16", "plain", 5), ("bfloat16", "packed", 5)],
)
def test_the_product_library_keeps_every_shape_once(cell, dtype, products, shapes):
    """Those of the five weights: attention is the framework's own in either precision."""
    prepared = cell("raster", dtype=dtype, products=products)
    foreseen = decode_work(prepared, on_cpu=True)
    assert sum(foreseen.kernels.values()) == shapes
    assert kernel_bytes(foreseen) == shapes * KERNEL_BYTES


def test_predicted_peak_is_the_sum_of_its_parts(cell):
    prepared = cell("lpd", steps=7, dtype="bfloat16")
    foreseen, cost = decode_work(prepared), predict_cost(prepared, CARD)
    assert cost.kernel_bytes == kernel_bytes(foreseen) > 0
    assert not decode_work(prepared, on_cpu=False).kernels
    assert cost.peak_bytes == (
        predict(prepared).weight_bytes
        + foreseen.cache_bytes
        + foreseen.activation_bytes
        + kernel_bytes(foreseen)
    )
    assert cost.to_dict()["peak_bytes"] == cost.peak_bytes


def test_a_row_without_a_prediction_says_why(cell, tmp_path, own_cards):
    prepared = cell("raster", images=3, once=True)
    found = measure_cell(finished(prepared.cell), tmp_path, Channel(io.BytesIO()))
    assert "cost" not in found["artifacts"]
    assert found["unmeasured"]["artifacts.cost"] == (
        "no device card of this machine and thread count; run 'pardec calibrate'"
    )
    here = dataclasses.replace(CARD, name="here-1", hardware=("",), threads=1)
    write_card(here, own_cards)
    stored, reasons = store_prediction(load(prepared), tmp_path, {})
    assert (tmp_path / stored["cost"]).is_file()
    assert not reasons
    write_card(dataclasses.replace(here, product_flops_per_s={"int8": {1: 1.0}}), own_cards)
    stored, reasons = store_prediction(load(prepared), tmp_path, {})
    assert not stored
    assert "has no rate for 'float32'" in reasons["artifacts.cost"]


# Seconds --------------------------------------------------------------------------------------------------


def test_a_step_takes_its_roofline_and_its_launches():
    works = (
        Operations(
            "product", rows=1, flops=40, weight_bytes=100, launches=1
        ),  # 4 s of arithmetic over 1 s of reading
        Operations("product", rows=100, flops=500, other_bytes=300, launches=1),  # 3 s of reading over 0.5 s
        Operations(
            "attention", rows=1, flops=60, cache_bytes=200, other_bytes=100, launches=2
        ),  # 6 s, 2 of them cache
        Operations("other", rows=1, other_bytes=50, launches=2),
    )
    seconds = step_seconds(works, CARD, "float32")
    assert seconds.tokens == pytest.approx(4 + 3 + 0.5)
    assert seconds.cache == pytest.approx(2)
    assert seconds.attention == pytest.approx(4)
    assert seconds.launch == pytest.approx(6 * 0.5)
    ahead = dataclasses.replace(CARD, asynchronous=True)
    assert step_seconds(works, ahead, "float32").launch == 0
    assert step_seconds(
        works, dataclasses.replace(ahead, launch_s={1: 3.0}), "float32"
    ).total == pytest.approx(18)


def test_rates_between_measured_rows_lie_on_the_logarithmic_line():
    assert CARD.product_rate("float32", 10) == pytest.approx(100)
    assert CARD.product_rate("float32", 100_000) == pytest.approx(1000)
    assert CARD.product_rate("bfloat16", 64) == pytest.approx(50)
    with pytest.raises(UserError, match="'made' has no rate for 'float16'; it has float32, bfloat16"):
        CARD.product_rate("float16", 1)


def test_images_are_priced_as_many_at_a_time_as_are_decoded(cell, monkeypatch):
    prepared = cell("raster", batch=5)
    tokenizer = load(prepared).tokenizer
    alone, together = (
        predict_cost(
            dataclasses.replace(prepared, cell=dataclasses.replace(prepared.cell, batch=batch)),
            CARD,
            tokenizer,
        )
        for batch in (1, 2)
    )
    monkeypatch.setattr("harness.cost.model.images_at_a_time", lambda tokenizer: 2)
    cost = predict_cost(prepared, CARD, tokenizer)
    assert cost.detokenize_s == pytest.approx(2 * together.detokenize_s + alone.detokenize_s)


def test_operations_take_longer_where_weights_pass_between_them():
    card = dataclasses.replace(CARD, launch_s={1: 0.5, 100: 2.0})
    work = Operations("other", rows=1, weight_bytes=40, launches=4)
    assert step_seconds([work], card, "float32").launch == pytest.approx(4 * card.launch_seconds(10))
    assert card.launch_seconds(10) == pytest.approx(1.0)
    big = dataclasses.replace(work, weight_bytes=4000)
    assert step_seconds([big], card, "float32").launch == pytest.approx(4 * 2.0)


def test_a_card_says_what_a_kernel_takes_by_precision_and_rows(cell):
    foreseen = decode_work(cell("raster", dtype="bfloat16", products="packed"), on_cpu=True)
    assert {(kernel.dtype, kernel.packed) for kernel in foreseen.kernels} == {(torch.bfloat16, True)}
    (rows,) = {kernel.rows for kernel in foreseen.kernels}
    sizes = {"bfloat16 packed": {rows: 7e5}, "bfloat16": {rows: 1.0}}
    card = dataclasses.replace(CARD, kernel_bytes=sizes)
    assert kernel_bytes(foreseen, card) == sum(foreseen.kernels.values()) * 700_000
    assert kernel_bytes(foreseen, dataclasses.replace(card, kernel_bytes={})) == kernel_bytes(foreseen)


def test_parts_of_a_predicted_cost_sum_to_it(cell):
    prepared = cell("lpd", steps=7, guidance=2.0)
    subject = load(prepared)
    cost = predict_cost(prepared, CARD, subject.tokenizer)
    parts = (cost.tokens_s, cost.guidance_s, cost.cache_s, cost.attention_s, cost.launch_s)
    assert sum(parts) == pytest.approx(decode_seconds(decode_work(prepared), CARD, "float32").total)
    assert cost.total_s == pytest.approx(sum(parts) + cost.detokenize_s)
    assert min(parts) > 0
    assert cost.detokenize_s > 0
    assert cost.flops_per_image == count_flops(subject)
    assert 0 < cost.latency_s < cost.total_s
    assert subject.tokenizer is not None
    assert not next(subject.tokenizer.parameters()).is_meta  # the tokenizer at work stays where it is


def test_memory_of_the_images_is_that_of_those_decoded_at_a_time(cell, monkeypatch):
    """Of a batch that is not decoded at once, as those of 384 pixels are not."""
    prepared = cell("arpg", steps=9, batch=5)
    tokenizer = load(prepared).tokenizer

    def heavy(tokenizer, batch):
        return dataclasses.replace(tokenizer_work(tokenizer, batch), activation_bytes=10**9 * batch)

    monkeypatch.setattr("harness.cost.model.tokenizer_work", heavy)
    cached = decode_work(prepared).cache_bytes
    for pixels, images in ((32 * 32 * 2, 2), (1, 1), (10**9, 5)):
        monkeypatch.setattr("harness.images.pixels.PIXELS", pixels)
        assert predict_cost(prepared, CARD, tokenizer).activation_bytes == 10**9 * images - cached


# Cards ----------------------------------------------------------------------------------------------------


def test_data_sheets_are_whole_and_say_what_was_not_checked():
    sheets = read_cards(cards.SHEETS)
    assert list(sheets) == ["a100-80gb", "h100-sxm", "h200", "l20", "a800-80gb"]
    for card in sheets.values():
        assert "launch_s" in card.unchecked
        assert {"float32", "bfloat16", "float16"} <= set(card.product_flops_per_s)
        assert card.product_rate("bfloat16", 1) > card.product_rate("float32", 1)
    assert card_of("NVIDIA H100 80GB HBM3", None) == sheets["h100-sxm"]
    assert card_of("NVIDIA H100 PCIe", None) is None


def test_a_calibrated_card_is_kept_and_found_by_its_machine(own_cards):
    card = calibrate(torch.device("cpu"), threads=1, sizes=TINY)
    rates = [
        card.bandwidth_bytes_per_s,
        *(r for one in card.product_flops_per_s.values() for r in one.values()),
    ]
    assert all(math.isfinite(rate) and rate > 0 for rate in rates)
    assert list(card.launch_s) == [1, 4 * (1 << 12) // 23]  # four products among the block's 23 operations
    assert all(0 < seconds < 0.01 for seconds in card.launch_s.values())
    assert set(card.kernel_bytes) == set(card.product_flops_per_s) - {"float32"}
    assert all(set(sizes) == {3} for sizes in card.kernel_bytes.values())
    assert set(card.product_flops_per_s["float32"]) == {1, 4}
    assert card.attention in ("mask", "parts")
    write_card(CARD, own_cards)
    write_card(card, own_cards)
    write_card(card, own_cards)
    assert list(read_cards(own_cards)) == ["made", "here-1"]
    assert card_named("here") == card_named("here-1") == card
    assert card_of(card.hardware[0], 1) == card
    assert card_of(card.hardware[0], 64) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[x]\ntitle = 'x'", r"\[x\]: key 'hardware' is missing"),
        ("[x]\ntitel = 'x'", "unknown key 'titel'.*did you mean 'title'"),
        ("x = 1", "expected a table"),
        (
            "[x]\ntitle = 'x'\nhardware = []\nbandwidth_bytes_per_s = 1\nlaunch_s = 1\nsource = ''\n"
            "product_flops_per_s = {}\nattention = 'whole'",
            "attention = 'whole': expected mask or parts",
        ),
        ("[", "can't be read"),
        (
            "[x]\ntitle = 'x'\nhardware = []\nbandwidth_bytes_per_s = -1\nlaunch_s = 1\nsource = ''\n"
            "product_flops_per_s = {}",
            "bandwidth_bytes_per_s = -1: expected a number above 0",
        ),
        (
            "[x]\ntitle = 'x'\nhardware = []\nbandwidth_bytes_per_s = 1\nlaunch_s = 1\nsource = ''\n"
            "product_flops_per_s = { float32 = { many = 1 } }",
            "float32 = .*expected FLOP/s, or a table of rows",
        ),
    ],
)
def test_mistakes_in_a_file_of_cards_are_named(own_cards, text, message):
    own_cards.write_text(text)
    with pytest.raises(UserError, match=message):
        read_cards(own_cards)


# Commands -------------------------------------------------------------------------------------------------


def test_explain_prints_the_predicted_cost(small_zoo, capsys):
    setting = "strategy=lpd,steps=7,guidance=2,batch=4"
    assert main(["explain", setting, "--zoo", str(small_zoo), "--device-card", "a100-80gb"]) == 0
    text = capsys.readouterr().out
    assert "NVIDIA A100 80GB SXM" in text
    assert "unchecked: launch_s" in text
    for line in ("step  ", "throughput  ", "latency  ", "memory  "):
        assert f"\n{line}" in text
    assert main(["explain", setting, "--zoo", str(small_zoo), "--device-card", "a100-80g"]) == 2
    assert "did you mean 'a100-80gb'" in capsys.readouterr().err


def test_calibrate_writes_the_card_that_a_dry_run_then_uses(small_zoo, tmp_path, capsys, own_cards):
    sweep = tmp_path / "one.toml"
    sweep.write_text('[grid]\nstrategy = "lpd"\nsteps = 7\nimages = 100\nbatch = 10\nthreads = 1\n')
    dry = ["sweep", str(sweep), "--dry-run", "--zoo", str(small_zoo)]
    assert main(dry) == 0
    assert "no device card; run 'pardec calibrate'" in capsys.readouterr().out
    threads = torch.get_num_threads()
    try:
        assert main(["calibrate", "--quick", "--threads", "1"]) == 0
    finally:
        torch.set_num_threads(threads)
    assert f"written to {own_cards}" in capsys.readouterr().out
    assert main(dry) == 0
    assert "predicted hours: " in capsys.readouterr().out
    assert main([*dry, "--device-card", "h200"]) == 0
    assert "on h200" in capsys.readouterr().out
    assert main(["calibrate", "--device", "tpu"]) == 2


@pytest.mark.parametrize(
    ("network", "printed"), [("maskgit-t-256", 4), ("maskgit-b-256", 25), ("maskgit-l-384", 187)]
)
def test_products_of_a_masked_forward_are_those_that_the_authors_print(network, printed):
    """Multiply-adds of one forward with all places read, attention apart; in thousand millions, cut off."""
    options = {"strategy": "maskgit", "network": network, "checkpoint": "random"}
    work = decode_work(prepare(normalised(Cell(**options, steps=2, batch=1))), on_cpu=False)
    flops = sum(one.flops for one in work.steps[0] if one.kind == "product")
    assert int(flops / 2e9) == printed
    assert work.cache_bytes == 0


def test_hours_are_batches_times_seconds(cell):
    prepared = cell("lpd", steps=7, images=100, batch=30)
    card = card_named("h200")
    seconds = 4 * decode_seconds(decode_work(prepared, on_cpu=False), card, "float32").total
    assert f"predicted hours: {seconds / 3600:.4g} " in predicted_hours([prepared.cell], "h200")


# Published speeds -----------------------------------------------------------------------------------------


def test_stored_predictions_of_published_speeds_are_those_of_the_model():
    import csv
    from importlib import resources

    with (resources.files("results") / "predicted.csv").open() as file:
        lines = {(line["network"], line["steps"], line["quantity"]): line for line in csv.DictReader(file)}
    speeds = {(c.network, str(c.steps), c.quantity): c for c in published.stated_speeds()}
    assert set(lines) <= set(speeds)
    assert {speed.strategy for speed in speeds.values()} >= {
        "raster",
        "rar",
        "par",
        "lpd",
        "arpg",
        "randar",
        "nar",
    }
    key = ("lpd-l-256", "20", "images/s")
    assert speeds[key].batch == 64
    assert float(lines[key]["predicted"]) == pytest.approx(speeds[key].predicted(), rel=1e-3)
