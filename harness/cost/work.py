"""What a decode does, step by step, without doing it: the public loop on torch's meta device.

The strategy's own generator runs, so every strategy is covered, plug-ins included. Of a trunk of equal blocks
three are run and counted for all. A strategy that reads what it drew can't be foreseen, since nothing is
drawn; one that tests drafts can, once the share that is accepted is given.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from backbones.networks import Networks
from backbones.tokenizers import Tokenizer
from backbones.transformer import Network, Trunk
from harness.cost.drafting import drafted_course
from harness.cost.recorder import META, AsOnDevice, Operations, Product, Recorder, storage_of, works_of
from harness.subject.prepare import Prepared, dtype_of
from harness.weights.empty import on_meta
from strategies.decoding.decode import decode
from strategies.decoding.meter import by_role
from strategies.decoding.sampling import StreamSampler
from strategies.decoding.trace import Committed

VECTOR_CHANNELS = 8
"""Of the codes' vectors, for strategies that compare them: LlamaGen's."""


class Unforeseeable(Exception):
    """A strategy whose course depends on what it draws."""


class Kernel(NamedTuple):
    """What the size of a kernel that is kept depends on."""

    dtype: torch.dtype
    packed: bool
    rows: int


@dataclass(frozen=True)
class DecodeWork:
    """Operations of each step of one batch; prefill belongs to the first."""

    steps: tuple[tuple[Operations, ...], ...]
    cache_bytes: int
    activation_bytes: int
    """Most that lives at once beside weights and caches."""
    kernels: Mapping[Kernel, int] = field(default_factory=dict)
    """How many kernels of a kind a CPU's product library keeps by the end: one for each shape it has met."""

    @property
    def flops(self) -> int:
        return sum(work.flops for step in self.steps for work in step)


@dataclass(frozen=True)
class _MetaSampler(StreamSampler):
    def noise(self, order: Tensor, purpose: str = "token", visit: int = 0) -> Tensor:
        return torch.empty(order.shape, device=order.device)

    def race(self, probs: Tensor, positions: Tensor) -> Tensor:
        """As where positions are known; of numbers for the whole window."""
        exponential = -torch.log1p(-(torch.empty_like(probs) + 2.0**-25).clamp(max=1 - 2.0**-24))
        return (probs / exponential).argmax(dim=-1)


def decode_work(
    prepared: Prepared,
    batch: int | None = None,
    on_cpu: bool | None = None,
    acceptance: float | None = None,
) -> DecodeWork:
    """The work of decoding one batch (default: the cell's size).

    on_cpu: whether operations are a CPU's or a GPU's (default: the cell's device). acceptance: share of
    tested drafts that are accepted (default: the cell's), for a strategy whose steps follow from it.
    Weights that are read by position (embeddings) count by what is read of them; all other tensors count once
    for each operation that reads or writes them. Raises Unforeseeable where a strategy reads what it drew.
    """
    cell = prepared.cell
    images = range(batch or cell.batch)
    course = None
    if prepared.strategy.decides_steps:
        acceptance = cell.acceptance if acceptance is None else acceptance
        if acceptance is None or not prepared.strategy.tests_drafts:
            raise Unforeseeable(f"strategy '{cell.strategy}' decides its steps while decoding")
        course = drafted_course(prepared, len(images), acceptance)
    network = on_meta(prepared.strategy, prepared.config).in_precision(dtype_of(cell))
    network.eval().requires_grad_(False)
    if prepared.strategy.reads_code_vectors and isinstance(network, Network):
        network.code_vectors = torch.empty(prepared.config.codes, VECTOR_CHANNELS, device=META)
    blocks = _few_blocks(network)
    if on_cpu is None:
        on_cpu = torch.device(cell.device).type == "cpu"
    recorder = Recorder({storage_of(parameter) for parameter in network.parameters()})
    with _caches_noted(network, recorder), _blocks_repeated(blocks, recorder):
        plan = prepared.plan(images)
        labels = torch.zeros(len(images), dtype=torch.int64, device=META)
        sampler = _MetaSampler(prepared.streams(images), cell.temperature, cell.top_k, cell.top_p)

        def next_step(commit: Committed) -> None:
            recorder.steps.append({})

        with AsOnDevice(recorder, on_cpu, course), recorder:
            try:
                decode(
                    network, prepared.strategy, plan, labels, sampler, prepared.guidance, observe=next_step
                )
            except (RuntimeError, NotImplementedError) as error:
                if "meta" not in str(error).lower():
                    raise
                raise Unforeseeable(
                    f"strategy '{cell.strategy}' depends on what it draws: {' '.join(str(error).split())}"
                ) from error
    *steps, after = recorder.steps
    merged = [works_of(step) for step in steps[:-1]] + [works_of(steps[-1]) + works_of(after)]
    cached = sum(recorder.cache_sizes)
    kernels = _kernels(recorder.products, cell.products == "packed") if on_cpu else {}
    return DecodeWork(tuple(merged), cached, recorder.peak_bytes - cached, kernels)


def _kernels(products: Iterable[Product], packed: bool) -> Mapping[Kernel, int]:
    """What oneDNN keeps for these products on a CPU: float32 ones are its own where they are packed."""
    kinds = [Kernel(one.dtype, packed and one.weighs, one.rows) for one in products]
    return Counter(kind for kind in kinds if kind.packed or kind.dtype != torch.float32)


def tokenizer_work(tokenizer: Tokenizer, batch: int) -> DecodeWork:
    """The work of turning the tokens of one batch into images; ``tokenizer`` is on the meta device."""
    recorder = Recorder({storage_of(tensor) for tensor in tokenizer.state_dict().values()})
    codes = torch.zeros((batch, *tokenizer.code_shape), dtype=torch.int64, device=META)
    with torch.inference_mode(), recorder:
        tokenizer.decode(codes)
    return DecodeWork((works_of(recorder.steps[0]),), 0, recorder.peak_bytes)


def count_launches(work: Callable[[], object], on_cpu: bool) -> int:
    """Operations of some work on the meta device, as those of a decode are counted."""
    recorder = Recorder(set())
    with torch.inference_mode(), AsOnDevice(recorder, on_cpu), recorder:
        work()
    return sum(one.launches for one in works_of(recorder.steps[0]))


def unguided(prepared: Prepared) -> Prepared:
    return dataclasses.replace(prepared, guidance=None)


def _few_blocks(network: Network | Networks) -> list[tuple[nn.Module, int]]:
    """Cut every trunk down to three blocks; the kept blocks, and how many each stands for.

    The first one's input is also the trunk's, and may be a view of a weight; the last computes only the rows
    that are read.
    """
    kept: list[tuple[nn.Module, int]] = []
    for module in network.modules():
        if type(module) is Trunk and len(module.blocks) > 3:
            first, second, last = module.blocks[0], module.blocks[1], module.blocks[-1]
            kept += [(first, 1), (second, len(module.blocks) - 2), (last, 1)]
            module.blocks = nn.ModuleList([first, second, last])
    return kept


@contextmanager
def _blocks_repeated(blocks: list[tuple[nn.Module, int]], recorder: Recorder) -> Iterator[None]:
    """While a kept block, or a part of it, runs, what it does counts as often as there were blocks.

    A part that runs apart from its block makes something to be kept for it: so much lives once per block.
    """
    hooks = []
    running: list[nn.Module] = []
    for block, count in blocks:
        for part in block.modules():

            def enter(
                module: nn.Module, args: Any, count: int = count, apart: bool = part is not block
            ) -> None:
                if not running:
                    recorder.repeat, recorder.kept = count, count if apart else 1
                running.append(module)

            def leave(module: nn.Module, args: Any, out: Any) -> None:
                running.pop()
                if not running:
                    recorder.repeat = recorder.kept = 1

            hooks += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _caches_noted(network: Network | Networks, recorder: Recorder) -> Iterator[None]:
    """Tell the recorder which memory is key/value cache."""

    def noting(make: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **named: Any) -> Any:
            cache = make(*args, **named)
            recorder.caches.add(storage_of(cache.store))
            recorder.cache_sizes.append(cache.nbytes)
            return cache

        return noted

    for one in by_role(network).values():
        one.cache = noting(one.cache)  # type: ignore[method-assign]
    yield
