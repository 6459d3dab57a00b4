"""What torch.compile did in this process: its graphs and the time they took, kept apart from decoding."""

import sys
from typing import Any


def graphs() -> int:
    """Graphs compiled so far; 0 where the compiler was never loaded."""
    dynamo: Any = sys.modules.get("torch._dynamo.utils")
    return int(dynamo.counters["stats"]["unique_graphs"]) if dynamo else 0


def compile_s() -> float | None:
    """Seconds spent compiling so far; None in eager mode."""
    if not graphs():
        return None
    dynamo: Any = sys.modules["torch._dynamo.utils"]
    # The outermost phase holds all others.
    return float(sum(dynamo.compilation_time_metrics.get("_compile.compile_inner", [])))
