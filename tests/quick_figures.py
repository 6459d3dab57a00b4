"""Figures of reports whose files no test looks into: PNG alone, at a quarter of the pixels."""

import pytest

from reports import plots, style


@pytest.fixture
def quick_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "FORMATS", {"png": None})
    monkeypatch.setitem(style.RC, "savefig.dpi", 100)
