"""The contract of a strategy as checks over any ``Strategy``: built in, plug-in, or from a test.

``check_strategy`` runs those that apply to what the strategy declares and returns a score card.
"""

from strategies.decoding.contract.card import CHECKS, Check, Checked, ScoreCard, check_strategy, judge
from strategies.decoding.contract.recording import CONTROLLED, Case, Parts, run, subject

__all__ = [
    "CHECKS",
    "CONTROLLED",
    "Case",
    "Check",
    "Checked",
    "Parts",
    "ScoreCard",
    "check_strategy",
    "judge",
    "run",
    "subject",
]
