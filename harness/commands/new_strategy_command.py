"""pardec new-strategy: a starting file that works and keeps the contract."""

import argparse
import keyword
import re
import shlex
from pathlib import Path

from pardec.errors import UserError
from strategies.decoding import registry

SUMMARY = "write a working starting file for a strategy of your own, here or into the folder --out"
TEMPLATE = Path(__file__).parent / "templates" / "strategy.py.txt"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", metavar="NAME", help="lower-case letters, digits, '-' and '_'")
    command.add_argument(
        "--out",
        "--folder",
        type=Path,
        default=Path(),
        dest="folder",
        metavar="DIR",
        help="where NAME.py goes (default: here); --folder says the same",
    )


def run(options: argparse.Namespace) -> int:
    path = write(options.name, options.folder)
    file = shlex.quote(str(path))
    print(f"{path}: passes pardec check {file}; then pardec train {options.name} --plugin {file} --out zoo")
    return 0


def write(name: str, folder: Path) -> Path:
    """Write the starting file of a new strategy; UserError for a bad or taken name and an existing file."""
    stem = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name) or keyword.iskeyword(stem):
        raise UserError(
            f"strategy name '{name}': expected lower-case letters, digits, '-' and '_', first a letter"
        )
    if name in registry.names():
        raise UserError(f"strategy name '{name}' is taken ({registry.origin(name)}); expected a new one")
    if not folder.is_dir():
        raise UserError(f"--out {folder}: no such folder")
    path = folder / f"{stem}.py"
    title = "".join(part.capitalize() for part in stem.split("_"))
    text = TEMPLATE.read_text(encoding="utf-8").replace("@NAME@", name).replace("@TITLE@", title)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{path} exists and is not overwritten; expected a new name or --out") from None
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
    return path
