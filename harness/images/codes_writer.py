"""Codes of an image folder in the making: what is on disk is held against the pictures before it counts."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.images.code_shards import MANIFEST, RUN, CodesInfo, Skipped, mapped, shard_name
from harness.images.folders import listing_hash
from harness.images.pictures import BrokenPicture
from harness.images.shards import Share
from pardec.errors import UserError
from pardec.files import read_text, write_whole
from pardec.hashing import file_sha256

_LISTINGS = "listings"
"""Key of the hashes of each chunk's names and sizes in the account of a run."""
_OF_PICTURES = {"classes", "listing_sha256"}


@dataclass(frozen=True)
class CodesWriter:
    """A folder of shards in the making."""

    folder: Path
    info: CodesInfo
    root: Path = Path()
    files: Sequence[Path] = ()
    """The listed pictures, below ``root``."""
    skip_broken: bool = False
    """Whether a shard may lack pictures that can't be read."""

    @classmethod
    def open(
        cls,
        folder: Path,
        info: CodesInfo,
        root: Path = Path(),
        files: Sequence[Path] = (),
        skip_broken: bool = False,
    ) -> "CodesWriter":
        """The folder, made if missing; UserError where it holds other codes or can't be written.

        Pictures may change between two runs, as long as no finished shard is of what they were.
        """
        writer = cls(folder, info, root, files, skip_broken)
        path = folder / RUN
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stored = _stored_run(path) if path.is_file() else None
            for name in [] if stored is None else writer._stale(stored):
                (folder / name).unlink(missing_ok=True)
                _record_of(folder / name).unlink(missing_ok=True)
            if stored is None or stored.get("listing_sha256") != info.listing_sha256:
                (folder / MANIFEST).unlink(missing_ok=True)
                content = info.content() | {_LISTINGS: writer._listings()}
                write_whole(path, lambda file: file.write(_json(content)))
        except OSError as error:
            raise UserError(f"'{folder}' can't be written: {error.strerror or error}") from None
        return writer

    def _listings(self) -> dict[str, str]:
        """By shard, the hash of names and sizes of its pictures."""
        return {
            shard_name(images): listing_hash(self.root, self.files[images.start : images.stop])
            for images in self.info.chunks()
        }

    def _stale(self, stored: dict[str, Any]) -> list[str]:
        """Shards to make again, of pictures that changed since; UserError for another run's folder.

        A shard that lacks pictures is stale once they are repaired. One that lacks none isn't given up.
        """
        differing = [key for key, value in self.info.content().items() if stored.get(key) != value]
        before = stored.get(_LISTINGS)
        if not set(differing) <= _OF_PICTURES or (differing and not isinstance(before, dict)):
            raise UserError(f"'{self.folder}' holds codes of another run: {', '.join(differing)} differ")
        if not differing:
            return []
        now = self._listings()
        changed = [name for name, listing in (before or {}).items() if now.get(name) != listing]
        lost = [
            n for n in changed if (self.folder / n).is_file() and not _record_of(self.folder / n).is_file()
        ]
        if lost:
            raise UserError(
                f"'{self.folder}' holds codes of pictures that changed since: delete {lost[0]}"
                f"{f' and {len(lost) - 1} more' if len(lost) > 1 else ''} to encode them again, or name "
                "another folder"
            )
        return changed

    def missing(self, share: Share | None = None) -> list[range]:
        """Chunks, of those that fall to ``share`` (None: of all), which are not on disk as they should be."""
        chunks = self.info.chunks()
        if share is not None:
            chunks = chunks[share.index :: share.count]
        vouched = self._vouched()
        return [images for images in chunks if not self._is_there(images, vouched)]

    def _vouched(self) -> dict[str, str]:
        """By shard, the hash that a manifest gives."""
        try:
            shards = json.loads(read_text(self.folder / MANIFEST))["shards"]
            return {shard["file"]: shard["sha256"] for shard in shards}
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return {}  # without one, or with a broken one, that is written anew

    def _is_there(self, images: range, vouched: dict[str, str]) -> bool:
        path = self.folder / shard_name(images)
        if not path.is_file():
            return False
        skipped = self._skipped(images)
        if skipped and not (self.skip_broken and all(map(self._is_still_broken, skipped))):
            return False
        shape = (len(images) - len(skipped), self.info.variants, self.info.places)
        try:
            mapped(path, shape, self.info.dtype)
        except UserError:
            return False
        return path.name not in vouched or vouched[path.name] == file_sha256(path)

    def _is_still_broken(self, skipped: Skipped) -> bool:
        file = self.files[skipped.image] if skipped.image < len(self.files) else None
        return file is not None and self._name(file) == skipped.file and _sha256(file) == skipped.sha256

    def _name(self, file: Path) -> str:
        return str(file.relative_to(self.root))

    def _skipped(self, images: range) -> list[Skipped]:
        path = _record_of(self.folder / shard_name(images))
        try:
            return [Skipped.of(one) for one in json.loads(read_text(path))]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise UserError(f"'{path}' can't be read: {error}") from None

    def write(
        self, images: range, codes: NDArray[np.int64], broken: Sequence[tuple[int, BrokenPicture]] = ()
    ) -> None:
        """Store a chunk's codes [n, V, N], whole or not at all, and which listed pictures they lack."""
        path = self.folder / shard_name(images)
        record = _record_of(path)
        if broken:
            skipped = [
                Skipped(image, self._name(one.file), _sha256(one.file), one.reason) for image, one in broken
            ]
            content = [dataclasses.asdict(one) for one in skipped]
            write_whole(record, lambda file: file.write(_json(content)))
        array = np.ascontiguousarray(codes.astype(self.info.dtype))
        write_whole(path, lambda file: np.save(file, array, allow_pickle=False))
        if not broken:
            record.unlink(missing_ok=True)

    def left_out(self) -> list[Skipped]:
        """The pictures that the shards on disk lack."""
        there = (images for images in self.info.chunks() if (self.folder / shard_name(images)).is_file())
        return [one for images in there for one in self._skipped(images)]

    def finish(self) -> bool:
        """Write the manifest if no chunk is missing; any process may, for all write the same."""
        if self.missing():
            return False
        skipped = self.left_out()
        if len(skipped) == self.info.images:
            raise UserError(
                f"'{self.folder}': no picture could be read, the first because {skipped[0].reason}"
            )
        shards = [
            {
                "file": shard_name(images),
                "images": len(images) - len(self._skipped(images)),
                "sha256": file_sha256(self.folder / shard_name(images)),
            }
            for images in self.info.chunks()
        ]
        content = {**self.info.content(), "shards": shards}
        if skipped:
            content["skipped"] = [dataclasses.asdict(one) for one in skipped]
        write_whole(self.folder / MANIFEST, lambda file: file.write(_json(content)))
        return True


def _sha256(picture: Path) -> str:
    """Of a file that may be unreadable, which then has none."""
    try:
        return file_sha256(picture)
    except OSError:
        return ""


def _record_of(shard: Path) -> Path:
    """Which listed pictures a shard lacks."""
    return shard.with_suffix(".skipped.json")


def _stored_run(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"'{path}' can't be read: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"'{path}' can't be read: expected an object")
    return content


def _json(content: Any) -> bytes:
    return json.dumps(content, indent=1).encode() + b"\n"
