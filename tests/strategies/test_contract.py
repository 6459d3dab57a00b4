"""The contract, for every registered strategy on the shared trunk and for the published dressings."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from strategies.arpg import ARPG
from strategies.decoding import registry
from strategies.lpd import LPD
from strategies.par import PAR
from strategies.randar import RandAR
from strategies.rar import RAR
from strategies.raster import Raster
from tests.contract import checks
from tests.recorded import CONTROLLED, subject
from tests.strategies.dressings import ADALN, GROUPED, LEARNED, with_trunk

PLUGINS = Path(__file__).parents[1] / "plugins"

CASES = {name: (registry.get(name), CONTROLLED) for name in registry.names()} | {
    "rar-published": (RAR(), ADALN),
    "rar-learned-prefix": (RAR(), LEARNED),
    "lpd-published": (LPD(), LEARNED),
    "lpd-random": (LPD(order="random"), CONTROLLED),
    "lpd-far": (LPD(proximity=2.0, repulsion=0.0), CONTROLLED),
    "arpg-cosine": (ARPG(schedule="cosine"), CONTROLLED),
    "randar-raster": (RandAR(order="raster"), CONTROLLED),
    "par-9": (PAR(regions=9), replace(CONTROLLED, grid=(6, 6))),
    "par-wide": (PAR(), replace(CONTROLLED, grid=(4, 6))),
    "raster-qk-norm": (Raster(), with_trunk(qk_norm=True)),
    "lpd-qk-norm": (LPD(), with_trunk(qk_norm=True)),
    "raster-grouped": (Raster(), GROUPED),
    "rar-grouped": (RAR(), GROUPED),
    "par-grouped": (PAR(), GROUPED),
    "lpd-grouped": (LPD(), GROUPED),
    "arpg-grouped": (ARPG(), GROUPED),
    "randar-grouped": (RandAR(), GROUPED),
    "randar-qk-norm": (RandAR(), with_trunk(qk_norm=True)),
    "randar-wide-base": (RandAR(), with_trunk(rotary_base=100.0, norm_eps=1e-3, depth=4)),
    "arpg-wide-base": (ARPG(), with_trunk(rotary_base=100.0, norm_eps=1e-3, depth=4)),
}
ITEMS = [
    pytest.param(name, check, id=f"{name}-{check.__name__.removeprefix('check_')}")
    for name, (strategy, _) in CASES.items()
    for check in checks(strategy)
]


@lru_cache(maxsize=1)
def case(name):
    return subject(*CASES[name])


@pytest.mark.parametrize(("name", "check"), ITEMS)
def test_contract(name, check):
    check(case(name))


def test_every_registered_strategy_is_here():
    assert set(registry.names()) <= set(CASES)


@pytest.mark.parametrize("path", sorted(PLUGINS.glob("*.py")), ids=lambda path: path.stem)
def test_example_plugins_keep_the_contract(path, monkeypatch):
    monkeypatch.setattr(registry, "_plugins", {})
    strategy = registry.get(registry.add_plugin(path))
    whole = subject(strategy)
    for check in checks(strategy):
        check(whole)


class StaleQueries(LPD):
    """Leaves the queries' keys of the last group where its tokens belong."""

    def decode(self, network, plan, rows):
        inner = super().decode(network, plan, rows)
        tokens = None
        while True:
            try:
                tokens = yield inner.send(tokens)
            except StopIteration:
                return
            tokens = torch.zeros_like(tokens)


class EarlyReader(Raster):
    """Has a mask that reads one token too many in training."""

    def taught_logits(self, network, tokens, labels, lesson):
        return super().taught_logits(network, tokens.roll(-1, dims=1), labels, lesson)


class BatchOrder(ARPG):
    """Gives an image the order of its row."""

    def orders(self, grid, sizes, streams, known):
        return super().orders(grid, sizes, replace(streams, images=tuple(range(len(streams.images)))), known)


class TwiceAsked(Raster):
    """Calls the network once more than it has steps."""

    def decode(self, network, plan, rows):
        yield from super().decode(network, plan, rows)
        next(super().decode(network, plan, rows))


MUTANTS = [
    (StaleQueries, "cached_equals_taught"),
    (EarlyReader, "lessons_leak_nothing"),
    (EarlyReader, "lossless"),
    (BatchOrder, "plans_are_valid"),
    (BatchOrder, "batch_equals_singles"),
    (TwiceAsked, "used_through_the_loop_only"),
]


@pytest.mark.parametrize(("mutant", "name"), MUTANTS)
def test_the_contract_catches_what_it_should(mutant, name):
    strategy = mutant()
    check = {check.__name__: check for check in checks(strategy)}[f"check_{name}"]
    with pytest.raises(AssertionError):
        check(subject(strategy))
