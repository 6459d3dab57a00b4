"""What is recorded was measured on the networks that lie in the zoo, the learning curve's last marks too: its
earlier ones stand there only until it is recorded."""

import json
import shutil
from pathlib import Path

import pytest

from backbones.weights import ZOO
from harness.cell.cell import ZOO_PREFIX
from harness.train import tune
from harness.weights import zoo as zoo_cards
from harness.weights.zoo import MARKS
from pardec.hashing import file_sha256
from results.store import load_rows

ROOT = Path(__file__).parents[2]
RECORDED = sorted((ROOT / "results" / "baselines").glob("*.jsonl"))


@pytest.fixture(scope="module")
def zoo() -> set[str]:
    return {file_sha256(path) for path in ZOO.rglob("*.safetensors")}


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_rows_are_of_networks_of_the_zoo(path: Path, zoo: set[str]) -> None:
    rows = [row for row in load_rows(path) if row.tier == "controlled"]
    assert rows or path.stem == "full-size"
    if path.stem == "learning":
        rows = [row for row in rows if not str(row.network).startswith(f"{ZOO_PREFIX}{MARKS}/")]
        assert len(rows) == 11, "a row of every network's last mark"
    assert {row.checkpoint for row in rows if not row.networks} <= zoo
    assert {use["sha256"] for row in rows for use in row.networks or ()} <= zoo


def test_cards_have_the_guidance_that_was_recorded(tmp_path: Path) -> None:
    for card in ZOO.glob("*.json"):
        shutil.copy(card, tmp_path)
        weights = card.with_suffix(".safetensors")
        if weights.exists():
            (tmp_path / weights.name).symlink_to(weights)
    choices = tune.record(load_rows(ROOT / "results" / "baselines" / "guidance.jsonl"), tmp_path)
    assert len(choices) == 12
    for network, scale in choices.items():
        assert zoo_cards.read_card(network).content["guidance"]["chosen"] == scale, network


def test_contexts_are_those_of_the_zoo(zoo: set[str]) -> None:
    lines = (ROOT / "results" / "lpd_contexts.jsonl").read_text(encoding="utf-8").splitlines()
    found = {json.loads(line)["weights_sha256"] for line in lines}
    assert found
    assert found <= zoo
