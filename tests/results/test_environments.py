"""Rows of one cell: when they are one result, and which of two tries is kept."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_result_schema import make_row

from results.environments import (
    environment_keys,
    latest,
    one_each,
    partner,
    result_key,
    superseding,
)
from results.schema import Row

XEON = {"host_cpu": "Xeon", "gpu": None, "torch": "2.9.0+cpu", "git_commit": "a"}
EPYC = XEON | {"host_cpu": "EPYC"}
H100 = XEON | {"gpu": "H100"}


def tried(number: int, environment: Any, second: int = 0, status: str = "ok", **changes: Any) -> Row:
    started = f"2026-01-01T00:00:{second:02d}+00:00"
    reason = None if status == "ok" else f"cause {second}"
    attempt = {"started_at": started, "wall_s": 1.0, "status": status, "reason": reason}
    row = make_row(
        cell=f"{number:016x}",
        environment=environment,
        status=status,
        reason=reason,
        started_at=started,
        **changes,
    )
    return dataclasses.replace(row, attempts=[attempt])


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (XEON | {"git_commit": "b", "cores": 64, "python": "3.14"}, True),
        (XEON | {"torch": "2.9.0"}, True),  # the package's version lacks the build
        (XEON | {"torch": "2.10.0"}, False),
        (EPYC, False),
        (None, False),
    ],
)
def test_an_environment_is_hardware_and_torch(other: Any, same: bool) -> None:
    a, b = tried(1, XEON), tried(1, other)
    assert (result_key(a) == result_key(b)) is same
    assert (partner([a], b) is a) is same


def test_a_gpu_is_told_by_its_name_and_its_host() -> None:
    keys = environment_keys(tried(1, H100, device="cuda"))
    assert (keys["hardware"], keys["host"]) == ("H100", "Xeon")
    assert environment_keys(tried(1, XEON, device="cuda"))["hardware"] == "unknown"
    other_host = tried(1, H100 | {"host_cpu": "EPYC"}, device="cuda")
    assert partner([tried(1, H100, device="cuda")], other_host) is None


def test_a_failure_of_unknown_environment_joins_the_row_that_may_be_its() -> None:
    lost = tried(1, None, 1, "error")
    nameless = tried(1, XEON, 1, "oom", device="cuda")  # died before torch could name the GPU
    done = tried(1, H100, 2, device="cuda")
    assert partner([nameless], done) is nameless
    assert partner([done], lost) is None  # another kind of device: the row is no cuda cell
    for rows in ([nameless, done], [done, nameless]):
        (row,) = one_each(rows, superseding)
        assert (row.status, row.environment, len(row.attempts)) == ("ok", H100, 2)
    cpu = tried(1, EPYC, 2, "error")
    for rows in ([lost, cpu], [cpu, lost]):
        (row,) = one_each(rows, superseding)
        assert (row.environment, len(row.attempts)) == (EPYC, 2)


def test_an_ok_row_of_unknown_environment_stays_by_itself() -> None:
    old = tried(1, None, 1)
    assert one_each([old, tried(1, XEON, 2)], latest) == [old, tried(1, XEON, 2)]


def test_of_two_tries_the_later_is_kept_but_no_failure_before_a_result() -> None:
    first, second = tried(1, XEON, 1), tried(1, XEON, 2)
    assert latest(second, first).started_at == second.started_at
    late_failure = tried(1, XEON, 3, "oom")
    kept = latest(late_failure, first)
    assert (kept.status, [a["status"] for a in kept.attempts]) == ("ok", ["ok", "oom"])


def test_of_one_try_the_row_that_was_measured_further_is_kept() -> None:
    turns = {"reference": "0" * 16, "batch": 1, "seconds": [1.0], "reference_seconds": [1.0]}
    plain = tried(1, XEON)
    timed = dataclasses.replace(
        plain, turns=turns, unmeasured={k: v for k, v in plain.unmeasured.items() if k != "turns"}
    )
    assert latest(plain, timed) == latest(timed, plain) == timed


POOL = [
    tried(number, environment, second, status)
    for number in (1, 2)
    for environment in (XEON, EPYC)
    for second, status in ((0, "ok"), (0, "error"), (1, "oom"), (2, "ok"), (3, "error"))
]
ROWS = st.lists(st.integers(0, len(POOL) - 1), max_size=6)


@settings(max_examples=30, deadline=None)
@given(ROWS, ROWS)
def test_joining_is_idempotent_loses_no_attempt_and_does_not_depend_on_the_order(
    chosen: list[int], others: list[int]
) -> None:
    a, b = [POOL[n] for n in chosen], [POOL[n] for n in others]
    once = one_each([*a, *b], latest)
    assert one_each([*once, *a, *once, *b], latest) == once
    by_key = {result_key(row): row for row in once}
    assert len(by_key) == len(once) == len({result_key(row) for row in [*a, *b]})
    again = one_each([*b, *once[::-1], *a], latest)
    assert {result_key(row): row for row in again} == by_key
    every = {(row.cell, str(attempt)) for row in [*a, *b] for attempt in row.attempts}
    assert {(row.cell, str(attempt)) for row in once for attempt in row.attempts} == every
