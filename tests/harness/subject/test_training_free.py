"""A training-free method decodes its base's weights, wherever a cell can ask for it."""

import pytest

from harness.cell.cell import RANDOM, Cell, normalised
from harness.cli import main
from harness.cost.drafting import drafted_steps
from harness.cost.work import Unforeseeable, decode_work
from harness.measure.measure import count_flops
from harness.subject.pins import finished
from harness.subject.prepare import prepare
from harness.subject.subject import load, run_batch
from pardec.errors import UserError


def cell(strategy: str, zoo, **changes) -> Cell:
    return normalised(Cell(strategy, zoo=str(zoo), threads=1, batch=4, images=4, **changes))


def test_jacobi_decodes_the_base_s_weights_to_the_base_s_images(small_zoo):
    images = []
    for strategy in ("raster", "jacobi"):
        prepared = prepare(cell(strategy, small_zoo, guidance=2.0))
        assert prepared.cell.network == "zoo/raster"
        images.append(run_batch(load(prepared), range(4)))
    # On so few tokens no rounding is met at an edge.
    assert (images[0].decoded.tokens == images[1].decoded.tokens).all()
    assert images[1].plan.steps is None


def test_another_base_is_an_option(small_zoo):
    images = []
    for strategy, options in (("rar", {}), ("jacobi", {"base": "rar"})):
        prepared = prepare(cell(strategy, small_zoo, options=options))
        assert prepared.cell.network == "zoo/rar"
        images.append(run_batch(load(prepared), range(4)))
    assert (images[0].decoded.tokens == images[1].decoded.tokens).all()
    with pytest.raises(UserError, match="was trained for strategy 'rar', not 'jacobi'"):
        prepare(cell("jacobi", small_zoo, network="zoo/rar"))


def test_code_vectors_come_from_the_cell_s_tokenizer(small_zoo):
    made = load(prepare(cell("gsd", small_zoo)))
    assert made.tokenizer is not None
    assert (made.network.code_vectors == made.tokenizer.vectors()).all()
    assert load(prepare(cell("sjd", small_zoo))).network.code_vectors is None
    run_batch(made, range(4))
    known = Cell("gsd", network="llamagen-l-256", checkpoint=RANDOM, acceptance=0.7)
    with pytest.raises(UserError, match="compares the vectors of codes: it needs tokenizer_checkpoint"):
        prepare(normalised(known))


def test_options_and_base_stand_in_the_label(small_zoo):
    assert prepare(cell("sjd", small_zoo, options={"window": 4})).cell.label == "SJD (window 4)"
    known = Cell("sjd", network="llamagen-l-256", checkpoint=RANDOM, acceptance=0.7)
    prepared = prepare(normalised(known))
    assert prepared.cell.label == "LlamaGen-L, SJD"
    assert prepared.cell.steps is None


@pytest.mark.parametrize(
    ("strategy", "remedy"),
    [("sjd", "trained weights or a declared share"), ("jacobi", "trained weights or a declared share")],
)
def test_random_weights_give_no_steps_that_count(strategy, remedy, small_zoo):
    with pytest.raises(UserError, match=remedy):
        finished(cell(strategy, small_zoo, checkpoint=RANDOM))
    prepare(cell(strategy, small_zoo, checkpoint=RANDOM))  # a plan needs no weights


@pytest.mark.parametrize("strategy", ["jacobi", "sjd", "sjd-mc", "sjd-gs", "gsd"])
def test_a_declared_acceptance_is_no_measured_one(strategy, small_zoo):
    declared = finished(cell(strategy, small_zoo, checkpoint=RANDOM, acceptance=0.5))
    assert declared.acceptance == 0.5

    def steps(acceptance: float):
        options = {"window": 8}
        known = cell(strategy, small_zoo, checkpoint=RANDOM, acceptance=acceptance, options=options)
        return run_batch(load(prepare(known)), range(4))

    fast, slow = steps(1.0), steps(0.0)
    assert (slow.decoded.steps_of_image == slow.plan.places).all()
    # The first token, then windows of 8, the last place of which has no draft.
    assert (fast.decoded.steps_of_image == 1 + -(-(slow.plan.places - 1) // 8)).all()


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("sjd", {"base": "rar"}),
        ("sjd-gs", {}),
        *(pytest.param(name, {}, marks=pytest.mark.slow) for name in ("jacobi", "sjd", "sjd-mc", "gsd")),
    ],
)
def test_what_a_declared_acceptance_costs_is_foreseen(strategy, options, small_zoo):
    options = {"window": 8, **options}
    known = cell(strategy, small_zoo, checkpoint=RANDOM, acceptance=0.8, options=options, guidance=2.0)
    subject = load(prepare(known))
    run = run_batch(subject, range(4)).decoded
    work = decode_work(subject.prepared)
    assert len(work.steps) == run.steps
    assert work.flops == 4 * count_flops(subject)


def test_steps_follow_from_the_share_of_accepted_drafts(small_zoo):
    prepared = prepare(cell("sjd", small_zoo, options={"window": 8}))
    places = prepared.config.places
    assert drafted_steps(prepared, 4, 0.0) == places
    assert drafted_steps(prepared, 4, 1.0) == 1 + -(-(places - 1) // 8)
    assert drafted_steps(prepared, 4, 0.5) > drafted_steps(prepared, 4, 0.8)


def test_an_acceptance_is_for_weights_that_tell_nothing(small_zoo):
    known = cell("sjd", small_zoo, acceptance=0.5)
    assert known.acceptance is None
    assert known.key == cell("sjd", small_zoo).key
    with pytest.raises(UserError, match="tests no drafts against random numbers"):
        prepare(cell("raster", small_zoo, checkpoint=RANDOM, acceptance=0.5))


def test_its_cost_is_decided_while_decoding(small_zoo, capsys):
    with pytest.raises(Unforeseeable, match="decides its steps while decoding"):
        decode_work(prepare(cell("sjd", small_zoo)))
    flags = ["--zoo", str(small_zoo), "--threads", "1", "--batch", "4"]
    assert main(["explain", "sjd,window=4", *flags, "--device-card", "h100-sxm"]) == 2
    told = capsys.readouterr()
    assert "decided while decoding" in told.out
    assert "no cost is predicted, for strategy 'sjd' decides its steps while decoding" in told.err
    assert "--acceptance 0.7" in told.err
    assert main(["explain", "sjd,window=4", *flags, "--device-card", "h100-sxm", "--acceptance", "0.9"]) == 0
    assert "step         " in capsys.readouterr().out
    assert main(["explain", "sjd,window=4", *flags, "--device-card", "h100-sxm", "--acceptance", "1.5"]) == 2
    assert "--acceptance 1.5: expected 0 to 1" in capsys.readouterr().err


def test_a_training_free_method_is_not_trained(capsys):
    assert main(["train", "jacobi"]) == 2
    assert "strategy 'jacobi' trains no network; train its base 'raster'" in capsys.readouterr().err


def test_a_cell_may_open_with_the_strategy_s_name(small_zoo, capsys, tmp_path):
    flags = [
        "--zoo",
        str(small_zoo),
        "--threads",
        "1",
        "--batch",
        "4",
        "--per-class",
        "1",
        "--classes",
        "0,1",
    ]
    pictures = [tmp_path / "named.png", tmp_path / "keyed.png"]
    for text, out in zip(
        ("sjd,guidance=2,window=4", "strategy=sjd,guidance=2,window=4"), pictures, strict=True
    ):
        assert main(["sample", text, *flags, "--out", str(out)]) == 0
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    assert main(["explain", "window=4"]) == 2
    assert "no strategy; valid: raster" in capsys.readouterr().err
