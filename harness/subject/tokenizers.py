"""Which of the zoo's tokenizers a cell uses; without torch."""

from harness.cell.cell import RECONSTRUCTING, Cell
from pardec.errors import UserError
from strategies.decoding import registry


def zoo_tokenizer(cell: Cell) -> str:
    """The tokenizer of a controlled cell: its strategy's, of an anchor the one that it is about.

    UserError for a decoder that the codes are not of.
    """
    if cell.is_anchor:
        return RECONSTRUCTING.get(cell.strategy, "tokenizer")
    own = registry.get(cell.strategy).tokenizer
    if cell.decoder == "own":
        return own
    if cell.is_published or own != "tokenizer":
        raise UserError(
            f"decoder = '{cell.decoder}': expected 'own', for strategy '{cell.strategy}' on network "
            f"'{cell.network}' has codes of another tokenizer"
        )
    return cell.decoder
