"""What is told of recorded rows."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.cell import sweep_file
from harness.weights import zoo
from made.table import table
from pardec import load_rows
from reports import learning as learned
from reports import relation_tables, style, varied
from reports.artifacts import Artifacts
from reports.differences import differences
from reports.frame import facets
from reports.inference import independent_contrast
from reports.measured import THROUGHPUT, estimate_of
from reports.naming import series_label
from reports.relation_verdicts import held
from reports.training_noise import TrainingNoise
from results.schema import Row
from strategies.decoding import registry

BASELINES = Path(__file__).parents[2] / "results" / "baselines"


RELATED = ("times fewer steps", "distance, difference", "training seeds", "times as fast")
"""What is shown of a relation between its claim and its verdict."""


def baseline(name: str) -> list[Row]:
    return load_rows(BASELINES / f"{name}.jsonl")


def told_by(name: str) -> list[dict[str, Any]]:
    """Lines of a file of results that holds no rows of cells."""
    text = (BASELINES.parent / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def with_interval(value: float | None, low: float | None, high: float | None, digits: int = 2) -> str:
    if value is None or low is None or high is None:
        return "-"
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def controlled() -> str:
    """Every strategy of the main job at its paper's steps and its card's guidance, beside both anchors."""
    asked = {(cell.strategy, cell.steps) for cell in sweep_file.load("quick").cells}
    rows = [row for row in baseline("iso-quality") if row.tier == "anchor" or is_tuned(row)]
    rows = [row for row in rows if {(row.strategy, row.steps), (row.strategy, None)} & asked]
    metric = f"fd_fashion@{rows[0].images}"
    (raster,) = [row for row in rows if row.strategy == "raster"]
    lines = []
    for row in rows:
        found = (row.quality or {})[metric]
        lines.append(
            [
                series_label(row, rows),
                f"{row.steps:.3g}" if row.steps else "",
                f"{row.tokens_processed:.0f}" if row.tokens_processed else "",
                times_as_fast(row, raster),
                f"{row.latency_s * 1e3:.0f}" if row.latency_s else "",
                with_interval(found["value"], found["low"], found["high"]),
            ]
        )
    headings = [
        "strategy",
        "steps",
        "tokens fed",
        "times as fast",
        "latency, ms",
        f"`{metric}` (lower is better)",
    ]
    cells = [row for row in rows if row.tier != "anchor"]
    return table(headings, lines) + "\n" + setting_of(cells) + "\n"


def times_as_fast(row: Row, base: Row) -> str:
    """Ratio of images a second with its interval over both rows' repeats; 1 for the base itself."""
    if row is base:
        return "1"
    named = {one.name: one for one in differences(base, row, Artifacts(), Artifacts(), TrainingNoise())[0]}
    ratio = named[THROUGHPUT].ratio if THROUGHPUT in named else None
    return "" if ratio is None else with_interval(ratio.value, ratio.low, ratio.high)


def is_tuned(row: Row) -> bool:
    """Whether a row has the guidance that its network's card records."""
    return bool(row.guidance == zoo.read_card(row.network).content["guidance"]["chosen"])


def setting_of(rows: Sequence[Row]) -> str:
    """Where and how rows were measured."""
    row = rows[0]
    host = (row.environment or {})["host_cpu"]
    batches = ", ".join(str(batch) for batch in sorted({one.batch or 0 for one in rows}))
    torch = (row.environment or {})["torch"]
    return (
        f"{host}, {row.threads} threads, torch {torch}, {row.dtype}, batch {batches}"
        f", {row.images} images, guidance as each card records."
    )


def full_size() -> str:
    """Networks of size L, a batch of one and the largest, in bfloat16."""
    rows = [row for row in baseline("full-size") if row.dtype == "bfloat16"]
    largest = max(row.batch or 0 for row in rows)
    lines = []
    for label in dict.fromkeys(row.label for row in rows):
        of_batch = {row.batch: row for row in rows if row.label == label}
        one, many = of_batch[1], of_batch[largest]
        assert one.throughput_images_per_s
        assert many.throughput_images_per_s
        lines.append(
            [
                label,
                f"{one.steps:g}",
                f"{one.tokens_processed:g}",
                f"{1 / one.throughput_images_per_s:.1f}",
                f"{largest / many.throughput_images_per_s:.1f}",
            ]
        )
    headings = ["network", "steps", "tokens fed", "batch 1, s", f"batch {largest}, s"]
    host = (rows[0].environment or {})["host_cpu"]
    note = f"{host}, {rows[0].threads} threads, bfloat16, random weights, guidance on, each batch once."
    return table(headings, lines) + "\n" + note + "\n"


def training_noise() -> str:
    """How far a second training seed moves a distance, by the number of images it is of."""
    rows = baseline("training-seeds")
    decoders = list(dict.fromkeys((row.label, row.steps) for row in rows))
    lines = []
    for images in sorted({row.images for row in rows if row.images is not None}):
        cells = []
        for decoder in decoders:
            pair = [row for row in rows if (row.images, row.label, row.steps) == (images, *decoder)]
            values = [estimate_of(row, f"fd_fashion@{images}")[0] for row in pair]
            cells.append(" and ".join(f"{value:.3f}" for value in values))
        lines.append([f"`fd_fashion@{images}`", *cells])
    (taught,) = {row.training_images for row in rows}
    headings = [f"{label}, {steps:g} steps" for label, steps in decoders]
    return table([f"two seeds, {taught:,} images", *headings], lines)


def marks() -> str:
    """Validation loss of every trained network at its marks."""
    cards = {stem: zoo.read_card(zoo.marks(stem)[-1]).content for stem in zoo.names()}
    names = sorted({mark["mark"] for card in cards.values() for mark in card["marks"]})
    lines = []
    for stem, card in sorted(cards.items(), key=lambda pair: pair[1]["marks"][0]["validation_loss"]):
        told = {one["mark"]: f"{one['validation_loss']:.3f}" for one in card["marks"]}
        certain = f"{100 * card['near_certain']:.0f} %"
        losses = [told.get(mark, "") for mark in names]
        lines.append([network_title(stem, card), *losses, last_doubling(card["marks"]), certain])
    return table(["network", *(f"{mark}x" for mark in names), "last doubling", "near certain"], lines)


def network_title(name: str, card: Mapping[str, Any]) -> str:
    """Of its strategy, and what tells it apart: "CTF, small, clusters16"."""
    return registry.titles()[card["strategy"]] + name.removeprefix(card["strategy"]).replace("-", ", ")


def last_doubling(marks: Sequence[Mapping[str, float]]) -> str:
    """How far the loss fell from the mark before the last to the last."""
    if len(marks) < 2:
        return ""
    before, after = (one["validation_loss"] for one in marks[-2:])
    return f"{100 * (after / before - 1):+.1f} %"


def guidance() -> str:
    """The distance at every scale that was tried, the chosen one in bold, as the cards record the grids."""
    found = {}
    for name in zoo.names():
        card = zoo.read_card(name).content
        if "guidance" in card:
            found[name] = (card, {one["guidance"]: one for one in card["guidance"]["grid"]})
    scales = sorted({scale for _, grid in found.values() for scale in grid})
    lines = []
    for name, (card, grid) in found.items():
        chosen = card["guidance"]["chosen"]
        told = {scale: f"{one['fd_fashion']['value']:.2f}" for scale, one in grid.items()}
        told[chosen] = f"**{told[chosen]}**"
        some = grid[chosen]
        schedule = f"{some['steps']:g} steps, {some['guidance_schedule']}"
        lines.append([network_title(name, card), schedule, *(told.get(scale, "") for scale in scales)])
    return table(["network", "steps and schedule", *(f"{scale:g}" for scale in scales)], lines)


def percent(row: Row, metric: str) -> str:
    """A share in percent, and half the width of its interval where it has one."""
    share, low, high = estimate_of(row, metric)
    half = "" if low is None or high is None else f" ± {50 * (high - low):.1f}"
    return f"{100 * share:.1f}{half}"


def steps() -> str:
    """Quality of networks that take any number of steps, at several."""
    rows = baseline("steps")
    distance, accuracy = (f"{name}@{rows[0].images}" for name in ("fd_fashion", "accuracy"))
    lines = [
        [
            series_label(row, rows),
            f"{row.steps:g}" if row.steps else "",
            with_interval(*estimate_of(row, distance)),
            percent(row, accuracy),
        ]
        for row in rows
    ]
    return table(["decoder", "steps", f"`{distance}` (lower is better)", "class accuracy, %"], lines)


def relations() -> str:
    """What each paper claims against its own baseline, and what the recorded rows say to it."""
    style.introduce(registry.titles())
    rows = [*baseline("claims"), *baseline("iso-quality")]
    found = held(rows, TrainingNoise.known(rows))
    shown = ("strategy", "its paper", *RELATED, "verdict")
    told = [
        dict(zip(relation_tables.HEADINGS, relation_tables.cells_of(one), strict=True))
        for one in found
        if one.own is not None
    ]
    lines = [[cells[name] or "-" for name in shown] for cells in told]
    untold = ", ".join(one.relation.own.words for one in found if one.own is None)
    rest = f" No rows yet: {untold}." if untold else ""
    return table(shown, lines) + f"\n{relation_tables.summary(found)}{rest}\n"


def learning() -> str:
    """Quality of the networks of every mark at their papers' steps, and each against raster in words."""
    style.introduce(registry.titles())
    rows = baseline("learning")
    distance, accuracy = (f"{name}@{rows[0].images}" for name in ("fd_fashion", "accuracy"))
    alike = facets(rows)
    found = [one for facet in alike for one in learned.series(facet, distance)]
    taught = sorted({images for one in found for images in one.images})
    lines = []
    for one in found:
        of = dict(zip(one.images, one.rows, strict=True))
        cells = [of.get(images) for images in taught]
        distances = [with_interval(*estimate_of(row, distance)) if row else "" for row in cells]
        shares = [percent(row, accuracy) for row in cells if row]
        lines.append([one.name, *distances, " / ".join(shares)])
    headings = ["decoder", *(f"`{distance}`, {images:,} images" for images in taught), "class accuracy, %"]
    told = "".join(f"- {sentence}\n" for facet in alike for sentence in learned.sentences(facet))
    return f"{table(headings, lines)}\n{told}"


def robust() -> str:
    """The same tokens by the tokenizer's own decoder and by the robust one."""
    rows = [row for row in baseline("robust") if row.strategy != "real"]
    metric = f"fd_fashion@{rows[0].images}"
    by_own, by_robust = (
        [row for row in rows if row.tokenizer == f"zoo/{name}"] for name in ("tokenizer", "robust")
    )
    lines = []
    for own, other in zip(by_own, by_robust, strict=True):
        both = [estimate_of(row, metric) for row in (own, other)]
        moved = independent_contrast(*both)
        told = [*both, (moved.value, moved.low, moved.high)]
        steps = f"{own.steps:g}" if own.steps else ""
        lines.append([own.label, steps, *(with_interval(*one) for one in told)])
    headings = ["decoder", "steps", f"`{metric}`, own", "robust", "difference"]
    return table(headings, lines)


def windows() -> str:
    """Decoders with a window: its steps, and images a second beside raster's at the same batch."""
    rows = baseline("windows")
    (raster,) = [row for row in rows if row.strategy == "raster"]
    batches = sorted(raster.throughput_by_batch or {}, key=int)
    lines = [
        [
            series_label(row, rows),
            f"{row.steps:.4g}",
            f"{100 * row.accepted_share:.0f} %" if row.accepted_share is not None else "",
            f"{row.tokens_processed:.0f}",
            *(median_ratio(row, raster, batch) for batch in batches),
        ]
        for row in rows
    ]
    headings = [
        "decoder",
        "steps",
        "tests passed",
        "tokens fed",
        *(f"times raster, batch {one}" for one in batches),
    ]
    note = f"{setting_of(rows)} Speeds are ratios of medians over few batches each, without an interval."
    return table(headings, lines) + "\n" + note + "\n"


def median_ratio(row: Row, other: Row, batch: str) -> str:
    """Ratio of images a second at this batch; a dash where one of them was not timed."""
    own, theirs = ((one.throughput_by_batch or {}).get(batch) for one in (row, other))
    return f"{own / theirs:.2f}" if own and theirs else "-"


def curves() -> str:
    """Quality over one setting at a time: a line for each value."""
    style.introduce(registry.titles())
    rows = baseline("curves")
    metric = f"fd_fashion@{rows[0].images}"
    lines = []
    for panel in (panel for facet in facets(rows) for panel in varied.panels(facet, metric)):
        values = [
            (line.name, value, row)
            for line in panel.lines
            for value, row in zip(line.values, line.rows, strict=True)
        ]
        without = [(series_label(row, panel.beside), None, row) for row in panel.beside]
        for name, value, row in [*values, *without]:
            setting = "" if value is None or panel.setting == varied.STEPS else f"{panel.setting} {value:g}"
            lines.append([name, setting, f"{row.steps:g}", with_interval(*estimate_of(row, metric))])
    return table(["decoder", "setting", "steps", f"`{metric}` (lower is better)"], lines)


def contexts() -> str:
    """What held-out images cost LPD's network in the contexts of its decode and in those of its training."""
    found: dict[int, dict[str, str]] = {}
    for line in told_by("lpd_contexts"):
        bits = (line[f"bits_per_token{end}"] for end in ("", "_low", "_high"))
        found.setdefault(line["steps"], {})[line["order"]] = with_interval(*bits, digits=3)
    lines = [[steps, told["own"], told["random"]] for steps, told in found.items()]
    return table(["steps", "locality, as it decodes", "random, as it learns"], lines)


def probes() -> str:
    """What short legs with one setting of the recipe changed came to, beside the recipe's own."""
    told = told_by("recipe_probes")
    own = {(one["strategy"], one["images"]): one for one in told if one["change"] == "none"}
    lines = []
    for one in told:
        base = own[one["strategy"], one["images"]]["validation_loss"]
        loss = one["validation_loss"]
        change = "" if one["change"] == "none" else f"{100 * (loss / base - 1):+.1f} %"
        setting = "as it is" if one["change"] == "none" else one["change"]
        size = f"{one['parameters'] / 1e6:.2f}"
        lines.append(
            [registry.titles()[one["strategy"]], f"{one['images']:,}", setting, size, f"{loss:.3f}", change]
        )
    headings = ["network", "images", "recipe", "million parameters", "validation loss", "beside the recipe"]
    return table(headings, lines)
