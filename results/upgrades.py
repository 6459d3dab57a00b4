"""From rows of older schemas to today's: every field says since which schema there is one, and what stood in
its place before."""

from collections.abc import Callable, Mapping
from typing import Any

from results.fields import Field, Measure

Values = dict[str, Any]


def upgraded(values: Values, fields: Mapping[str, Field], to: int) -> Values:
    """The JSON object of schema ``to`` for one of an older schema."""
    values = _renamed(values)
    for version in range(values["schema"] + 1, to + 1):
        added = {name: one for name, one in fields.items() if one.since == version}
        before = {name: one.before for name, one in added.items()}
        before |= FROM_OTHERS.get(version, lambda values: {})(values)
        reasons = {
            name: (one.absent if isinstance(one, Measure) else "") or f"not recorded before schema {version}"
            for name, one in added.items()
            if one.reasoned and before[name] is None
        }
        for name in REDEFINED.get(version, ()):
            if values.pop(name, None) is not None:
                reasons[name] = f"recorded by another definition before schema {version}"
        known = values.get("unmeasured")
        values = before | values | {"schema": version}
        if isinstance(known, dict):
            values["unmeasured"] = reasons | known
    return values


def _renamed(values: Values) -> Values:
    """Under today's names, fields and the keys of ``unmeasured`` alike."""
    names = {old: new for old, (new, since) in RENAMED.items() if values["schema"] < since}
    values = {names.get(name, name): value for name, value in values.items()}
    if isinstance(values.get("unmeasured"), dict):
        values["unmeasured"] = {names.get(name, name): why for name, why in values["unmeasured"].items()}
    return values


RENAMED = {"paired": ("turns", 5)}
"""Name until then -> name, and the schema since which it is."""


REDEFINED = {6: ("accepted_share",)}
"""Schema -> numbers that were something else before: of all tokens drawn, the share that was kept."""


def _to_5(values: Values) -> Values:
    """Until then every plan was fixed before the first token."""
    return dict.fromkeys(("steps_least", "steps_most"), values.get("steps"))


FROM_OTHERS: dict[int, Callable[[Values], Values]] = {5: _to_5}
"""Schema -> values that its new fields take from other fields of the row before."""
