"""From a recorded row back to the cell that it was measured of."""

from harness.cell.cell import RANDOM, RULES, Cell, default_values, normalised
from pardec.errors import UserError
from results.schema import FIELDS, RANDOM_WEIGHTS, Row
from results.settings import DECLARED


def cell_of(row: Row) -> Cell:
    """The cell whose settings the row stores; of a row of an older schema, as far as it tells.

    UserError where what is stored is no cell's.
    """
    return _stored(row) if row.settings else _as_told(row)


def _stored(row: Row) -> Cell:
    where = f"row of cell '{row.cell}'"
    unknown = [name for name in row.settings if name not in DECLARED]
    if unknown:
        raise UserError(
            f"{where}: unknown setting '{unknown[0]}'; it may be of a newer pardec: update pardec"
        )
    if "strategy" not in row.settings:
        raise UserError(f"{where}: its settings name no strategy")
    defaults = default_values()
    values = {**defaults, **row.settings}
    for name, value in values.items():
        rule = RULES.get(name)
        if rule is None or value == defaults.get(name) or (isinstance(value, str) and not rule.choices):
            continue  # a path need not be printable
        if not rule.fits(value):
            raise UserError(f"{where}: {name} = {value!r:.80}: expected {rule.expectation}")
    return Cell.from_settings(values)


def _as_told(row: Row) -> Cell:
    told = {name: getattr(row, name) for name, one in FIELDS.items() if one.kind == "setting"}
    told |= {"steps": row.steps, "images": row.images, "data": DECLARED["data"].before}
    if row.checkpoint == RANDOM_WEIGHTS:
        told["checkpoint"] = RANDOM
    for name, value in told.items():
        if value is not None and not RULES[name].fits(value):
            expected = RULES[name].expectation
            raise UserError(f"row of cell '{row.cell}': {name} = {value!r:.80}: expected {expected}")
    return normalised(Cell(**{name: value for name, value in told.items() if value is not None}))
