"""What every report says of itself, on the page and in Markdown."""

from collections.abc import Sequence

from reports import waterfall
from results.schema import Row

GATE = "How far the regression gate can be trusted (pardec selftest)"
TRAPS = (
    "Fréchet distances shrink as N grows, by an amount that depends on the model: compare at the same N, "
    "never a distance at small N with a published one at 50,000.",
    "fd_fashion is the Fréchet distance of a small classifier's features; it is no FID.",
    "Bits lost are judged by the cell's own network, one token at a time in the same order: figures of "
    "different networks do not compare, and where one token at a time is unlike training (LPD's tightly "
    "packed contexts), part of the figure is that strangeness.",
    "Intervals cover sampling noise, not what another training seed would change: the largest move of a "
    "metric that was seen between two seeds stands beside its differences.",
    "Real images and reconstructions bound what decoding can reach: no strategy can be expected below the "
    "reconstructions of its tokenizer.",
    "The order of strategies can change with guidance: compare each at its own best scale.",
    waterfall.NOTE,
    "Images/s depend on the batch, latency is for one image; a CPU's ranking need not be a GPU's, where "
    "few large steps pay more.",
)


def summary(rows: Sequence[Row]) -> str:
    failed = sum(row.status != "ok" for row in rows)
    cells = [row for row in rows if row.tier != "anchor"]
    anchors = len(rows) - len(cells)
    ending = "all of them ok" if not failed else f"{failed} of them not ok"
    several = len(cells) - len({row.cell for row in cells})
    where = f" ({several} of them once more, in another environment)" if several else ""
    return f"{len(cells)} cells{where} and {anchors} anchor rows, {ending}."
