"""Published files come here, and are checked: whole, and exactly the network or tokenizer of their name."""

import logging
import re
import shutil
from pathlib import Path
from typing import Any

from backbones.checkpoints import CheckpointError
from harness.weights.fetch import PublishedFile, cache_folder, locate, published_file
from harness.weights.inspection import inspect_file
from pardec.errors import UserError
from pardec.hashing import file_sha256


def fetch(name: str, first: Path | None = None) -> Path:
    """The checked file of a network or tokenizer, downloaded where it is nowhere yet.

    first: folder that is searched first and downloaded into; by default the cache. A download that was cut
    goes on where it stopped, and has the file's name once it is verified. Raises UserError where it can't be
    had or is not what it should be.
    """
    wanted = published_file(name)
    path = locate(wanted.file, first)
    if path is None:
        path = _download(wanted, first or cache_folder())
    check(path, wanted)
    return path


def check(path: Path, wanted: PublishedFile) -> None:
    """UserError unless the file holds exactly the network or tokenizer of that name."""
    try:
        found = inspect_file(path)
    except CheckpointError as error:
        raise UserError(f"{wanted.name}: {error}; remove it and fetch again") from None
    if not found.complete:
        raise UserError(f"{wanted.name}: {found.verdict()}")
    if (wanted.shapes_of or wanted.name) not in found.presets:
        is_one = " or ".join(found.presets) or f"{' or '.join(found.families)} of no published size"
        raise UserError(f"{wanted.name}: '{path}' is {is_one}")


def _download(wanted: PublishedFile, folder: Path) -> Path:
    by_hand = f"download {wanted.url} and put it at {folder / wanted.file}"
    try:
        import huggingface_hub as hub
    except ImportError:
        raise UserError(
            f"{wanted.name}: downloads need huggingface_hub (pip install 'pardec[fetch]'); or {by_hand}"
        ) from None
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries are told line by line
    path, coming = folder / wanted.file, folder / f".{wanted.name}.part"
    try:
        told = hub.get_hf_file_metadata(hub.hf_hub_url(wanted.repository, wanted.file))
        coming.mkdir(parents=True, exist_ok=True)
        come = Path(hub.hf_hub_download(wanted.repository, wanted.file, local_dir=coming))
    # The bases of the hub's error name the error of its transport, which differs from version to version.
    except (OSError, ValueError, *hub.errors.HfHubHTTPError.__bases__) as error:
        reason = " ".join(str(error).split()).partition(". ")[0][:160] or type(error).__name__
        raise UserError(f"{wanted.name}: can't be downloaded ({reason}); {by_hand}") from None
    _verify(come, told, wanted)
    come.replace(path)
    shutil.rmtree(coming, ignore_errors=True)
    return path


def _verify(path: Path, told: Any, wanted: PublishedFile) -> None:
    """Size and, where the hub keeps it, SHA-256; a file that differs is removed."""
    size = path.stat().st_size
    fault = f"{size:,} bytes, expected {told.size:,}" if told.size not in (None, size) else None
    etag = str(told.etag or "")
    if fault is None and re.fullmatch(r"[0-9a-f]{64}", etag):
        found = file_sha256(path)
        fault = f"sha256 {found[:16]}, expected {etag[:16]}" if found != etag else None
    if fault:
        path.unlink()
        raise UserError(
            f"{wanted.name}: download of {wanted.file} is damaged ({fault}), removed; fetch again"
        )
