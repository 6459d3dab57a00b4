"""What the processes of a sweep import: each pays for it, and torch's compiler takes as long as torch."""

import subprocess
import sys
from pathlib import Path

from harness.sweep.process import ROOT
from tests.harness.small_published import small_presets  # noqa: F401

SLOW = ("torch", "torchvision", "torch._dynamo", "sympy", "torch_fidelity", "cleanfid", "matplotlib")
MODULES = """
import sys
import harness.sweep.sweep, harness.sweep.worker, harness.sweep.job
import harness.subject.subject, harness.subject.prepare
import harness.measure.turns, harness.measure.measure, harness.lossiness.estimate, harness.cost.model
import harness.quality.assess.controlled, harness.quality.assess.adm
"""
CELLS = """
import sys
from pathlib import Path
from tests.harness.small_catalogue import use_catalogue
from tests.harness.small_zoo import STRATEGIES
from harness.cell.cell import Cell, normalised
from harness.measure.timed import timed_batches
from harness.measure.turns import load_all
from harness.subject.pins import finished
from harness.subject.prepare import prepare
use_catalogue(Path(sys.argv[1]))
own = dict(images=2, batch=2, threads=1)
files = dict(checkpoint="random", tokenizer_checkpoint="random")
cells = [Cell(name, zoo=sys.argv[2], **own) for name in STRATEGIES]
cells += [Cell(name, network=f"small-{name}", **own, **files) for name in ("par", "rar")]
for subject in load_all(prepare(finished(normalised(cell))) for cell in cells):
    timed_batches(subject, subject.prepared.cell.batch)()
"""
PRINT = '\nprint("SLOW", [name for name in {slow} if name in sys.modules])\n'


def slow_imports(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code + PRINT.format(slow=SLOW), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.rpartition("SLOW ")[2].strip()


def test_cells_are_timed_without_compiler_and_metrics(small_presets: Path, small_zoo: Path):  # noqa: F811
    assert slow_imports(MODULES + CELLS, str(small_presets), str(small_zoo)) == "['torch']"


def test_a_worker_reads_its_order_before_it_imports_torch():
    assert slow_imports("import sys, harness.sweep.worker") == "[]"


def test_an_import_that_is_there_is_seen():
    assert slow_imports("import sys, sympy") == "['sympy']"
