"""What a report is made of: a section for every facet, in parts of one batch size each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reports import images, tables
from reports.answer import Sentence
from reports.artifacts import Artifacts
from reports.contests import Against, Iso, TextTable, against_text, iso_text
from reports.frame import Facet
from reports.training_noise import TrainingNoise
from results.schema import Row


@dataclass(frozen=True)
class Picture:
    """A figure of the report, on disk; ``about`` says in two lines what it shows."""

    name: str
    title: str
    png: Path | None
    """None where nothing was measured for it, which ``lacking`` says."""
    caption: str
    about: str = ""
    shown: images.Shown | None = None
    """As the page shows it; None where it does not."""
    on_page: bool = True
    said: tuple[str, ...] = ()
    lacking: tuple[str, str] | None = None
    """As ``Drawing`` has them."""


@dataclass(frozen=True)
class Part:
    """The ok cells of one batch size and what they say of each other; ``name`` tells parts apart."""

    facet: Facet
    name: str
    cells: Sequence[Row]
    iso: Iso | None
    against: Against | None

    def iso_table(self, noise: TrainingNoise) -> TextTable | None:
        """Every pair of curves in words."""
        if self.iso is None:
            return None
        return iso_text(self.iso, f"Iso-quality{self.name}", noise.moved(self.iso.metric, self.cells))

    def against_table(self, noise: TrainingNoise) -> TextTable | None:
        """Every cell against the first in words."""
        return None if self.against is None else against_text(self.against, self.cells, noise, self.name)


@dataclass
class Section:
    """One facet of the report."""

    facet: Facet
    parts: Sequence[Part]
    sentences: Sequence[Sentence]
    tables: Sequence[tables.ReportTable]
    failures: Sequence[str]
    missing: list[str]
    artifacts: Mapping[str, Artifacts]
    noise: TrainingNoise
    pictures: list[Picture] = field(default_factory=list)

    def contests(self) -> list[TextTable]:
        """The tables of all parts, in their order."""
        found = [
            table
            for part in self.parts
            for table in (part.iso_table(self.noise), part.against_table(self.noise))
        ]
        return [table for table in found if table is not None]
