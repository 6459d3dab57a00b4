"""Which numbers may stand side by side: every quantity declares what must be equal in both rows.

Comparing rows that differ in a declared key is an error that names the keys; figures and tables are split by
them instead (``frame.facets``).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pardec.errors import UserError
from results.environments import ENVIRONMENT_KEYS, UNKNOWN, environment_keys
from results.fields import Measure
from results.metrics import kind_of
from results.same_setting import value_of
from results.schema import FIELDS, Protocol, Reference, Row

_MACHINE = ("device", "hardware", "threads", "dtype", "compile", "products")
_IMAGES = ("tokenizer", "n", "evaluation_size", "colour", "labels")
QUALITY_KEYS = ("tokenizer", "reference", *_IMAGES[1:], "extractor")
"""What a distance to a reference needs in common."""
CLEAN_KEYS = ("tokenizer", "clean_reference", *_IMAGES[1:], "clean_extractor")
"""What a distance by clean-fid's own protocol needs in common."""
SPEED_KEYS = (*_MACHINE, "batch")
"""What throughput and peak memory need in common."""
FACET_KEYS = tuple(dict.fromkeys((*_MACHINE, *ENVIRONMENT_KEYS, *QUALITY_KEYS, *CLEAN_KEYS)))
"""What the rows of one section of a report have in common; its speed figures are split by batch besides.

With every key of the environment, so that no section holds two rows of one cell. Two sets of results may
be compared across hosts of a GPU and versions of torch, which is how the effect of a new version is seen.
"""
REFERENCE_KEYS = tuple(
    key for key in dict.fromkeys((*QUALITY_KEYS, *CLEAN_KEYS)) if key not in ("tokenizer", "evaluation_size")
)
"""What an anchor has in common with the cells that it belongs to."""
KEYS = {
    "throughput": SPEED_KEYS,
    "latency": _MACHINE,
    # Bits judged by different networks, or of draws at another temperature, measure different things.
    "lossiness": ("judge", "temperature"),
    # Counted, hence exact on any machine; what depends on accepted drafts does where those are real.
    "counts": ("acceptance",),
}
"""What a field that declares the name needs in common (``results.fields.Measure.compared``)."""

_NEEDS = {
    "reference": QUALITY_KEYS,
    "clean reference": CLEAN_KEYS,
    # Scores of the images alone need no reference, and accuracy has a judge of its own.
    "features": (*_IMAGES, "extractor"),
    "images": _IMAGES,
}
"""What a metric that declares the name needs in common (``results.metrics``)."""

Kind = Literal["quality", "speed and memory", "lossiness", "counts"]
_KINDS: dict[str, Kind] = {
    "throughput": "speed and memory",
    "latency": "speed and memory",
    "lossiness": "lossiness",
}


@dataclass(frozen=True)
class Quantity:
    """A measured number of a row, by its field or metric name, and the keys that must match."""

    name: str
    kind: Kind
    keys: tuple[str, ...]
    lower_is_better: bool


class Incomparable(UserError):
    """Numbers that must not be set side by side; ``keys`` names what differs."""

    def __init__(self, what: str, differing: dict[str, list[str]]) -> None:
        self.keys = tuple(differing)
        details = "; ".join(f"{key} differs ({', '.join(values)})" for key, values in differing.items())
        super().__init__(f"{what} can't be compared: {details}")


def quantity(name: str) -> Quantity:
    """What the field or metric ``name`` ("fd_fashion@1000") declares."""
    one = FIELDS.get(name)
    if isinstance(one, Measure):
        falls = one.better == "lower"
        if one.compared:
            return Quantity(name, _KINDS[one.compared], KEYS[one.compared], falls)
        return Quantity(name, "counts", KEYS["counts"] if one.drawn else (), falls)
    return Quantity(name, "quality", _NEEDS[kind_of(name).needs], lower_is_better(name))


def lower_is_better(metric: str) -> bool:
    """Whether a metric is a distance; everything else is a score."""
    return kind_of(metric).better == "lower"


def row_keys(row: Row) -> dict[str, str]:
    """The row's value of every key that a quantity may declare, as text that a reader can tell apart."""
    protocol = row.protocol or row.clean_protocol
    return environment_keys(row) | {
        "threads": str(row.threads) if row.threads is not None else UNKNOWN,
        "dtype": row.dtype,
        "compile": mode(row),
        "products": row.products,
        "tokenizer": row.tokenizer,
        "reference": _reference(row.reference),
        "clean_reference": _reference(row.clean_reference),
        "n": str(row.images) if row.images is not None else UNKNOWN,
        "colour": protocol["colour"] if protocol else "none",
        "labels": protocol["labels"] if protocol else "none",
        "extractor": _extractor(row.protocol),
        "clean_extractor": _extractor(row.clean_protocol),
        "batch": str(row.batch) if row.batch is not None else UNKNOWN,
        "judge": f"{row.network} ({(row.checkpoint or UNKNOWN)[:8]})",
        "temperature": str(row.temperature),
        "evaluation_size": str(value_of(row, "evaluation_size") or "own"),
        "acceptance": "real" if row.acceptance is None else f"declared {row.acceptance:g}",
    }


def _reference(of: Reference | None) -> str:
    return f"{of['name']} (sha256 {of['sha256'][:8]}, n = {of['n']})" if of else "none"


def _extractor(of: Protocol | None) -> str:
    return f"{of['extractor']} ({of['extractor_sha256'][:8]})" if of else "none"


def mode(row: Row) -> str:
    """How the passes ran: eager, compiled, as CUDA graphs or one, or both."""
    graphs = "one CUDA graph" if row.one_graph else "CUDA graphs"
    modes = [name for name, on in (("compiled", row.compile), (graphs, row.cuda_graphs)) if on]
    return " and ".join(modes) or "eager"


def facet_keys(row: Row) -> dict[str, str]:
    """The row's value of every one of ``FACET_KEYS``."""
    found = row_keys(row)
    return {key: found[key] for key in FACET_KEYS}


def require_comparable(rows: Iterable[Row], keys: Sequence[str], what: str = "quality") -> None:
    """Raises ``Incomparable``, naming the keys, unless all rows agree in ``keys``."""
    found = [row_keys(row) for row in rows]
    values = {key: list(dict.fromkeys(row[key] for row in found)) for key in keys}
    differing = {key: seen for key, seen in values.items() if len(seen) > 1}
    if differing:
        raise Incomparable(what, differing)
