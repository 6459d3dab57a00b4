"""Predicted speed of the published networks on their papers' devices: writes ``results/predicted.csv``.

Run ``python -m harness.cost.published`` after a change of the cost model, the cards or published.csv. Lines
of published.csv are left out where they state no batch, or where the network is none of ours.
"""

import csv
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from harness.cell.cell import RANDOM, Cell, normalised
from harness.cost.model import decode_seconds
from harness.cost.work import decode_work
from harness.machine.cards import card_named
from harness.subject.prepare import prepare
from pardec.errors import UserError
from strategies.decoding import presets

COLUMNS = (
    "strategy",
    "model",
    "network",
    "steps",
    "batch",
    "dtype",
    "card",
    "quantity",
    "published",
    "predicted",
    "source",
)
CARDS = {"A800": "a800-80gb", "A100": "a100-80gb", "L20": "l20", "H100": "h100-sxm", "H200": "h200"}
PRECISIONS = {"bf16": "bfloat16", "fp32": "float32", "fp16": "float16"}
ASSUMED_PRECISION = "bfloat16"
"""Where a paper states none: the default of its scripts."""


@dataclass(frozen=True)
class StatedSpeed:
    """One published speed and the cell that it is about."""

    strategy: str
    model: str
    network: str
    steps: int
    batch: int
    dtype: str
    stated: bool
    """Whether the paper states the precision."""
    card: str
    quantity: str
    value: float
    source: str

    def predicted(self) -> float:
        """The same quantity by the cost model; UserError for steps that the strategy can't take."""
        cell = Cell(
            self.strategy,
            network=self.network,
            checkpoint=RANDOM,
            steps=self.steps,
            guidance=2.0,  # all these figures are of guided runs; the cost does not depend on the scale
            batch=self.batch,
            dtype="bfloat16" if self.dtype == "float16" else self.dtype,
            options=dict(_options(self.network, self.steps)),
        )
        prepared, card = prepare(normalised(cell)), card_named(self.card)
        works = decode_work(prepared, on_cpu=not card.asynchronous)
        seconds = decode_seconds(works, card, self.dtype).total
        return self.batch / seconds if self.quantity == "images/s" else seconds


def _options(network: str, steps: int) -> dict[str, object]:
    """The options of the network's own strategy in the published run with so many steps."""
    own = (run for run in presets.preset_info(network).runs if run.strategy is None)
    return next((dict(run.options) for run in own if run.steps == steps), {})


def stated_speeds() -> Iterator[StatedSpeed]:
    """The lines of published.csv that say what was run, and on what."""
    networks = _networks()
    with (resources.files("results") / "published.csv").open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            name = re.sub(r" \((\d+) px[^)]*\)", "", line["model"])
            pixels = re.search(r"\((\d+) px", line["model"])
            network = networks.get((name, int(pixels[1]) if pixels else int(line["resolution"] or 0)))
            card = next((card for word, card in CARDS.items() if word in line["device"]), None)
            batches = [int(batch) for batch in re.findall(r"batch (\d+)", line["device"])]
            if network is None or card is None or not batches or not line["steps"]:
                continue
            word = next((word for word in PRECISIONS if word in line["device"]), None)
            dtype = PRECISIONS[word] if word else ASSUMED_PRECISION
            info = presets.preset_info(network)
            for quantity, column, batch in (
                ("images/s", "throughput_img_s", max(batches)),
                ("latency s", "latency_s", min(batches)),
            ):
                if line[column]:
                    yield StatedSpeed(
                        info.strategy,
                        line["model"],
                        network,
                        int(line["steps"]),
                        batch,
                        dtype,
                        word is not None,
                        card,
                        quantity,
                        float(line[column]),
                        line["source"],
                    )


def _networks() -> dict[tuple[str, int], str]:
    """(title, pixels) -> preset."""
    infos = map(presets.preset_info, presets.preset_names())
    return {(info.title, info.image_size): info.name for info in infos}


def table() -> str:
    """``results/predicted.csv``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for claim in stated_speeds():
        try:
            value = claim.predicted()
        except UserError as error:
            print(f"left out: {claim.model}, {claim.steps} steps: {error}", file=sys.stderr)
            continue
        dtype = claim.dtype if claim.stated else f"{claim.dtype} (assumed)"
        writer.writerow(
            [
                claim.strategy,
                claim.model,
                claim.network,
                claim.steps,
                claim.batch,
                dtype,
                claim.card,
                claim.quantity,
                f"{claim.value:g}",
                f"{value:.4g}",
                claim.source,
            ]
        )
    return text.getvalue()


def main() -> int:
    path = Path(__file__).parents[2] / "results" / "predicted.csv"
    path.write_text(table(), encoding="utf-8")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
