"""The pictures of a facet: to add one, yield one more ``Drawing``."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure

from reports import (
    learning,
    learning_curve,
    lossiness,
    pictures,
    plots,
    predicted,
    predicted_windows,
    varied,
    windows,
)
from reports.artifacts import Artifacts
from reports.escape import file_stem
from reports.frame import Facet, metrics


@dataclass(frozen=True)
class Drawing:
    """A picture to be drawn: its file's name, its title, what it shows in two lines, and how."""

    name: str
    title: str
    about: str
    draw: Callable[[], Figure | None]
    """None where nothing was measured for it."""
    on_page: bool = True
    """Whether the page shows it; all are files beside it."""
    said: tuple[str, ...] = ()
    """What it shows of these rows, in sentences."""
    lacking: tuple[str, str] | None = None
    """What is missing of it, and the command that gives that: then there is a tab all the same."""


def drawings(
    facet: Facet,
    artifacts: Mapping[str, Artifacts],
    costs: predicted.Costs,
    stored: learning.Stored,
) -> Iterator[Drawing]:
    """All pictures of a facet, those of most interest first; ``stored``: methods' cards by ``result_key``."""
    yield from _of_images(facet, artifacts)
    yield Drawing(
        "memory-against-batch",
        "Memory",
        "Peak memory over weights and inputs, at every batch size that was tried.",
        partial(plots.memory_against_batch, facet),
    )
    if learning.is_taught(facet):
        yield _learning(facet, stored)
    if predicted.checked_predictions(facet.cells, costs):
        yield from _of_predictions(facet, costs)
    if varied.shows(facet):
        yield Drawing(
            "one-setting",
            "One setting varied",
            "Quality over one setting of a method, all else equal: what it costs to go faster, or in another "
            "order, by the same network.",
            partial(varied.figure, facet),
        )
    yield from _of_windows(facet, artifacts)
    yield from _trade_offs(facet)


def _of_images(facet: Facet, artifacts: Mapping[str, Artifacts]) -> Iterator[Drawing]:
    """What was generated, and how it came to be."""
    yield Drawing(
        "samples",
        "Samples",
        "A row for each setting, a column for each class and noise. Real images and reconstructions come "
        "first: no row can be expected to beat the reconstructions.",
        partial(pictures.sample_grid, facet, artifacts),
    )
    yield Drawing(
        "order",
        "Order of generation",
        "The step that writes each place, dark first. A method that orders every image anew shows the order "
        "of the first one.",
        partial(pictures.order_maps, facet, artifacts),
    )
    yield Drawing(
        "film",
        "One image appearing",
        "What the tokenizer makes of the tokens written so far; grey where there are none yet.",
        partial(pictures.film_strip, facet, artifacts),
    )
    yield Drawing(
        "lossiness-against-steps",
        "Bits lost",
        "How far decoding in groups leaves the network's own distribution, added up over the steps. Each "
        "panel has another judge, so panels are not compared.",
        partial(lossiness.curves, facet, artifacts),
    )


def _learning(facet: Facet, stored: learning.Stored) -> Drawing:
    missing = learning.lacking(facet, stored)
    return Drawing(
        "learning",
        "Learning curve",
        "Loss and quality against training images. Losses compare along a line: lessons and tokenizers "
        "differ between strategies.",
        partial(learning_curve.figure, facet, stored),
        said=tuple(learning.sentences(facet)),
        lacking=None if missing is None else (missing, learning.SWEEP),
    )


def _of_predictions(facet: Facet, costs: predicted.Costs) -> Iterator[Drawing]:
    yield Drawing(
        "predicted-against-measured",
        "Predicted cost",
        "What counted work and the machine's card predict, against the clock: equal on the diagonal.",
        partial(predicted.predicted_against_measured, facet, costs),
    )
    yield Drawing(
        "speed-up",
        "Speed-up explained",
        "From the ratio of steps to the measured speed-up: what each cost takes away.",
        partial(predicted.waterfall_figure, facet, costs),
    )


def _of_windows(facet: Facet, artifacts: Mapping[str, Artifacts]) -> Iterator[Drawing]:
    """Of strategies with a window, and of drafts that are tested."""
    if windows.families(facet):
        yield Drawing(
            "windows",
            "Windows",
            "Steps and speed by the window. More drafts at a time take fewer steps, and each of them longer; "
            "rows that wait for more of the row above take more steps.",
            partial(windows.against_window, facet),
        )
    if windows.of_drafts(facet):
        yield Drawing(
            "windows-on-cards",
            "Windows on other devices",
            "What the cost model foresees for windows of drafts on the cards that papers measure on.",
            predicted_windows.figure,
        )
    if windows.maps_of(facet, artifacts):
        yield Drawing(
            "acceptance",
            "Where drafts are accepted",
            "The share of tests that drafts of each place passed, over all images of the cell.",
            partial(windows.acceptance_maps, facet, artifacts),
        )


def _trade_offs(facet: Facet) -> Iterator[Drawing]:
    """Still versions of the page's own picture, for papers."""
    names = metrics(facet.cells)
    for metric in names[:1] + [name for name in names[1:] if name.startswith("accuracy")]:
        stem = file_stem(metric)
        for part in (parts := facet.by_batch()):
            end, where = (f"-batch-{part.cells[0].batch}", f", batch {part.cells[0].batch}")
            end, where = (end, where) if len(parts) > 1 else ("", "")
            yield Drawing(
                f"{stem}-against-throughput{end}",
                f"{metric} against throughput{where}",
                "",
                partial(plots.quality_against_throughput, part, metric),
                on_page=False,
            )
        yield Drawing(
            f"{stem}-against-steps",
            f"{metric} against steps",
            "",
            partial(plots.quality_against_steps, facet, metric),
            on_page=False,
        )
