"""Rows on disk: JSON Lines that survive kill -9, two writers and a restart.

One file per folder, ``rows.jsonl``, guarded by ``flock`` on a ``.lock`` beside it. A file per writer would
spare the lock but not the rule of one row per cell and environment (``environments``): a retried cell has to
replace a row that another process wrote. The kernel drops the lock of a killed writer, and the lock is a file
of its own because superseding replaces the inode of the rows.

A new cell is one ``write`` of one line at the end, flushed to the disk. A cell tried again replaces its line:
the whole file is written to a temporary one, flushed, and renamed over the old, so at every instant the file
holds either the old row or the new. What a killed writer leaves is a torn last line, which readers ignore
and the next append cuts off, or a temporary file, which the next store removes. A writer that finds the disk
full takes back what it began.
"""

import dataclasses
import fcntl
import json
import os
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from pardec.errors import UserError
from pardec.files import remove_partials, sync_folder, write_whole, writing_results
from results.consistency import implausible
from results.environments import latest, one_each, partner, superseding
from results.legible import legible
from results.schema import FIELDS, Row, row_from_json, row_to_json

RESULTS = Path("results/runs")
"""Default place of result folders, one per sweep."""
ROWS = "rows.jsonl"
ARTIFACTS = "artifacts"
_LOCK = ".lock"


class ResultStore:
    """The rows of one sweep, one per cell and environment, in the order in which they were first recorded."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Opens ``folder``, making it if need be; UserError where it can't be written."""
        self.folder = Path(folder)
        self.path = self.folder / ROWS
        with self.writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                remove_partials(self.folder, ROWS)
                os.close(os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644))

    def writing(self) -> AbstractContextManager[None]:
        """What fails inside because the folder can't be written is a UserError of one line."""
        return writing_results(self.folder)

    @property
    def artifacts(self) -> Path:
        """The folder of traces, samples and logs, made if need be."""
        folder = self.folder / ARTIFACTS
        with self.writing():
            folder.mkdir(exist_ok=True)
        return folder

    def artifact(self, cell: str, suffix: str = ".npz") -> Path:
        """Where a cell's artifact goes; ``relative`` turns it into the path that the row states."""
        return self.artifacts / f"{cell}{suffix}"

    def relative(self, path: Path) -> str:
        """``path`` as a row's ``artifacts`` name it: from the folder of the rows, with slashes."""
        return path.relative_to(self.folder).as_posix()

    def rows(self) -> list[Row]:
        """Every row, one per cell and environment."""
        return _read(self.path)

    def append(self, row: Row) -> Row:
        """Records ``row`` and returns it as stored, on disk when this returns.

        A cell recorded before in the same environment keeps its line's place and its attempts; of the rest
        the new row is kept, unless it would replace an ok row by a failure. UserError where the folder can't
        be written: the rows are then those from before.
        """
        with self.writing(), self._locked():
            self._repair()
            stored = _read(self.path)
            earlier = partner(stored, row)
            if earlier is None:
                self._write_line(row)
                return row
            merged = superseding(earlier, row)
            self._rewrite(merged if other is earlier else other for other in stored)
            return merged

    def merge(self, rows: Iterable[Row]) -> list[Row]:
        """Records rows that other stores hold already, all or none; returns every row then stored.

        Tries of one cell in one environment become one row (``environments.latest``). Where that changes
        nothing, nothing is written.
        """
        with self._locked():
            self._repair()
            stored = _read(self.path)
            merged = one_each([*stored, *rows], latest)
            if merged != stored:
                self._rewrite(merged)
            return merged

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _repair(self) -> None:
        """Ends the file on a line end: a torn last line is cut off, a whole one is completed."""
        content = self.path.read_bytes() if self.path.exists() else b""
        whole, tail = _split_tail(content)
        if not tail:
            return
        with self.path.open("r+b") as file:
            if _is_json(tail):
                file.seek(0, os.SEEK_END)
                file.write(b"\n")
            else:
                file.truncate(len(whole))
            file.flush()
            os.fsync(file.fileno())

    def _write_line(self, row: Row) -> None:
        line = memoryview((row_to_json(row) + "\n").encode())
        created = not self.path.exists()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        length = os.fstat(descriptor).st_size
        try:
            while line:
                line = line[os.write(descriptor, line) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, length)
            raise
        finally:
            os.close(descriptor)
        if created:
            sync_folder(self.folder)

    def _rewrite(self, rows: Iterable[Row]) -> None:
        lines = [(row_to_json(row) + "\n").encode() for row in rows]
        write_whole(self.path, lambda file: file.writelines(lines))


def load_rows(path: str | os.PathLike[str]) -> list[Row]:
    """The rows of a JSON Lines file, or of all such files of a folder, one per cell and environment, with
    texts that are safe to print. UserError where there is none, or one that can't be read."""
    return [legible(row) for row in recorded_rows(path)]


def recorded_rows(path: str | os.PathLike[str]) -> list[Row]:
    """The rows of a JSON Lines file, or of all such files of a folder, one per cell and environment.

    UserError where nothing is there, where the folder or its files hold no row, or one with numbers that
    nothing can have measured.
    """
    place = Path(path)
    if place.is_dir():
        files = sorted(place.glob("*.jsonl"))
        if not files:
            nested = sorted(file.parent for file in place.glob("*/*.jsonl"))
            hint = f", did you mean '{nested[0]}'?" if nested else "; 'pardec sweep quick' makes some"
            raise UserError(f"no result rows (*.jsonl) in folder '{path}'{hint}")
    elif place.is_file():
        files = [place]
    else:
        raise UserError(f"no results at '{path}': no such file or folder; 'pardec sweep quick' makes some")
    rows = one_each((row for file in files for row in _read(file)), latest)
    if not rows:
        raise UserError(f"no result rows in '{path}': it is empty; 'pardec sweep quick' makes some")
    for row in rows:
        if problem := implausible(dataclasses.asdict(row), FIELDS):
            raise UserError(f"results '{path}': row of cell {row.cell}: {problem}")
    return rows


def folders_of_rows(place: Path) -> list[Path]:
    """The folders right below ``place`` that hold rows; a sweep that has only begun has none yet."""
    return sorted({path.parent for path in place.glob("*/*.jsonl") if path.stat().st_size})


def results_folder(path: str | os.PathLike[str]) -> Path:
    """The folder that a row's ``artifacts`` are relative to."""
    place = Path(path)
    return place if place.is_dir() else place.parent


def _read(path: Path) -> list[Row]:
    """The rows of one file, later tries superseding earlier ones; a torn last line is no row."""
    try:
        content = path.read_bytes().removeprefix(BOM_UTF8)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"results '{path}' can't be read: {error.strerror}") from None
    whole, tail = _split_tail(content)
    lines = whole.split(b"\n")[:-1] + ([tail] if _is_json(tail) else [])
    rows = (
        row_from_json(line.decode(errors="replace"), f"{path} line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    )
    return one_each(rows, superseding)


def _split_tail(content: bytes) -> tuple[bytes, bytes]:
    """Everything up to the last line end, and what follows it."""
    end = content.rfind(b"\n") + 1
    return content[:end], content[end:]


def _is_json(tail: bytes) -> bool:
    """Whether an unfinished last line is a whole row that lacks only its line end."""
    try:
        return isinstance(json.loads(tail), dict)
    except (ValueError, RecursionError):
        return False
