"""The checks by name, and the score card of a strategy."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from backbones.config import NetworkConfig
from pardec.errors import nearest, unknown
from strategies.decoding import registry
from strategies.decoding.base import Strategy, TrainingFree
from strategies.decoding.contract import (
    declarations,
    decoding,
    isolation,
    learning,
    lossless,
    sampling,
    work,
)
from strategies.decoding.contract.recording import CONTROLLED, Case, Parts, subject
from strategies.decoding.contract.requirements import Broken, require

Status = Literal["pass", "fail", "expected failure", "not applicable"]


@dataclass(frozen=True)
class Check:
    """One named requirement.

    trait, value: it applies to strategies that declare so; also: the same of a second trait. of_taught: it
    applies to strategies that say what their network is taught, as a training-free one need not.
    """

    run: Callable[[Case], None]
    trait: str | None = None
    value: Any = True
    also: str | None = None
    of_taught: bool = False

    @property
    def name(self) -> str:
        return self.run.__name__.removeprefix("check_")

    @property
    def requires(self) -> str:
        """What must hold, one line."""
        return (self.run.__doc__ or self.name).splitlines()[0]

    def applies(self, strategy: Strategy) -> bool:
        return not self.why_not(strategy)

    def why_not(self, strategy: Strategy) -> str:
        """Why it does not apply; empty where it does."""
        for trait, value in ((self.trait, self.value), (self.also, True)):
            if trait is not None and getattr(strategy, trait) != value:
                return f"{trait} = {getattr(strategy, trait)!r}"
        if self.of_taught and type(strategy).taught_logits is TrainingFree.taught_logits:
            return f"training-free: '{strategy.base}' says what the network is taught"
        return ""


@dataclass(frozen=True)
class Checked:
    """What became of one check; ``reason``: why it failed, was expected to, or does not apply.

    crashed: it failed by an error instead of a broken requirement.
    """

    check: str
    status: Status
    reason: str = ""
    crashed: bool = False


@dataclass(frozen=True)
class ScoreCard:
    """What became of every check of one strategy."""

    strategy: str
    outcomes: tuple[Checked, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed but what the strategy declares."""
        return not self.failures

    @property
    def failures(self) -> tuple[Checked, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.status == "fail")

    def lines(self) -> list[str]:
        """The card as text: a line for each check, then the sum."""
        width = max(len(outcome.check) for outcome in self.outcomes)
        lines = [
            f"{outcome.check:<{width}}  {outcome.status}{': ' if outcome.reason else ''}{outcome.reason}"
            for outcome in self.outcomes
        ]
        return [*lines, self.total()]

    def total(self) -> str:
        """How many checks came to what, one line."""
        counts = {
            status: sum(outcome.status == status for outcome in self.outcomes)
            for status in ("pass", "fail", "expected failure", "not applicable")
        }
        return f"{self.strategy}: " + ", ".join(f"{n} {status}" for status, n in counts.items())


def check_expected_failures_are_declared(subject: Case) -> None:
    """Every expected failure names a check that applies, and has a reason."""
    for name, reason in subject.strategy.expected_failures.items():
        require(name in WAIVABLE, f"expected failure '{name}' is no such check: {nearest(name, WAIVABLE)}")
        require(isinstance(reason, str) and reason.strip(), f"expected failure '{name}' has no reason")
        why_not = CHECKS[name].why_not(subject.strategy)
        require(not why_not, f"expected failure '{name}' cannot be: {why_not}")


_ALL = (
    Check(check_expected_failures_are_declared),
    Check(declarations.check_declares_itself),
    Check(declarations.check_imports_nothing_foreign),
    Check(declarations.check_plans_are_valid),
    Check(sampling.check_sampler_draws_the_filtered_softmax),
    Check(sampling.check_guidance_scales),
    Check(decoding.check_every_position_once),
    Check(decoding.check_causal),
    Check(decoding.check_guidance),
    Check(decoding.check_needs_a_null_class_for_guidance),
    Check(isolation.check_noise_belongs_to_images),
    Check(isolation.check_deterministic),
    Check(isolation.check_uses_the_network_it_is_given),
    Check(isolation.check_leaves_its_inputs_alone),
    Check(work.check_used_through_the_loop_only),
    Check(work.check_hides_no_work),
    Check(work.check_repeats_its_work),
    Check(learning.check_lessons, "base", None),
    Check(learning.check_lessons_leak_nothing, "base", None),
    Check(learning.check_loss_is_mean_cross_entropy, "base", None),
    Check(learning.check_every_parameter_learns, "base", None),
    Check(isolation.check_batch_equals_singles, "batch_exact"),
    Check(decoding.check_cached_equals_taught, "cached_equals_taught", of_taught=True),
    Check(isolation.check_reads_only_filled_slots, "empty_context", False),
    Check(decoding.check_tests_its_drafts, "tests_drafts"),
    Check(lossless.check_lossless, "lossless"),
    Check(lossless.check_lossless_in_a_batch, "lossless", also="decides_steps"),
    Check(decoding.check_given_tokens, "any_order"),
    Check(decoding.check_everything_given, "any_order"),
)
CHECKS = {check.name: check for check in _ALL}
"""Every check by name, in the order of the card."""
WAIVABLE = [check.name for check in _ALL if check.run is not check_expected_failures_are_declared]


def check_strategy(
    strategy: Strategy | str | Path,
    *,
    config: NetworkConfig = CONTROLLED,
    parts: Parts | None = None,
    only: Collection[str] = (),
) -> ScoreCard:
    """Hold a strategy to the contract, on a tiny network with random weights; seconds on a CPU.

    strategy: an instance, a registered name, or a path of a plug-in file (a Path, or a text that ends in
    ``.py``). config: the network; some dressings need another one than the shared trunk in miniature.
    parts: sampler and guidance, if others than ours. only: names of checks; all if empty.

    What a strategy declares in ``expected_failures`` must fail. Whatever else the strategy's code raises is
    a failure of the check it is raised in. Raises UserError for an unknown name of a strategy or check and
    for a plug-in file that cannot be loaded.
    """
    for name in only:
        if name not in CHECKS:
            raise unknown("check", name, CHECKS)
    found = resolve(strategy)
    wanted = [check for check in CHECKS.values() if not only or check.name in only]
    return ScoreCard(found.name, tuple(judge(check, found, config, parts) for check in wanted))


def resolve(strategy: Strategy | str | Path) -> Strategy:
    """The strategy itself, by name, or of a plug-in file."""
    if isinstance(strategy, Strategy):
        return strategy
    if isinstance(strategy, Path) or strategy.endswith(".py"):
        return registry.get(registry.add_plugin(Path(strategy)))
    return registry.get(strategy)


def judge(
    check: Check, strategy: Strategy, config: NetworkConfig = CONTROLLED, parts: Parts | None = None
) -> Checked:
    """Run one check on a fresh network."""
    if not check.applies(strategy):
        return Checked(check.name, "not applicable", check.why_not(strategy))
    failure: str | None = None
    crashed = False
    try:
        check.run(subject(strategy, config, parts=parts))
    except Broken as broken:
        failure = str(broken)
    except Exception as error:  # noqa: BLE001 - whatever a strategy's code raises is this check's failure
        failure, crashed = f"{type(error).__name__}: {' '.join(str(error).split())}", True
    expected = strategy.expected_failures.get(check.name) if check.name in WAIVABLE else None
    if failure is None and expected is not None:
        return Checked(check.name, "fail", f"passes, but is declared to fail: {expected}")
    if failure is None:
        return Checked(check.name, "pass")
    if expected is not None and expected.strip():
        return Checked(check.name, "expected failure", f"{expected} ({failure})", crashed)
    return Checked(check.name, "fail", failure, crashed)
