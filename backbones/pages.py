"""Memory in pages of 2 MB, where Linux gives them.

A decode step reads all weights and the cache once, at the memory's rate. With pages of 4 kB a good part of
that time goes to finding them: a fifth of products of 4 rows with weights of 2 to 11 MB, a sixth of attention
over a cache of 250 slots (Xeon with AMX). What is asked for here is advice: the kernel may decline,
and elsewhere nothing is asked.
"""

import ctypes
import sys

from torch import Tensor

HUGE = 2**21
MADV_HUGEPAGE = 14
MADV_COLLAPSE = 25
"""Of Linux 6.1 and later."""


def before_use(tensor: Tensor) -> Tensor:
    """The same tensor, of memory that nobody has written yet."""
    if tensor.device.type == "cpu":
        _advise(tensor.data_ptr(), tensor.nbytes, MADV_HUGEPAGE)
    return tensor


def in_use(address: int, nbytes: int) -> None:
    """Move memory that holds something already."""
    _advise(address, nbytes, MADV_COLLAPSE)


def _advise(address: int, nbytes: int, advice: int) -> None:
    if sys.platform == "linux" and nbytes >= HUGE:
        # With both ends, which it may share with its neighbours.
        first, past = address // HUGE * HUGE, -(-(address + nbytes) // HUGE) * HUGE
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(past - first), advice)
