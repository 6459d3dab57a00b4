"""Anchors are judged as cells are: the held-out images themselves, and what a tokenizer makes of them."""

import dataclasses
import io

import numpy as np

from harness.cell.cell import Cell, normalised
from harness.subject.pins import finished
from harness.sweep.job import measure_cell
from harness.sweep.messages import Channel
from harness.sweep.process import Outcome
from harness.sweep.row import make_row


def test_anchors_are_judged_as_a_cell_is(small_zoo, tmp_path):
    shared = {"images": 40, "batch": 20, "threads": 1, "zoo": str(small_zoo)}
    rows = []
    for asked in (Cell("real"), Cell("reconstruction"), Cell("lpd", steps=4, once=True, lossiness_images=0)):
        cell = finished(normalised(dataclasses.replace(asked, **shared)))
        found = measure_cell(cell, tmp_path, Channel(io.BytesIO()))
        rows.append(make_row(cell, Outcome("ok", None, found, 1.0), "2026-01-01T00:00:00Z"))
    real, rebuilt, lpd = rows
    for anchor in (real, rebuilt):
        assert (anchor.reference, anchor.protocol) == (lpd.reference, lpd.protocol)
        assert set(anchor.quality) == set(lpd.quality)
        assert anchor.unmeasured["lossiness_bits"] == "an anchor decodes nothing"
    samples = [np.load(tmp_path / row.artifacts["samples"])["samples"] for row in (real, rebuilt)]
    assert samples[0].shape == samples[1].shape == (40, 32, 32, 3)
    assert (samples[0] != samples[1]).any()
