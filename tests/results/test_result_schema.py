"""Rows keep their numbers through JSON, and lines that are no rows say why."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pardec.errors import UserError
from results import schema
from results.fields import Field, Measure
from results.schema import (
    MEASURED,
    Row,
    reasons,
    row_from_json,
    row_to_json,
)
from results.upgrades import REDEFINED, upgraded

DATA = Path(__file__).parent / "data"
FIELDS = {field.name for field in dataclasses.fields(Row)}


def make_row(**changes: Any) -> Row:
    values: dict[str, Any] = {
        "cell": "0123456789abcdef",
        "status": "ok",
        "tier": "controlled",
        "strategy": "lpd",
        "label": "LPD",
        "network": "zoo/lpd",
        "tokenizer": "zoo/fsq",
        "batch": 64,
        "images": 1000,
        "dtype": "float32",
        "device": "cpu",
        "seed": 0,
        "started_at": "2026-01-01T00:00:00+00:00",
    } | changes
    values["unmeasured"] = reasons(values, "not measured")
    return Row(**values)


def line(**changes: Any) -> str:
    return json.dumps(json.loads(row_to_json(make_row())) | changes)


def test_every_field_is_written_and_read_back() -> None:
    row = make_row(
        steps=10,
        latency_s=0.0123456789012345,
        throughput_interval=[1.5, 2.5],
        quality={"fd@9": {"value": 0.1, "low": 0.0, "high": 0.3, "n": 9, "reference": None}},
    )
    text = row_to_json(row)
    assert "\n" not in text
    assert set(json.loads(text)) == FIELDS
    assert next(iter(json.loads(text))) == "schema"
    assert row_from_json(text) == row


@given(
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.dictionaries(st.text(), st.integers()),
)
def test_any_text_and_number_survives(number: float | None, text: str, options: dict[str, int]) -> None:
    row = make_row(latency_s=number, label=text, options=options)
    assert row_from_json(row_to_json(row)) == row


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_rows_hold_no_number_that_json_lacks(value: float) -> None:
    with pytest.raises(ValueError, match="latency_s"):
        make_row(latency_s=value)
    with pytest.raises(UserError, match="no JSON number"):
        row_from_json(line().replace('"seed": 0', '"seed": NaN'), "rows.jsonl line 1")


def test_null_numbers_need_a_reason() -> None:
    with pytest.raises(ValueError, match=r"'steps' is null without a reason"):
        dataclasses.replace(make_row(), unmeasured=reasons({"steps": 3}, "why"))
    row = make_row(steps=4)
    assert row.unmeasured["latency_s"] == "not measured"
    assert "steps" not in row.unmeasured
    assert set(row.unmeasured) <= set(MEASURED)


def test_null_entries_need_a_reason_under_their_dotted_name() -> None:
    row = make_row(phases_s={"plan": None, "total": 0.5}, throughput_by_batch={"64": None})
    assert {"phases_s.plan", "throughput_by_batch.64"} <= set(row.unmeasured)
    assert "phases_s.total" not in row.unmeasured


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speed": 3}, "unknown key 'speed', did you mean 'seed'"),
        ({"steps": "ten"}, "key 'steps' must be a finite number"),
        ({"batch": True}, "key 'batch' must be a whole number"),
        ({"status": "fine"}, "key 'status' must be one of ok, oom"),
        ({"status": "oom"}, "key 'reason' must say why"),
        ({"cell": "xyz"}, "16 hexadecimal digits"),
        ({"throughput_interval": [2.0, 1.0]}, "must be \\[low, high\\]"),
        ({"attempts": [{"wall_s": 1}]}, "'attempts\\[0\\]' must have the keys"),
        ({"quality": {"fd@9": 3}}, "'quality.fd@9' must have the keys"),
        ({"schema": 99}, "schema 99 is newer than this pardec reads"),
        ({"schema": "1"}, "key 'schema' must be a version"),
        ({"unmeasured": {}}, "null without a reason in 'unmeasured' \\(and"),
    ],
)
def test_bad_lines_name_place_and_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^rows.jsonl line 7: .*{message}"):
        row_from_json(line(**changes), "rows.jsonl line 7")


@pytest.mark.parametrize("missing", ["steps", "unmeasured", "cell"])
def test_missing_keys_are_named(missing: str) -> None:
    values = json.loads(line())
    del values[missing]
    with pytest.raises(UserError, match=f"missing key '{missing}'"):
        row_from_json(json.dumps(values))


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "null"])
def test_lines_that_hold_no_object(text: str) -> None:
    with pytest.raises(UserError, match=r"^here: "):
        row_from_json(text, "here")


@pytest.mark.parametrize("version", range(1, schema.SCHEMA))
def test_recorded_rows_of_every_older_schema_are_read(version: int) -> None:
    recorded = DATA / f"schema-{version}.jsonl"
    lines = recorded.read_text().splitlines()
    assert lines
    for number, text in enumerate(lines, start=1):
        old = json.loads(text)
        assert old.pop("schema") == version
        row = row_from_json(text, f"{recorded.name} line {number}")
        assert row.schema == schema.SCHEMA
        for named in (old, old["unmeasured"]):
            if "paired" in named:
                named["turns"] = named.pop("paired")
        new = dataclasses.asdict(row)
        redefined = [key for since, keys in REDEFINED.items() if version < since for key in keys]
        for key in redefined:
            if old.pop(key, None) is not None:
                assert row.unmeasured[key].startswith("recorded by another definition")
            assert new[key] is None
        assert {key: new[key] for key in old if key != "unmeasured"} == {
            key: value for key, value in old.items() if key != "unmeasured"
        }
        assert old["unmeasured"].items() <= row.unmeasured.items()
        assert row_from_json(row_to_json(row)) == row


def test_plans_of_older_rows_were_fixed_before_the_first_token() -> None:
    old = json.loads((DATA / "schema-4.jsonl").read_text().splitlines()[0])
    row = row_from_json(json.dumps(old))
    assert (row.steps_least, row.steps, row.steps_most) == (old["steps"],) * 3
    assert row.steps_bound is None
    assert row.unmeasured["accepted_share"] == "the strategy tests no drafts"
    assert row.settings == {}


def test_a_new_number_needs_a_reason_in_rows_of_every_older_schema() -> None:
    fields = schema.FIELDS | {"heat_j": Measure(since=7), "colour": Field(since=8, before="grey")}
    old = json.loads(line()) | {"schema": 3, "training_seed": 5}
    row = upgraded(old, fields, 8)
    assert (row["schema"], row["heat_j"], row["colour"]) == (8, None, "grey")
    assert row["unmeasured"]["heat_j"] == "not recorded before schema 7"
    assert row["training_seed"] == 5  # what is there is kept


def test_every_network_of_a_decode_has_its_counts() -> None:
    use = {"role": "drafter", "parameters": 3, "sha256": None, "weight_bytes": 12, "cache_bytes": 0}
    networks = [use | {"forwards": 2.5, "tokens_processed": 4}]
    row = make_row(networks=networks, steps=7.25, steps_least=6, steps_most=9, steps_bound=64)
    assert row_from_json(row_to_json(row)) == row
    with pytest.raises(UserError, match=r"'networks\[0\]' must have the keys role, parameters"):
        row_from_json(line(networks=[{"role": "drafter"}]))


def test_lossiness_needs_its_interval_or_a_reason() -> None:
    lost = {"value": 4.3, "low": 3.6, "high": 5.1, "n": 200}
    assert row_from_json(row_to_json(make_row(lossiness_bits=lost))).lossiness_bits == lost
    with pytest.raises(UserError, match=r"lossiness_bits\.low' is null without a reason"):
        row_from_json(line(lossiness_bits=lost | {"low": None}))
