"""What the classes of a data set are called; numbers where nobody said."""

from collections.abc import Iterable, Mapping, Sequence

from results.schema import Row

_names: dict[str, tuple[str, ...]] = {}


def introduce(names: Mapping[str, Sequence[str]]) -> None:
    """Make the classes of data sets known, by the name that their references begin with."""
    _names.clear()
    _names.update({data: tuple(own) for data, own in names.items()})


def named(row: Row, classes: Iterable[int]) -> list[str]:
    """The classes in words."""
    data = "" if row.reference is None else row.reference["name"].partition("-")[0]
    known = _names.get(data, ())
    return [known[one] if 0 <= one < len(known) else str(one) for one in map(int, classes)]
