"""Training of tiny networks through every mark, whatever their losses do."""

import pytest

from harness.train.mark_recipe import MarkRecipe


def train_through_every_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    """No mark is the last before the recipe's last one, and nothing is compiled."""
    monkeypatch.setattr("harness.train.mark_trainer.compile_taught", lambda network: False)
    monkeypatch.setattr(
        MarkRecipe,
        "next_mark",
        lambda recipe, losses: next((mark for mark in recipe.marks if mark not in losses), None),
    )
