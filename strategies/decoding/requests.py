"""What a strategy's ``decode`` yields to the loop, and what it is sent back.

``Ask`` is the short form of what most methods need; the others take it apart. Places are indices of the
plan's canvas: a slice, the same for all images, or int64 [B, n], each image's own, where -1 is no place at
all (images that are done, windows of different length).
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

if TYPE_CHECKING:
    from strategies.decoding.sampling import Sampler

Places = slice | Tensor
EVERYWHERE = slice(None)

Noise = Literal["place", "fresh", "gumbel"]
"""place: the place's own number, the same at every forward (visit 0). fresh: a new one at every visit.
gumbel: a number of the place for each code, the same at every forward; the largest of log p + G is drawn."""


@dataclass(frozen=True)
class Ask:
    """Guide, filter, draw with the places' own noise, commit; answered by tokens int64 [R, n].

    logits: [R, n, V], R rows: of B images, then again B for each further branch of guidance. law: as of
    ``Draft``.
    """

    logits: Tensor
    at: Places
    law: "Callable[[Tensor, Sampler], Tensor] | None" = None


@dataclass(frozen=True)
class Draft:
    """Guide, filter, draw; commits nothing; answered by ``Drawn``.

    clock: the progress (0..1) that guidance reads, where the places don't fix it; count: what its interval
    reads then. law: guided logits and sampler -> distribution [B, n, V], where the method draws from another
    one than the sampler's own.
    """

    logits: Tensor
    at: Places
    noise: Noise = "fresh"
    clock: float | None = None
    count: int = 0
    law: "Callable[[Tensor, Sampler], Tensor] | None" = None


@dataclass(frozen=True)
class Drawn:
    """tokens: int64 [B, n]. logits: guided, before temperature and filters, float32 [B, n, V]. law: the
    distribution [B, n, V] that the draft asked for, if it did."""

    tokens: Tensor
    logits: Tensor
    sampler: "Sampler"
    law: Tensor | None = None

    @property
    def probs(self) -> Tensor:
        """The distribution that the tokens were drawn from, float32 [B, n, V]."""
        return self.sampler.probabilities(self.logits) if self.law is None else self.law


@dataclass(frozen=True)
class Uniform:
    """Fresh numbers in [0, 1) of a purpose ("fill", ...); answered by float32 [B, n]."""

    purpose: str
    at: Places


@dataclass(frozen=True)
class Accept:
    """Accept drafts with these chances [B, n], by fresh numbers of the purpose "accept"; answered by bool
    [B, n]. The loop counts what was tested and what became of it.

    stops: nothing behind an image's first rejection counts as tested.
    """

    chance: Tensor
    at: Places
    stops: bool = True


@dataclass(frozen=True)
class Redraw:
    """Draw from ``probs`` [B, n, V] (they need not sum to 1: a residual); answered by tokens int64 [B, n].

    Its noise is fresh and of a purpose of its own: a draw that was rejected says something about its number.
    """

    probs: Tensor
    at: Places


@dataclass(frozen=True)
class Commit:
    """Write tokens [B, n]; where: bool [B, n], those that are written (None: all). Answered by None.

    A mask and not a length, so that images advance at their own pace and nothing waits for the device.
    """

    at: Places
    tokens: Tensor
    where: Tensor | None = None


Request = Ask | Draft | Uniform | Accept | Redraw | Commit
Decoding = Generator[Request, Any, None]
"""What a strategy's ``decode`` is."""
