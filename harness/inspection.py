"""What a published file is, from its keys and shapes alone: family, preset, wrapper, and what doesn't fit.

Every family that declares how its shapes are measured takes part (``Published.measure``). The network that
the shapes describe is built without memory and compared with the file tensor by tensor.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from backbones.checkpoints import Checkpoint, CheckpointError, KeyMap, ignored, parts_of, read_checkpoint
from backbones.config import NetworkConfig
from backbones.shapes import Measured, Shapes, likeness
from harness.prepare import on_meta
from strategies.decoding import presets, registry
from strategies.decoding.base import Strategy
from strategies.decoding.errors import UserError
from strategies.decoding.published import Published

SIMILAR = 0.25
"""Likeness from which a file is compared with a family at all."""
SHOWN = 3
"""Differences that one line names; the others are counted."""


@dataclass(frozen=True)
class Candidate:
    """The network of one family that a file's shapes describe, without memory.

    presets: published networks of exactly these shapes. facts: what else is known, for readers.
    """

    network: nn.Module
    presets: tuple[str, ...]
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Kind:
    """A family of published files: its keys, and how its shapes become a network."""

    family: str
    keys: KeyMap
    describe: Callable[[Shapes], Candidate]


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
        return f"{self.path}: {' or '.join(self.families)}, but not complete: {'; '.join(groups)}"


def inspect_file(path: Path) -> Inspection:
    """What the file is; values are not read, and no code from it runs.

    Raises CheckpointError for a file that can't be read, and for one of no known family.
    """
    checkpoint = read_checkpoint(path, with_values=False)
    shapes = Shapes({key: tuple(tensor.shape) for key, tensor in checkpoint.tensors.items()})
    found = _candidates(path, shapes, checkpoint.tensors)
    fewest = min(len(differences) for _, _, differences in found)
    best = [one for one in found if len(one[2]) == fewest]
    _, candidate, differences = best[0]
    return Inspection(
        Path(path),
        checkpoint.form,
        ".".join(checkpoint.wrapper) or None,
        checkpoint.prefix or None,
        _dtypes(checkpoint),
        tuple(kind.family for kind, _, _ in best),
        tuple(name for _, one, _ in best for name in one.presets),
        sum(parameter.numel() for parameter in candidate.network.parameters()),
        candidate.facts,
        differences,
    )


def _dtypes(checkpoint: Checkpoint) -> dict[str, int]:
    counts = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in checkpoint.tensors.values())
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
    for name, parameter in network.state_dict().items():
        for part in parts_of(name, parameter.shape, keys):
            used.add(part.key)
            tensor = state.get(part.key)
            if tensor is None:
                missing.append(f"'{part.key}' {list(part.shape)}")
            elif tuple(tensor.shape) != part.shape:
                turned = " (transposed)" if tuple(tensor.shape) == part.shape[::-1] else ""
                reshaped.append(f"'{part.key}' {list(tensor.shape)}{turned} instead of {list(part.shape)}")
            elif not tensor.is_floating_point():
                mistyped.append(f"'{part.key}' {str(tensor.dtype).removeprefix('torch.')} instead of a float")
    extra = [f"'{key}'" for key in state if key not in used and not ignored(key, keys)]
    return Differences(tuple(missing), tuple(reshaped), tuple(mistyped), tuple(extra))


# Families --------------------------------------------------------------------------------------------------


def kinds() -> list[Kind]:
    """Every family whose files can be told by their shapes."""
    return [
        Kind(one.family, one.keys, partial(_network_of, one))
        for one in registry.families().values()
        if one.measure is not None
    ]


def _network_of(published: Published, shapes: Shapes) -> Candidate:
    assert published.measure is not None  # by kinds()
    measured = published.measure(shapes)
    try:
        strategy, config = published.configure({**published.defaults, **measured.names})
    except UserError as error:
        raise CheckpointError(str(error)) from error
    config = replace(config, trunk=replace(config.trunk, mlp_width=_mlp_width(published.keys, shapes)))
    network = on_meta(strategy, config)
    twins = _twins(published.family, network)
    return Candidate(network, tuple(twins), _facts(strategy, config, measured, twins))


def _mlp_width(keys: KeyMap, shapes: Shapes) -> int:
    """The hidden size, which the authors' hyper-parameters give only through a rounding rule."""
    entries = [theirs for ours, theirs in keys.names.items() if ours.endswith("mlp.down.weight")]
    return shapes.size(*((key, 1) for key in entries if isinstance(key, str)))


def _twins(family: str, network: nn.Module) -> dict[str, NetworkConfig]:
    """The family's presets of exactly the network's shapes, with their configurations."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    found = {}
    for name in presets.preset_names():
        info = presets.preset_info(name)
        if (info.family, info.parameters) != (family, parameters):
            continue
        theirs, config, _ = presets.preset(name)
        built = on_meta(theirs, config).state_dict()
        if shapes == {key: tensor.shape for key, tensor in built.items()}:
            found[name] = config
    return found


def _facts(
    strategy: Strategy,
    config: NetworkConfig,
    measured: Measured,
    twins: Mapping[str, NetworkConfig],
) -> dict[str, str]:
    trunk = config.trunk
    heads = _seen(str(trunk.heads), "heads", measured, [str(one.trunk.heads) for one in twins.values()])
    if trunk.kv_heads is not None:
        shared = trunk.kv_heads * trunk.head_width
        heads += f", keys of fewer heads ({shared} wide together)"
    grid = "{0}x{1}".format(*config.grid)
    grids = ["{0}x{1}".format(*one.grid) for one in twins.values()]
    facts = {
        "strategy": f"{strategy.name}, arXiv {strategy.paper}",
        "network": f"depth {trunk.depth}, width {trunk.width}, MLP width {trunk.mlp_width}, heads {heads}",
        "codes": f"{config.codes:,}",
        "classes": f"{config.classes:,}",
        "grid": _seen(grid, "grid", measured, grids),
    }
    return facts | dict(measured.facts)


def _seen(value: str, setting: str, measured: Measured, of_presets: Sequence[str]) -> str:
    """A setting that shapes may not show, and then the presets may."""
    if setting not in measured.unseen:
        return value
    known = " or ".join(dict.fromkeys(of_presets))
    return f"{known} (by preset; shapes don't show it)" if known else "not shown by shapes"
