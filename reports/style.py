"""The visual language: one colour and one marker per strategy in every table, curve, grid and film strip."""

import colorsys
import hashlib
import textwrap
from typing import Any

COLOURS = {
    "raster": "#3f3f46",
    "rar": "#cc8400",
    "par": "#009e73",
    "lpd": "#d0421b",
    "arpg": "#0072b2",
    "randar": "#cc79a7",
    "sjd": "#56b4e9",
    "zipar": "#7a5c00",
    "nar": "#332288",
    "maskgit": "#882255",
    "var": "#8a9a00",
    "code": "#aa4499",
    "real": "#6b7280",
    "reconstruction": "#9ca3af",
}
"""Five that stay apart under deuteranopia and protanopia (after Okabe and Ito), then Tol's muted set."""

MARKERS = {
    "raster": "o",
    "rar": "s",
    "par": "D",
    "lpd": "^",
    "arpg": "v",
    "randar": "P",
    "sjd": "X",
    "zipar": "<",
    "nar": ">",
    "maskgit": "p",
    "var": "h",
    "code": "*",
}

TITLES = {
    "raster": "Raster",
    "rar": "RAR",
    "par": "PAR",
    "lpd": "LPD",
    "arpg": "ARPG",
    "randar": "RandAR",
    "sjd": "SJD",
    "zipar": "ZipAR",
    "nar": "NAR",
    "maskgit": "MaskGIT",
    "var": "VAR",
    "code": "CoDe",
    "real": "Real images",
    "reconstruction": "Reconstructions",
}

ANCHORS = ("real", "reconstruction")
INK = "#1f2328"
MUTED = "#6b7280"
GRID = "#e5e7eb"
FRONT = "#c3c7ce"
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
    "text.parse_math": False,  # a label's dollar signs are no formula
}
"""matplotlib settings of every figure. Untyped: matplotlib types the keys, differently in each release."""


def colour(strategy: str) -> str:
    """The strategy's colour; one that is not listed gets its own by the hash of its name."""
    if strategy in COLOURS:
        return COLOURS[strategy]
    digest = hashlib.sha256(strategy.encode()).digest()
    hue = int.from_bytes(digest[:2], "big") / 65536
    lightness, saturation = 0.36 + 0.14 * digest[2] / 255, 0.55 + 0.3 * digest[3] / 255
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, saturation)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def marker(strategy: str) -> str:
    """The strategy's marker, so that curves stay apart without colour."""
    return MARKERS.get(strategy, "d")


def title(strategy: str) -> str:
    """The name a reader knows; the registered name where none is listed."""
    return TITLES.get(strategy, strategy)


def wrapped(text: str, width: int) -> list[str]:
    """``text`` in lines of at most ``width`` characters that never part a name from its value at " = "."""
    lines = textwrap.wrap(text.replace(" = ", "\0=\0"), width)
    return [line.replace("\0", " ") for line in lines]


def rank(strategy: str) -> tuple[int, str]:
    """Sort key: anchors first, then the listed strategies, then plug-ins by name."""
    if strategy in ANCHORS:
        return ANCHORS.index(strategy), ""
    listed = list(COLOURS)
    return len(ANCHORS) + (listed.index(strategy) if strategy in listed else len(listed)), strategy
