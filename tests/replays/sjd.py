"""Replays recordings of SJD: single tests, initialisations, whole decodes with every draw forced."""

from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast
from unittest.mock import patch

import torch
from torch import Tensor

from backbones.checkpoints import load_published
from backbones.config import NetworkConfig, TrunkConfig
from backbones.transformer import Network
from strategies.decoding.decode import Rows, decode, make_rows
from strategies.decoding.plan import Plan
from strategies.decoding.registry import by_family
from strategies.decoding.requests import Accept, Ask, Commit, Decoding, Draft, Redraw, Request, Uniform
from strategies.decoding.sampling import ForcedSampler
from strategies.decoding.speculation import Guess, Window
from strategies.decoding.streams import Streams
from strategies.raster import Raster
from strategies.sjd import SJD
from tests.replays.common import Golden, difference

UNUSED = -1


class Recorded(ForcedSampler):
    """Draws what the recording drew, whatever is asked: numbers by purpose, visit and place."""

    def __init__(self, top_k: int, top_p: float) -> None:
        super().__init__(torch.zeros(0), top_k, top_p)
        object.__setattr__(self, "layers", defaultdict(list))
        object.__setattr__(self, "visits", defaultdict(int))

    def put(self, purpose: str, places: Tensor, values: Tensor, tokens: int) -> None:
        """One call's numbers [B, n] for places [B, n], of which ``UNUSED`` ones are skipped."""
        for row, column in (places != UNUSED).nonzero().tolist():
            place = int(places[row, column])
            visit = self.visits[purpose, row, place]
            layers = self.layers[purpose]
            if visit == len(layers):
                layers.append(torch.zeros(len(places), tokens, dtype=values.dtype))
            layers[visit][row, place] = values[row, column]
            self.visits[purpose, row, place] += 1

    def noise(self, order: Tensor, purpose: str = "token", visit: int = 0) -> Tensor:
        layers = self.layers[purpose] or self.layers["token"][:1]  # a recording may hold no rejection
        return layers[visit] if visit < len(layers) else torch.zeros_like(layers[0])


class Watched:
    """A strategy whose requests and their answers are kept."""

    def __init__(self, strategy: SJD) -> None:
        self.strategy = strategy
        self.seen: list[tuple[Request, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.strategy, name)

    def decode(self, network: Network, plan: Plan, rows: Rows) -> Decoding:
        inner = self.strategy.decode(network, plan, rows)  # type: ignore[arg-type]
        answer: Any = None
        while True:
            try:
                request = inner.send(answer)
            except StopIteration:
                return
            answer = yield request
            self.seen.append((request, answer))

    def of(self, kind: type[Request]) -> list[tuple[Any, Any]]:
        return [pair for pair in self.seen if isinstance(pair[0], kind)]


def replay_other(golden: Golden) -> float:
    if "prefill_logits" in golden.io:
        return replay_decode(golden)
    return replay_guess(golden) if "scheme" in golden.config else replay_test(golden)


def replay_test(golden: Golden) -> float:
    """One test of a window; the minimum over rows that the recording names is what is final."""
    io = golden.io
    sampler = Recorded(golden.sampling.get("top_k", 0), golden.sampling.get("top_p", 1.0))
    batch, length = io["draft_tokens"].shape
    strategy = SJD(window=length, loop="published")
    at = torch.arange(length).expand(batch, -1)
    judging = strategy.judge(
        at,
        io["draft_tokens"][:, 1:],
        io["draft_prob"][:, 1:],
        io["target_prob"],
        io["target_tokens"],
        sampler,
    )
    asked = next(judging)
    assert isinstance(asked, Accept)
    assert torch.equal(asked.at, at[:, :-1])
    redraw = judging.send(io["uniform"][:, 1:] < asked.chance)
    assert isinstance(redraw, Redraw)
    rejected = io["first_rejected"] < length
    places = torch.where(rejected, io["first_rejected"] - 1, UNUSED)
    assert torch.equal(cast(Tensor, redraw.at)[:, 0], places)
    try:
        judging.send(io["resampled"][:, None])
    except StopIteration as end:
        tokens, final, laws = end.value
    assert torch.equal(tokens, io["out_tokens"])
    assert final.sum(dim=1).tolist() == [int(io["matched"])] * batch
    worst = difference(redraw.probs[rejected, 0], io["residual"][rejected])
    return max(worst, difference(laws, io["out_prob"]))


def replay_guess(golden: Golden) -> float:
    io, columns = golden.io, golden.config["grid_width"]
    guess = cast(Guess, golden.config["scheme"])
    new, accepted = io["tokens"].shape[1], io["known_tokens"].shape[1]
    tokens = torch.cat([io["known_tokens"], io["carried_tokens"]], dim=1)
    laws = torch.cat([io["known_prob"], io["carried_prob"]], dim=1)
    batch, known = tokens.shape
    trunk = TrunkConfig(depth=1, width=8, heads=1, mlp_width=8)
    grid, codes = (-(-(known + new + 1) // columns), columns), golden.config["vocab_size"]
    strategy, network = SJD(init=guess), Raster().network(NetworkConfig(trunk, codes, 1, grid))
    plan, labels = strategy.plan(grid, None, Streams(0, tuple(range(batch)))), torch.zeros_like(tokens[:, 0])
    window = Window(strategy, network, plan, make_rows(plan, labels, 1, 1, None), guess)
    window.tokens[:, :known], window.likely[:, :known] = tokens, laws.argmax(dim=-1)
    window.accepted, window.known = torch.full((batch,), accepted), torch.full((batch,), known)
    laying = window.lay(1 + known - accepted + new)
    asked = next(laying)
    assert isinstance(asked, Uniform)
    # Of a place with a known neighbour the recorded draw is overwritten at once; here it isn't made.
    free = [guess == "random" or place % columns == 0 for place in range(known, known + new)]
    drawn = [place if one else UNUSED for place, one in zip(range(known, known + new), free, strict=True)]
    assert asked.at[0].tolist() == [UNUSED] * (known - accepted) + drawn
    uniform = torch.zeros(asked.at.shape)
    uniform[:, known - accepted :] = (io["random_fill"] + 0.5) / codes
    with suppress(StopIteration):
        laying.send(uniform)
    assert torch.equal(window.drafts[:, : known - accepted], io["carried_tokens"])
    assert torch.equal(window.drafts[:, known - accepted :], io["tokens"])
    return difference(window.draft_laws()[:, known - accepted :], io["prob"])


def filled_at_random(golden: Golden) -> bool:
    """Whether the random fill stands wherever drafts were new, whatever scheme is named: where the published
    loop does not know the grid's width, ``repeat_horizon`` acts as ``random``."""
    fills = [name for name in golden.io if name.startswith("random_fill.")]
    windows = [golden.io[name.replace("random_fill", "window_tokens")] for name in fills]
    return all(
        torch.equal(golden.io[name], window[:, -golden.io[name].shape[1] :])
        for name, window in zip(fills, windows, strict=True)
    )


def replay_decode(golden: Golden) -> float:
    io, sampling = golden.io, golden.sampling
    published = by_family("llamagen")
    base, config = published.configure({**published.defaults, **golden.config})
    network = base.network(config).eval()
    load_published(network, golden.weights, published.keys, golden.path.name)
    strategy = SJD(
        window=sampling["window"],
        init="random" if filled_at_random(golden) else sampling["init"],
        loop="published",
        start=sampling["start"],
        stop=sampling["stop"],
    )
    guidance = published.setting(sampling).guidance
    watched, fed, laws = Watched(strategy), list[Tensor](), list[Tensor]()
    network.token_embedding.register_forward_pre_hook(lambda _, args: fed.append(args[0]))
    plan = strategy.plan(config.grid, None, Streams(0, tuple(range(len(io["labels"])))))
    draft_laws = Window.draft_laws

    def overheard(window: Window) -> Tensor:
        laws.append(draft_laws(window))
        return laws[-1]

    with patch.object(Window, "draft_laws", overheard):
        found = decode(
            network,
            watched,  # type: ignore[arg-type]
            plan,
            io["labels"],
            recorded_draws(golden, config.codes),
            guidance,
        )
    assert torch.equal(found.tokens, io["tokens"])
    assert found.steps == int(io["steps"])
    (asked, first), *_ = watched.of(Ask)
    assert torch.equal(first[: len(io["labels"])], io["prefill_token"])
    branches = 1 if guidance is None else 2
    with_class, *without = asked.logits[:, 0].chunk(branches)
    prefill = with_class if guidance is None else without[0] + guidance.scale * (with_class - without[0])
    worst = difference(prefill, io["prefill_logits"])
    drafts, commits, redraws = watched.of(Draft), watched.of(Commit), iter(watched.of(Redraw))
    assert len(drafts) == len(commits) == len(fed) == len(golden.per_step("window_tokens"))
    for k, ((draft, drawn), (commit, _)) in enumerate(zip(drafts, commits, strict=True)):
        at, length = io[f"window_positions.{k}"], io[f"window_tokens.{k}"].shape[1]
        assert torch.equal(draft.at, at.expand(len(found.tokens), -1))
        assert torch.equal(fed[k], io[f"window_tokens.{k}"].repeat(branches, 1))
        worst = max(worst, difference(drawn.logits, io[f"step_logits.{k}"]))
        worst = max(worst, difference(drawn.probs, io[f"step_probs.{k}"]))
        assert torch.equal(commit.where, (torch.arange(length) < io[f"accepted.{k}"]).expand_as(commit.where))
        assert torch.equal(commit.tokens[:, : io[f"accepted.{k}"]], io[f"new_tokens.{k}"])
        if length > 1:
            worst = max(worst, difference(laws[k], io[f"draft_prob.{k}"][:, 1:]))
            request, _ = next(redraws)
            if f"resampled.{k}" in io:
                rejected = io[f"resampled.{k}"] != UNUSED
                assert torch.equal(request.at[:, 0] != UNUSED, rejected)
                recorded = io[f"residual.{k}"]
                worst = max(worst, difference(request.probs[rejected, 0], recorded[rejected]))
    return worst


def recorded_draws(golden: Golden, codes: int) -> Recorded:
    """Every draw of the recording by purpose, visit and place."""
    io = golden.io
    places, batch = io["tokens"].shape[1], len(io["labels"])
    sampler = Recorded(golden.sampling["top_k"], golden.sampling["top_p"])
    # The place's own number answers the prefill; the place is never drawn again.
    sampler.put("token", torch.zeros(batch, 1, dtype=torch.int64), io["prefill_token"], places)
    for k, tokens in enumerate(golden.per_step("window_tokens")):
        at = io[f"window_positions.{k}"].expand(batch, -1)
        sampler.put("token", at, io[f"sampled.{k}"], places)
        if tokens.shape[1] == 1:
            continue
        new = io.get(f"random_fill.{k}", tokens[:, :0])
        first = at.shape[1] - 1 - new.shape[1]
        sampler.put("fill", at[:, first:-1], (new + 0.5) / codes, places)
        sampler.put("accept", at[:, :-1], io[f"uniform.{k}"][:, 1:], places)
        if f"resampled.{k}" in io:
            resampled = io[f"resampled.{k}"][:, None]
            rejected = torch.where(resampled == UNUSED, UNUSED, at.gather(1, first_rejected(golden, k)))
            sampler.put("redraw", rejected, resampled, places)
    return sampler


def first_rejected(golden: Golden, k: int) -> Tensor:
    """Index of the place of each row's first rejected draft, [B, 1], by the recording's own numbers."""
    io = golden.io
    drafts = io[f"window_tokens.{k}"][:, 1:, None]
    p, q = io[f"step_probs.{k}"][:, :-1], io[f"draft_prob.{k}"][:, 1:]
    ratio = (p.gather(2, drafts) / q.gather(2, drafts))[..., 0]
    rejected = io[f"uniform.{k}"][:, 1:] >= ratio.clamp(max=1)
    return rejected.int().argmax(dim=1, keepdim=True)


REPLAYS: dict[str, Callable[[Golden], float]] = {"other": replay_other}
