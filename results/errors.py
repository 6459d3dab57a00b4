"""The suite's user errors, for the rooms that know neither strategies nor torch."""

from strategies.decoding.errors import UserError, nearest, one_line, unknown, visible

__all__ = ["UserError", "nearest", "one_line", "unknown", "visible"]
