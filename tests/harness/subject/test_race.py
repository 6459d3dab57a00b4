"""What is kept of the first images for the race: their orders, and the draws that did not stay."""

import numpy as np
import pytest
import torch

from backbones.config import NetworkConfig, TrunkConfig
from harness.subject.race import RACED, Race, draws_lost
from strategies.decoding import registry
from strategies.decoding.contract.recording import randomise
from strategies.decoding.decode import Decoded, decode
from strategies.decoding.plan import Plan
from strategies.decoding.sampling import StreamSampler
from strategies.decoding.streams import Streams
from strategies.decoding.trace import step_of_position

CONFIG = NetworkConfig(TrunkConfig(depth=1, width=16, heads=2, mlp_width=16), 8, 3, (4, 4))


def decoded(name: str, images: range, steps: int | None = None) -> tuple[Plan, Decoded]:
    strategy = registry.get(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = registry.get(strategy.base or name).network(CONFIG)
        randomise(network)
    plan = strategy.plan(CONFIG.grid, steps, Streams(0, tuple(images)))
    labels = torch.tensor([image % 3 for image in images])
    sampler = StreamSampler(Streams(0, tuple(images)))
    return plan, decode(network.eval(), strategy, plan, labels, sampler, keep_drafts=True)


@pytest.mark.parametrize(
    ("name", "steps"), [("raster", None), ("lpd", 5), ("maskgit", 5), ("sjd", None), ("jacobi", None)]
)
def test_orders_are_those_of_the_trace_and_lost_draws_are_counted_alike(name, steps):
    plan, found = decoded(name, range(4), steps)
    race = Race()
    assert race.wants(range(4))
    race.add(range(4), plan, found)
    arrays = race.arrays()
    expected = step_of_position(found.trace, found.order).unflatten(1, plan.grid)
    assert (arrays["steps_of_images"] == expected.numpy()).all()
    lost = np.bincount(arrays["lost_draws"][:, 0], minlength=4)
    if name in ("sjd", "jacobi"):
        assert lost.tolist() == (found.drafted - found.kept).tolist()
        assert lost.sum() > 0
    else:
        assert not lost.any()  # a masked decoder draws every place at every step, but drafts none


def test_a_lost_draw_names_a_place_that_is_written_later():
    _, found = decoded("sjd", range(3))
    steps = step_of_position(found.trace, found.order)
    lost = draws_lost(found, 3)
    assert len(lost)
    for image, step, position in lost.tolist():
        assert step < steps[image, position]


def test_only_the_first_images_are_kept_batch_by_batch():
    race = Race()
    for start in (0, 4, 8, 12):
        plan, found = decoded("lpd", range(start, start + 4), 5)
        race.add(range(start, start + 4), plan, found)
    assert race.arrays()["steps_of_images"].shape == (RACED, 4, 4)
    assert not race.wants(range(16, 20))
    assert not Race().wants(range(4, 8))  # what comes without the first has no place
    assert Race().arrays() == {}


def test_images_of_later_batches_keep_their_numbers():
    race = Race()
    for start in (0, 2):
        plan, found = decoded("sjd", range(start, start + 2))
        race.add(range(start, start + 2), plan, found)
    assert set(race.arrays()["lost_draws"][:, 0]) == {0, 1, 2, 3}


def test_labels_stand_for_their_codes_and_scales_for_the_last():
    plan, found = decoded("lpd", range(2), 5)
    # The same decode as if its 16 places were 8 labels, then a grid of 2 x 4 codes; or a scale before that.
    labels = Plan((2, 4), plan.order, plan.sizes, maps=((2, 4), (2, 4)), codes_from=8)
    scales = Plan((2, 4), plan.order, plan.sizes, maps=((2, 4), (2, 4)))
    steps = step_of_position(found.trace, found.order)
    for other, part in ((labels, steps[:, :8]), (scales, steps[:, 8:])):
        race = Race()
        race.add(range(2), other, found)
        assert (race.arrays()["steps_of_images"].reshape(2, 8) == part.numpy()).all()
