"""What torchrun leaves in the environment: all of it is a group, nothing is one process, half is refused."""

import pytest

from harness.cli import main, parser
from harness.commands.common import share_of
from harness.commands.generate_run import _found
from harness.images.shards import Share
from harness.machine.distributed import Launch, launch, local_device
from pardec.errors import UserError

WHOLE = {
    "WORLD_SIZE": "4",
    "RANK": "3",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}
HALVES = {
    "size-alone": ({"WORLD_SIZE": "4"}, "WORLD_SIZE='4' without RANK and MASTER_ADDR and MASTER_PORT"),
    "size-empty": ({"WORLD_SIZE": ""}, "WORLD_SIZE='': expected a whole number of at least 1"),
    "size-blank": ({"WORLD_SIZE": " "}, "WORLD_SIZE=' '"),
    "size-zero": (WHOLE | {"WORLD_SIZE": "0"}, "WORLD_SIZE='0': expected a whole number of at least 1"),
    "size-text": (WHOLE | {"WORLD_SIZE": "four"}, "WORLD_SIZE='four'"),
    "size-negative": (WHOLE | {"WORLD_SIZE": "-1"}, "WORLD_SIZE='-1'"),
    "rank-alone": ({"RANK": "2"}, "RANK='2' without WORLD_SIZE"),
    "rank-empty": (WHOLE | {"RANK": ""}, "without RANK, half of what torchrun sets"),
    "rank-too-large": (
        WHOLE | {"RANK": "4"},
        "RANK='4': expected a whole number of at least 0 and at most 3",
    ),
    "rank-of-one": ({"WORLD_SIZE": "1", "RANK": "1"}, "RANK='1': expected"),
    "local-rank-alone": ({"LOCAL_RANK": "0"}, "LOCAL_RANK='0' without WORLD_SIZE"),
    "local-rank-text": (WHOLE | {"LOCAL_RANK": "cuda"}, "LOCAL_RANK='cuda'"),
    "no-master": ({"WORLD_SIZE": "3", "RANK": "0"}, "without MASTER_ADDR and MASTER_PORT"),
    "master-empty": (WHOLE | {"MASTER_ADDR": ""}, "without MASTER_ADDR"),
    "port-text": (WHOLE | {"MASTER_PORT": "x"}, "MASTER_PORT='x'"),
}


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in WHOLE:
        monkeypatch.delenv(name, raising=False)


def given(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("kind", HALVES)
def test_half_of_torchrun_is_refused(monkeypatch, kind):
    variables, says = HALVES[kind]
    given(monkeypatch, variables)
    for call in (launch, lambda: share_of(None), lambda: local_device("cuda")):
        with pytest.raises(UserError) as caught:
            call()
        assert says in str(caught.value)
        assert "unset " in str(caught.value)
        assert "\n" not in str(caught.value)


def test_all_or_nothing_is_understood(monkeypatch):
    assert (launch(), share_of(None), local_device("cuda")) == (Launch(), Share(), "cuda")
    monkeypatch.setenv("MASTER_PORT", "")  # nobody asks where one process meets others
    assert launch() == Launch()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert launch() == Launch()
    given(monkeypatch, WHOLE)
    assert (launch(), share_of(None), local_device("cuda")) == (Launch(3, 4, 1, 2), Share(3, 4), "cuda:1")
    assert local_device("cpu") == "cpu"


@pytest.mark.parametrize(
    ("words", "device"),
    [
        (["strategy=lpd,steps=4,device=cuda"], "cuda:1"),
        (["strategy=lpd,steps=4", "--device", "cuda"], "cuda:1"),
        (["strategy=lpd,steps=4"], "cpu"),
        (["strategy=lpd,steps=4,device=cuda:3"], "cuda:3"),
        (["strategy=lpd,steps=4,device=cuda", "--dry-run"], "cuda"),
    ],
)
def test_cuda_is_the_processes_own_device_whoever_says_it(monkeypatch, words, device):
    given(monkeypatch, WHOLE)
    options = parser("generate").parse_args(["generate", *words, "--out", "images"])
    assert _found(options).device == device


@pytest.mark.parametrize("left_over", [{"WORLD_SIZE": "4"}, {"WORLD_SIZE": ""}, {"RANK": "2"}])
@pytest.mark.parametrize(
    "command",
    [
        ["encode", "--data", "imagefolder:pictures", "--tokenizer", "fsq", "--out", "codes"],
        ["generate", "strategy=lpd,steps=4", "--out", "images"],
        ["train", "lpd"],
        ["train", "lpd", "--trunk", "controlled", "--codes", "codes"],
    ],
    ids=["encode", "generate", "train", "train-at-scale"],
)
def test_commands_say_so_on_one_line_and_make_nothing(monkeypatch, tmp_path, capsys, command, left_over):
    monkeypatch.chdir(tmp_path)
    given(monkeypatch, left_over)
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"pardec: environment: {next(iter(left_over))}=")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
