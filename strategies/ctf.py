"""CTF: coarse labels one by one, then every fine code in one forward (Guo et al., arXiv 2503.16194).

Codes with close vectors are nearly interchangeable, so the vocabulary is cut into clusters. A raster network
over cluster numbers decodes first; one network without a causal mask then predicts all codes from all of
them. Ours is class-conditional; numbers of clusters and size of the second network are not the paper's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from backbones.config import NetworkConfig
from backbones.networks import Networks
from backbones.tokenizers.clusters import cluster_codes
from backbones.transformer import Network, Trunk, View, make_norm
from pardec.errors import UserError
from strategies.arpg import ARPG
from strategies.decoding.base import Lesson, Strategy
from strategies.decoding.decode import Rows
from strategies.decoding.plan import Plan
from strategies.decoding.requests import Ask, Decoding
from strategies.decoding.streams import Streams
from strategies.nar import NAR
from strategies.par import PAR
from strategies.randar import RandAR
from strategies.raster import Raster

NEVER = -1e4
"""The logit of a code that can't be: finite, for guidance takes differences."""
STAGES: Mapping[str, Strategy] = {one.name: one for one in (Raster(), PAR(), NAR(), ARPG(), RandAR())}


class FineNetwork(Network):
    """Class vector, then the label of every position; each sees all, and each predicts its own code.

    ``cluster_of`` [V] is the label of each code; until it is learned from the codes' vectors, ranges of code
    numbers.
    """

    def __init__(self, config: NetworkConfig, clusters: int) -> None:
        super().__init__(config)
        trunk, width = config.trunk, config.trunk.width
        trunk.require(type(self).__name__, positions="rotary", conditioning="prefix")
        self.class_embedding = nn.Embedding(config.classes + config.null_class, width)
        self.coarse_embedding = nn.Embedding(clusters, width)
        self.trunk = Trunk(trunk)
        self.norm = make_norm(trunk)
        self.head = nn.Linear(width, config.codes, bias=False)
        self.register_buffer("cluster_of", torch.arange(config.codes) * clusters // config.codes)
        self.cluster_of: Tensor

    def forward(self, labels: Tensor, coarse: Tensor) -> Tensor:
        """Logits [R, N, V] of all positions for classes [R] and coarse labels [R, N]; codes of another label
        have the logit ``NEVER``."""
        x = torch.cat([self.class_embedding(labels).unsqueeze(1), self.coarse_embedding(coarse)], dim=1)
        phases = self.phases(torch.arange(x.shape[1], device=x.device))
        x = self.trunk(self.drop_embedded(x), phases, View(), asked=coarse.shape[1])  # [R, N, d]
        logits = self.head(self.norm(x)).float()
        return logits.masked_fill(self.cluster_of != coarse.unsqueeze(-1), NEVER)

    def stand_ins(self) -> Tensor:
        """The first code of each label, int64 [M]: on the canvas it stands for the label."""
        codes = torch.arange(len(self.cluster_of), device=self.device)
        none = codes.new_full((self.coarse_embedding.num_embeddings,), len(codes))
        return none.scatter_reduce(0, self.cluster_of, codes, "amin")


@dataclass(frozen=True)
class CTF(Strategy[Networks]):
    name: ClassVar[str] = "ctf"
    title: ClassVar[str] = "CTF"
    paper: ClassVar[str] = "2503.16194"
    sequential_conditionals: ClassVar[bool] = False  # all fine codes are predicted from the coarse labels
    learns_from_code_vectors: ClassVar[bool] = True

    clusters: int = 0
    """Coarse labels; 0: a quarter as many as codes."""
    coarse: Literal["raster", "par", "nar", "arpg", "randar"] = "raster"
    """The method that decodes the labels."""

    @property
    def stage(self) -> Strategy:
        return STAGES[self.coarse]

    def network(self, config: NetworkConfig) -> Networks:
        labels = self.clusters or max(2, config.codes // 4)
        if not 2 <= labels <= config.codes:
            raise UserError(f"clusters = {labels} of {config.codes} codes: expected 2 to {config.codes}")
        coarse = self.stage.network(replace(config, codes=labels, others=()))
        return Networks(coarse=coarse, fine=FineNetwork(config, labels))

    def meet_codes(self, network: Networks, vectors: Tensor) -> None:
        fine = _fine(network)
        fine.cluster_of.copy_(cluster_codes(vectors, fine.coarse_embedding.num_embeddings))

    def lesson(
        self, batch: int, grid: tuple[int, int], generator: torch.Generator, progress: float
    ) -> Lesson:
        first, places = self.stage.lesson(batch, grid, generator, progress), grid[0] * grid[1]
        order = torch.cat([first.order, places + torch.arange(places).expand(batch, -1)], dim=1)
        return Lesson(order, (*(first.sizes or (1,) * places), places))

    def canvas(self, network: Networks, codes: Tensor) -> Tensor:
        fine = _fine(network)
        return torch.cat([fine.stand_ins()[fine.cluster_of[codes]], codes], dim=1)

    def taught_logits(self, network: Networks, tokens: Tensor, labels: Tensor, lesson: Lesson) -> Tensor:
        fine, places = _fine(network), network.config.places
        coarse = fine.cluster_of[tokens[:, :places]]
        sizes = (lesson.sizes or (1,) * places)[:-1]
        first = Lesson(lesson.order[:, :places], sizes if max(sizes) > 1 else None)
        one_by_one = self.stage.taught_logits(network["coarse"], coarse, labels, first)  # [B, N, M]
        by_position = fine(labels, coarse)  # [B, N, V]
        index = (lesson.order[:, places:] - places).unsqueeze(-1).expand_as(by_position)
        return torch.cat([_of_codes(one_by_one, fine), by_position.gather(1, index)], dim=1)

    def allowed_steps(self, grid: tuple[int, int], given: int = 0) -> range:
        first = self.stage.allowed_steps(grid)
        return range(first[0] + 1, first[-1] + 2)

    def sizes(self, grid: tuple[int, int], steps: int, given: int = 0) -> tuple[int, ...]:
        return (*self.stage.sizes(grid, steps - 1), grid[0] * grid[1])

    def orders(
        self, grid: tuple[int, int], sizes: tuple[int, ...], streams: Streams, known: np.ndarray
    ) -> np.ndarray:
        first, places = np.atleast_2d(self.stage.orders(grid, sizes[:-1], streams, known)), grid[0] * grid[1]
        return np.concatenate([first, np.tile(places + np.arange(places), (len(first), 1))], axis=1)

    def arrange(
        self, grid: tuple[int, int], order: np.ndarray, sizes: tuple[int, ...], given: int = 0
    ) -> Plan:
        first = self.first_plan(grid, np.atleast_2d(order), sizes)
        return Plan(
            grid,
            order,
            sizes,
            given,
            progress=np.concatenate([first.progress, np.ones(first.places)]),
            count=np.concatenate([first.count, np.full(first.places, first.places)]),
            maps=(grid, grid),
            codes_from=first.places,
        )

    def first_plan(self, grid: tuple[int, int], order: np.ndarray, sizes: tuple[int, ...]) -> Plan:
        """Of the coarse labels alone."""
        return self.stage.arrange(grid, order[:, : grid[0] * grid[1]], sizes[:-1])

    def cache_shapes(self, config: NetworkConfig) -> Mapping[str, tuple[int, int]]:
        return {"coarse": self.stage.cache_shape(config), "fine": (0, 0)}

    def decode(self, network: Networks, plan: Plan, rows: Rows) -> Decoding:
        fine, places = _fine(network), network.config.places
        order = rows.order[:, :places].expand(len(rows), -1)  # [R, N]
        coarse = torch.empty_like(order)
        first = self.first_plan(plan.grid, plan.order, plan.sizes or ())
        stage = self.stage.decode(network["coarse"], first, replace(rows, order=rows.order[:, :places]))
        answer = None
        for at in first.groups():
            request = stage.send(answer)
            assert isinstance(request, Ask)
            codes = yield Ask(_of_codes(request.logits, fine), at)
            answer = coarse[:, at] = fine.cluster_of[codes]
        by_position = torch.empty_like(coarse).scatter_(1, order, coarse)
        yield Ask(fine(rows.labels, by_position), slice(places, 2 * places))


def _fine(network: Networks) -> FineNetwork:
    fine = network["fine"]
    assert isinstance(fine, FineNetwork)
    return fine


def _of_codes(logits: Tensor, fine: FineNetwork) -> Tensor:
    """Logits of labels [R, n, M] as those of the codes [R, n, V] that stand for them."""
    never = logits.new_full((*logits.shape[:2], len(fine.cluster_of)), NEVER)
    return never.index_copy(2, fine.stand_ins(), logits)
