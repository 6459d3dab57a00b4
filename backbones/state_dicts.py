"""State dicts inside what a file holds: where they stand, which is taken, and what training put before names.

A file of a training run often holds several states of one network: the trained one and a moving average.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pardec.errors import nearest

State = dict[str, Tensor]
Path = tuple[str, ...]

WRAPPERS = ("model", "module", "state_dict", "model_state_dict")
"""Under which a state dict is taken unasked, the first that leads to one."""
_BEFORE = ("_orig_mod.", "module.", "_fsdp_wrapped_module.", "_forward_module.", "ema_model.")
"""What stands before every name: of compiled, distributed and averaged modules."""
_AVERAGED = ("module.", "ema_model.")
"""Of averaging modules, which keep counters beside the module."""
_WITHIN = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What stands within names, where a part of the network was wrapped."""
_COUNTERS = ("n_averaged", "initted", "step")
"""What they count, one number each."""
_AVERAGE = re.compile(r"(?:\w+_)?(?:ema|averaged|shadow)(?:_\w+)?")
BARE = "the file itself"
"""What a state dict is called that stands under no key; it is taken unasked."""
_DEEPEST = 5
_ALIKE = 0.5
"""Share of the tensors that two states of one network have in common at least."""


class NoChoice(Exception):
    """No state dict stands where it is looked for; the text says where some do."""


@dataclass(frozen=True)
class Chosen:
    """The state dict that was taken, without prefixes.

    path: keys of the tables around it, outermost first. prefix: what stood before or within names. others:
    name of every other state of the same network in the file -> whether its values are equal, None where
    they were not read.
    """

    state: State
    path: Path
    prefix: str
    others: Mapping[str, bool | None] = field(default_factory=dict)


def choose(content: object, wanted: str | None = None, with_values: bool = True) -> Chosen:
    """The state dict ``wanted`` (by its keys, joined by dots), or the first that a wrapper leads to.

    Raises NoChoice. with_values: whether the tensors' values were read.
    """
    found = dict(_states(content))
    path = _first(content, found) if wanted is None else _named(wanted, found)
    if path is None:
        names = [_name(one) for one in found]
        where = f"; tensors stand under '{names[0]}'" if names else ""
        hint = f": --weights {names[0]} takes them" if names else ""
        raise NoChoice(
            f"no state dict found; expected tensors by name, bare or under {', '.join(WRAPPERS)}{where}{hint}"
        )
    state, prefix = without_prefixes(found[path])
    others = {}
    for other, raw in found.items():
        if other != path:
            twin, _ = without_prefixes(raw)
            if _alike(state, twin):
                others[_name(other)] = _equal(state, twin) if with_values else None
    return Chosen(state, path, prefix, others)


def _name(path: Path) -> str:
    return ".".join(path) or BARE


def _states(content: object, path: Path = ()) -> Iterator[tuple[Path, State]]:
    """Every state dict inside with the keys on the way to it."""
    if not isinstance(content, Mapping) or len(path) > _DEEPEST:
        return
    if _is_state_dict(content):
        for within, state in _averages_apart(dict(content)).items():
            yield (*path, *within), state
        return
    for key, value in content.items():
        if isinstance(key, str) and not key.startswith("optim"):  # its states have the network's names, too
            yield from _states(value, (*path, key))


def _is_state_dict(content: Mapping[object, object]) -> bool:
    return bool(content) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    )


def _averages_apart(state: State) -> dict[Path, State]:
    """A state dict and the average that stands in it under a prefix; mostly the state dict alone."""
    for start in {key.partition(".")[0] for key in state if "." in key}:
        average = {key[len(start) + 1 :]: one for key, one in state.items() if key.startswith(f"{start}.")}
        rest = {key: one for key, one in state.items() if not key.startswith(f"{start}.")}
        rest = {key: one for key, one in rest.items() if key not in _COUNTERS}
        if not rest or not _AVERAGE.fullmatch(start):
            continue
        common = f"{next(iter(rest)).partition('.')[0]}."
        bare = {key.removeprefix(common): one for key, one in rest.items()}
        if average.keys() == rest.keys():
            return {(): rest, (start,): average}
        if average.keys() == bare.keys():
            return {(common[:-1],): bare, (start,): average}
    return {(): state}


def _first(content: object, found: Mapping[Path, State], path: Path = ()) -> Path | None:
    """The first state dict that wrappers lead to."""
    if path in found:
        return path
    if any(one[:-1] == path and isinstance(content, Mapping) and one[-1] not in content for one in found):
        return next(one for one in found if one[:-1] == path)  # a state dict with its average inside
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            below = _first(content[key], found, (*path, key))
            if below is not None:
                return below
    return None


def _named(wanted: str, found: Mapping[Path, State]) -> Path:
    whole = [path for path in found if path and _name(path) == wanted]  # keys may have dots of their own
    if whole:
        return whole[0]
    asked = tuple(wanted.split("."))
    opening = [path for path in found if path[: len(asked)] == asked]
    fits = opening or [path for path in found if asked in _windows(path, len(asked))]
    led = [path for path in fits if all(key in (*WRAPPERS, *asked) for key in path)]
    if len(fits) == 1 or led:
        return (led or fits)[0]
    names = [_name(path) for path in found if path]
    if not names:
        raise NoChoice(f"no weights '{wanted}': it holds one state dict, bare; leave --weights out")
    bare = f"; leave --weights out for {BARE}" if () in found else ""
    raise NoChoice(f"no weights '{wanted}': {nearest(wanted, names)}{bare}")


def _windows(path: Path, length: int) -> list[Path]:
    return [path[start : start + length] for start in range(len(path) - length + 1)]


def without_prefixes(state: State) -> tuple[State, str]:
    """Tensors by their names in the network, and what was removed from those names, for readers."""
    before, counted = "", ""
    within: dict[str, None] = {}
    while True:
        body = {key: value for key, value in state.items() if not (key in _COUNTERS and value.numel() == 1)}
        start = next((one for one in _BEFORE if all(key.startswith(one) for key in state)), None)
        averaged = next((one for one in _AVERAGED if body and all(key.startswith(one) for key in body)), None)
        if start is None and averaged is not None:
            counted = next((key for key in state if key not in body), "")
            start, state = averaged, body
        if start is not None:
            state = {key.removeprefix(start): value for key, value in state.items()}
            before += start
            continue
        inner = dict.fromkeys(found for key in state for found in _WITHIN.findall(key))
        if not inner:
            break
        bare = {_WITHIN.sub("", key): value for key, value in state.items()}
        if len(bare) < len(state):
            raise NoChoice(f"two tensors have one name without '{next(iter(inner))}.'")
        state, within = bare, within | inner
    parts = [before + (f" (beside {counted})" if counted else "")] if before else []
    return state, ", ".join([*parts, *(f"{name}. (within names)" for name in within)])


def _alike(state: State, other: State) -> bool:
    """Whether both are states of one network."""
    shared = sum(key in other and other[key].shape == value.shape for key, value in state.items())
    return shared >= _ALIKE * len(state)


def _equal(state: State, other: State) -> bool:
    """Whether all tensors are equal; the small ones tell first."""
    if state.keys() != other.keys():
        return False
    return all(
        value.dtype == other[key].dtype and torch.equal(value, other[key])
        for key, value in sorted(state.items(), key=lambda entry: entry[1].numel())
    )
