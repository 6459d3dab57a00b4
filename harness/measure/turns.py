"""Cells timed in turn by one process, so that a ratio between them is free of the machine's drift.

Peak memory and failures need a process per cell; ratios need one process for all. So every cell is measured
by itself first, and the cells of a group are timed once more together, in ABBA order.
"""

import dataclasses
import gc
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from harness.cell.cell import Cell
from harness.measure.choose import Choice
from harness.measure.repeats import Budget, in_turn
from harness.measure.timed import timed_batches
from harness.subject.prepare import Prepared, prepare
from harness.subject.subject import Subject, load
from results.schema import Turns

SECONDS = 4.0
"""Spent on rounds in all, beyond the least number of them."""
MOST_ROUNDS = 40


def time_in_turn(
    cells: Sequence[Cell], rounds: int, chosen: Mapping[str, Mapping[str, Any]] = {}
) -> dict[str, Turns]:
    """Cell key -> seconds of its batches beside those of the first cell, in at least this many rounds.

    chosen: cell key -> option -> value, of options left to measurement; those of other cells are chosen here.
    """
    values = [{cell.batch: dict(chosen[cell.key])} if cell.key in chosen else {} for cell in cells]
    loaded = load_all(map(prepare, cells))
    subjects = [
        Choice(one, values=known).at(one.prepared.cell.batch)
        for one, known in zip(loaded, values, strict=True)
    ]
    runs = [timed_batches(subject, subject.prepared.cell.batch) for subject in subjects]
    for run in runs:
        run()
    gc.collect()
    gc.freeze()
    seconds = in_turn(runs, budget_of(len(runs), rounds))
    return {
        cell.key: Turns(reference=cells[0].key, batch=cell.batch, seconds=own, reference_seconds=seconds[0])
        for cell, own in zip(cells, seconds, strict=True)
    }


def budget_of(runs: int, rounds: int) -> Budget:
    """Of rounds; patience is that of one cell for each, so that many of them still get the least number."""
    most = max(rounds, MOST_ROUNDS)
    return Budget(SECONDS, least=rounds, most=most, patience_s=Budget.patience_s * runs)


def load_all(prepared: Iterable[Prepared]) -> Iterator[Subject]:
    """Loads each cell, weights that cells share only once."""
    loaded: dict[str, Subject] = {}
    for one in prepared:
        weights = _weights(one)
        if weights in loaded:
            yield dataclasses.replace(loaded[weights], prepared=one)
        else:
            loaded[weights] = load(one)
            yield loaded[weights]


def _weights(prepared: Prepared) -> str:
    """Equal for cells whose networks hold the same weights in the same layout, as their tokenizers do."""
    cell = prepared.cell
    packed_for = (cell.batch, cell.steps) if cell.products == "packed" else None
    seed = cell.seed if cell.checkpoint is not None else None
    dressing = repr(prepared.strategy)
    settings = (
        cell.network,
        dict(cell.roles),
        cell.checkpoint,
        cell.weights,
        cell.decoder,
        cell.tokenizer_checkpoint,
        cell.tokenizer_weights,
        cell.dtype,
        cell.device,
        cell.zoo,
        cell.attention,
        cell.compile,
        cell.cuda_graphs,
        cell.one_graph,
    )
    return json.dumps([dressing, settings, seed, packed_for])
