"""Memory in pages of 2 MB, where Linux gives them.

A decode step reads all weights and the cache once, at the memory's rate. With pages of 4 kB a good part of
that time goes to finding them: of products of 4 rows with 11 MB weights a tenth to a fifth, of attention over
a cache of 250 slots as much (Xeon with AMX). What is asked for here is advice: the kernel may decline, and
elsewhere nothing is asked.
"""

import ctypes
import sys
from mmap import PAGESIZE

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
        first, past = address // PAGESIZE * PAGESIZE, address + nbytes
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(past - first), advice)
