"""What speculative decoders share: a window of drafts behind the accepted tokens, each image at its own pace.

Of an image with n accepted tokens a window of length L holds the last of them and the drafts of the places
n .. n + L - 2; fed at once, its entry j predicts place n + j. So index j of p, of fresh draws and of ``at``
is place n + j, and so is index j of drafts and q, of which there is one less.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from backbones.config import NetworkConfig
from pardec.errors import UserError
from strategies.decoding.base import TrainingFree
from strategies.decoding.decode import Rows
from strategies.decoding.plan import Plan
from strategies.decoding.requests import Ask, Redraw, Request, Uniform

Guess = Literal["random", "repeat_horizon", "repeat_vertical", "sample_horizon", "sample_vertical"]
"""First draft of a new place. random: any code. repeat: the token of the place to its left, or above it.
sample: the likeliest token of the distribution there. A place without such a neighbour takes any code."""


class Feed(Protocol):
    """One decode of a network in raster order: what it was fed is in its cache."""

    def first(self) -> Tensor:
        """Logits [R, 1, V] of the first place, which the class alone gives."""
        ...

    def behind(self, tokens: Tensor, start: Tensor, reach: int) -> Tensor:
        """Logits [R, L, V] of the L places from ``start`` [R] on, behind the tokens [R, L] before each.

        Places past the end are no matter. reach: at least all places that are read, of any row.
        """
        ...


class Sequential(Protocol):
    """A network that decodes one token at a time in raster order."""

    config: NetworkConfig
    device: Any
    code_vectors: Tensor | None

    def feed(self, labels: Tensor, places: int) -> Feed:
        """For rows of these labels [R], and so many places."""
        ...


@dataclass(frozen=True)
class Speculative(TrainingFree[Any]):
    """Drafts a window of tokens behind the accepted ones, and keeps as many as its test says."""

    timed_options: ClassVar[Mapping[str, tuple[int, ...]]] = {"window": (2, 4, 8, 16, 32)}

    base: Literal["raster", "rar"] = "raster"  # type: ignore[misc]
    """Whose networks it decodes."""
    window: int = 16
    """Most tokens fed at once; "auto": the fastest at each batch size, as it is measured."""
    read_every: int = 1
    """Steps for each time that the host asks the device how far the images are. In between it only knows
    bounds: the last windows may be longer than need be, and up to so many steps less one be in vain."""

    @property
    def vain_steps(self) -> int:  # type: ignore[override]
        return self.read_every - 1

    def bounded(self, grid: tuple[int, int]) -> Plan:
        if self.window < 1:
            raise UserError(f"window = {self.window}: expected at least 1")
        if self.read_every < 1:
            raise UserError(f"read_every = {self.read_every}: expected at least 1")
        # A forward accepts at least one token, so no place stays in the window for longer.
        return replace(super().bounded(grid), most_visits=self.window)

    def cache_shape(self, config: NetworkConfig) -> tuple[int, int]:
        slots = config.places + (config.trunk.conditioning == "adaln")
        return config.trunk.depth, slots + self.spare(config.places)

    def spare(self, places: int) -> int:
        """Slots past the end that a window of the last places reaches."""
        return min(self.window, places) - 1


class Window:
    """Accepted tokens, drafts, the distributions behind them, and the cache: the state of one decode.

    After ``lay``: at, places int64 [B, L]; drafts, int64 [B, L - 1]; tested, the places of the drafts. -1 is
    no place: beyond the image's end, and of a draft for the very last place, which is drawn at once.
    """

    def __init__(
        self, method: Speculative, network: Sequential, plan: Plan, rows: Rows, guess: Guess
    ) -> None:
        self.plan, self.rows, self.guess = plan, rows, guess
        self.longest, self.device, self.codes = method.window, network.device, network.config.codes
        self.read_every, self.opened = method.read_every, 0
        self.feed = network.feed(rows.labels, plan.places + method.spare(plan.places))
        batch = len(rows) // rows.branches
        # By place; one column more, for what is no place.
        self.tokens = torch.zeros(batch, plan.places + 1, dtype=torch.int64, device=self.device)
        self.likely = torch.zeros_like(self.tokens)
        self.accepted = torch.zeros(batch, dtype=torch.int64, device=self.device)
        """n of each image."""
        self.known = self.accepted
        """Places with a token: accepted ones, then the drafts that are carried on."""
        self.least = self.most = self.length = 0
        self.laws: Tensor | None = None
        """Distributions [B, L, V] kept with the tokens of the last window, whose first place is laws_from."""
        self.laws_from = self.accepted

    def prefill(self) -> Generator[Request, Any, None]:
        """The class alone gives the first token."""
        tokens = yield Ask(self.feed.first(), slice(0, 1))  # [R, 1]
        self.tokens[:, :1] = self.likely[:, :1] = tokens[: len(self.accepted)]
        self.accepted = self.known = torch.ones_like(self.accepted)

    def open(self) -> int:
        """Most tokens of the next window, 0 at the end. Asking for the bounds of what is accepted is the only
        time that a step waits for the device."""
        places = self.plan.places
        if self.opened % self.read_every == 0:
            self.least, self.most = torch.stack(self.accepted.aminmax()).tolist()
        else:  # an image accepts at least one token a step, and at most the window
            self.least, self.most = self.least + 1, min(self.most + self.length, places)
        self.opened += 1
        self.length = max(0, min(self.longest, places - self.least))
        return self.length

    def lay(self, length: int) -> Generator[Request, Any, Tensor]:
        """Fill a window with the drafts that are carried on, then with guesses; returns ``at``."""
        ahead = self.accepted[:, None] + torch.arange(length, device=self.device)  # [B, L]
        self.at = torch.where(ahead < self.plan.places, ahead, -1)
        self.tested = torch.where(self.at[:, 1:] < 0, -1, self.at[:, :-1])
        self.guessed = self.tested >= self.known[:, None]
        new = torch.where(self.guessed, self.tested, -1)
        if length > 1:
            neighbour = self._neighbours(new)
            uniform = yield Uniform("fill", torch.where(neighbour < 0, new, -1))
            random = (uniform * self.codes).long().clamp(max=self.codes - 1)
            table = self.tokens if self.guess.startswith("repeat") else self.likely
            known = table.gather(1, neighbour.clamp(min=0))
            self._write(self.tokens, new, torch.where(neighbour < 0, random, known))
        self.drafts = self.tokens.gather(1, self.tested % self.tokens.shape[1])
        return self.at

    def _neighbours(self, new: Tensor) -> Tensor:
        """The place whose (likeliest) token is the guess of each new place, [B, L - 1]; -1: any code is.

        For a neighbour that has no token yet the last place with one stands in.
        """
        if self.guess == "random":
            return torch.full_like(new, -1)
        columns = self.plan.grid[1]
        beside = self.guess.endswith("horizon")
        has = new % columns > 0 if beside else new >= columns
        neighbour = torch.minimum(new - (1 if beside else columns), self.known[:, None] - 1).clamp(min=0)
        return torch.where(has & (new >= 0), neighbour, -1)

    def forward(self) -> Tensor:
        """Logits [R, L, V] of the window's places."""
        length, last = self.at.shape[1], self.plan.places - 1
        start = self.accepted.clamp(max=last)  # finished images overwrite what nothing reads any more
        fed = torch.cat([self.tokens.gather(1, start[:, None] - 1), self.drafts], dim=1)
        repeat = self.rows.repeat
        return self.feed.behind(repeat(fed), repeat(start), min(self.most, last) + length)

    def draft_laws(self) -> Tensor:
        """q: what each draft was drawn from, [B, L - 1, V]; of a guess all of it on one code."""
        certain = torch.zeros(*self.drafts.shape, self.codes, device=self.device)
        certain.scatter_(2, self.drafts.unsqueeze(2), 1.0)
        if self.laws is None:
            return certain
        index = (self.tested - self.laws_from[:, None]).clamp(0, self.laws.shape[1] - 1)
        images = torch.arange(len(index), device=self.device)[:, None]
        return torch.where(self.guessed.unsqueeze(2), certain, self.laws[images, index])

    def advance(self, tokens: Tensor, final: Tensor, laws: Tensor | None = None) -> None:
        """Accept what is ``final`` [B, L] of ``tokens`` [B, L]; what follows are the next drafts.

        laws: distributions kept with the tokens, [B, L, V], where a test will ask for them.
        """
        self._write(self.tokens, self.at, tokens)
        if laws is not None:
            self.laws, self.laws_from = laws, self.accepted
            if self.guess.startswith("sample"):
                self._write(self.likely, self.at, laws.argmax(dim=-1))
        self.known = self.accepted + (self.at >= 0).sum(dim=1)
        self.accepted = self.accepted + final.sum(dim=1)

    def _write(self, table: Tensor, at: Tensor, values: Tensor) -> None:
        table.scatter_(1, at % table.shape[1], values)  # -1: the last column


def until_rejection(accepted: Tensor, at: Tensor) -> Tensor:
    """Places that become final, bool [B, L]: those of the drafts before the first that is not ``accepted``
    [B, L - 1], and the one after them."""
    first = torch.ones_like(at[:, :1], dtype=torch.bool)
    prefix = (accepted & (at[:, 1:] >= 0)).cumprod(dim=1).bool()
    return torch.cat([first, prefix], dim=1) & (at >= 0)


def until_redrawn(
    at: Tensor,
    drafts: Tensor,
    accepted: Tensor,
    q: Tensor,
    p: Tensor,
    fresh: Tensor,
    filtered: Callable[[Tensor], Tensor] | None = None,
) -> Generator[Request, Any, tuple[Tensor, Tensor]]:
    """Tokens [B, L] of the places ``at``, and which are final: the drafts [B, L - 1] before the first not
    ``accepted``, its place redrawn from the residual (``filtered``), and all behind it as they are ``fresh``.
    """
    if not drafts.shape[1]:
        return fresh, at >= 0
    tested = torch.where(at[:, 1:] < 0, -1, at[:, :-1])
    final = until_rejection(accepted, at)  # [B, L]
    stands = final[:, 1:]  # a draft is kept where the place after it is reached
    rejected = final[:, :-1] & ~stands & (tested >= 0)  # one of an image, or none
    images, first = torch.arange(len(at), device=at.device), rejected.int().argmax(dim=1)
    rest = residual(p[images, first], q[images, first])  # [B, V]
    where = torch.where(rejected, tested, -1).amax(dim=1, keepdim=True)
    redrawn = yield Redraw((rest if filtered is None else filtered(rest)).unsqueeze(1), where)  # [B, 1]
    tokens = fresh.clone()
    tokens[:, :-1] = torch.where(stands, drafts, torch.where(rejected, redrawn, fresh[:, :-1]))
    return tokens, final


def of_tokens(law: Tensor, tokens: Tensor) -> Tensor:
    """The probability of each token: [B, n] of [B, n, V]."""
    return law.gather(2, tokens.unsqueeze(2)).squeeze(2)


def residual(p: Tensor, q: Tensor) -> Tensor:
    """What a rejected draft is redrawn from, max(p - q, 0) [..., V]; p where rounding leaves nothing."""
    rest = (p - q).clamp(min=0)
    return torch.where(rest.sum(dim=-1, keepdim=True) > 0, rest, p)
