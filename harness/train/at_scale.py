"""Training at scale: any strategy on any published trunk, from codes on disk, in one process or many.

Run on CPUs, with one and two gloo processes. Not run: CUDA, and with it NCCL, its bfloat16 kernels and what
the compiler makes of them.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from backbones.checkpoints import load_published, read_checkpoint, tell_choice
from backbones.config import Dropout, NetworkConfig, TrunkConfig
from backbones.controlled import CONTROLLED_TRUNK
from backbones.published_tokenizers import tokenizer_names
from backbones.transformer import Network
from harness.images.code_shards import CodeShards, CodesInfo
from harness.machine.distributed import Group
from harness.machine.environment import command, environment
from harness.train import recipes
from harness.train.recipes import RecipePreset
from harness.train.store_zoo import store_zoo
from harness.train.trainer import Trainer
from harness.weights.empty import on_meta
from pardec.errors import UserError, unknown
from pardec.hashing import file_sha256
from strategies.decoding import registry
from strategies.decoding.base import Strategy
from strategies.decoding.presets import preset, trunk_presets

CONTROLLED = "controlled"
LOG_EVERY = 100


@dataclass(frozen=True)
class Job:
    """What the command line asks for; None where the recipe or the trunk decides."""

    strategy: str
    trunk: str
    """``controlled``, a published network, or one without its image size (``llamagen-b``)."""
    codes: Path
    validation: Path | None
    folder: Path
    """Where the state is saved and resumed from."""
    start: Path | None = None
    """A published file of the strategy, LPD's also of another grid, with whose weights the run begins."""
    recipe: str = recipes.COMMON
    """``common``, ``paper`` for that of the strategy, or a recipe's name."""
    steps: int | None = None
    batch: int | None = None
    rate: float | None = None
    seed: int = 0
    averaging: float | None = None
    precision: str = "bfloat16"
    dropout: bool = True
    """False trains without any dropout."""
    validate_every: int | None = None
    """Steps; None for once an epoch."""
    log_every: int = LOG_EVERY
    save_every_s: float = 600.0
    accumulation: int = 1
    compiled: bool = False
    peak_tflops: float | None = None
    """Of one process's device at the training precision, for MFU."""
    device: str = "cpu"


def train_at_scale(job: Job, out: Path, group: Group, quiet: bool = False) -> Path | None:
    """Train or go on; returns the stored weights, in the first process only.

    UserError for a job that can't be: unknown names, codes that don't fit the trunk or each other, a batch
    that can't be dealt, a state of another run, processes that found different states; CheckpointError for a
    file to start from that isn't the strategy's.
    """
    if job.start is not None and not job.start.is_file():
        raise UserError(f"--start-from '{job.start}': no such file")
    base = recipe_of(job)
    codes = CodeShards.open(job.codes, job.seed, verify=group.is_first)
    validation = None
    if job.validation is not None:
        validation = CodeShards.open(job.validation, verify=group.is_first)
        check_same_codes(codes, validation)
    strategy, config = network_of(job, codes.info, base)
    recipe = base.recipe(codes.images, job.batch, job.steps, **_changes(job, base, codes))
    trainer = Trainer(
        strategy,
        config,
        recipe,
        job.folder,
        job.device,
        group,
        job.accumulation,
        job.compiled,
        made_of={
            "tokenizer_sha256": codes.info.tokenizer_sha256,
            "codes_sha256": codes.manifest_sha256,
            "start_sha256": None if job.start is None else file_sha256(job.start),
        },
    )
    if not _resume(trainer, group) and job.start is not None:
        begin_with(trainer, job.start)
        share_weights(trainer, group)
    peak = None if job.peak_tflops is None else job.peak_tflops * 1e12
    trainer.run(codes, validation, quiet=quiet, peak_flops_per_s=peak)
    if not group.is_first:
        return None
    return store_zoo(trainer, out, _card(job, base, codes, validation, group))


def recipe_of(job: Job) -> RecipePreset:
    if job.recipe != "paper":
        return recipes.preset(job.recipe)
    if job.strategy not in recipes.presets():
        raise unknown("recipe of strategy", job.strategy, recipes.presets())
    return recipes.preset(job.strategy)


def network_of(job: Job, codes: CodesInfo, recipe: RecipePreset) -> tuple[Strategy, NetworkConfig]:
    """The strategy's network on the asked trunk, for the codes' vocabulary, classes and grid."""
    strategy = registry.get(job.strategy)
    if strategy.base is not None:
        raise UserError(f"strategy '{job.strategy}' trains no network; train its base '{strategy.base}'")
    if job.trunk == CONTROLLED:
        trunk, registers = CONTROLLED_TRUNK, 0
    else:
        strategy, trunk, registers = _published_trunk(job, codes, strategy)
    if strategy.tokenizer != Strategy.tokenizer:
        places = codes.grid[0] * codes.grid[1]
        raise UserError(
            f"strategy '{job.strategy}' learns on the maps of its own tokenizer, not on --codes of {places} "
            "places: train it on the controlled tier"
        )
    dropout = recipe.dropout_of(trunk.dropout) if job.dropout else Dropout()
    trunk = trunk.with_dropout(dropout)
    config = NetworkConfig(trunk, codes.codes, len(codes.classes), codes.grid, registers=registers)
    try:
        on_meta(strategy, config)
        strategy.check_steps(config.grid, None)
        strategy.lesson(1, config.grid, torch.Generator().manual_seed(0), 0.0)
    except ValueError as error:
        raise UserError(f"strategy '{job.strategy}' on trunk '{job.trunk}': {error}") from None
    return strategy, config


def _published_trunk(job: Job, codes: CodesInfo, strategy: Strategy) -> tuple[Strategy, TrunkConfig, int]:
    """The trunk, and the strategy with the options and registers of the published network if it is that
    method's own."""
    infos = trunk_presets(job.trunk)
    found = [preset(info.name) for info in infos]
    published, config, info = found[0]
    if config.codes != codes.codes:
        raise UserError(
            f"--codes '{job.codes}': {codes.codes} codes of tokenizer '{codes.tokenizer}', but trunk "
            f"'{job.trunk}' has the vocabulary of '{info.tokenizer}', {config.codes}"
        )
    if codes.grid not in [config.grid for _, config, _ in found]:
        grids = " or ".join(f"{rows}x{columns}" for rows, columns in (config.grid for _, config, _ in found))
        raise UserError(
            f"--codes '{job.codes}': a grid of {codes.grid[0]}x{codes.grid[1]}, but trunk '{job.trunk}' is "
            f"for {grids}"
        )
    if published.name == strategy.name:
        return published, config.trunk, config.registers
    return strategy, config.trunk, 0


def check_same_codes(train: CodeShards, validation: CodeShards) -> None:
    """UserError unless both were made by one tokenizer for the same classes."""
    a, b = train.info, validation.info
    for key in ("tokenizer", "tokenizer_sha256", "codes", "grid"):
        if getattr(a, key) != getattr(b, key):
            raise UserError(
                f"--validation '{validation.folder}': {key} differs from that of '{train.folder}'"
            )
    names = [name for name, _ in a.classes]
    if names != [name for name, _ in b.classes]:
        raise UserError(f"--validation '{validation.folder}': other classes than '{train.folder}'")


def _changes(job: Job, base: RecipePreset, codes: CodeShards) -> dict[str, Any]:
    batch = job.batch or base.batch
    changes: dict[str, Any] = {
        "seed": job.seed,
        "precision": job.precision,
        "log_every": job.log_every,
        "save_every_s": job.save_every_s,
        "validate_every": job.validate_every or max(1, codes.images // batch),
    }
    if job.rate is not None:
        changes["rate"] = job.rate
    if job.averaging is not None:
        changes["averaging"] = job.averaging
    return changes


def begin_with(trainer: Trainer, path: Path) -> None:
    """Give the network of a run that hasn't begun a published file's weights, LPD's also of another grid.

    UserError where no such files are the strategy's, CheckpointError for a file that doesn't fit.
    """
    published, network = registry.published_by(trainer.strategy.name), trainer.network
    if published is None or not isinstance(network, Network):
        raise UserError(f"--start-from '{path}': strategy '{trainer.strategy.name}' has no published files")
    found = read_checkpoint(path)
    tell_choice(found, path)
    state: Mapping[str, Tensor] = found.tensors
    if published.regridded is not None:
        state = published.regridded(state, trainer.config.grid)
    try:
        load_published(network, state, published.keys, str(path))
    except KeyError:
        raise UserError(
            f"--start-from '{path}': on this trunk the network is none of those that its files hold; "
            f"take a trunk of '{trainer.strategy.name}'"
        ) from None


def share_weights(trainer: Trainer, group: Group) -> None:
    """Give every process the first one's weights, whatever file has the name on its machine."""
    if group.size > 1:
        for parameter in trainer.network.parameters():
            torch.distributed.broadcast(parameter.data, 0)


def _resume(trainer: Trainer, group: Group) -> bool:
    """Whether a saved state was taken up; every process takes up the same, or none does."""
    resumed = trainer.resume()
    if group.size == 1:
        return resumed
    steps = [torch.zeros(1, dtype=torch.long, device=trainer.device) for _ in range(group.size)]
    torch.distributed.all_gather(steps, torch.full_like(steps[0], trainer.step))
    found = sorted({int(step) for step in steps})
    if len(found) > 1:
        raise UserError(
            f"--runs '{trainer.folder}': processes found states of steps {found}; share the folder"
        )
    return resumed


def _card(
    job: Job, base: RecipePreset, codes: CodeShards, validation: CodeShards | None, group: Group
) -> dict[str, Any]:
    info = dataclasses.asdict(codes.info)
    del info["classes"]
    return {
        "trunk": job.trunk,
        "recipe_name": base.name,
        "recipe_source": base.source,
        "recipe_departure": base.departure,
        "start_sha256": None if job.start is None else file_sha256(job.start),
        "trained_on": info | {"images": codes.images, "manifest_sha256": codes.manifest_sha256},
        "validated_on": None if validation is None else validation.manifest_sha256,
        "tokenizer_sha256": codes.info.tokenizer_sha256,
        **({"tokenizer": codes.info.tokenizer} if codes.info.tokenizer in tokenizer_names() else {}),
        "processes": group.size,
        "accumulation": job.accumulation,
        "compiled": job.compiled,
        "device": job.device.partition(":")[0],
        "environment": environment(job.device),
        "date": datetime.now(UTC).date().isoformat(),
        "command": command(),
    }
