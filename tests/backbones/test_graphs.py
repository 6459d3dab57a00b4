"""Recorded passes, replayed by a stand-in for CUDA graphs that bakes in every address and number as well."""

from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import MagicMock

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from backbones.attention import View, up_to
from backbones.cache import KVCache
from backbones.config import TrunkConfig
from backbones.graphs import CUDAGraphs, Repeats, part_slots, replay_trunks
from backbones.transformer import Trunk
from harness.gpu_check.waits import waits_of
from harness.subject.compiled import record_passes
from strategies.decoding import registry
from strategies.decoding.contract.recording import run, subject
from strategies.decoding.decode import Ask
from strategies.decoding.guidance import Guidance
from strategies.decoding.sampling import StreamSampler
from strategies.decoding.streams import Streams
from strategies.raster import Raster


@dataclass(frozen=True)
class Outside:
    """A tensor that a pass reads and did not make, by its address: as for a graph, somebody else keeps it."""

    storage: StorageWeakRef
    dtype: torch.dtype
    layout: tuple

    @classmethod
    def of(cls, tensor):
        layout = tensor.storage_offset(), tensor.size(), tensor.stride()
        return cls(StorageWeakRef(tensor.untyped_storage()), tensor.dtype, layout)

    def tensor(self):
        assert not self.storage.expired(), "a recorded pass reads memory that has been freed"
        storage = torch.UntypedStorage._new_with_weak_ptr(self.storage.cdata)
        return torch.empty(0, dtype=self.dtype).set_(storage, *self.layout)


def address(tensor):
    return tensor.untyped_storage()._cdata


def of_type(kind, value):
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, kind)]


class Log(TorchDispatchMode):
    """Every kernel with its arguments and results; what is made inside is kept, as by a graph's pool."""

    def __init__(self):
        super().__init__()
        self.calls = []
        self.made = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        if function is torch.ops.aten.lift_fresh.default and not args[0].ndim:
            self.made[address(args[0])] = args[0]  # a number of the code, which kernels take by value
        given = {address(tensor) for tensor in of_type(torch.Tensor, (args, kwargs))}
        for tensor in of_type(torch.Tensor, result):
            if address(tensor) not in given:
                self.made[address(tensor)] = tensor
        self.calls.append((function, *map(self.held, (args, kwargs, result)), given))
        return result

    def held(self, value):
        return tree_map_only(
            torch.Tensor, lambda one: one if address(one) in self.made else Outside.of(one), value
        )


class BakedPasses:
    """Every kernel of a pass with the addresses that it had when it was recorded."""

    nbytes = 0

    def __init__(self):
        self.recorded = 0

    def record(self, run):
        self.recorded += 1
        run()  # what is kept for later passes is made here, as in the calls before a capture
        with Log() as log:
            output = run()

        def replay():
            for function, args, kwargs, results, given in log.calls:
                args, kwargs = tree_map_only(Outside, Outside.tensor, (args, kwargs))
                again = of_type(torch.Tensor, function(*args, **kwargs))
                for old, new in zip(of_type((torch.Tensor, Outside), results), again, strict=True):
                    if isinstance(old, torch.Tensor) and address(old) not in given:
                        old.copy_(new)

        return replay, output


def decoded(case, images, steps, guidance):
    labels = torch.tensor([image % 3 for image in images])
    plan = case.plan(images, steps)
    return run(case, plan, labels, StreamSampler(Streams(0, images)), guidance).decoded


BATCHES = ((0, 1), (2, 3), (4, 5, 6), (0, 1))


@pytest.mark.parametrize("name", registry.BUILT_IN)
@pytest.mark.parametrize(
    "guidance", [pytest.param(None, marks=pytest.mark.slow), Guidance(2.0)], ids=["plain", "guided"]
)
def test_replayed_passes_give_the_same_tokens_and_counts(name, guidance):
    case = subject(registry.get(name))
    content_decides = case.strategy.decides_steps
    steps = None if content_decides else case.strategy.allowed_steps((4, 4))[-1]
    expected = [decoded(case, images, steps, guidance) for images in BATCHES]
    recorder = BakedPasses()
    trunks = replay_trunks(case.network, recorder)
    for images, eager in zip(BATCHES, expected, strict=True):
        found = decoded(case, images, steps, guidance)
        assert torch.equal(found.tokens, eager.tokens)
        assert (found.forwards, found.tokens_processed) == (eager.forwards, eager.tokens_processed)
    # The second and the last batch have the shapes of the first: all is replayed.
    assert recorder.recorded == sum(len(trunk.recordings.made) for trunk in trunks)
    before = recorder.recorded
    decoded(case, (7, 8), steps, guidance)
    assert recorder.recorded == before or content_decides
    assert sum(trunk.recordings.seconds for trunk in trunks) > 0


@pytest.mark.parametrize("name", ["raster", "lpd", "arpg", "zipar", "sjd"])
def test_parts_of_a_cache_are_recordings_of_their_own(name):
    strategy = registry.get(name, **({"window": 2} if name == "sjd" else {}))
    case = subject(strategy)
    steps = None if strategy.decides_steps else strategy.allowed_steps((4, 4))[-1]
    expected = decoded(case, (0, 1), steps, Guidance(2.0))
    made = []
    for parts in (1, 2):
        case = subject(strategy)
        trunks = replay_trunks(case.network, BakedPasses(), lambda cache, parts=parts: parts)
        assert torch.equal(decoded(case, (0, 1), steps, Guidance(2.0)).tokens, expected.tokens)
        made.append(sum(len(trunk.recordings.made) for trunk in trunks))
    assert made[0] <= made[1]
    if name == "raster":
        assert made == [1, 2]


@pytest.mark.parametrize("slots", [1, 8, 17, 256, 257, 680])
@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_parts_of_a_cache_are_as_wide_as_kernels_read(slots, parts):
    size = part_slots(slots, parts)
    assert size % 8 == 0
    assert -(-slots // size) <= parts


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_nothing_waits_inside_of_a_recording(name):
    waits = []

    class Watched(Repeats):
        def record(self, run):
            run()  # what is kept for later passes is made here, as in the calls before a capture
            waits.append(sum(waits_of(run, torch.device("cpu")).values()))
            return super().record(run)

    case = subject(registry.get(name))
    recorded = record_passes(case.network, Watched())
    steps = None if case.strategy.decides_steps else case.strategy.allowed_steps((4, 4))[-1]
    decoded(case, (0, 1), steps, Guidance(2.0))
    assert len(waits) == recorded.passes
    assert sum(waits) == 0


TRUNK = TrunkConfig(depth=2, width=16, heads=2, mlp_width=16)
VIEWS = {
    "all": lambda start: View(start),
    "causal": lambda start: View(start, causal=True),
    "runs": lambda start: View(start, runs=((2, start + 2), (1, start + 3))),
    "mask": lambda start: View(start, mask=(torch.arange(start + 3) % 3 > 0).expand(3, -1)),
    "own pace": lambda start: View(torch.tensor([start, start - 1]), reach=start + 3),
    "slots": lambda start: View(
        slots=torch.arange(start, start + 3)[None],
        mask=(torch.arange(start + 3) < start + 2).expand(3, -1),
        reach=start + 3,
    ),
}


@pytest.mark.parametrize("seen", VIEWS.values(), ids=list(VIEWS))
@pytest.mark.parametrize("unit", [1, 4, 12])
@pytest.mark.parametrize("start", [1, 4, 9])
def test_a_fixed_view_sees_the_same(seen, unit, start):
    generator = torch.Generator().manual_seed(start)
    torch.manual_seed(start)
    trunk, x = Trunk(TRUNK).eval(), torch.randn(2, 3, 16, generator=generator)
    found = []
    with torch.inference_mode():
        for fixed in (None, unit):
            cache = KVCache(TRUNK, 2, 12, torch.float32, torch.device("cpu"))
            cache.store.copy_(torch.randn(cache.store.shape, generator=generator.manual_seed(7)))
            cache.unit = fixed
            view = seen(start) if fixed is None else seen(start).fixed(x, 12, fixed)
            found.append((trunk(x, None, view, cache), cache.store))
    assert isinstance(view.start, torch.Tensor) or view.slots is not None
    assert view.reach == min(12, -(-(start + 3) // unit) * unit)
    for plain, same in zip(*found, strict=True):
        torch.testing.assert_close(same, plain, atol=1e-6, rtol=1e-5)


def test_a_fixed_view_refuses_a_slot_that_is_not_there():
    with pytest.raises(IndexError, match="cache of 12 slots asked to hold 13"):
        View(10).fixed(torch.zeros(1, 3, 16), 12, 4)


def test_a_kept_cache_is_the_same_for_one_shape_and_new_for_another():
    network = subject(registry.get("raster")).network
    assert network.cache(2, 2, 16) is not network.cache(2, 2, 16)
    network.keep_caches()
    kept = network.cache(2, 2, 16)
    assert network.cache(2, 2, 16) is kept
    assert network.cache(4, 2, 16) is not kept
    assert network.cache(2, 2, 16) is kept


class AtOwnPace(Raster):
    """Raster whose cache slots are a tensor, so that one recording serves every step."""

    def decode(self, network, plan, rows):
        phases = network.phases(torch.arange(plan.places)).expand(len(rows), -1, -1, -1)
        cache = network.cache(len(rows), network.config.trunk.depth, plan.places)
        x = network.class_embedding(rows.labels).unsqueeze(1)
        start = torch.zeros(len(rows), dtype=torch.int64)
        for at in plan.groups():
            here = phases.take_along_dim(start[:, None, None, None], dim=1)
            view = (
                View(start=start)
                if self.by_start
                else View(slots=start[:, None], mask=up_to(start[:, None], 16))
            )
            tokens = yield Ask(network(x, here, view, cache), at)
            x, start = network.token_embedding(tokens), start + 1

    by_start = True


class AtNamedSlots(AtOwnPace):
    by_start = False


@pytest.mark.parametrize("strategy", [AtOwnPace(), AtNamedSlots()], ids=["start", "slots"])
@pytest.mark.parametrize("guidance", [None, Guidance(2.0)], ids=["plain", "guided"])
def test_a_decode_with_slots_in_a_tensor_is_one_recording(strategy, guidance):
    case = subject(strategy)
    plain = subject(registry.get("raster"))
    recorder = BakedPasses()
    replay_trunks(case.network, recorder)
    for images in ((0, 1), (2, 3)):
        expected = decoded(plain, images, 16, guidance)
        assert torch.equal(decoded(case, images, 16, guidance).tokens, expected.tokens)
    assert recorder.recorded == 1


def test_a_kept_cache_is_emptied_for_every_decode():
    case = subject(AtOwnPace())
    replay_trunks(case.network, BakedPasses())
    expected = decoded(case, (0, 1), 16, None).tokens
    with torch.inference_mode():
        case.network.cache(2, 2, 16).store.fill_(float("nan"))
    assert torch.equal(decoded(case, (0, 1), 16, None).tokens, expected)


def test_graphs_are_captured_on_the_device_of_the_network(monkeypatch):
    current, asked = ["cuda:0"], []

    @contextmanager
    def on(device):
        current.append(str(device))
        yield
        current.pop()

    def ask(result):
        return lambda *_, **__: asked.append(current[-1]) or result

    monkeypatch.setattr(torch.cuda, "device", on)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", ask((1, 1)))
    for name in ("Stream", "current_stream", "stream", "synchronize", "empty_cache", "CUDAGraph", "graph"):
        monkeypatch.setattr(torch.cuda, name, ask(MagicMock()))
    CUDAGraphs(torch.device("cuda:1")).record(ask(()))
    assert set(asked) == {"cuda:1"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_graphs_give_the_same_tokens():
    case = subject(registry.get("lpd"))
    steps = case.strategy.allowed_steps((4, 4))[-1]
    case.network.to("cuda")
    expected = [decoded(case, images, steps, Guidance(2.0)).tokens for images in BATCHES]
    replay_trunks(case.network, CUDAGraphs())
    for images, tokens in zip(BATCHES, expected, strict=True):
        assert torch.equal(decoded(case, images, steps, Guidance(2.0)).tokens, tokens)
