"""Jacobi decoding by equality: raster's own tokens, in fewer forwards."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from backbones.transformer import Network
from pardec.errors import UserError
from strategies.decoding import registry
from strategies.decoding.base import Strategy
from strategies.decoding.contract.recording import CONTROLLED, randomise
from strategies.decoding.decode import Decoded, decode
from strategies.decoding.guidance import Guidance
from strategies.decoding.sampling import StreamSampler
from strategies.decoding.streams import Streams
from strategies.jacobi import Jacobi
from strategies.rar import RAR
from strategies.raster import Raster

CONFIG = replace(CONTROLLED, codes=23, grid=(5, 6))
SETTINGS = (
    {"guidance": None},
    {"guidance": Guidance(2.0, interval=9), "top_k": 6},
    {"guidance": Guidance(3.0, "linear"), "temperature": 0.7, "top_p": 0.9},
)
METHODS = (
    Jacobi(window=4),
    Jacobi(init="repeat_horizon"),
    Jacobi(window=40, init="repeat_vertical"),
    Jacobi(window=1),
)


def network(dtype: torch.dtype, seed: int = 1) -> Network:
    """With a head that is not zero: under equal logits no draft would ever be wrong."""
    made = Raster().network(CONFIG).eval()
    randomise(made, seed)
    return made.to(dtype)


def decoded(
    strategy: Strategy, network: Network, images: int, guidance: Guidance | None = None, **filters: float
) -> Decoded:
    streams, labels = Streams(3, tuple(range(images))), torch.arange(images) % CONFIG.classes
    sampler = StreamSampler(streams, **filters)  # type: ignore[arg-type]
    plan = strategy.plan(network.config.grid, None, streams)
    return decode(network, strategy, plan, labels, sampler, guidance)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_tokens_are_raster_s_own_in_double_precision(method: Jacobi):
    made = network(torch.float64)
    for setting in SETTINGS:
        found = decoded(method, made, 6, **setting)
        assert torch.equal(found.tokens, decoded(Raster(), made, 6, **setting).tokens)
        assert (found.kept == CONFIG.places - 1).all(), "all but the first token were drafts' places"


def test_in_single_precision_flips_are_counted():
    made = network(torch.float32)
    flipped = drawn = 0
    for setting in SETTINGS:
        found = decoded(Jacobi(window=8), made, 16, **setting).tokens
        flipped += int((found != decoded(Raster(), made, 16, **setting).tokens).any(dim=1).sum())
        drawn += len(found)
    # Products of one row and of eight round differently: 1e-7 of a logit, by chance at a token's edge.
    assert flipped <= 0.05 * drawn


def test_images_go_at_their_own_pace_in_fewer_steps_than_places():
    found = decoded(Jacobi(window=8), network(torch.float64), 8, guidance=Guidance(3.0), temperature=0.5)
    steps = found.steps_of_image
    assert int(steps.max()) == found.steps < CONFIG.places
    assert len(steps.unique()) > 1
    assert found.forwards == found.steps, "no forward but those of windows and the first"
    tested = found.drafted - (steps - 1)
    accepted = found.kept - (steps - 1)
    assert ((accepted > 0) & (accepted < tested)).all(), "drafts are both accepted and rejected"


def test_an_image_does_not_depend_on_its_batch():
    made, method = network(torch.float64), Jacobi(window=5)
    whole = decoded(method, made, 5)
    for image in range(5):
        streams = Streams(3, (image,))
        plan, label = method.plan(CONFIG.grid, None, streams), torch.tensor([image % CONFIG.classes])
        alone = decode(made, method, plan, label, StreamSampler(streams))
        assert torch.equal(alone.tokens[0], whole.tokens[image])
        assert alone.steps == int(whole.steps_of_image[image])


def test_windows_write_over_what_they_fed_wrong(monkeypatch: pytest.MonkeyPatch):
    """Rejected drafts leave keys in the cache; a window that starts where they are must not see them."""
    from backbones.cache import LayerCache

    written: list[Tensor] = []
    extend = LayerCache.extend

    def noted(cache, at, *rest):
        if isinstance(at, Tensor):
            written.append(at)
        return extend(cache, at, *rest)

    monkeypatch.setattr(LayerCache, "extend", noted)
    decoded(Jacobi(window=4), network(torch.float64), 3)
    starts = torch.stack([at[:, 0] for at in written[:: CONFIG.trunk.depth]])  # [steps, B]
    assert (starts.diff(dim=0) >= 0).all()
    again = [int(at[0, -1]) >= int(later[0, 0]) for at, later in zip(written, written[2:], strict=False)]
    assert any(again), "some slot is written twice"


@pytest.mark.parametrize("trunk", ["controlled", "published"])
@pytest.mark.parametrize("init", ["random", "sample_horizon"])
def test_on_rar_s_network_tokens_are_rar_s_own(trunk, init):
    """Also where positions are learned and adaLN's parts follow the slot of each row."""
    config = CONFIG
    if trunk == "published":
        changes = {
            "positions": "learned",
            "conditioning": "adaln",
            "norm": "layer",
            "mlp": "gelu",
            "bias": True,
        }
        config = replace(CONFIG, trunk=replace(CONFIG.trunk, **changes))
    made = RAR().network(config).eval()
    randomise(made)
    made.double()
    method = Jacobi(base="rar", window=6, init=init)
    for setting in SETTINGS[:2]:
        found = decoded(method, made, 6, **setting)
        assert torch.equal(found.tokens, decoded(RAR(), made, 6, **setting).tokens)
        assert found.steps < config.places
    assert method.cache_shape(config)[1] == config.places + 5 + (trunk == "published")


def test_only_networks_in_raster_order_are_a_base():
    with pytest.raises(UserError, match="base"):
        registry.get("jacobi", base="lpd")
    assert registry.owner(registry.get("jacobi", base="rar")) == RAR()
