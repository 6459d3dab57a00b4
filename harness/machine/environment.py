"""Where a number was measured: machine, libraries, and the state of the code."""

import os
import platform
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def environment(device: str = "cpu") -> dict[str, Any]:
    """The ``environment`` of a result row. The GPU is named only where torch is imported already."""
    torch = sys.modules.get("torch")
    commit, dirty = git_state()
    return {
        "host_cpu": cpu_name(),
        "cores": usable_cores(),
        "gpu": torch.cuda.get_device_name(device) if torch and device.startswith("cuda") else None,
        "torch": torch.__version__ if torch else version("torch"),
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git_commit": commit,
        "git_dirty": dirty,
        "pardec": version("pardec"),
    }


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def version(package: str) -> str:
    try:
        return installed_version(package)
    except PackageNotFoundError:
        return "not installed"


def cpu_name() -> str:
    """The processor's own name; its architecture where the system doesn't tell."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def git_state() -> tuple[str | None, bool | None]:
    """Commit of this checkout and whether tracked files differ from it; None outside a checkout."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None, None
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return commit, None if changes is None else bool(changes)


def _git(*arguments: str) -> str | None:
    if not (ROOT / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=ROOT,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
            check=True,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def command() -> str:
    """What was typed, for cards and notes."""
    return " ".join(["pardec", *sys.argv[1:]])
