"""What ``help(Strategy)`` tells the author of a plug-in."""

import ast
import inspect
import pydoc
import re

import pytest

from strategies.decoding.base import TRAITS, Strategy
from strategies.decoding.contract import CHECKS
from strategies.decoding.described import described, variables

TEXTS = {name: text for name, _, text in variables(Strategy)}


def checks_of(text: str) -> list[str]:
    """Names behind "Check:" or "Checks:"."""
    found = re.search(r"Checks?:((?:[\s,]|``\w+``|and)+)", text)
    return re.findall(r"``(\w+)``", found[1]) if found else []


@pytest.mark.parametrize("trait", TRAITS)
def test_every_trait_says_what_it_promises_and_which_check_holds_it_to_that(trait):
    promise = re.split(r"Checks?: ", TEXTS[trait])[0]
    assert len(promise) > 40
    found = checks_of(TEXTS[trait])
    assert found
    assert set(found) <= set(CHECKS), f"no such checks: {set(found) - set(CHECKS)}"


def test_a_check_of_a_trait_is_named_where_the_trait_is_declared():
    for check in CHECKS.values():
        for trait in {check.trait, check.also} - {None, "base"}:
            assert check.name in TEXTS[trait], f"{trait} does not name {check.name}"


def test_every_named_check_exists():
    texts = [
        *TEXTS.values(),
        *(inspect.getdoc(one) or "" for one in vars(Strategy).values() if callable(one)),
    ]
    for text in texts:
        assert set(checks_of(text)) <= set(CHECKS)
    assert sum(bool(checks_of(text)) for text in texts) > 15


def test_every_class_variable_has_a_text():
    declared = {name for name in Strategy.__annotations__ if not name.startswith("_")}
    assert set(TEXTS) == declared
    assert set(TRAITS) <= declared


@pytest.mark.parametrize(
    "name", ["network", "lesson", "taught_logits", "sizes", "orders", "arrange", "decode"]
)
def test_a_method_to_write_has_an_example(name):
    text = inspect.getdoc(getattr(Strategy, name))
    _, found, example = text.rpartition("\n\n    ")
    assert found, "no example"
    ast.parse(f"def example():\n    {example}")
    assert len(text) > 150


def test_help_shows_the_traits():
    shown = pydoc.render_doc(Strategy, renderer=pydoc.plaintext)
    for trait in TRAITS:
        assert re.search(rf"\|  {trait} = ", shown)
    assert "Position at each place, known positions [M] first" in shown
    assert "given_tokens" in shown


def test_without_its_source_a_class_keeps_its_text():
    made = type("Made", (), {"__doc__": "Made at run time."})
    assert described(made) == "Made at run time."
