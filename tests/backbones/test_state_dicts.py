"""State dicts inside files: which of several is taken, and names without what training put before them."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from backbones.checkpoints import CheckpointError, read_checkpoint, read_state_dict
from backbones.state_dicts import without_prefixes
from tests.backbones.published_files import save_legacy

TRAINED = {"a.weight": torch.ones(2, 3), "b.bias": torch.zeros(2)}
AVERAGE = {name: value + 1 for name, value in TRAINED.items()}
OPTIMISER = {"state": {0: {"exp_avg": torch.ones(2)}}, "exp_avg": dict(TRAINED)}


def stored(content, folder, save=torch.save):
    path = folder / "weights.pt"
    save(content, path)
    return path


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in found)


def under(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


FILES = {
    "plain": ({"model": TRAINED, "ema": AVERAGE, "optimizer": OPTIMISER}, "model", "ema"),
    "reversed": ({"ema": AVERAGE, "model": TRAINED}, "model", "ema"),
    "deeper": ({"model": {"module": TRAINED}, "ema": {"module": AVERAGE}}, "model.module", "ema.module"),
    "other-name": ({"state_dict": TRAINED, "state_dict_ema": AVERAGE}, "state_dict", "state_dict_ema"),
    "wrapped-average": ({"model": TRAINED, "ema": under("module.", AVERAGE)}, "model", "ema"),
    "counted-average": (
        {"model": TRAINED, "ema": under("module.", AVERAGE) | {"n_averaged": torch.tensor(3)}},
        *("model", "ema"),
    ),
    "by-prefix": (
        {"state_dict": under("model.", TRAINED) | under("model_ema.", AVERAGE)},
        *("state_dict.model", "state_dict.model_ema"),
    ),
    "beside": ({"model": TRAINED | under("ema.", AVERAGE)}, "model", "model.ema"),
}


@pytest.mark.parametrize("save", [torch.save, save_legacy], ids=["archive", "legacy"])
@pytest.mark.parametrize("kind", FILES)
def test_of_several_states_the_taken_and_the_others_are_named(tmp_path, kind, save):
    content, taken, other = FILES[kind]
    path = stored(content, tmp_path, save)
    found = read_checkpoint(path)
    assert (found.taken, dict(found.others)) == (taken, {other: False})
    assert found.choice == f"'{taken}' of '{taken}', '{other}' (other values); --weights {other} chooses"
    assert same(found.tensors, TRAINED)
    for name in {other, other.split(".")[0] if "model" not in other else other}:
        asked = read_checkpoint(path, weights=name)
        assert (asked.taken, dict(asked.others)) == (other, {taken: False})
        assert same(asked.tensors, AVERAGE)


def test_the_last_part_of_a_name_is_enough(tmp_path):
    path = stored(FILES["by-prefix"][0], tmp_path)
    assert same(read_state_dict(path, "model_ema"), AVERAGE)


def test_an_unasked_choice_is_told_where_values_differ(tmp_path, caplog):
    path = stored({"model": TRAINED, "ema": AVERAGE}, tmp_path)
    read_state_dict(path)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: weights taken: 'model' of 'model', 'ema' (other values); --weights ema chooses"
    ]
    caplog.clear()
    read_state_dict(path, "model")
    read_state_dict(stored({"model": TRAINED, "ema": dict(TRAINED)}, tmp_path))
    read_state_dict(stored({"model": TRAINED}, tmp_path))
    assert not caplog.records


def test_equal_states_and_values_that_were_not_read(tmp_path):
    path = stored({"model": TRAINED, "ema": {k: v.clone() for k, v in TRAINED.items()}}, tmp_path)
    assert read_checkpoint(path).choice == "'model' of 'model', 'ema' (the same)"
    legacy = stored({"model": TRAINED, "ema": AVERAGE}, tmp_path, save_legacy)
    assert read_checkpoint(legacy, with_values=False).others == {"ema": None}


def test_states_of_other_networks_are_no_choice(tmp_path):
    other = {"discriminator.weight": torch.ones(4), "a.weight": torch.ones(9)}
    found = read_checkpoint(stored({"model": TRAINED, "discriminator": other}, tmp_path))
    assert (found.taken, found.choice) == ("model", None)
    assert read_checkpoint(stored(TRAINED, tmp_path)).taken is None


@pytest.mark.parametrize(
    ("content", "weights", "says"),
    [
        (
            {"model": TRAINED, "ema": AVERAGE},
            "emma",
            "no weights 'emma': did you mean 'ema'? valid: ema, model",
        ),
        ({"model": TRAINED, "ema": AVERAGE}, "optimizer", "no weights 'optimizer': valid: ema, model"),
        (TRAINED, "ema", "no weights 'ema': it holds one state dict, bare; leave --weights out"),
        ({"ema": AVERAGE}, None, "tensors stand under 'ema': --weights ema takes them"),
        ({"net.ema": AVERAGE}, None, "tensors stand under 'net.ema': --weights net.ema takes them"),
        (
            TRAINED | under("ema.", AVERAGE),
            "emma",
            "did you mean 'ema'? valid: ema; leave --weights out for the file itself",
        ),
        ({"steps": 3}, "ema", "no weights 'ema'"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(tmp_path, content, weights, says):
    path = stored(content, tmp_path)
    with pytest.raises(CheckpointError) as caught:
        read_state_dict(path, weights)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_state_under_another_name_is_taken_when_asked(tmp_path):
    assert same(read_state_dict(stored({"ema": AVERAGE}, tmp_path), "ema"), AVERAGE)


def test_a_key_with_dots_is_taken_by_the_name_that_is_advised(tmp_path):
    path = stored({"net.ema": AVERAGE, "net": {"old": TRAINED}}, tmp_path)
    assert same(read_state_dict(path, "net.ema"), AVERAGE)
    assert same(read_state_dict(path, "net.old"), TRAINED)


def test_the_bare_state_of_several_is_taken_unasked(tmp_path):
    path = stored(TRAINED | under("ema.", AVERAGE), tmp_path)
    assert same(read_state_dict(path), TRAINED)
    found = read_checkpoint(path, weights="ema")
    assert same(found.tensors, AVERAGE)
    assert found.choice == (
        "'ema' of 'ema', 'the file itself' (other values); leave --weights out to take it"
    )


# Prefixes --------------------------------------------------------------------------------------------------

COUNT = {"n_averaged": torch.tensor(3)}
WITHIN = {"a._orig_mod.weight": TRAINED["a.weight"], "b.bias": TRAINED["b.bias"]}
PREFIXED = {
    "compiled": (under("_orig_mod.", TRAINED), "_orig_mod."),
    "compiled-part": (WITHIN, "_orig_mod. (within names)"),
    "compiled-part-distributed": (under("module.", WITHIN), "module., _orig_mod. (within names)"),
    "averaged": (under("module.", TRAINED) | COUNT, "module. (beside n_averaged)"),
    "averaged-compiled": (
        under("module._orig_mod.", TRAINED) | COUNT,
        "module._orig_mod. (beside n_averaged)",
    ),
    "compiled-averaged": (
        under("_orig_mod.", under("module.", TRAINED) | COUNT),
        "_orig_mod.module. (beside n_averaged)",
    ),
    "distributed-averaged-distributed": (
        under("module.", under("module.module.", TRAINED) | COUNT),
        "module.module.module. (beside n_averaged)",
    ),
    "averaged-compiled-part": (
        under("module.", WITHIN) | COUNT,
        "module. (beside n_averaged), _orig_mod. (within names)",
    ),
    "sharded": (
        {
            "_fsdp_wrapped_module.a._fsdp_wrapped_module._checkpoint_wrapped_module.weight": TRAINED[
                "a.weight"
            ],
            "_fsdp_wrapped_module.b.bias": TRAINED["b.bias"],
        },
        "_fsdp_wrapped_module., _fsdp_wrapped_module. (within names), "
        "_checkpoint_wrapped_module. (within names)",
    ),
    "no-prefix": (TRAINED, ""),
}


@pytest.mark.parametrize("kind", PREFIXED)
def test_prefixes_are_removed_and_named(kind):
    state, prefix = PREFIXED[kind]
    bare, found = without_prefixes(state)
    assert same(bare, TRAINED)
    assert found == prefix


def test_what_torch_itself_makes(tmp_path):
    network = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 2)))
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    network[1] = torch.compile(network[1])
    for wrapped in (network, AveragedModel(network), torch.compile(AveragedModel(network))):
        path = stored({"ema": wrapped.state_dict()}, tmp_path)
        assert same(read_state_dict(path, "ema"), expected)


def test_what_only_looks_like_a_prefix_stays():
    state = {"my_orig_mod.weight": torch.ones(1), "n_averaged": torch.ones(4)}
    assert without_prefixes(state) == (state, "")


def test_names_that_would_become_one_are_refused(tmp_path):
    state = {"a.weight": torch.ones(1), "a._orig_mod.weight": torch.ones(1)}
    with pytest.raises(CheckpointError, match=r"two tensors have one name without '_orig_mod\.'"):
        read_state_dict(stored({"model": state}, tmp_path))
