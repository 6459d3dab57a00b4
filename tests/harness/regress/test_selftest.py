"""Plants change what they say and nothing else, and the gate's rules find them."""

import json
import time

import pytest

from harness.cell.cell import Cell, normalised
from harness.regress import selftest
from harness.regress.plants import slower
from harness.subject.prepare import prepare
from harness.subject.subject import load, run_batch
from reports import selftest as page
from results.schema import Turns


@pytest.fixture(params=["lpd", "arpg", "par"])
def subject(request, small_zoo):
    steps = {"lpd": 7, "arpg": 9, "par": 19}[request.param]
    cell = Cell(request.param, steps=steps, guidance=2.0, zoo=str(small_zoo), threads=1, batch=2, images=2)
    return load(prepare(normalised(cell)))


def test_equal_code_raises_no_alarm(subject):
    assert not selftest.is_exact_alarm(selftest.exact_row(subject), selftest.exact_row(subject))


def test_one_extra_forward_is_one_and_leaves_the_tokens(subject):
    before = selftest.exact_row(subject)
    after = selftest.exact_row(selftest._extra_forward(subject))
    assert after.forwards == before.forwards + 1
    assert after.tokens_sha256 == before.tokens_sha256
    assert selftest.is_exact_alarm(before, after)


def test_one_changed_token_is_one(subject):
    before = run_batch(subject, range(2)).decoded.tokens
    after = run_batch(selftest._changed_token(subject), range(2)).decoded.tokens
    assert (before != after).sum() == 1
    assert selftest.is_exact_alarm(
        selftest.exact_row(subject), selftest.exact_row(selftest._changed_token(subject))
    )


def test_a_slow_down_really_takes_its_time():
    def run() -> float:
        start = time.perf_counter()
        time.sleep(0.02)
        return time.perf_counter() - start

    start = time.perf_counter()
    seconds = slower(run, 0.5)()
    assert 0.03 <= seconds <= time.perf_counter() - start + 1e-3


@pytest.mark.parametrize("together", [1, 2])
def test_comparisons_of_times_never_share_a_process(together):
    def measured(first: int, processes: int) -> list[list[Turns]]:
        def one(process: int) -> Turns:
            return Turns(reference="r", batch=1, seconds=[float(process)], reference_seconds=[1.0])

        return [[one(process)] * 2 for process in range(first, first + processes)]

    equal, slow = measured(0, 3 * together), measured(100, 2 * together)
    for before, now in ((equal, equal), (equal, slow)):
        trios = list(selftest.across(before, now, together))
        assert len(trios) == 2 * len(now)
        for trio in trios:
            assert [len(turns["seconds"]) for turns in trio] == [together] * 3
            assert len({process for turns in trio for process in turns["seconds"]}) == 3 * together


@pytest.mark.parametrize(
    ("rate", "met"),
    [
        (selftest.Rate("a", 0, 200, most=0.0), True),
        (selftest.Rate("a", 1, 200, most=0.0), False),
        (selftest.Rate("a", 1, 50, most=0.02), True),
        (selftest.Rate("a", 29, 30, least=1.0), False),
        (selftest.Rate("a", 3, 30), True),
    ],
)
def test_targets_are_shares_of_the_comparisons(rate, met):
    assert rate.met is met
    assert rate.row()["low"] <= rate.flagged / rate.n <= rate.row()["high"]


def test_the_report_prints_the_rates_beside_or_above_the_rows(tmp_path):
    assert page.beside(tmp_path) == []
    rates = [selftest.Rate("A/A, time", 1, 50, most=0.02).row(), selftest.Rate("<b>", 5, 5, least=1.0).row()]
    found = {
        "started_at": "2026-01-01",
        "environment": {"host_cpu": "Xeon", "torch": "2.9"},
        "threads": 2,
        "rates": rates,
    }
    (tmp_path / page.FILE).write_text(json.dumps(found))
    folder = tmp_path / "quick"
    folder.mkdir()
    lines = page.beside(folder)
    assert lines == page.beside(tmp_path)
    assert lines[0] == "measured 2026-01-01 on Xeon, 2 threads, torch 2.9"
    assert lines[1] == "A/A, time: 1 of 50 (0.4 to 10.5 %), target at most 2 %: met"
    assert "target 100 %: met" in lines[2]
    (tmp_path / page.FILE).write_text("{}")
    assert "can't be read" in page.beside(folder)[0]
