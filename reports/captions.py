"""What stands over and under a figure: in a file its title and where it was measured, on the page neither.

The page has both beside the figure already; a file travels alone.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import style
from reports.frame import Facet


def titled(figure: Figure, title: str) -> None:
    """The title over all panels."""
    if style.scheme().alone:
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=11)


def titled_panel(axes: Axes, title: str) -> None:
    """The title of a figure of one panel."""
    if style.scheme().alone:
        axes.set_title(title)


def note_under(figure: Figure, caption: str, note: str = "") -> None:
    """``caption`` (settings) and ``note`` under a figure, in lines as wide as it is."""
    characters = int(figure.get_figwidth() * 16)
    lines = [line for text in _told(caption, note) for line in style.wrapped(text, characters)]
    _write(figure, 0.0, -0.12 / figure.get_figheight(), lines)


def note_under_axes(figure: Figure, facet: Facet, note: str = "") -> None:
    """The same under the lowest axes of a figure that is not laid out to its edge."""
    characters = int(figure.get_figwidth() * 18)  # names right of the frame make the picture wider
    lines = [line for text in _told(facet.caption, note) for line in style.wrapped(text, characters)]
    if not lines:
        return
    figure.draw_without_rendering()
    boxes = [box for axes in figure.axes if (box := axes.get_tightbbox()) is not None]
    bottom = min((box.transformed(figure.transFigure.inverted()).y0 for box in boxes), default=0.0)
    _write(figure, 0.01, bottom - 0.15 / figure.get_figheight(), lines)


def _told(caption: str, note: str) -> list[str]:
    return [text for text in (caption if style.scheme().alone else "", note) if text]


def _write(figure: Figure, x: float, y: float, lines: list[str]) -> None:
    if lines:
        figure.text(x, y, "\n".join(lines), va="top", fontsize=7.5, color=style.scheme().muted)
