"""What the shapes of a published file say about the network that it belongs to."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isqrt
from typing import Any

from backbones.checkpoints import CheckpointError, KeyMap, KeyRows


@dataclass(frozen=True)
class Measured:
    """The authors' hyper-parameters that shapes show.

    unseen: settings of ours that no shape shows (``heads``, ``grid``); ``names`` holds some value of them
    that gives the same shapes. facts: what else they show, for readers.
    """

    names: Mapping[str, Any]
    unseen: frozenset[str] = frozenset()
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Shapes:
    """Shapes by published key; ``{i}`` in a key stands for every layer.

    A file may be damaged, so what several tensors show is put to the vote.
    """

    of: Mapping[str, tuple[int, ...]]

    def __contains__(self, key: str) -> bool:
        return any(True for _ in self._matches(key))

    def size(self, *places: tuple[str, int], otherwise: int | None = None) -> int:
        """The size that most of these (key, axis) show, the first of them where votes are equal.

        Where none of the keys is there it is ``otherwise``, and CheckpointError without that.
        """
        votes = Counter(
            shape[axis] for key, axis in places for shape, _ in self._matches(key) if len(shape) > axis
        )
        if not votes and otherwise is not None:
            return otherwise
        if not votes:
            keys = " or ".join(dict.fromkeys(f"'{key}'" for key, _ in places))
            raise CheckpointError(f"nothing shows a size: no key {keys}")
        return votes.most_common(1)[0][0]

    def layers(self, *keys: str) -> int:
        """One more than the highest layer index among the keys; CheckpointError where there is none."""
        indices = [index for key in keys for _, index in self._matches(key) if index is not None]
        if not indices:
            raise CheckpointError(f"nothing shows the number of layers: no key {' or '.join(keys)}")
        return 1 + max(indices)

    def _matches(self, key: str) -> list[tuple[tuple[int, ...], int | None]]:
        if "{i}" not in key:
            return [(self.of[key], None)] if key in self.of else []
        pattern = _pattern(key)
        found = ((pattern.fullmatch(name), shape) for name, shape in self.of.items())
        return [(shape, int(match.group(1))) for match, shape in found if match]


def side_of(places: int, what: str) -> int:
    """The side of a square grid; CheckpointError, naming what shows it, where that is no square."""
    side = isqrt(places) if places > 0 else 0
    if side * side != places or not side:
        raise CheckpointError(f"'{what}' shows {places} places, which is no square grid")
    return side


def likeness(shapes: Shapes, keys: KeyMap) -> float:
    """How much of a file a family accounts for, times how much of the family is there: 0 to 1.

    Numbers in keys are left out of account, so that depth doesn't count.
    """
    patterns = [_pattern(_unnumbered(key)) for key in _published(keys)]
    found = set(map(_unnumbered, shapes.of))
    known = sum(any(pattern.fullmatch(key) for pattern in patterns) for key in found)
    present = sum(any(pattern.fullmatch(key) for key in found) for pattern in patterns)
    return known / max(len(found), 1) * present / len(patterns)


def _published(keys: KeyMap) -> set[str]:
    entries = ([entry] if isinstance(entry, str) else entry for entry in keys.names.values())
    named = {source.key if isinstance(source, KeyRows) else source for entry in entries for source in entry}
    return named | keys.tied.keys()


def _unnumbered(key: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.)", "0", key)


def _pattern(key: str) -> re.Pattern[str]:
    return re.compile(re.escape(key).replace(r"\{i\}", r"(\d+)").replace(r"\{rest\}", ".+"))
