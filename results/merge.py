"""Rows of several machines in one folder, with the files that they name.

Files are copied, read back and renamed into place before the rows that name them are written, and those are
written at once: a merge that is killed leaves the folder as it was, but for files that no row names, and the
next one finds them there. Of files that differ under one name, as of one cell on two machines, the later one
gets the start of its hash into its name.
"""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pardec.errors import UserError
from pardec.hashing import file_sha256
from results.environments import environment_keys, latest, one_each, result_key
from results.schema import Row
from results.store import ARTIFACTS, ROWS, ResultStore, recorded_rows, results_folder

_TEMPORARY = ".merge-"
_HASH = 8
"""Hexadecimal digits that a file's name gets where its own is taken."""


@dataclass(frozen=True)
class Merged:
    """What a merge did."""

    rows: tuple[Row, ...]
    """Every row now in the folder."""
    added: int
    """Rows of cells, or of environments of cells, that the folder didn't hold."""
    changed: int
    """Rows that it held and that are another now, or have another attempt."""
    copied: int
    """Files copied."""
    missing: tuple[str, ...]
    """Files that rows name and that were not there."""

    def __str__(self) -> str:
        cells = len({row.cell for row in self.rows})
        environments = len({tuple(environment_keys(row).values()) for row in self.rows})
        text = (
            f"{_counted(len(self.rows), 'row')} of {_counted(cells, 'cell')} "
            f"in {_counted(environments, 'environment')}: {self.added} added, {self.changed} joined, "
            f"{_counted(self.copied, 'file')} copied"
        )
        return text + (f", {_counted(len(self.missing), 'file')} missing" if self.missing else "")


def merge(sources: Sequence[Path], into: Path) -> Merged:
    """Brings the rows of folders and files, and the files they name, into the folder ``into``.

    Merging again changes nothing. Raises UserError where a source holds no rows, where a row names a file
    outside its folder, or where ``into`` can't be written.
    """
    found = [(results_folder(source), recorded_rows(source)) for source in sources]
    store = ResultStore(into)
    before = store.rows()
    try:
        remove_left_overs(store.artifacts)
        files = _Files(store.folder)
        coming = [
            files.renamed(row, folder)
            for folder, rows in found
            if not _is_same(folder, store.folder)
            for row in rows
        ]
        files.copy(one_each([*before, *coming], latest))
        rows = store.merge(coming)
    except OSError as error:
        raise UserError(f"results folder '{into}' can't be written: {error.strerror or error}") from None
    known = {result_key(row): row for row in before}
    fresh = [row for row in rows if known.get(result_key(row)) != row]
    added = sum(result_key(row) not in known for row in fresh)
    return Merged(tuple(rows), added, len(fresh) - added, len(files.copied), tuple(files.missing))


def copy_whole(source: Path, target: Path) -> None:
    """Copies a file whole or not at all; OSError where what was written doesn't read back alike."""
    partial = target.with_name(f"{_TEMPORARY}{os.getpid()}-{target.name}")
    digest = hashlib.sha256()
    with source.open("rb") as reading, partial.open("wb") as writing:
        while chunk := reading.read(1 << 20):
            digest.update(chunk)
            writing.write(chunk)
        writing.flush()
        os.fsync(writing.fileno())
    if file_sha256(partial) != digest.hexdigest():
        raise OSError(f"the copy of {source} doesn't read back alike")
    partial.replace(target)


def same_content(a: Path, b: Path) -> bool:
    """Whether two files hold the same bytes."""
    return a.stat().st_size == b.stat().st_size and file_sha256(a) == file_sha256(b)


@dataclass
class _Files:
    """Names and copies of the files that rows of other folders name."""

    folder: Path
    copied: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    _sources: dict[str, Path] = field(default_factory=dict)
    """Name in ``folder`` -> the file that is to be copied there."""

    def renamed(self, row: Row, source: Path) -> Row:
        """``row`` with its files under the names that they get; without those that are not there."""
        names: dict[str, str] = {}
        for kind, relative in row.artifacts.items():
            _check_inside(relative, source, row)
            if (source / relative).is_file():
                names[kind] = self._name_of(source / relative, relative)
            elif relative not in self.missing:
                self.missing.append(relative)
        return dataclasses.replace(row, artifacts=names)

    def _name_of(self, source: Path, relative: str) -> str:
        path = PurePosixPath(relative)
        hashed = path.with_name(f"{path.stem}-{file_sha256(source)[:_HASH]}{path.suffix}").as_posix()
        for name in (relative, hashed):
            if (self.folder / name).is_file() and same_content(self.folder / name, source):
                return name
            planned = self._sources.get(name)
            if planned is not None and same_content(planned, source):
                return name
        name = hashed if (self.folder / relative).exists() or relative in self._sources else relative
        self._sources[name] = source
        return name

    def copy(self, rows: Sequence[Row]) -> None:
        """Copies what ``rows`` name, as far as it isn't there."""
        for name in sorted({name for row in rows for name in row.artifacts.values()}):
            if name in self._sources:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                copy_whole(self._sources[name], self.folder / name)
                self.copied.append(name)


def _check_inside(relative: str, folder: Path, row: Row) -> None:
    """UserError unless a row names a file below its folder's artifacts."""
    parts = PurePosixPath(relative).parts
    if len(parts) < 2 or parts[0] != ARTIFACTS or ".." in parts or "\\" in relative or "\0" in relative:
        raise UserError(
            f"'{folder / ROWS}': row of cell '{row.cell}' names the file {relative!r}: "
            f"expected one below {ARTIFACTS}/"
        )


def _is_same(a: Path, b: Path) -> bool:
    return a.resolve() == b.resolve()


def remove_left_overs(folder: Path) -> None:
    """Remove what copies that were killed left below ``folder``."""
    for left_over in folder.rglob(f"{_TEMPORARY}*"):
        left_over.unlink()


def _counted(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"
