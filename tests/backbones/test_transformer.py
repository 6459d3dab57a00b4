"""The trunk against its formulas, written out plainly."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from backbones.attention import View, attend, up_to
from backbones.cache import KVCache
from backbones.config import Dropout, TrunkConfig, round_up, swiglu_width
from backbones.positions import rotary_table
from backbones.transformer import (
    MLP,
    Block,
    RMSNorm,
    Trunk,
    make_norm,
    parameter_count,
)
from strategies.decoding.contract.recording import CONTROLLED, randomise
from strategies.raster import Raster
from tests.strategies.dressings import ADALN

TRUNK = CONTROLLED.trunk
X = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))


def random(module, seed=0):
    randomise(module, seed)
    return module.eval()


def plain_attention(queries, keys, values, allowed):
    """Head by head, row by row: the definition; [R, n, H, D]."""
    groups = queries.shape[1] // keys.shape[1]
    out = torch.zeros_like(queries)
    for r in range(queries.shape[0]):
        for h in range(queries.shape[1]):
            k, v = keys[r, h // groups], values[r, h // groups]
            for i in range(queries.shape[2]):
                seen = allowed[i].nonzero().flatten()
                scores = (k[seen] @ queries[r, h, i]) / math.sqrt(queries.shape[-1])
                out[r, h, i] = scores.softmax(0) @ v[seen]
    return out.transpose(1, 2)


def qkv(rows=3, slots=6, heads=4, shared=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(2, h, n, 8, generator=generator)
        for h, n in ((heads, rows), (shared, slots), (shared, slots))
    ]


@pytest.mark.parametrize("shared", [4, 2, 1])
@pytest.mark.parametrize("grad", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("view", ["all", "causal", "mask"])
def test_attention_by_definition(shared, grad, view):
    rows = 6 if view == "causal" else 3
    q, k, v = qkv(rows, shared=shared)
    mask = torch.tensor([[1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1]], dtype=torch.bool)
    cases = {
        "all": (View(), torch.ones(rows, 6, dtype=torch.bool)),
        "causal": (View(causal=True), torch.ones(6, 6, dtype=torch.bool).tril()),
        "mask": (View(mask=mask), mask),
    }
    seen, allowed = cases[view]
    with torch.set_grad_enabled(grad):
        found = attend(q, k, v, seen)
    assert torch.allclose(found, plain_attention(q, k, v, allowed), atol=1e-5)


DECODING = {
    "all": (View(start=2), [[1, 1, 1, 1, 1, 1]] * 4),
    "causal": (
        View(start=2, causal=True),
        [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]],
    ),
    "runs": (View(start=2, runs=((1, 3), (3, 6))), [[1, 1, 1, 0, 0, 0], *[[1, 1, 1, 1, 1, 1]] * 3]),
    "one run": (View(start=2, runs=((4, 5),)), [[1, 1, 1, 1, 1, 0]] * 4),
    "mask": (
        View(start=2, mask=torch.tensor([[1, 0, 1, 0, 0, 0], *[[0, 1, 0, 1, 1, 1]] * 3]).bool()),
        [[1, 0, 1, 0, 0, 0], *[[0, 1, 0, 1, 1, 1]] * 3],
    ),
}


@pytest.mark.parametrize("asked", [4, 2, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", DECODING)
def test_what_a_view_lets_fed_rows_see_is_added_to_their_scores(name, dtype, asked):
    view, allowed = DECODING[name]
    placed = view.placed(torch.zeros(1, 4, 8, dtype=dtype), 9).of_last(asked)
    seen = torch.zeros(4, 6) if placed.mask is None else placed.mask.float()
    assert placed.mask is None or placed.mask.dtype == dtype
    assert torch.equal(seen[-asked:].exp(), torch.tensor(allowed).float()[-asked:])
    assert (placed.at, placed.asked) == (2, asked)
    assert placed.mask is not None or name == "all"


@pytest.mark.parametrize("asked", [1, 3])
@pytest.mark.parametrize("dressing", ["plain", "adaln"])
@pytest.mark.parametrize("name", DECODING)
def test_the_last_block_computes_only_what_is_asked_for_and_caches_all(name, dressing, asked):
    config = TRUNK if dressing == "plain" else ADALN.trunk
    trunk, x = random(Trunk(config)), X[:, :4]
    adaln = trunk.modulations(X[:, 1:]) if dressing == "adaln" else None
    here = phases(torch.arange(4)) if dressing == "plain" else None
    caches = [KVCache(config, 2, 9, torch.float32, X.device) for _ in range(2)]
    for cache in caches:
        cache.store[:, :, :, :2] = 0.5
    sizes = []
    trunk.blocks[-1].mlp.register_forward_pre_hook(lambda _, args: sizes.append(args[0].shape[1]))
    with torch.inference_mode():
        whole = trunk(x, here, DECODING[name][0], caches[0], modulations=adaln)
        last = trunk(x, here, DECODING[name][0], caches[1], modulations=adaln, asked=asked)
    assert torch.allclose(last, whole[:, -asked:], atol=1e-5)
    assert torch.allclose(caches[0].store, caches[1].store, atol=1e-6)
    assert sizes == [4, asked]


@pytest.mark.parametrize("grad", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("view", [View(causal=True), View(mask=torch.ones(5, 5).tril(2).bool()), View()])
def test_rows_asked_for_without_a_cache(view, grad):
    trunk = random(Trunk(TRUNK))
    with torch.set_grad_enabled(grad):
        whole = trunk(X, phases(torch.arange(5)), view)
        assert torch.allclose(trunk(X, phases(torch.arange(5)), view, asked=2), whole[:, -2:], atol=1e-5)


def test_rows_at_their_own_pace_equal_rows_alone():
    """Windows of three rows at different starts, rejected in part and written again, up to what is filled."""
    trunk, window = random(Trunk(TRUNK)), 3
    inputs = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(3))
    here = phases(torch.arange(9) % 16)
    together = KVCache(TRUNK, 2, 9, torch.float32, X.device)
    alone = [KVCache(TRUNK, 1, 9, torch.float32, X.device) for _ in range(2)]
    with torch.inference_mode():
        trunk(inputs[:, :1], here[:1], View(), together)
        for row in range(2):
            trunk(inputs[row : row + 1, :1], here[:1], View(), alone[row])
        for starts in ([1, 1], [2, 4], [5, 4], [6, 6]):
            start = torch.tensor(starts)
            places = start[:, None] + torch.arange(window)
            fed = inputs.gather(1, places[..., None].expand(-1, -1, 32)) + torch.tensor(starts)[:, None, None]
            view = View(start=start, reach=max(starts) + window)
            found = trunk(fed, here[places], view, together)
            for row, first in enumerate(starts):
                runs = tuple((1, first + i + 1) for i in range(window))
                part = slice(row, row + 1)
                expected = trunk(fed[part], here[places[row]], View(start=first, runs=runs), alone[row])
                assert torch.allclose(found[part], expected, atol=1e-5)


@pytest.mark.parametrize("filled", [1e3, -1e30])
def test_what_a_view_masks_adds_exactly_nothing(filled):
    trunk, start = random(Trunk(TRUNK)), torch.tensor([2, 0])
    found = []
    for content in (0.0, filled):
        cache = KVCache(TRUNK, 2, 8, torch.float32, X.device)
        cache.store[:, 0, :, 4:] = content
        cache.store[:, 1, :, 2:] = content
        with torch.inference_mode():
            found.append(trunk(X[:, :2], phases(torch.arange(2)), View(start=start), cache))
    assert torch.equal(*found)


def test_scattered_slots_see_what_their_mask_says_unfilled_slots_included():
    """A zero slot scores zero and adds nothing but its weight."""
    trunk = random(Trunk(TRUNK, depth=1))
    attention, here = trunk.blocks[0].attention, phases(torch.arange(5))[:2]
    slots = torch.tensor([[0, 4], [3, 1]])
    for mask in (up_to(slots, 6), torch.rand(2, 1, 2, 6, generator=torch.Generator().manual_seed(0)) < 0.7):
        mask = mask | (torch.arange(6) == slots[:, None, :, None])
        cache = KVCache(TRUNK, 2, 6, torch.float32, X.device, layers=1)
        with torch.inference_mode():
            x = trunk.blocks[0].norm1(X[:, :2])
            view = View(slots=slots, mask=mask).placed(x, 6)
            found = attention(x, here, view, cache.layers[0], None)
            q, k, v = attention.project(x, here)
            again, pair = attention.project_in_place(x, here)
        assert torch.allclose(again, q, atol=1e-6)
        assert torch.allclose(pair, torch.cat([k, v], dim=1), atol=1e-6)
        for row in range(2):
            stored_k, stored_v = torch.zeros(2, 1, 4, 6, 8).unbind(0)
            stored_k[0][:, slots[row]], stored_v[0][:, slots[row]] = k[row], v[row]
            mixed = plain_attention(q[row : row + 1], stored_k, stored_v, mask[row, 0])
            expected = attention.out(mixed.flatten(2))
            assert torch.allclose(found[row : row + 1], expected, atol=1e-5)


def test_slots_up_to_ones_own():
    found = up_to(torch.tensor([[0, 2], [3, 1]]), 4)
    expected = [[[1, 0, 0, 0], [1, 1, 1, 0]], [[1, 1, 1, 1], [1, 1, 0, 0]]]
    assert torch.equal(found, torch.tensor(expected).bool().unsqueeze(1))


@pytest.mark.parametrize(
    ("view", "text"),
    [
        (View(start=torch.tensor([0, 1]), causal=True), "takes a mask"),
        (View(slots=torch.tensor([[0], [1]]), runs=((1, 1),)), "takes a mask"),
        (View(start=torch.tensor([0, 1]), slots=torch.tensor([[0], [1]])), "either start"),
        (View(slots=torch.tensor([[0], [1]])), "needs a mask"),
        (View(causal=True, mask=torch.ones(1, 1, dtype=torch.bool)), "not causal and a mask"),
        (View(runs=((1, 1),), mask=torch.ones(1, 1, dtype=torch.bool)), "not runs and a mask"),
        (View(causal=True, runs=((1, 1),)), "not causal and runs"),
    ],
)
@pytest.mark.parametrize("unit", [None, 3])
def test_views_that_contradict_themselves(view, text, unit):
    cache = KVCache(TRUNK, 2, 9, torch.float32, X.device)
    cache.unit = unit
    with pytest.raises(ValueError, match=text):
        Trunk(TRUNK)(X, None, view, cache)


class ProductShapes(TorchDispatchMode):
    """The shapes of all batched products."""

    def __init__(self) -> None:
        super().__init__()
        self.met: set[tuple[torch.Size, ...]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._overloadpacket in (torch.ops.aten.bmm, torch.ops.aten.baddbmm):
            self.met.add(tuple(one.shape for one in args))
        return func(*args, **(kwargs or {}))


def test_bfloat16_attends_to_growing_keys_without_products_that_are_kept_for_every_shape():
    q, k, v = (t.bfloat16() for t in qkv(rows=2, slots=64))
    with torch.no_grad(), ProductShapes() as shapes:  # in inference mode `@` is not seen
        for filled in range(1, 65):
            cache_k, cache_v = k.clone(), v.clone()
            cache_k[:, :, filled:] = cache_v[:, :, filled:] = torch.nan
            found = attend(q, cache_k[:, :, :filled], cache_v[:, :, :filled], View())
            allowed = torch.ones(2, filled, dtype=torch.bool)
            exact = plain_attention(q.float(), k[:, :, :filled].float(), v[:, :, :filled].float(), allowed)
            assert torch.allclose(found.float(), exact, atol=0.03)
    assert not shapes.met


def test_each_key_head_serves_consecutive_query_heads():
    q, k, v = qkv(heads=4, shared=2)
    found = attend(q, k, v, View())
    wide = attend(q, k[:, [0, 0, 1, 1]], v[:, [0, 0, 1, 1]], View())
    assert torch.allclose(found, wide, atol=1e-6)


def test_attention_is_differentiable():
    q, k, v = (t.double().requires_grad_() for t in qkv(2, 3, 2, 2))
    mine = attend(*(t.float() for t in (q, k, v)), View())
    reference = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    upstream = torch.randn(reference.shape)
    for a, b in zip(
        torch.autograd.grad(mine, (q, k, v), upstream),
        torch.autograd.grad(reference, (q, k, v), upstream.double()),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("eps", [1e-5, 1e-2])
def test_rms_norm(eps):
    norm = random(RMSNorm(32, eps))
    expected = X / torch.sqrt((X**2).mean(-1, keepdim=True) + eps) * norm.weight
    assert torch.allclose(norm(X), expected, atol=1e-6)


def test_rms_norm_keeps_its_statistics_in_single_precision():
    norm = random(RMSNorm(32, 1e-5)).bfloat16()
    half = X.bfloat16()
    exact = (half.float() / torch.sqrt((half.float() ** 2).mean(-1, keepdim=True) + 1e-5)).bfloat16()
    assert torch.equal(norm(half), exact * norm.weight)


@pytest.mark.parametrize(("kind", "module"), [("rms", RMSNorm), ("layer", nn.LayerNorm)])
def test_norms_by_name(kind, module):
    norm = make_norm(replace(TRUNK, norm=kind, norm_eps=0.125))
    assert isinstance(norm, module)
    assert norm.eps == 0.125
    assert len(list(norm.parameters())) == (1 if kind == "rms" else 2)


@pytest.mark.parametrize("bias", [False, True])
def test_mlps(bias):
    swiglu = random(MLP(replace(TRUNK, bias=bias)))
    gate, value = swiglu.up(X).split(64, dim=-1)
    assert torch.allclose(swiglu(X), swiglu.down(F.silu(gate) * value), atol=1e-6)
    gelu = random(MLP(replace(TRUNK, mlp="gelu", bias=bias)))
    h = gelu.up(X)
    expected = gelu.down(0.5 * h * (1 + torch.erf(h / math.sqrt(2))))
    assert torch.allclose(gelu(X), expected, atol=1e-5)
    assert (gelu.up.bias is not None) == bias


def phases(rows):
    return rotary_table((4, 4), 8, 10_000.0, torch.device("cpu"))[rows].unsqueeze(-2)


def test_a_block_is_two_residual_branches_after_norms():
    block = random(Block(TRUNK, "self"))
    here = phases(torch.arange(5))
    view = View(causal=True)
    h = X + block.attention(block.norm1(X), here, view, None, None)
    assert torch.allclose(block(X, here, view), h + block.mlp(block.norm2(h)), atol=1e-6)


def test_modulation_is_shift_scale_gate_of_attention_then_of_the_mlp():
    block = random(Block(ADALN.trunk, "self"))
    condition = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(1))
    modulation = block.modulation(condition)
    parts = modulation.unflatten(-1, (6, 32)).unbind(-2)
    view = View(causal=True)
    attended = block.attention(block.norm1(X) * (1 + parts[1]) + parts[0], None, view, None, None)
    h = X + parts[2] * attended
    expected = h + parts[5] * block.mlp(block.norm2(h) * (1 + parts[4]) + parts[3])
    assert torch.allclose(block(X, None, view, modulation=modulation), expected, atol=1e-5)


def test_queries_and_keys_are_normalised_before_they_are_turned():
    attention = random(Block(replace(TRUNK, qk_norm=True), "self")).attention
    here = phases(torch.tensor([1, 5, 2, 9, 0]))
    queries, keys, values = attention.project(X, here)
    q, k, v = attention.qkv(X).split(32, dim=-1)

    def heads(t):
        return t.unflatten(-1, (4, 8)).transpose(1, 2)

    def turned(t):
        pairs = torch.view_as_complex(t.unflatten(-1, (4, 2)).contiguous())
        return torch.view_as_real(pairs * here.transpose(0, 1)).flatten(-2)

    assert torch.allclose(queries, turned(attention.q_norm(heads(q))), atol=1e-5)
    assert torch.allclose(keys, turned(attention.k_norm(heads(k))), atol=1e-5)
    assert torch.equal(values, heads(v))
    assert (keys[:, :, 4] == 0).all(), "a row without a place has a zero key"


@pytest.mark.parametrize("kind", ["self", "cross"])
def test_a_trunk_is_its_blocks_in_turn(kind):
    trunk = random(Trunk(TRUNK, 3, kind))
    here = phases(torch.arange(5))
    shared = tuple(t[:, :, :6] for t in qkv()[1:]) if kind == "cross" else None
    view = View() if kind == "cross" else View(causal=True)
    expected = X
    for block in trunk.blocks:
        expected = block(expected, here, view, None, shared)
    assert len(trunk.blocks) == 3
    assert torch.allclose(trunk(X, here, view, shared=shared), expected, atol=1e-6)


def test_a_cross_attending_block_projects_no_keys():
    names = dict(Block(TRUNK, "cross").named_parameters())
    assert names["attention.query.weight"].shape == (32, 32)
    assert "attention.qkv.weight" not in names


def test_dropout_is_off_in_evaluation_and_on_in_training():
    config = replace(TRUNK, dropout=Dropout(0.5, 0.5, 0.5, 0.5), mlp="gelu")
    trunk = random(Trunk(config))
    here, view = phases(torch.arange(5)), View(causal=True)
    plain = random(Trunk(replace(config, dropout=Dropout())))
    assert torch.equal(trunk(X, here, view), plain(X, here, view))
    trunk.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(trunk(X, here, view), trunk(X, here, view))


@pytest.mark.parametrize(
    ("width", "multiple", "multiplier", "hidden"),
    [(768, 256, None, 2048), (1024, 256, None, 2816), (3200, 256, None, 8704), (4096, 256, None, 11008),
     (96, 256, None, 256), (32, 32, None, 96), (128, 32, 1.3, 448), (1024, 256, 1.5, 4096)],
)  # fmt: skip
def test_swiglu_width(width, multiple, multiplier, hidden):
    assert swiglu_width(width, multiple, multiplier) == hidden


def test_a_width_already_divisible_stays():
    assert round_up(2048, 256) == 2048
    assert round_up(2049, 256) == 2304


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"width": 30}, "width 30 is not divisible by heads 4"),
        ({"kv_heads": 3}, "heads 4 is not divisible by kv_heads 3"),
        ({"width": 24}, "head width divisible by 4, not 6"),
    ],
)
def test_trunks_that_cannot_be(changes, text):
    with pytest.raises(ValueError, match=text):
        replace(TRUNK, **changes)


def test_learned_positions_allow_any_head_width():
    assert replace(TRUNK, width=24, positions="learned").head_width == 6


def test_counting():
    assert parameter_count(nn.Linear(3, 4)) == 16
    assert hash(TRUNK) == hash(TrunkConfig(depth=2, width=32, heads=4, mlp_width=64))


@pytest.mark.parametrize("trunk", [replace(TRUNK, positions="learned"), ADALN.trunk])
def test_residual_dropout_is_on_both_branches(trunk):
    block = Block(replace(trunk, dropout=Dropout(residual=1.0)), "self").train()
    made = torch.ones(2, 5, 6 * 32) if trunk.conditioning == "adaln" else None
    assert torch.equal(block(X, None, View(causal=True), modulation=made), X)


def test_dropout_of_attention_and_embedding():
    part = Block(replace(TRUNK, dropout=Dropout(attention=0.5)), "self").attention.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(part(X, None, View(causal=True)), part(X, None, View(causal=True)))
    config = replace(CONTROLLED, trunk=TRUNK.with_dropout(Dropout(embedding=1.0)))
    assert not Raster().network(config).train().drop_embedded(X).any()
