"""Two joint distributions over all images of an enumerable world, and what one loses of the other."""

from dataclasses import dataclass

import torch
from torch import Tensor

from backbones.networks import Networks
from backbones.transformer import Network
from harness.lossiness.conditionals import decoded_log_probabilities, sequential_log_probabilities
from strategies.decoding.base import Strategy
from strategies.decoding.guidance import Guidance
from strategies.decoding.plan import Plan
from strategies.decoding.sampling import ForcedSampler

LARGEST = 2**17
"""Images of the largest world that is enumerated."""
MASS = 1e-4
"""How far the probabilities of all images may sum from 1 by rounding."""
_BATCH = 2048


@dataclass(frozen=True)
class StepLoss:
    """What one step of ``size`` tokens loses, in bits, averaged over what was decoded before it.

    kl: KL(q || p) of the group given the tokens before, under q; the quantity that samples estimate.
    correlation: the conditional total correlation of the group under p, which drawing independently discards.
    mismatch: sum over the group of KL(p's marginal || q's), under p: what the network itself predicts
    differently when it is asked for a group. correlation + mismatch is the step's KL(p || q).
    """

    size: int
    kl_bits: float
    correlation_bits: float
    mismatch_bits: float


@dataclass(frozen=True)
class Loss:
    """q, as decoded, against p, one token at a time; sums over the steps are the chain rule."""

    total_variation: float
    kl_bits: float
    """KL(q || p)."""
    reverse_kl_bits: float
    """KL(p || q)."""
    steps: tuple[StepLoss, ...]


def compare_joints(sequential: Tensor, decoded: Tensor, sizes: tuple[int, ...]) -> Loss:
    """The loss of ``decoded`` against ``sequential``, both float64 [V, ..., V] with an axis per place.

    sizes: group sizes of the decode; its tokens are independent within a group, given those before.
    Raises ValueError for joints that do not sum to 1 or shapes that differ.
    """
    if sequential.shape != decoded.shape or sum(sizes) != sequential.dim():
        raise ValueError(
            f"joints of shape {list(sequential.shape)} and {list(decoded.shape)}, sizes {sizes}: expected "
            "equal shapes with an axis per place"
        )
    for name, joint in (("one at a time", sequential), ("as decoded", decoded)):
        mass = float(joint.sum())
        if abs(mass - 1) > MASS:
            raise ValueError(f"the probabilities of all images {name} sum to {mass:.6f}, not to 1")
    steps, start = [], 0
    for size in sizes:
        steps.append(_step(sequential, decoded, start, start + size))
        start += size
    return Loss(
        total_variation=float((sequential - decoded).abs().sum()) / 2,
        kl_bits=_mean_log_ratio(decoded, decoded, sequential),
        reverse_kl_bits=_mean_log_ratio(sequential, sequential, decoded),
        steps=tuple(steps),
    )


def joints(
    network: Network | Networks,
    strategy: Strategy,
    plan: Plan,
    label: int,
    guidance: Guidance | None = None,
) -> tuple[Tensor, Tensor]:
    """(one at a time, as decoded): float64 [V, ..., V] with an axis per place of the plan's order.

    Every image of the world goes through the real loop with its tokens forced. The plan has one order, [N].
    Raises ValueError for a world of more than ``LARGEST`` images, Undefined as ``conditionals`` does.
    """
    sequential = sequential_joint(network, strategy, plan, label, guidance)
    decoded = []
    for part in _all_images(network, plan).split(_BATCH):
        labels = torch.full((len(part),), label, device=part.device)
        _, in_groups = decoded_log_probabilities(
            network, strategy, plan, labels, ForcedSampler(part), guidance
        )
        decoded.append(in_groups.sum(dim=1).exp().cpu())
    return sequential, torch.cat(decoded).reshape(sequential.shape)


def sequential_joint(
    network: Network | Networks, strategy: Strategy, plan: Plan, label: int, guidance: Guidance | None = None
) -> Tensor:
    """The joint of one token at a time, as ``joints`` gives it."""
    parts = []
    for part in _all_images(network, plan).split(_BATCH):
        labels = torch.full((len(part),), label, device=part.device)
        one_by_one = sequential_log_probabilities(network, strategy, plan, labels, part, guidance)
        parts.append(one_by_one.sum(dim=1).exp().cpu())
    return torch.cat(parts).reshape((network.config.codes,) * plan.places)


def _all_images(network: Network | Networks, plan: Plan) -> Tensor:
    """Tokens [V^N, N] by position, the last place of the plan's order running fastest."""
    codes, places = network.config.codes, plan.places
    if len(plan.order) != 1:
        raise ValueError(f"an enumeration needs one order for all images, not {list(plan.order.shape)}")
    if codes**places > LARGEST:
        raise ValueError(f"{codes} codes on {places} places make {codes**places} images, over {LARGEST}")
    by_place = torch.cartesian_prod(*[torch.arange(codes)] * places).reshape(-1, places)
    tokens = torch.empty_like(by_place)
    tokens[:, torch.as_tensor(plan.order[0])] = by_place
    return tokens.to(network.device)


def _step(p: Tensor, q: Tensor, start: int, stop: int) -> StepLoss:
    given_p, given_q = _first(p, start), _first(q, start)
    joint_p, joint_q = _first(p, stop), _first(q, stop)
    group_p = _conditional(joint_p, given_p)
    group_q = _conditional(joint_q, given_q)
    correlation = float((joint_p * group_p.log2()).sum())
    mismatch = 0.0
    for axis in range(start, stop):
        others = tuple(other for other in range(start, stop) if other != axis)
        pair_p, pair_q = (joint.sum(dim=others) if others else joint for joint in (joint_p, joint_q))
        one_p, one_q = _conditional(pair_p, given_p), _conditional(pair_q, given_q)
        correlation -= float((pair_p * one_p.log2()).sum())
        mismatch += _mean_log_ratio(pair_p, one_p, one_q)
    return StepLoss(stop - start, _mean_log_ratio(joint_q, group_q, group_p), correlation, mismatch)


def _first(joint: Tensor, places: int) -> Tensor:
    """The marginal of the first places, [V] * places."""
    later = tuple(range(places, joint.dim()))
    return joint.sum(dim=later) if later else joint


def _conditional(joint: Tensor, given: Tensor) -> Tensor:
    return joint / given.reshape(given.shape + (1,) * (joint.dim() - given.dim()))


def _mean_log_ratio(weights: Tensor, one: Tensor, other: Tensor) -> float:
    """Mean of log2(one / other) under ``weights``, in bits."""
    return float((weights * (one.log2() - other.log2())).sum())
