"""Flags that several commands share, and the settings of a cell that they ask for."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cell.cell import DOWNLOAD, RANDOM, SCORING, checked
from harness.images.names import CLASSES
from harness.machine.distributed import launch
from pardec.errors import UserError
from pardec.files import path_of
from reports import class_names, style
from results.settings import DTYPES
from strategies.decoding import registry

if TYPE_CHECKING:
    from harness.images.shards import Share


def add_machine_flags(command: argparse.ArgumentParser) -> None:
    """--device, --dtype, --batch, --threads, --zoo, --plugin."""
    command.add_argument("--device", help="cpu, cuda or cuda:N")
    command.add_argument("--dtype", help=" or ".join(DTYPES))
    command.add_argument("--batch", type=int, help="images per batch")
    command.add_argument("--threads", type=int, help="CPU threads (0: every core)")
    command.add_argument(
        "--compile",
        action="store_true",
        default=None,
        help="compile the trunks; its time is kept apart",
    )
    command.add_argument(
        "--cuda-graphs",
        action="store_true",
        default=None,
        help="record the trunk's passes on a CUDA device once, and replay them",
    )
    command.add_argument(
        "--one-graph",
        action="store_true",
        default=None,
        help="with --cuda-graphs: record a decode whose plan is known beforehand as one",
    )
    command.add_argument(
        "--random-weights",
        action="store_const",
        const=RANDOM,
        dest="checkpoint",
        help="keep initial weights of network and published tokenizer: speed, memory and steps without files",
    )
    add_weights_flags(command)
    add_checkpoints_flag(command)
    add_zoo_flag(command)
    add_plugin_flag(command)


def add_weights_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--weights", metavar="NAME", help="of several in the network's file: model, ema, ... (see inspect)"
    )
    command.add_argument("--tokenizer-weights", metavar="NAME", help="the same in the tokenizer's file")


def add_scoring_flags(command: argparse.ArgumentParser) -> None:
    """--reference, --inception, --clean-reference, --clean-inception."""
    command.add_argument(
        "--reference",
        metavar="FILE",
        help="judge published networks' images against this ADM npz, e.g. VIRTUAL_imagenet256_labeled.npz",
    )
    command.add_argument(
        "--inception",
        metavar="FILE|download",
        help="Inception weights for it (default: torch-fidelity's file, where it is on disk)",
    )
    command.add_argument(
        "--clean-reference",
        metavar="PATH",
        help="judge them by clean-fid's own protocol too: a folder of images, or an npz of its mu and sigma",
    )
    command.add_argument(
        "--clean-inception",
        metavar="FILE|download",
        help="clean-fid's TorchScript file for it (default: inception-2015-12-05.pt, where it is on disk)",
    )


def add_checkpoints_flag(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--checkpoints",
        type=Path,
        metavar="DIR",
        help="folder of published files, searched before the one into which fetch downloads",
    )


def add_zoo_flag(command: argparse.ArgumentParser) -> None:
    command.add_argument("--zoo", type=Path, metavar="DIR", help="folder of trained weights (default: ours)")


def add_plugin_flag(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--plugin",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="Python file with one more strategy; may be repeated",
    )


def introduce_strategies() -> None:
    """Give reports the titles of all strategies, in the order of their colours, and the names of classes."""
    style.introduce(registry.titles())
    class_names.introduce(CLASSES)


def existing_folder(path: Path, flag: str) -> Path:
    """The absolute path of a flag's folder; UserError where there is none."""
    if not path.is_dir():
        raise UserError(f"{flag} '{path}': no such folder")
    return path.absolute()


def overrides(options: argparse.Namespace) -> dict[str, Any]:
    """The cell settings that flags ask for; loads the plug-ins, so that their names are known."""
    found: dict[str, Any] = {}
    for key in (
        "device",
        "dtype",
        "batch",
        "threads",
        "images",
        "seed",
        "checkpoint",
        "weights",
        "tokenizer_weights",
        "compile",
        "cuda_graphs",
        "one_graph",
    ):
        value = getattr(options, key, None)
        if value is not None:
            found[key] = checked(key, value, f"--{key.replace('_', '-')}")
    if found.get("checkpoint") == RANDOM:
        found["tokenizer_checkpoint"] = RANDOM
    for key in SCORING:
        value = getattr(options, key, None)
        if value is not None:
            fetched = key.endswith("inception") and value == DOWNLOAD
            found[key] = value if fetched else str(path_of(value).absolute())
    if options.checkpoints is not None:
        found["checkpoints"] = str(existing_folder(options.checkpoints, "--checkpoints"))
    if options.zoo is not None:
        found["zoo"] = str(options.zoo.absolute())
    if options.plugin:
        from harness.subject.prepare import load_plugins

        found["plugin"] = tuple(str(path.absolute()) for path in options.plugin)
        load_plugins(found["plugin"])
    return found


def share_of(text: str | None) -> "Share":
    """The part of the flag --shard, or that of this process under torchrun."""
    from harness.images.shards import Share

    found = launch()
    if text is None:
        return Share(found.rank, found.size)
    if found.size > 1:
        raise UserError("--shard: torchrun deals the shards already; use one or the other")
    return Share.parse(text)


def add_gate_flags(command: argparse.ArgumentParser, file_flag: str, file_help: str) -> None:
    """What recording and comparing have in common."""
    command.add_argument(
        "sweep", nargs="?", default="gate", metavar="FILE|NAME", help="sweep to measure (default: gate)"
    )
    command.add_argument(file_flag, dest="baseline", type=Path, metavar="FILE", help=file_help)
    command.add_argument(
        "--results", type=Path, metavar="DIR", help="new folder that keeps the rows (default: none does)"
    )
    command.add_argument(
        "--benchmark-json", type=Path, metavar="FILE", help="results of pytest-benchmark that join"
    )
    add_machine_flags(command)
