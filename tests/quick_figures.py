"""Figures of reports whose files no test looks into: PNG alone, at a quarter of the pixels; few of them."""

from collections.abc import Callable

import pytest

from reports import plots, site, style


@pytest.fixture
def quick_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "FORMATS", {"png": None})
    monkeypatch.setitem(style.RC, "savefig.dpi", 100)


@pytest.fixture
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Called with names of pictures: reports draw these alone."""

    def only(*names: str) -> None:
        every = site.drawings
        monkeypatch.setattr(
            site, "drawings", lambda *given: (one for one in every(*given) if one.name in names)
        )

    return only
