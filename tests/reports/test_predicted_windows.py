"""Windows of drafts as predicted for device cards: what is stored is what the model says, and it is drawn."""

import csv
import math
from importlib import resources

import pytest
from matplotlib import pyplot as plt

from harness.cost import windows
from harness.cost.work import decode_work
from reports import predicted_windows


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
