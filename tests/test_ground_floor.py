"""The ground floor imports nothing of ours, and no torch."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(path.stem for path in (ROOT / "pardec").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("module", MODULES)
def test_stands_alone(module):
    code = (
        f"import sys, pardec.{module}\n"
        "rooms = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not rooms & {'torch', 'strategies', 'backbones', 'harness', 'results', 'reports'}, rooms"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
