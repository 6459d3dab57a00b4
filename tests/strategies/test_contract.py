"""The contract, for every registered strategy on the shared trunk and for the published dressings."""

from dataclasses import replace
from functools import lru_cache

import pytest

from backbones.config import NetworkConfig, TrunkConfig
from strategies.arpg import ARPG
from strategies.decoding import registry
from strategies.lpd import LPD
from strategies.par import PAR
from strategies.rar import RAR
from strategies.raster import Raster
from tests.contract import CONTROLLED, checks, subject


def with_trunk(**changes) -> NetworkConfig:
    return replace(CONTROLLED, trunk=replace(CONTROLLED.trunk, **changes))


GROUPED = with_trunk(kv_heads=2)
LEARNED = NetworkConfig(
    TrunkConfig(
        depth=2, width=32, heads=4, mlp_width=64, norm="layer", norm_eps=1e-6, mlp="gelu", bias=True,
        positions="learned",
    ),
    codes=11, classes=3, grid=(4, 4),
)  # fmt: skip
ADALN = replace(LEARNED, trunk=replace(LEARNED.trunk, qk_norm=True, conditioning="adaln"))

CASES = {name: (registry.get(name), CONTROLLED) for name in registry.names()} | {
    "rar-published": (RAR(), ADALN),
    "rar-learned-prefix": (RAR(), LEARNED),
    "lpd-published": (LPD(), LEARNED),
    "lpd-random": (LPD(order="random"), CONTROLLED),
    "lpd-far": (LPD(proximity=2.0, repulsion=0.0), CONTROLLED),
    "arpg-cosine": (ARPG(schedule="cosine"), CONTROLLED),
    "par-9": (PAR(regions=9), replace(CONTROLLED, grid=(6, 6))),
    "par-wide": (PAR(), replace(CONTROLLED, grid=(4, 6))),
    "raster-grouped": (Raster(), GROUPED),
    "rar-grouped": (RAR(), GROUPED),
    "par-grouped": (PAR(), GROUPED),
    "lpd-grouped": (LPD(), GROUPED),
    "arpg-grouped": (ARPG(), GROUPED),
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
