"""Reports, tables and terminals show hostile names and error texts as they are, and obey none."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.guard import harmless
from tests.fuzz.pages import HOSTILE, check_everything, hostile_rows

_PIECES = st.sampled_from(
    [*HOSTILE, *"<>&\"'`*_[]()|\\$#~!-\n\x1b\x9b\u202e{}%", "</", "](", "[/", "://", "www."]
)
pytestmark = pytest.mark.usefixtures("quick_figures")
TEXTS = st.lists(_PIECES, min_size=1, max_size=4).map("".join)


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE)
def test_each_hostile_text_is_shown_and_not_obeyed(text: str, tmp_path: Path) -> None:
    with harmless(tmp_path):
        check_everything(hostile_rows(text), tmp_path)


def test_all_hostile_texts_together(tmp_path: Path) -> None:
    with harmless(tmp_path):
        check_everything(hostile_rows("".join(HOSTILE[:-1])), tmp_path)


def test_combinations_are_shown_and_not_obeyed(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    examples = request.config.getoption("--fuzz-examples")
    if not examples:
        pytest.skip("with --fuzz-examples only: each draws a whole report")

    @settings(max_examples=examples)
    @given(TEXTS)
    def check(text: str) -> None:
        with harmless(tmp_path):
            check_everything(hostile_rows(text), tmp_path)

    check()
