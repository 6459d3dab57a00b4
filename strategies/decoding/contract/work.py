"""The part of the contract that is about work: all of it in counted forward calls, every time anew."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from backbones.networks import Networks
from backbones.transformer import Network, Trunk
from strategies.decoding.contract.recording import Case, Run, run
from strategies.decoding.contract.requirements import require, require_equal
from strategies.decoding.meter import by_role


@dataclass(frozen=True)
class Work:
    """What one decode does, counted at the operators: calls can be gone round, products cannot.

    flops: of all matrix products and attentions. flops_outside: of those outside the network's forward calls.
    rows: row positions (rows x n) through the trunks. trunk_calls_per_forward: largest number of times that
    one trunk ran within one forward call.
    """

    forwards: int
    rows: int
    flops: int
    flops_outside: int
    trunk_calls_per_forward: int


def _fused_attention_flops(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


FORMULAS = {
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _fused_attention_flops,
}


class Products(TorchDispatchMode):
    """Adds up the FLOPs of products and attentions by torch's own formulas.

    (Its ``FlopCounterMode`` also follows modules and gradients, which takes ten times as long.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the guard against it imports the compiler: seconds

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        formula = FORMULAS.get(func._overloadpacket)
        if formula is None:
            with self:  # linear, matmul, einsum, ... consist of counted products
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        found = func(*args, **kwargs)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=found)
        return found


class Counter:
    """Counts the work of a network from its making until ``close``."""

    def __init__(self, network: Network | Networks, products: Products) -> None:
        self.products = products
        self.forwards = self.rows = self.flops_inside = self.most_calls = 0
        self.entered_at: int | None = None
        self.calls: dict[nn.Module, int] = {}
        self.hooks: list[Any] = []
        for one in by_role(network).values():
            self.hooks.append(one.register_forward_pre_hook(self.enter))
            self.hooks.append(one.register_forward_hook(self.leave, always_call=True))
        for module in network.modules():
            if isinstance(module, Trunk):
                self.hooks.append(module.register_forward_pre_hook(self.pass_trunk))

    def enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.forwards += 1
        self.calls = {}
        self.entered_at = self.products.flops

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        if self.entered_at is not None:
            self.flops_inside += self.products.flops - self.entered_at
        self.entered_at = None

    def pass_trunk(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.calls[module] = self.calls.get(module, 0) + 1
        self.most_calls = max(self.most_calls, self.calls[module])
        self.rows += args[0].shape[0] * args[0].shape[1]

    def close(self) -> Work:
        for hook in self.hooks:
            hook.remove()
        total = self.products.flops
        return Work(self.forwards, self.rows, total, total - self.flops_inside, self.most_calls)


def work_of_a_decode(subject: Case, images: tuple[int, ...], steps: int | None) -> Work:
    """The work of one guided decode."""
    plan, labels = subject.plan(images, steps), subject.labels(images)
    with Products() as products:
        counter = Counter(subject.network, products)
        try:
            run(subject, plan, labels, subject.sampler(images), subject.guidance(2.0))
        finally:
            work = counter.close()
    return work


def check_used_through_the_loop_only(subject: Case) -> None:
    """One forward of each network per step, and no mode, gradient or parameter of a network is changed."""
    images, network = (0, 1), subject.network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for steps in subject.step_counts():
        plan = subject.plan(images, steps)
        whole = run(subject, plan, subject.labels(images), subject.sampler(images))
        found = whole.decoded
        _require_forwards(whole, subject.strategy.vain_steps)
        processed = found.tokens_processed
        # A place of the trunk may hold several tokens, but no step goes without one.
        require(processed >= found.steps, f"{processed} rows through the trunk in {found.steps} steps")
        require(not found.tokens.requires_grad, "tokens carry a gradient")
    require(not network.training, "the network is left in training mode")
    after = network.state_dict()
    changed = [name for name in before if not torch.equal(after[name], before[name])]
    require(not changed, f"decoding changes {', '.join(changed)}")
    hooked = any(module._forward_pre_hooks for module in network.modules())
    require(not hooked, "hooks are left on the network")


def _require_forwards(found: Run, vain_steps: int) -> None:
    """A forward of each network for each step, none that is not drawn from, no more steps than bounded, and
    at most so many once all images are complete."""
    plan, decoded = found.plan, found.decoded
    if plan.steps is not None:
        require_equal(decoded.steps, plan.steps, f"draws of a plan of {plan.steps} steps")
    require_equal(decoded.steps, len(found.steps), "steps, and forward calls that were drawn from")
    require(decoded.steps <= plan.most_steps, f"{decoded.steps} steps, the plan says {plan.steps_in_words()}")
    calls = sum(map(len, found.steps)) + len(found.idle)
    networks = len(decoded.counts)
    require(
        calls <= decoded.steps * networks,
        f"forward calls of a plan of {plan.steps_in_words()} steps: {calls} of {networks} network(s) in "
        f"{decoded.steps} steps",
    )
    require_equal(decoded.forwards, calls, "forward calls counted by the loop, and made")
    twice = [step for step, roles in enumerate(found.steps) if len(set(roles)) < len(roles)]
    require(not twice, f"a network is called twice for one step: steps {twice}")
    require(not found.idle, f"networks are called after the last draw: {', '.join(found.idle)}")
    paces = decoded.steps_of_image
    vain = decoded.steps - int(paces.max())
    within = int(paces.min()) >= 1 and 0 <= vain <= vain_steps
    require(within, f"images end after {paces.tolist()} steps, the decode after {decoded.steps}")


def check_hides_no_work(subject: Case) -> None:
    """All matrix products happen in the forward calls that count as steps, one pass through a trunk each."""
    for steps in subject.step_counts():
        work = work_of_a_decode(subject, (0, 1), steps)
        require(work.flops > 0, "no matrix product at all")
        share = work.flops_outside / work.flops
        require(not share, f"{steps} steps: {share:.0%} of the FLOPs are outside the counted forward calls")
        calls = work.trunk_calls_per_forward
        require(calls <= 1, f"{steps} steps: one counted forward call runs a trunk {calls} times")


def check_repeats_its_work(subject: Case) -> None:
    """A decode does all its work each time: nothing is kept from an earlier one, as in a warm-up."""
    images = (1009, 1010, 1011, 1012, 1013)  # of no other check: their first decode is really the first
    steps = subject.plan(images).steps
    first = work_of_a_decode(subject, images, steps)
    for turn in ("second", "third"):
        again = work_of_a_decode(subject, images, steps)
        require_equal(again, first, f"work of the {turn} decode of the same images")
