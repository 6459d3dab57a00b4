"""Images of published cells from several machines in one folder of results.

An image depends on its index alone, but its bytes depend on the machine's arithmetic. So the shards of one
run from two machines share a folder only where all that both have are equal byte for byte; else those that
come later stand beside, in a folder with the start of a hash in its name.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.images.shards import RUN, Shards
from pardec.errors import UserError
from pardec.hashing import file_sha256
from results.merge import copy_whole, remove_left_overs, same_content
from results.store import results_folder

IMAGES = "images"
_HASH = 8


def merge_images(sources: Sequence[Path], into: Path) -> int:
    """Copy the finished runs' shards of result folders into those of ``into``; how many files were copied.

    Unfinished runs stay where they are: no row rests on them. Merging again copies nothing.
    """
    copied = 0
    remove_left_overs(into / IMAGES)
    for source in sources:
        folder = results_folder(source)
        if folder.resolve() == into.resolve():
            continue
        for run in _finished_runs(folder / IMAGES):
            try:
                copied += _bring(run, into / IMAGES)
            except OSError as error:
                raise UserError(f"'{into / IMAGES}' can't be written: {error.strerror or error}") from None
    return copied


def _finished_runs(folder: Path) -> Iterator[Shards]:
    for path in sorted(folder.glob(f"*/{RUN}")):
        run = Shards.read(path.parent)
        if not run.missing(run.total):
            yield run


def _bring(run: Shards, images: Path) -> int:
    """Copy one run, its description last, so that a copy that is cut short is no finished run."""
    first = run.files()[0][1]
    home = images / run.folder.name
    if not _goes_with(run, home):
        home = images / f"{run.folder.name}-{file_sha256(first)[:_HASH]}"
    home.mkdir(parents=True, exist_ok=True)
    files = [path for _, path in run.files()] + [run.folder / RUN]
    wanted = [path for path in files if not (home / path.name).exists()]
    for path in wanted:
        copy_whole(path, home / path.name)
    return len(wanted)


def _goes_with(run: Shards, home: Path) -> bool:
    """Whether every shard that both have holds the same bytes."""
    shared = [path for _, path in run.files() if (home / path.name).is_file()]
    if not shared:
        return not home.exists() or not any(home.glob("shard-*.npz"))
    return all(same_content(path, home / path.name) for path in shared)
