"""What a published file is, from its keys and shapes alone: family, preset, wrapper, and what doesn't fit.

The network that the shapes describe is built without memory and compared with the file tensor by tensor.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from backbones.checkpoints import Checkpoint, CheckpointError, KeyMap, ignored, needed, read_checkpoint
from backbones.shapes import Shapes, likeness
from backbones.transformer import parameter_count
from harness.machine.precision import type_name
from harness.weights.families import Candidate, Kind, kinds

SIMILAR = 0.25
"""Likeness from which a file is compared with a family at all."""
SHOWN = 3
"""Differences that one line names; the others are counted."""


@dataclass(frozen=True)
class Differences:
    """What keeps a file from being a complete network; every entry names its key."""

    missing: tuple[str, ...] = ()
    reshaped: tuple[str, ...] = ()
    mistyped: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    def groups(self) -> list[tuple[str, tuple[str, ...]]]:
        named = {
            "missing": self.missing,
            "of another shape": self.reshaped,
            "of another type": self.mistyped,
            "extra": self.extra,
        }
        return [(name, entries) for name, entries in named.items() if entries]

    def __len__(self) -> int:
        return sum(len(entries) for _, entries in self.groups())


@dataclass(frozen=True)
class Inspection:
    """What a file is. families: more than one where keys and shapes fit them equally well."""

    path: Path
    form: str
    wrapper: str | None
    prefix: str | None
    dtypes: Mapping[str, int]
    """Data type -> tensors of it."""
    families: tuple[str, ...]
    presets: tuple[str, ...]
    parameters: int
    facts: Mapping[str, str]
    differences: Differences
    choice: str | None = None
    """That the file holds other states of the network, too; None where it doesn't."""

    @property
    def complete(self) -> bool:
        return not self.differences

    def lines(self) -> list[tuple[str, str]]:
        """(name, value) of everything that is known about a complete network."""
        dtypes = [f"{name} ({count} tensors)" for name, count in self.dtypes.items()]
        return [
            ("file", f"{self.path} ({self.form}, {self.path.stat().st_size:,} bytes)"),
            ("family", " or ".join(self.families)),
            ("preset", " or ".join(self.presets) or "none"),
            ("wrapper", self.wrapper or "none"),
            *([("weights", self.choice)] if self.choice else []),
            ("prefix", self.prefix or "none"),
            ("dtype", ", ".join(dtypes)),
            ("parameters", f"{self.parameters:,}"),
            *self.facts.items(),
        ]

    def verdict(self) -> str:
        """One line that says why the file is no complete network."""
        groups = []
        for name, entries in self.differences.groups():
            more = f" and {len(entries) - SHOWN} more" if len(entries) > SHOWN else ""
            groups.append(f"{len(entries)} {name}: {', '.join(entries[:SHOWN])}{more}")
        taken = f"; weights: {self.choice}" if self.choice else ""
        return f"{self.path}: {' or '.join(self.families)}, but not complete: {'; '.join(groups)}{taken}"


def inspect_file(path: Path, weights: str | None = None) -> Inspection:
    """What the file is; values are not read, but to tell several states apart, and no code from it runs.

    weights: which of several state dicts. Raises CheckpointError for a file that can't be read, and for one
    of no known family.
    """
    return identify(read_checkpoint(path, with_values=False, weights=weights), Path(path))


def identify(checkpoint: Checkpoint, path: Path) -> Inspection:
    """What the checkpoint of a file is; CheckpointError where no family is like it."""
    shapes = Shapes({key: tuple(tensor.shape) for key, tensor in checkpoint.tensors.items()})
    found = _candidates(path, shapes, checkpoint.tensors)
    fewest = min(len(differences) for _, _, differences in found)
    best = [one for one in found if len(one[2]) == fewest]
    _, candidate, differences = best[0]
    return Inspection(
        path,
        checkpoint.form,
        ".".join(checkpoint.wrapper) or None,
        checkpoint.prefix or None,
        _dtypes(checkpoint),
        tuple(kind.family for kind, _, _ in best),
        tuple(name for _, one, _ in best for name in one.presets),
        parameter_count(candidate.network),
        candidate.facts,
        differences,
        checkpoint.choice,
    )


def _dtypes(checkpoint: Checkpoint) -> dict[str, int]:
    counts = Counter(type_name(tensor.dtype) for tensor in checkpoint.tensors.values())
    return dict(counts.most_common())


def _candidates(
    path: Path, shapes: Shapes, state: Mapping[str, Tensor]
) -> list[tuple[Kind, Candidate, Differences]]:
    """Every family that the file might belong to, compared with it."""
    found, reasons = [], []
    known = kinds()
    for kind in known:
        if likeness(shapes, kind.keys) < SIMILAR:
            continue
        try:
            candidate = kind.describe(shapes)
        except (CheckpointError, ValueError, ArithmeticError) as error:
            reasons.append(f"as {kind.family}: {error}")
            continue
        found.append((kind, candidate, compare(candidate.network, state, kind.keys)))
    if found:
        return found
    if reasons:
        raise CheckpointError(f"{path}: no network has these shapes; {'; '.join(reasons)}")
    families = ", ".join(kind.family for kind in known)
    raise CheckpointError(
        f"{path}: of no known family: {len(state)} tensors, the first is '{next(iter(state))}'"
        f"{_under_prefix(shapes, known)}; known: {families}"
    )


def _under_prefix(shapes: Shapes, known: Sequence[Kind]) -> str:
    """The hint that all keys stand under a prefix, without which the file would be of a family."""
    prefix = next(iter(shapes.of)).partition(".")[0] + "."
    if not all(key.startswith(prefix) for key in shapes.of):
        return ""
    bare = Shapes({key.removeprefix(prefix): shape for key, shape in shapes.of.items()})
    family, score = max(((kind.family, likeness(bare, kind.keys)) for kind in known), key=lambda one: one[1])
    return f"; without '{prefix}' before every key it would be {family}" if score >= SIMILAR else ""


def compare(network: nn.Module, state: Mapping[str, Tensor], keys: KeyMap) -> Differences:
    """A file's tensors against those that a network needs, by published key."""
    missing, reshaped, mistyped = [], [], []
    used: set[str] = set()
    for _, part in needed(network, keys):
        used.add(part.key)
        tensor = state.get(part.key)
        if tensor is None:
            missing.append(f"'{part.key}' {list(part.shape)}")
        elif tuple(tensor.shape) != part.shape:
            turned = " (transposed)" if tuple(tensor.shape) == part.shape[::-1] else ""
            reshaped.append(f"'{part.key}' {list(tensor.shape)}{turned} instead of {list(part.shape)}")
        elif not tensor.is_floating_point():
            mistyped.append(f"'{part.key}' {type_name(tensor.dtype)} instead of a float")
    extra = [f"'{key}'" for key in state if key not in used and not ignored(key, keys)]
    return Differences(tuple(missing), tuple(reshaped), tuple(mistyped), tuple(extra))
