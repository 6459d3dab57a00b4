"""Windows of drafts as predicted for device cards: what is stored is what the model says, and it is drawn."""

import csv
import math
from importlib import resources

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from harness.cost import windows
from harness.cost.work import decode_work
from reports import predicted_windows, style


def stored() -> list[dict[str, str]]:
    with (resources.files("results") / "predicted_windows.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_what_is_stored_is_of_every_card_batch_share_and_window() -> None:
    lines = stored()
    keys = ("mode", "card", "batch", "acceptance", "window")
    found = [tuple(one[key] for key in keys) for one in lines]
    sides = (windows.MODES, windows.CARDS, windows.BATCHES, windows.ACCEPTANCES, windows.WINDOWS)
    assert len(found) == len(set(found)) == math.prod(map(len, sides))
    assert tuple(lines[0]) == windows.COLUMNS


def test_what_is_stored_is_what_the_model_says() -> None:
    asked = {"card": "h200", "batch": "64", "acceptance": "0.9", "window": "64"}
    work = decode_work(windows.subject(64, 0.9, 64), on_cpu=False)
    for mode in windows.MODES:
        (line,) = [one for one in stored() if {**one, **asked, "mode": mode} == one]
        assert int(line["steps"]) == len(work.steps)
        seconds = windows.batch_seconds(work, "h200", mode)
        assert float(line["images_per_s"]) == pytest.approx(64 / seconds, rel=1e-3)


def test_more_accepted_drafts_take_fewer_steps() -> None:
    steps = {(one["batch"], one["window"], one["acceptance"]): float(one["steps"]) for one in stored()}
    for batch, window, _ in steps:
        taken = [steps[batch, window, share] for share in ("0.5", "0.7", "0.9")]
        assert taken == sorted(taken, reverse=True)


def test_every_card_has_a_line_in_every_panel() -> None:
    subject, panels = predicted_windows.panels()
    assert "llamagen-l-256" in subject
    assert all(set(panel.lines) == set(windows.CARDS) for panel in panels)
    drawn = predicted_windows.figure()
    shown = [axes for axes in drawn.axes if axes.get_title(loc="left") + axes.get_title()]
    assert len(shown) == len(panels) == 6
    names = {text.get_text() for axes in drawn.axes for text in axes.texts}
    assert set(windows.CARDS) <= names
    plt.close("all")


@pytest.mark.parametrize("scheme", [style.PAGE, style.NIGHT])
def test_cards_whose_lines_are_one_take_turns_on_it(scheme: style.Scheme) -> None:
    """Every card's dash falls where the others have their gaps."""
    _, panels = predicted_windows.panels()
    with style.drawn_for(scheme):
        drawn = predicted_windows.figure()
    shared = 0
    for axes, panel in zip(drawn.axes, panels, strict=True):
        curves = [line for line in axes.lines if len(line.get_xdata()) > 2 and line.get_linestyle() != "None"]
        assert len({to_hex(line.get_color()) for line in curves}) == len(panel.lines)
        for group in predicted_windows.alike(panel.lines):
            alike = [curves[list(panel.lines).index(card)] for card in group]
            patterns = [line._unscaled_dash_pattern for line in alike]
            if len(group) == 1:
                assert patterns == [(0, None)]
                continue
            shared += 1
            on, off = patterns[0][1]
            assert {pattern for _, pattern in patterns} == {(on, off)}
            assert on + off == pytest.approx(on * len(group))
            assert sorted(offset for offset, _ in patterns) == [on * turn for turn in range(len(group))]
    assert shared == 3  # at batch 1
    plt.close("all")


def test_lines_that_differ_are_not_taken_for_one() -> None:
    points = np.array([[2.0, 1.0], [4.0, 1.5]])
    higher = points * (1.0, 1.02)
    assert predicted_windows.alike({"a": points, "b": points + 1e-4, "c": higher}) == [["a", "b"], ["c"]]
