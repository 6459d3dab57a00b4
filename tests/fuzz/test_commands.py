"""Command lines of every command and flag: success, or exit status 2 and one printable line."""

from pathlib import Path

import pytest
from hypothesis import given, settings

from tests.fuzz import commands, files, texts


def test_any_command_line_ends_well_or_in_one_line(
    temporary_here: Path, request: pytest.FixtureRequest
) -> None:
    commands.make_place(temporary_here, texts._rows(temporary_here)[2], files._plugins(temporary_here)[0])

    @given(commands.arguments())
    def check(words: list[str]) -> None:
        commands.check_line(words, temporary_here)

    examples = request.config.getoption("--fuzz-examples")
    settings(max_examples=examples or 60)(check)()
