"""Peak memory of a piece of work over the loaded state, on the CPU and on CUDA."""

import ctypes
import resource
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


@dataclass
class PeakMemory:
    """Bytes above the loaded state: network and tokenizer in memory, libraries warmed up by one image.

    CUDA: the allocator's own statistics. CPU: the process's peak resident size, reset before each piece of
    work where the kernel allows it; elsewhere the peak of the process's life, which counts once it grows.
    What the process read meanwhile of files (pages of libraries that ran for the first time) is taken off.
    Whoever calls ``release`` after each step takes off, too, the holes that earlier steps left in the heap:
    steps that widen leave a hole each, and the sum of them says more of the C library than of the work.
    """

    device: torch.device
    loaded: int | None = field(default=None, init=False)
    files_when_loaded: int = field(default=0, init=False)
    peak_when_loaded: int = field(default=0, init=False)
    resettable: bool = field(default=False, init=False)

    def settle(self) -> None:
        """Take the present state as the loaded one."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.loaded = torch.cuda.memory_allocated(self.device)
            return
        release_freed_memory()
        self.resettable = _reset_resident_peak()
        self.loaded = _status_bytes("VmRSS")
        self.files_when_loaded = _status_bytes("RssFile") or 0
        self.peak_when_loaded = _life_peak()

    def reset(self) -> None:
        """Begin a piece of work."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        release_freed_memory()
        if self.resettable:
            _reset_resident_peak()

    def release(self) -> None:
        """Hand back what the heap holds and no tensor uses, after a step."""
        if self.device.type == "cpu":
            release_freed_memory()

    def over_loaded(self) -> tuple[int | None, str | None]:
        """Peak bytes since ``reset`` over the loaded state, or None and why."""
        if self.loaded is None:
            return None, "this system does not tell a process its resident size"
        if self.device.type == "cuda":
            return max(0, torch.cuda.max_memory_allocated(self.device) - self.loaded), None
        if self.resettable:
            peak = _status_bytes("VmHWM")
            assert peak is not None
            read = max(0, (_status_bytes("RssFile") or 0) - self.files_when_loaded)
            return max(0, peak - read - self.loaded), None
        peak = _life_peak()
        if peak <= self.peak_when_loaded:
            return None, "the peak resident size can't be reset here, and loading took more than decoding"
        return peak - self.loaded, None


def release_freed_memory() -> None:
    """Hand freed heap pages back to the system, so that they don't hide what the next piece of work takes."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def resident_bytes() -> int | None:
    """The process's resident size after freed memory has gone back; None where the system doesn't tell."""
    release_freed_memory()
    return _status_bytes("VmRSS")


def _reset_resident_peak() -> bool:
    try:
        _CLEAR.write_text(_RESET_PEAK, encoding="utf-8")
    except OSError:
        return False
    return True


def _status_bytes(name: str) -> int | None:
    try:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def _life_peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
