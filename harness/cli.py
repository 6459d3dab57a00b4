"""The ``pardec`` command. Modules that take long to import are imported by the commands that need them."""

import argparse
import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from harness.machine.failures import classify
from pardec.errors import UserError, one_line, unknown
from pardec.files import path_of
from results.annotations import LARGEST, is_whole

COMMANDS = (
    "list",
    "explain",
    "sweep",
    "encode",
    "train",
    "tune",
    "sample",
    "generate",
    "report",
    "compare",
    "merge",
    "lossiness",
    "likelihood",
    "check",
    "new-strategy",
    "inspect",
    "fetch",
    "claims",
    "calibrate",
    "gpu-check",
    "baseline",
    "regress",
    "selftest",
)
_MISTAKES = (("backbones.checkpoints", "CheckpointError"),)
"""Errors with one-line texts for users, defined where torch is imported."""
_IN_BATCHES = ("explain", "sample", "generate", "lossiness", "likelihood")
"""Commands that decode in this process, images of a ``--batch`` together."""
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Parser(argparse.ArgumentParser):
    """Reports a mistake on one line, without the usage before it; in paths, ``~`` is the home folder.

    Shells expand it only at the start of a word, and not in quotes or behind ``=``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register("type", Path, path_of)
        self.register("type", int, _whole)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def _whole(text: str) -> int:
    """A flag's whole number, as far as arrays hold it."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number") from None
    if not is_whole(value):
        bound = f"at most {LARGEST:,}" if value > 0 else f"at least {-LARGEST - 1:,}"
        raise argparse.ArgumentTypeError(f"{text}: expected {bound}")
    return value


def parser(only: str | None = None) -> Parser:
    """Of all commands, or of one: a command builds its own parser, and only that is imported."""
    top = Parser(
        prog="pardec",
        description="Compare parallel decoding strategies for autoregressive image generation: same "
        "backbone, tokenizer, noise, loop and clock; only the strategy differs.",
    )
    top.add_argument("--version", action="store_true", help="print the version and exit")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name in COMMANDS if only is None else (only,):
        module = importlib.import_module(f"harness.commands.{name.replace('-', '_')}_command")
        command = commands.add_parser(name, help=module.SUMMARY, description=module.SUMMARY)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: 0, 1 where a cell failed, 2 for a user's mistake, 130 when interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold bytes that are no text
    first = next((word for word in words if not word.startswith("-")), None)
    try:
        if first is not None and first not in COMMANDS:
            raise unknown("command", first, COMMANDS)
        top = parser(first)
        options = top.parse_args(words)
        if options.version:
            from harness.machine.environment import version

            print(f"pardec {version('pardec')}")
            return 0
        if options.command is None:
            top.print_help()
            return 0
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("pardec: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.filename is None and error.errno not in _UNWRITABLE:
            raise
        if error.errno in _UNWRITABLE:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # it may be the file in question
            where = f"'{one_line(error.filename)}'" if error.filename else "a file, or the output,"
            print(f"pardec: {where} can't be written: {error.strerror}", file=sys.stderr)
        else:  # a file that a flag named
            print(f"pardec: '{one_line(error.filename)}': {error.strerror}", file=sys.stderr)
        return 2
    except _mistakes_known_by_now() as error:
        print(f"pardec: {one_line(error)}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        status, cause = classify(error)
        if status != "oom":
            raise
        hint = "; a smaller --batch takes less" if first in _IN_BATCHES else ""
        print(f"pardec: out of memory ({cause}){hint}", file=sys.stderr)
        return 2


def _mistakes_known_by_now() -> tuple[type[Exception], ...]:
    found: list[type[Exception]] = [UserError, FloatingPointError]
    found += [getattr(sys.modules[module], name) for module, name in _MISTAKES if module in sys.modules]
    return tuple(found)


if __name__ == "__main__":
    sys.exit(main())
