"""All targets by name."""

from tests.fuzz import files, pages, texts
from tests.fuzz.target import TARGETS, Target

__all__ = ["TARGETS", "Target", "files", "pages", "texts"]
