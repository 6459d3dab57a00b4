"""Which of the zoo's tokenizers a cell uses; without torch."""

from harness.cell.cell import RECONSTRUCTING, Cell
from strategies.decoding import registry


def zoo_tokenizer(cell: Cell) -> str:
    """The tokenizer of a controlled cell: its strategy's, of an anchor the one that it is about."""
    if cell.is_anchor:
        return RECONSTRUCTING.get(cell.strategy, "tokenizer")
    return registry.get(cell.strategy).tokenizer
