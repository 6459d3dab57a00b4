"""The part of the contract that is about learning: lessons, loss, gradients."""

from dataclasses import replace

import torch

from strategies.decoding.contract.recording import Case
from strategies.decoding.contract.requirements import close, require, require_equal


def check_lessons(subject: Case) -> None:
    """A lesson is a permutation per row (and group sizes that fill it), the same for one generator state."""
    strategy, config = subject.strategy, subject.config
    for progress in (0.0, 0.6, 1.0):
        lessons = [
            strategy.lesson(5, config.grid, torch.Generator().manual_seed(1), progress) for _ in range(2)
        ]
        order, sizes = lessons[0].order, lessons[0].sizes
        require_equal(tuple(order.shape), (5, subject.places), "shape of a lesson's order")
        whole = torch.arange(subject.places).expand(5, -1)
        require(torch.equal(order.sort(dim=1).values, whole), "a lesson's order is no permutation")
        repeated = torch.equal(order, lessons[1].order) and sizes == lessons[1].sizes
        shown, again = (lesson.shown for lesson in lessons)
        if shown is not None and again is not None:
            require_equal((shown.shape, shown.dtype), (order.shape, torch.bool), "shape and type of shown")
            repeated &= torch.equal(shown, again)
        require(repeated, "a lesson depends on more than its generator")
        fills = sizes is None or (sum(sizes) == subject.places and min(sizes) >= 1)
        require(fills, f"group sizes {sizes} of a lesson do not fill {subject.places} places")


def check_loss_is_mean_cross_entropy(subject: Case) -> None:
    """The loss is the mean cross-entropy of the taught logits, [B, N, V] in float32, V codes at least."""
    strategy, config = subject.strategy, subject.config
    tokens, labels = subject.tokens(4), torch.tensor([0, 1, 2, config.classes])
    lesson = strategy.lesson(4, config.grid, torch.Generator().manual_seed(1), 0.0)
    with torch.no_grad():
        logits = strategy.taught_logits(subject.network, tokens, labels, lesson)
        loss = strategy.loss(subject.network, tokens, labels, lesson)
    require_equal(tuple(logits.shape[:2]), (4, subject.places), "shape of taught logits")
    require(logits.shape[2] >= config.codes, f"taught logits of {logits.shape[2]} of {config.codes} codes")
    require_equal(logits.dtype, torch.float32, "type of taught logits")
    targets = tokens.gather(1, lesson.order).unsqueeze(-1)
    expected = -logits.log_softmax(dim=-1).gather(-1, targets).mean()
    # Rounding is relative: a code that can't be costs thousands.
    close(loss, expected, 1e-5 * max(1.0, float(expected)), "loss and mean cross-entropy")


def check_every_parameter_learns(subject: Case) -> None:
    """Every parameter gets gradient but declared exceptions, and those have a part that truly cannot."""
    strategy, config, network = subject.strategy, subject.config, subject.network
    tokens, labels = subject.tokens(8), torch.arange(8) % (config.classes + 1)
    network.zero_grad(set_to_none=True)
    lesson = strategy.lesson(8, config.grid, torch.Generator().manual_seed(2), 0.0)
    strategy.loss(network, tokens, labels, lesson).backward()
    scale = max(float(p.grad.abs().max()) for p in network.parameters() if p.grad is not None)
    for name, parameter in network.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        if any(name.endswith(suffix) for suffix in strategy.gradient_exceptions):
            dead = (gradient.abs() < 1e-5 * scale).any()
            require(dead, f"{name} is declared to get no gradient, but learns everywhere")
        else:
            require(float(gradient.abs().max()) > 1e-6 * scale, f"{name} gets no gradient")
    network.zero_grad(set_to_none=True)


def check_lessons_leak_nothing(subject: Case) -> None:
    """In training, the logits of a group do not depend on its own or any later token.

    Where a lesson shows some tokens, no logit depends on one that is not shown.
    """
    strategy, config = subject.strategy, subject.config
    tokens = subject.tokens(1).repeat(subject.places + 1, 1)
    labels = torch.ones(len(tokens), dtype=torch.int64)
    for seed in range(3):
        lesson = strategy.lesson(2, config.grid, torch.Generator().manual_seed(seed), 0.0)
        order, shown = lesson.order[:1], None if lesson.shown is None else lesson.shown[:1]
        changed = tokens.clone()
        for place in range(subject.places):  # row 1 + place: the token at that place is another one
            position = order[0, place]
            changed[1 + place, position] = (changed[1 + place, position] + 1) % config.codes
        taught = replace(
            lesson,
            order=order.expand(len(changed), -1),
            shown=None if shown is None else shown.expand(len(changed), -1),
        )
        with torch.no_grad():
            logits = strategy.taught_logits(subject.network, changed, labels, taught)
        sizes = lesson.sizes or (1,) * subject.places
        ends = torch.repeat_interleave(torch.tensor(sizes).cumsum(0), torch.tensor(sizes))
        for place in range(subject.places):
            end = int(ends[place]) if shown is None else subject.places
            if shown is not None and shown[0, order[0, place]]:
                continue
            what = f"taught logits up to the group of place {place}, when its token is another one,"
            close(logits[1 + place, :end], logits[0, :end], 2e-5, what)
        reads = float((logits - logits[:1]).abs().max()) > 1e-3
        require(reads or (shown is not None and not shown.any()), "a lesson reads no token at all")
