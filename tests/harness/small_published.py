"""Published families at the size of a test: networks and tokenizers for 8x8 pixels, and their rows."""

import functools
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from backbones import published_tokenizers
from backbones.transformer import parameter_count
from harness.cell.cell import Cell, normalised
from harness.measure import measure
from harness.measure.measure import Budgets
from harness.measure.repeats import Budget
from harness.subject.pins import finished
from harness.sweep.job import measure_cell
from harness.sweep.messages import Channel
from harness.sweep.process import Outcome
from harness.sweep.row import make_row
from harness.weights.empty import on_meta
from results.schema import Row
from strategies.decoding import presets
from strategies.decoding.registry import by_family
from tests.backbones.published_files import HYPER_PARAMETERS
from tests.harness.small_catalogue import use_catalogue

TOKENIZERS = {
    "small-llamagen": ("vq-llamagen", "ch = 32, num_res_blocks = 1, encoder_ch_mult = [1, 1], z_channels = 8,"
                       " decoder_ch_mult = [1, 1], codebook_size = 11, codebook_embed_dim = 4"),
    "small-maskgit": ("vq-maskgit", "hidden_channels = 32, num_res_blocks = 1, channel_mult = [1, 1], "
                      "z_channels = 4, codebook_size = 11"),
}  # fmt: skip
NETWORKS = {"par": "small-llamagen", "rar": "small-maskgit"}


def catalogue() -> str:
    text = ""
    for name, (family, config) in TOKENIZERS.items():
        text += (
            f'[tokenizer.{name}]\ntitle = "{name}"\nfamily = "{family}"\ncodes = 11\nstride = 2\n'
            f'parameters = 1\npaper = "p"\nfiles = "https://hub/{name}"\nfile = "{name}.pt"\nlicence = "l"\n'
            f"config = {{ {config} }}\n"
        )
    for family, tokenizer in NETWORKS.items():
        naming = by_family(family)
        strategy, config = naming.configure({**naming.defaults, **HYPER_PARAMETERS[family]})
        names = ", ".join(f"{key} = {value}" for key, value in HYPER_PARAMETERS[family].items())
        text += (
            f'[family.{family}]\nstrategy = "{family}"\ntokenizer = "small-llamagen"\n'
            'paper = "p"\nfiles = "f"\nlicence = "l"\n'
            f'[preset.small-{family}]\ntitle = "Small"\nfamily = "{family}"\n'
            f'tokenizer = "{tokenizer}"\n'  # a model may name another than its family
            f"parameters = {parameter_count(on_meta(strategy, config))}\nconfig = {{ {names} }}\n"
            f"[preset.small-{family}.8]\nconfig = {{}}\n"
        )
    return text


@pytest.fixture(autouse=True)
def small_presets(tmp_path: Path) -> Iterator[Path]:
    """Networks and tokenizers of the published families for 8x8 pixels, in place of the published sizes."""
    before, file = (published_tokenizers.PRESETS, presets.TABLES), tmp_path / "catalogue" / "presets.toml"
    file.parent.mkdir()
    file.write_text(catalogue())
    use_catalogue(file)
    yield file
    use_catalogue(*before)


def cell(family: str = "par", **changes) -> Cell:
    random = {"checkpoint": "random", "tokenizer_checkpoint": "random"}
    whole = {"network": f"small-{family}", "batch": 2, "threads": 1, "images": 3, **random, **changes}
    return normalised(Cell(family, **whole))


def row_of(chosen: Cell, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Row:
    """The row of a cell, measured here and with hardly a repeat."""
    once = Budget(seconds=0, least=1)
    quick = Budgets(warmup_s=0, images=Budget(seconds=0, least=2), latency=once, by_batch=once)
    chosen = finished(chosen)
    with monkeypatch.context() as patch:
        patch.setattr("harness.sweep.job.measure", functools.partial(measure.measure, budgets=quick))
        found = measure_cell(chosen, folder, Channel(io.BytesIO()))
    return make_row(chosen, Outcome("ok", None, found, 1.0), "2026-01-01T00:00:00Z")
