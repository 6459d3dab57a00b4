"""What is told of strategies, cells, commands and rows as the code declares them."""

import importlib
from dataclasses import fields

from harness.cell import sweep_file
from harness.cell.cell import default_values
from harness.cli import COMMANDS
from harness.subject.method import kind_of
from harness.sweep.sweep import each_mark
from made.table import one_line, table
from results.fields import Measure
from results.schema import FIELDS, Row
from results.settings import DECLARED, Settings
from strategies.decoding import registry
from strategies.decoding.base import TRAITS, Strategy
from strategies.decoding.contract import CHECKS
from strategies.decoding.contract.card import Check
from strategies.decoding.described import variables
from strategies.decoding.presets import preset_info, preset_names
from strategies.decoding.streams import Streams


def strategies() -> str:
    lines = []
    for name in registry.BUILT_IN:
        kind = type(registry.get(name))
        text = registry.describe(name).partition(": ")[2].rpartition(" (")[0]
        lines.append(
            [f"`{name}`", text, kind.base or "its own", f"[{kind.paper}](https://arxiv.org/abs/{kind.paper})"]
        )
    return table(["strategy", "how it decodes", "networks", "paper"], lines)


def titles() -> str:
    """What the built-in strategies call themselves."""
    found = registry.titles()
    return f"{', '.join(found[name] for name in registry.BUILT_IN)} and yours:\n"


KINDS = {
    "one token a step": ("raster or another order, sizes of 1", "`Ask`"),
    "groups planned beforehand": (
        "any order and group sizes, decided beforehand",
        "`Ask`, or `Draft` and `Commit`",
    ),
    "masked": ("sizes beforehand; which places, while decoding (`opened`)", "`Draft`, `Commit`"),
    "speculative": ("no sizes but a bound (`decides_steps`)", "`Draft`, `Accept`, `Redraw`, `Commit`"),
    "coarse labels, then all codes": ("two maps; one token a step, then all the rest", "`Ask`"),
    "next-scale": ("a canvas of maps, one a step", "`Ask`"),
}


def kinds() -> str:
    """Built-in strategies by the plan that they make on a grid of 16 x 16."""
    members: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for name, title in registry.titles().items():
        if name in registry.BUILT_IN:
            strategy = registry.get(name)
            steps = None if strategy.decides_steps else strategy.allowed_steps((16, 16))
            few = steps[len(steps) // 3] if steps else None
            members[kind_of(strategy, strategy.plan((16, 16), few, Streams(0, (0,))))].append(title)
    lines = [[kind, *KINDS[kind], ", ".join(found)] for kind, found in members.items()]
    return table(["kind", "plan", "decode yields", "built in"], lines)


def traits() -> str:
    """What each built-in strategy promises at its default options."""
    told = [trait for trait in TRAITS if not trait.endswith(("exceptions", "failures"))]
    lines = []
    for name in registry.BUILT_IN:
        strategy = registry.get(name)
        lines.append([f"`{name}`", *("yes" if getattr(strategy, trait) else "" for trait in told)])
    return table(["", *(f"`{trait}`" for trait in told)], lines)


def declarations() -> str:
    return table(
        ["trait", "default", "promise"],
        [
            [f"`{name}`", f"`{default}`", one_line(text).replace("``", "`")]
            for name, default, text in variables(Strategy)
            if name in TRAITS
        ],
    )


def checks() -> str:
    return table(
        ["check", "requires", "of"],
        [
            [
                f"`{check.name}`",
                check.requires.replace("``", "`"),
                _whose(check),
            ]
            for check in CHECKS.values()
        ],
    )


def _whose(check: Check) -> str:
    """The strategies that a check applies to."""
    if check.trait is None:
        return "all"
    if check.trait == "base":
        return "those with networks"
    also = "" if check.also is None else f", `{check.also} = True`"
    taught = ", where `taught_logits` is written" if check.of_taught else ""
    return f"`{check.trait} = {check.value}`{also}{taught}"


def settings() -> str:
    """Keys of a sweep file's cells."""
    texts = {name: text for name, _, text in variables(Settings)}
    defaults = default_values()
    lines = []
    for name, one in DECLARED.items():
        if one.rule is None:
            continue
        default = (
            f"`{defaults[name]!r}`" if name in defaults and defaults[name] not in (None, "", {}) else "-"
        )
        lines.append(
            [
                f"`{name}`",
                default,
                one.rule.expectation,
                one_line(texts.get(name, "")).replace("``", "`"),
            ]
        )
    return table(["key", "default", "value", "meaning"], lines)


def sweeps() -> str:
    lines = []
    for name in sweep_file.shipped():
        sweep = sweep_file.load(name)
        lines.append([f"`{name}`", len(each_mark(sweep.cells)), sweep.title])
    return table(["sweep", "cells", "what"], lines)


def commands() -> str:
    summaries = [
        (name, importlib.import_module(f"harness.commands.{name.replace('-', '_')}_command").SUMMARY)
        for name in COMMANDS
    ]
    return table(["command", "what it does"], [[f"`pardec {name}`", summary] for name, summary in summaries])


def networks() -> str:
    """Published networks by strategy."""
    infos = [(name, preset_info(name)) for name in preset_names()]
    lines = []
    for strategy in dict.fromkeys(info.strategy for _, info in infos):
        own = [(name, info) for name, info in infos if info.strategy == strategy]
        filed = [f"`{name}`" for name, info in own if all(file for _, file in info.parts().values())]
        lines.append([f"`{strategy}`", len(own), " ".join(filed) or "none"])
    return table(["strategy", "networks", "those whose files are published"], lines)


def numbers() -> str:
    """Measured fields of a row."""
    texts = {name: text for name, _, text in variables(Row)}
    lines = [
        [f"`{name}`", one.unit or "", one_line(texts.get(name, "")).replace("``", "`")]
        for name, one in FIELDS.items()
        if isinstance(one, Measure) and name in {field.name for field in fields(Row)}
    ]
    return table(["field", "unit", "meaning"], lines)
