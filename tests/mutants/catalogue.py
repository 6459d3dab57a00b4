"""All mutants, and what kills them."""

from strategies.decoding.contract import CHECKS, Checked, judge
from tests.mutants import Mutant, arithmetic, bookkeeping, contexts, masking, scales, speculation, stages

MUTANTS = [
    *contexts.MUTANTS,
    *bookkeeping.MUTANTS,
    *arithmetic.MUTANTS,
    *speculation.MUTANTS,
    *masking.MUTANTS,
    *scales.MUTANTS,
    *stages.MUTANTS,
]


def verdict(mutant: Mutant, check: str) -> Checked:
    getattr(mutant.strategy, "memory", {}).clear()  # what an earlier check left in its memory
    return judge(CHECKS[check], mutant.strategy, parts=mutant.parts)


def killers(mutant: Mutant) -> list[str]:
    """Every check that fails on a mutant."""
    return [name for name in CHECKS if verdict(mutant, name).status == "fail"]
