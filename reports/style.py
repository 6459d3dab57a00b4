"""The visual language: one colour and one marker per strategy in every table, curve, grid and film strip."""

import colorsys
import hashlib
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

PALETTE = (
    ("#3f3f46", "o"),
    ("#cc8400", "s"),
    ("#009e73", "D"),
    ("#d0421b", "^"),
    ("#0072b2", "v"),
    ("#cc79a7", "P"),
    ("#3a9bd9", "X"),
    ("#7a5c00", "<"),
    ("#332288", ">"),
    ("#882255", "p"),
    ("#8a9a00", "h"),
    ("#aa4499", "*"),
    ("#6d3df0", "d"),
    ("#00808c", "s"),
    ("#31557f", "^"),
    ("#57666b", "P"),
    ("#d6166f", "D"),
    ("#94481f", "X"),
    ("#4f8a10", "v"),
)
"""Colours and markers of the strategies in their order, one for each that ships: six that stay apart under
deuteranopia and protanopia (after Okabe and Ito), six after Tol's muted set, then some with the marker of an
earlier one whose colour is quite another."""
DARK = (
    "#d7d9df",
    "#e9a23b",
    "#35c394",
    "#f47f5a",
    "#58aee8",
    "#e39cc6",
    "#8fcff5",
    "#c9a94a",
    "#9d95f0",
    "#dd7fb0",
    "#bcca4c",
    "#d98fdb",
    "#a98bff",
    "#3fc9d6",
    "#8fb0dc",
    "#a9bcc2",
    "#ff6fae",
    "#dc9166",
    "#93d24a",
)
"""The same colours on a dark page: the hue stays, the contrast is that of the light ones on white."""
ANCHORS = {
    "real": ("Real images", "#6b7280"),
    "reconstruction": ("Reconstructions", "#9ca3af"),
    "reconstruction-multiscale": ("Reconstructions, multi-scale", "#c0c4cc"),
    "reconstruction-robust": ("Reconstructions, robust decoder", "#b3a998"),
}
"""Titles and colours of the rows that decode nothing."""
INK = "#1f2328"
MUTED = "#6b7280"
GRID = "#e5e7eb"
FRONT = "#c3c7ce"
_INKED = 0.3
"""How far text in a colour goes towards the ink."""
ORDER_MAP = "viridis"
"""Colour map of decoding order: early dark, late light; perceptually even and readable in grey."""

RC: Any = {
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "lines.linewidth": 1.5,
    "lines.markersize": 6.5,
    "image.composite_image": False,  # an SVG then keeps each small image as it is
    "svg.hashsalt": "pardec",
    "pdf.fonttype": 42,  # text stays text
    "text.hinting": "no_hinting",  # hinted, a text is up to 8 % wider in a file than where it was laid out
    "text.parse_math": False,  # a label's dollar signs are no formula
}
"""matplotlib settings of every figure. Untyped: matplotlib types the keys, differently in each release."""


@dataclass(frozen=True)
class Scheme:
    """Where a figure goes: into a file that travels alone, or into the page, light or dark."""

    paper: str
    ink: str
    muted: str
    grid: str
    front: str
    dark: bool = False
    alone: bool = True
    """Whether the figure itself says what it is called and where it was measured; the page says both."""


FILE = Scheme("#ffffff", INK, MUTED, GRID, FRONT)
PAGE = replace(FILE, alone=False)
NIGHT = Scheme("#14171b", "#e4e7eb", "#9ba3ae", "#2b3037", "#48505b", dark=True, alone=False)
"""Paper, ink and grid are those of the dark page's style sheet, so that no picture shows where it ends."""

_scheme: ContextVar[Scheme] = ContextVar("scheme", default=FILE)


def scheme() -> Scheme:
    """The one that figures are drawn for now."""
    return _scheme.get()


@contextmanager
def drawn_for(chosen: Scheme) -> Iterator[None]:
    """Figures made inside are made for ``chosen``."""
    token = _scheme.set(chosen)
    try:
        yield
    finally:
        _scheme.reset(token)


def rc() -> Any:
    """``RC`` in the inks of the scheme."""
    now = scheme()
    inks = dict.fromkeys(("axes.labelcolor", "text.color", "xtick.color", "ytick.color"), now.ink)
    papers = dict.fromkeys(("figure.facecolor", "axes.facecolor"), now.paper)
    return RC | inks | papers | {"axes.edgecolor": now.muted, "grid.color": now.grid}


_titles: dict[str, str] = {}


def introduce(titles: Mapping[str, str]) -> None:
    """Make strategies known by their titles, in the order of the palette: whoever has the registry does.

    Reports know no strategy; of those that nobody introduced, rows give no more than the name.
    """
    _titles.clear()
    _titles.update(titles)


def colour(strategy: str) -> str:
    """The strategy's colour in the scheme; without a place in the palette, one by the hash of its name."""
    return dark_colour(strategy) if scheme().dark else light_colour(strategy)


def light_colour(strategy: str) -> str:
    """``colour`` on white."""
    if strategy in ANCHORS:
        return ANCHORS[strategy][1]
    place = _place(strategy)
    if place < len(PALETTE):
        return PALETTE[place][0]
    digest = hashlib.sha256(strategy.encode()).digest()
    hue = int.from_bytes(digest[:2], "big") / 65536
    lightness, saturation = 0.36 + 0.14 * digest[2] / 255, 0.55 + 0.3 * digest[3] / 255
    return _hexadecimal(*colorsys.hls_to_rgb(hue, lightness, saturation))


def dark_colour(strategy: str) -> str:
    """``colour`` as a dark page shows it."""
    if strategy in ANCHORS:
        return ANCHORS[strategy][1]
    place = _place(strategy)
    if place < len(DARK):
        return DARK[place]
    channels = [int(light_colour(strategy)[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    hue, lightness, saturation = colorsys.rgb_to_hls(*channels)
    return _hexadecimal(*colorsys.hls_to_rgb(hue, 1 - 0.75 * lightness, saturation))


def lettering(colour: str) -> str:
    """``colour`` for text: nearer to the ink, since thin letters need more contrast than marks."""
    ink = scheme().ink
    pairs = [(int(colour[at : at + 2], 16), int(ink[at : at + 2], 16)) for at in (1, 3, 5)]
    return _hexadecimal(*((own + _INKED * (to - own)) / 255 for own, to in pairs))


def marker(strategy: str) -> str:
    """The strategy's marker, so that curves stay apart without colour."""
    place = _place(strategy)
    return PALETTE[place][1] if place < len(PALETTE) else "d"


def title(strategy: str) -> str:
    """The name a reader knows; the registered name where nobody introduced the strategy."""
    return ANCHORS[strategy][0] if strategy in ANCHORS else _titles.get(strategy, strategy)


def _hexadecimal(*channels: float) -> str:
    return "#" + "".join(f"{round(one * 255):02x}" for one in channels)


def _place(strategy: str) -> int:
    return list(_titles).index(strategy) if strategy in _titles else max(len(_titles), len(PALETTE))


def wrapped(text: str, width: int) -> list[str]:
    """``text`` in lines of at most ``width`` characters that never part a name from its value at " = ", nor a
    number from its "%"."""
    lines = textwrap.wrap(text.replace(" = ", "\0=\0").replace(" %", "\0%"), width)
    return [line.replace("\0", " ") for line in lines]


def rank(strategy: str) -> tuple[int, str]:
    """Sort key: anchors first, then strategies as they were introduced, then others by name."""
    if strategy in ANCHORS:
        return list(ANCHORS).index(strategy), ""
    return len(ANCHORS) + _place(strategy), strategy
