"""The score card: what counts as passed, expected failures, and errors of a strategy's own code."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from pardec.errors import UserError
from strategies.decoding.contract import CHECKS, check_strategy
from strategies.decoding.contract.declarations import imports_of
from strategies.raster import Raster

ROOT = Path(__file__).parents[2]
ONLY = ("expected_failures_are_declared", "declares_itself", "lessons", "given_tokens")


@dataclass(frozen=True)
class Untitled(Raster):
    title: ClassVar[str] = ""


def of(kind, expected, only=ONLY):
    """The card of a strategy that declares these expected failures, by check."""
    declaring = type("Declaring", (kind,), {"expected_failures": expected})
    card = check_strategy(declaring(), only=only)
    return card, {outcome.check: outcome for outcome in card.outcomes}


def test_a_card_says_what_passed_and_what_does_not_apply():
    card, found = of(Raster, {})
    assert card.passed
    assert found["lessons"].status == "pass"
    assert found["given_tokens"].status == "not applicable"
    assert found["given_tokens"].reason == "any_order = False"
    assert card.lines()[-1] == "raster: 3 pass, 0 fail, 0 expected failure, 1 not applicable"


def test_a_failure_has_a_reason():
    card, found = of(Untitled, {})
    assert not card.passed
    assert [outcome.check for outcome in card.failures] == ["declares_itself"]
    assert found["declares_itself"].reason == "title is '', expected a text"
    assert "declares_itself                 fail: title is '', expected a text" in card.lines()


def test_a_declared_failure_with_a_reason_is_expected():
    card, found = of(Untitled, {"declares_itself": "the paper has none"})
    assert card.passed
    assert found["declares_itself"].status == "expected failure"
    assert found["declares_itself"].reason == "the paper has none (title is '', expected a text)"


@pytest.mark.parametrize("reason", ["", "  ", None])
def test_a_declared_failure_without_a_reason_is_none(reason):
    card, found = of(Untitled, {"declares_itself": reason})
    assert not card.passed
    assert found["declares_itself"].status == "fail"
    assert "has no reason" in found["expected_failures_are_declared"].reason


def test_a_declared_failure_must_fail():
    card, found = of(Raster, {"declares_itself": "the paper has none"})
    assert not card.passed
    assert found["declares_itself"].reason == "passes, but is declared to fail: the paper has none"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("declare_itself", "did you mean 'declares_itself'?"),
        ("given_tokens", "cannot be: any_order = False"),
        ("expected_failures_are_declared", "is no such check"),
    ],
)
def test_a_declared_failure_names_a_check_that_applies(name, says):
    card, found = of(Raster, {name: "because"})
    assert not card.passed
    assert says in found["expected_failures_are_declared"].reason


def test_what_a_strategy_raises_fails_its_check_only():
    class Raising(Raster):
        def lesson(self, batch, grid, generator, progress):
            raise KeyError("first\nsecond")

    card, found = of(Raising, {})
    assert [outcome.check for outcome in card.failures] == ["lessons"]
    assert found["lessons"].crashed
    assert found["lessons"].reason.startswith("KeyError: ")
    assert "\n" not in found["lessons"].reason


def test_a_network_that_cannot_be_built_fails_every_check():
    class Unbuildable(Raster):
        def network(self, config):
            raise ValueError("needs another trunk")

    card, found = of(Unbuildable, {})
    assert {outcome.reason for outcome in card.failures} == {"ValueError: needs another trunk"}
    assert found["lessons"].status == "fail"


def test_unknown_names_are_one_line():
    with pytest.raises(UserError, match="did you mean 'raster'"):
        check_strategy("rastr")
    with pytest.raises(UserError, match=r"none\.py: no such file"):
        check_strategy("none.py")
    with pytest.raises(UserError, match="did you mean 'causal'"):
        check_strategy("raster", only=("causl",))


def test_every_check_says_what_it_requires():
    assert all(check.run.__doc__ for check in CHECKS.values())


def test_nothing_that_ships_needs_a_test_framework():
    for room in ("strategies", "backbones", "pardec"):
        for path in (ROOT / room).rglob("*.py"):
            assert not {name.split(".")[0] for name in imports_of(path)} & {"pytest", "hypothesis"}, path
