"""The contract, for every registered strategy on the shared trunk and for the published dressings."""

from dataclasses import replace
from pathlib import Path

import pytest

from strategies.arpg import ARPG
from strategies.code import CoDe
from strategies.decoding import registry
from strategies.decoding.contract import CHECKS, CONTROLLED, Check, check_strategy, judge
from strategies.halton import Halton
from strategies.lpd import LPD
from strategies.maskgit import MaskGIT
from strategies.par import PAR
from strategies.randar import RandAR
from strategies.rar import RAR
from strategies.raster import Raster
from strategies.var import VAR
from strategies.zipar import ZipAR
from tests.strategies.dressings import ADALN, COSINE, GROUPED, LEARNED, MASKED, SHARED, with_trunk

PLUGINS = Path(__file__).parents[1] / "plugins"

CASES = {name: (registry.get(name), CONTROLLED) for name in registry.names()} | {
    "zipar": (ZipAR(2), CONTROLLED),  # its window of 8 is raster on this grid
    "zipar-mask": (ZipAR(2, "mask"), CONTROLLED),
    "rar-published": (RAR(), ADALN),
    "rar-learned-prefix": (RAR(), LEARNED),
    "lpd-published": (LPD(), LEARNED),
    "lpd-random": (LPD(order="random"), CONTROLLED),
    "lpd-far": (LPD(proximity=2.0, repulsion=0.0), CONTROLLED),
    "arpg-cosine": (ARPG(schedule="cosine"), CONTROLLED),
    "randar-raster": (RandAR(order="raster"), CONTROLLED),
    "var-published": (VAR(), COSINE),
    "var-shared": (VAR(scales="1 3 4"), SHARED),
    "code-published": (CoDe(refined=1), COSINE),
    "code-warm": (CoDe(refined=3, warmth=1.1, warm_scales=2), CONTROLLED),
    "par-9": (PAR(regions=9), replace(CONTROLLED, grid=(6, 6))),
    "par-wide": (PAR(), replace(CONTROLLED, grid=(4, 6))),
    "maskgit-published": (MaskGIT(resample_known=True), MASKED),
    "maskgit-root-warm-up": (MaskGIT(schedule="root", noise="warm_up"), CONTROLLED),
    "maskgit-random": (MaskGIT(noise="random"), MASKED),
    "halton-published": (Halton(roll=True, sharpness=0.8, last_sharpness=1.2, halved_steps=1), MASKED),
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
REPEATED = (
    *("rar-grouped", "par-grouped", "lpd-grouped", "randar-grouped", "lpd-qk-norm", "randar-qk-norm"),
    *("randar-wide-base", "maskgit-random", "lpd-far", "code-warm"),
)
"""Dressings that another case shows on another strategy: in the slow set."""
PARTS = ("sampler_draws_the_filtered_softmax", "guidance_scales")
"""Of sampler and guidance alone, whatever the strategy."""
OF_THE_CLASS = (
    "expected_failures_are_declared",
    "declares_itself",
    "imports_nothing_foreign",
    "plans_are_valid",
)
"""The same for a strategy on every trunk."""


def is_shown(name: str, check: Check) -> bool:
    strategy, _ = CASES[name]
    if not check.applies(strategy):
        return False
    if check.name in PARTS:
        return name == "raster"
    dressed = name not in registry.names() and strategy == registry.get(strategy.name)
    return not (dressed and check.name in OF_THE_CLASS)


ITEMS = [
    pytest.param(name, check, id=f"{name}-{check.name}", marks=[pytest.mark.slow] * (name in REPEATED))
    for name in CASES
    for check in CHECKS.values()
    if is_shown(name, check)
]


@pytest.mark.parametrize(("name", "check"), ITEMS)
def test_contract(name, check):
    outcome = judge(check, *CASES[name])
    assert outcome.status == "pass", outcome.reason


def test_every_registered_strategy_is_here():
    assert set(REPEATED) < set(CASES) - set(registry.names())
    assert set(registry.names()) <= set(CASES)


def test_none_of_ours_needs_an_exception():
    assert not any(strategy.expected_failures for strategy, _ in CASES.values())


@pytest.mark.parametrize("path", sorted(PLUGINS.glob("*.py")), ids=lambda path: path.stem)
def test_example_plugins_keep_the_contract(path, monkeypatch):
    monkeypatch.setattr(registry, "_plugins", {})
    card = check_strategy(path)
    assert card.passed, card.failures
    assert card.strategy == path.stem
