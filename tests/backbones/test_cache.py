"""The cache: allocated once, written in place, read up to where it is filled."""

import pytest
import torch

from backbones.cache import KVCache, LayerCache, cache_bytes
from backbones.transformer import Network
from strategies.arpg import ARPG
from strategies.decoding import registry
from strategies.decoding.contract.recording import CONTROLLED, run, subject
from strategies.decoding.guidance import Guidance
from strategies.decoding.sampling import ForcedSampler
from strategies.decoding.streams import Streams
from tests.strategies.dressings import GROUPED

CPU = torch.device("cpu")
TRUNK = CONTROLLED.trunk


def make(rows=2, slots=6, config=CONTROLLED, dtype=torch.float32):
    cache = KVCache(config.trunk, rows, slots, dtype, CPU)
    cache.store.fill_(float("nan"))
    return cache


def block(length, seed, heads=4):
    return torch.randn(2, heads, length, 8, generator=torch.Generator().manual_seed(seed))


def pair(length, seed):
    return block(length, seed, heads=8)


def test_what_is_written_is_read_up_to_the_filled_length():
    cache = make()
    k0, v0, k1, v1 = (block(n, seed) for seed, n in enumerate((2, 2, 3, 3)))
    cache.layers[1].extend(0, torch.cat([k0, v0], dim=1))
    keys, values = cache.layers[1].extend(2, torch.cat([k1, v1], dim=1))
    assert torch.equal(keys, torch.cat([k0, k1], dim=2))
    assert torch.equal(values, torch.cat([v0, v1], dim=2))
    assert cache.store[0].isnan().all(), "another layer was written"
    assert cache.store[1, :, :, 5:].isnan().all(), "a slot beyond the end was written"


def test_slots_can_be_written_over():
    cache = make()
    cache.layers[0].extend(0, pair(4, 0))
    keys, _ = cache.layers[0].extend(2, pair(3, 2))
    assert torch.equal(keys[:, :, :2], pair(4, 0)[:, :4, :2])
    assert torch.equal(keys[:, :, 2:], pair(3, 2)[:, :4])
    keys, _ = cache.layers[0].extend(0, pair(1, 3))
    assert keys.shape[2] == 1, "what lies beyond the last write is not read"


def test_nothing_is_allocated_after_the_start():
    cache = make()
    start = cache.store.data_ptr()
    for slot in range(6):
        keys, values = cache.layers[0].extend(slot, pair(1, slot))
        for part in (keys, values):
            assert part.untyped_storage().data_ptr() == cache.store.untyped_storage().data_ptr()
    assert cache.store.data_ptr() == start


@pytest.mark.parametrize(("start", "length"), [(6, 1), (5, 2), (0, 7)])
def test_more_than_fits_is_an_error(start, length):
    with pytest.raises(IndexError, match=f"cache of 6 slots asked to hold {start + length}"):
        make().layers[0].extend(start, pair(length, 0))


def test_each_row_is_written_at_slots_of_its_own_and_nowhere_else():
    cache, (k, v) = make(rows=2), (block(2, seed) for seed in range(2))
    slots = torch.tensor([[0, 1], [4, 2]])
    keys, values = cache.layers[1].extend(slots, torch.cat([k, v], dim=1))
    for found, written in ((keys, k), (values, v)):
        assert found.shape[2] == 6
        for row in range(2):
            assert torch.equal(found[row][:, slots[row]], written[row])
        assert torch.equal(found.isnan().any(-1).any(1), torch.ones(2, 6).scatter(1, slots, 0).bool())
    assert cache.store[0].isnan().all(), "another layer was written"
    assert cache.layers[1].extend(slots, torch.cat([k, v], dim=1), reach=5)[0].shape[2] == 5


def test_rows_are_cut_back_by_writing_earlier_slots_again():
    cache = make(rows=2)
    first, second = pair(4, 0)[:, :4], pair(2, 1)[:, :4]
    cache.layers[0].extend(torch.arange(4).expand(2, -1), pair(4, 0))
    starts = torch.tensor([1, 4])
    keys, _ = cache.layers[0].extend(starts[:, None] + torch.arange(2), pair(2, 1))
    assert torch.equal(keys[0, :, :4], torch.cat([first[0, :, :1], second[0], first[0, :, 3:]], dim=1))
    assert torch.equal(keys[1], torch.cat([first[1], second[1]], dim=1))


def test_one_row_of_slots_serves_all_images():
    cache = make(rows=2)
    keys, values = cache.layers[0].extend(torch.tensor([[5, 0, 3]]), pair(3, 0))
    assert torch.equal(torch.cat([keys, values], dim=1)[:, :, [5, 0, 3]], pair(3, 0))


@pytest.mark.parametrize("slots", [[[0, 1], [5, 6]], [[0, 1], [-7, 2]]])
def test_a_slot_that_is_not_there_is_an_error(slots):
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        make().layers[0].extend(torch.tensor(slots), pair(2, 0))


def test_slots_are_zero_until_they_are_written_whatever_an_earlier_decode_left():
    network = subject(registry.get("raster")).network
    assert (network.cache(2, 2, 6).store == 0).all()
    network.keep_caches()
    network.cache(2, 2, 6).store.fill_(float("nan"))
    assert (network.cache(2, 2, 6).store == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [CONTROLLED, GROUPED], ids=["all-heads", "grouped"])
def test_bytes_are_known_before(config, dtype):
    heads = config.trunk.shared_heads
    expected = 2 * 2 * 2 * 6 * heads * 8 * dtype.itemsize
    assert make(config=config, dtype=dtype).nbytes == expected
    assert cache_bytes(config.trunk, 2, 2, 6, dtype) == expected


@pytest.mark.parametrize("name", registry.BUILT_IN)
@pytest.mark.parametrize("guidance", [None, Guidance(2.0)], ids=["plain", "guided"])
def test_a_decode_makes_a_cache_of_each_declared_shape_and_fills_it(name, guidance, monkeypatch):
    case, made, furthest = subject(registry.get(name)), [], []
    make_cache = Network.cache

    def cache(network, *arguments):
        made.append(make_cache(network, *arguments))
        return made[-1]

    def extend(layer, at, pair, reach):
        furthest.append(int(at.max()) + 1 if isinstance(at, torch.Tensor) else at + pair.shape[2])
        return original(layer, at, pair, reach)

    original = LayerCache.extend
    monkeypatch.setattr(Network, "cache", cache)
    monkeypatch.setattr(LayerCache, "extend", extend)
    plan = case.strategy.plan((4, 4), None, Streams(0, (0, 1)))
    run(case, plan, torch.tensor([0, 1]), ForcedSampler(case.tokens(2)), guidance)
    shapes = [shape for shape in case.strategy.cache_shapes(case.config).values() if any(shape)]
    rows = 2 if guidance is None else 4
    expected = [cache_bytes(TRUNK, layers, rows, slots, torch.float32) for layers, slots in shapes]
    assert sorted(one.nbytes for one in made) == sorted(expected)
    if len(shapes) != 1:  # masked networks keep nothing; of two networks each fills its own
        return
    ((_, slots),) = shapes
    if case.strategy.decides_steps:  # windows may reach beyond the image
        assert case.config.places <= max(furthest) <= slots
        return
    last_group = 1 if name == "arpg" else 0  # what a last, never fed token leaves free
    assert max(furthest) == slots - last_group


def test_arpg_caches_half_the_layers_and_one_shared_pair():
    layers, slots = ARPG().cache_shape(CONTROLLED)
    assert (layers, slots) == (CONTROLLED.trunk.depth // 2 + 1, 17)
