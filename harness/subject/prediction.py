"""What a cell holds in memory: bytes of weights and caches, known before it runs."""

from collections.abc import Mapping
from dataclasses import dataclass

from backbones.cache import cache_bytes
from backbones.products import weight_bytes
from backbones.transformer import parameter_count
from harness.subject.prepare import Prepared, dtype_of
from harness.weights.empty import on_meta


@dataclass(frozen=True)
class Prediction:
    """What a cell will hold in memory, known before it runs."""

    parameters: int
    weight_bytes: int
    cache_bytes: int
    cache_by_role: Mapping[str, int]


def predict(prepared: Prepared, batch: int | None = None) -> Prediction:
    """Bytes of the weights, and of the key/value cache at ``batch`` (default: the cell's)."""
    dtype = dtype_of(prepared.cell)
    network = on_meta(prepared.strategy, prepared.config).in_precision(dtype)
    shapes = prepared.strategy.cache_shapes(prepared.config)
    rows = prepared.rows(batch or prepared.cell.batch)
    caches = {
        role: cache_bytes(prepared.config.of(role).trunk, layers, rows, slots, dtype)
        for role, (layers, slots) in shapes.items()
    }
    return Prediction(parameter_count(network), weight_bytes(network), sum(caches.values()), caches)
