"""Strategies agree with naive implementations of their papers at settings that nobody recorded."""

import pkgutil
from collections.abc import Callable
from importlib import import_module

import pytest

from tests import naive
from tests.replays import Golden, replay
from tests.test_goldens import TOLERANCE

CASES: dict[str, Callable[[], Golden]] = {
    f"{module.name}-{name}": make
    for module in pkgutil.iter_modules(naive.__path__)
    for name, make in getattr(import_module(f"{naive.__name__}.{module.name}"), "CASES", {}).items()
}


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_a_naive_decode_is_replayed(make: Callable[[], Golden]) -> None:
    assert replay(make()) <= TOLERANCE
