"""pardec new-strategy: a starting file that works and keeps the contract."""

import argparse
import keyword
import re
from pathlib import Path

from pardec.errors import UserError
from strategies.decoding import registry

SUMMARY = "write a working starting file for a strategy of your own"
TEMPLATE = Path(__file__).parent / "templates" / "strategy.py.txt"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", metavar="NAME", help="lower-case letters, digits, '-' and '_'")
    command.add_argument(
        "--folder", type=Path, default=Path(), metavar="DIR", help="where NAME.py goes (default: here)"
    )


def run(options: argparse.Namespace) -> int:
    path = write(options.name, options.folder)
    print(f"{path}: passes pardec check {path}; then pardec train {options.name} --plugin {path}")
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
        raise UserError(f"--folder {folder}: no such folder")
    path = folder / f"{stem}.py"
    title = "".join(part.capitalize() for part in stem.split("_"))
    text = TEMPLATE.read_text().replace("@NAME@", name).replace("@TITLE@", title)
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{path} exists and is not overwritten; expected a new name or --folder") from None
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
    return path
