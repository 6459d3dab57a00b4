"""What networks on different tokenizers are compared by: the distance beyond that of their tokenizer's own
reconstructions, which no network on it is asked to beat."""

import dataclasses
from collections.abc import Iterable

from reports.comparability import Incomparable, quantity, require_comparable
from reports.differences import Difference, difference_of
from reports.inference import Estimate, independent_contrast
from reports.measured import estimate_of, measured
from reports.training_noise import TrainingNoise
from results.schema import Row

OF_THE_TOKENIZER = ("tokenizer", "evaluation_size")
"""Keys of a metric that networks on different tokenizers needn't share, nor an anchor with its cells."""


def reconstruction_of(row: Row, rows: Iterable[Row], metric: str) -> Row | None:
    """The anchor of the row's tokenizer, by the same reference, protocol and number of images."""
    keys = tuple(key for key in quantity(metric).keys if key not in OF_THE_TOKENIZER)
    for one in rows:
        if one.tier != "anchor" or one.tokenizer != row.tokenizer or one.strategy == "real":
            continue
        if measured(one, metric) is None:
            continue
        try:
            require_comparable((row, one), keys, metric)
        except Incomparable:
            continue
        return one
    return None


def difference(
    baseline: Row, own: Row, metric: str, rows: Iterable[Row], noise: TrainingNoise
) -> Difference | str:
    """Own less baseline, each beyond its anchor, bounded as of independent draws; else what is missing.

    Training noise is that known beside the baseline: another seed moves a network, and no reconstruction.
    """
    rows = list(rows)
    beyond: list[Estimate] = []
    for row in (baseline, own):
        anchor = reconstruction_of(row, rows, metric)
        if anchor is None:
            return f"no reconstruction by {row.tokenizer}"
        excess = independent_contrast(estimate_of(anchor, metric), estimate_of(row, metric))
        beyond.append((excess.value, excess.low, excess.high))
    theirs, ours = beyond
    found = difference_of(metric, theirs, ours, independent_contrast(theirs, ours), None)
    return dataclasses.replace(found, training=noise.size(metric, (baseline,)))
