"""A decode of two networks: each has its file, its hash in the key, its weights and counts in the row."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from backbones import published_tokenizers
from backbones.transformer import parameter_count
from harness.cell.cell import Cell, normalised
from harness.measure import measure
from harness.subject.pins import finished
from harness.subject.prediction import predict
from harness.subject.prepare import prepare
from harness.subject.subject import load, run_batch
from harness.train.store_zoo import store_zoo
from harness.train.trainer import Recipe, Trainer
from harness.weights import zoo as zoos
from harness.weights.fetch import file_names, published_files
from pardec.errors import UserError
from pardec.hashing import file_sha256
from results.schema import row_from_json, row_to_json
from strategies.decoding import presets, registry
from tests.harness.small_catalogue import use_catalogue
from tests.harness.small_published import row_of
from tests.harness.small_zoo import TRUNK, make_zoo

PAIR = Path(__file__).parents[2] / "plugins" / "pair.py"
NARROW = dataclasses.replace(TRUNK, depth=1, width=16, mlp_width=32)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Path:
    """Raster networks of two sizes."""
    folder = make_zoo(tmp_path_factory.mktemp("zoo"), ("raster",))
    shutil.copy(folder / "raster.safetensors", folder / "raster-again.safetensors")
    shutil.copy(folder / "raster.json", folder / "raster-again.json")
    other = folder / "narrow"
    config = dataclasses.replace(zoos.read_card("zoo/raster", folder).network, trunk=NARROW)
    trainer = Trainer(registry.get("raster"), config, Recipe(), folder / "run-narrow")
    with torch.no_grad():
        trainer.averaged.module.head.weight.normal_(std=0.2)
    store_zoo(trainer, other, {})
    for end in ("json", "safetensors"):
        shutil.move(other / f"raster.{end}", folder / f"raster-narrow.{end}")
    return folder


def cell(zoo: Path, **changes) -> Cell:
    whole = {"zoo": str(zoo), "plugin": (str(PAIR),), "threads": 1, "batch": 2, "images": 4, "steps": 64}
    return normalised(Cell("pair", **whole | changes))


def test_the_networks_of_the_roles_are_the_strategys_unless_a_cell_says_others(zoo):
    found = finished(cell(zoo))
    assert found.roles == {"narrow": "zoo/raster-narrow", "wide": "zoo/raster"}
    assert found.network == "zoo/raster"
    hashes = {role: file_sha256(zoo / f"{name[4:]}.safetensors") for role, name in found.roles.items()}
    assert {role: found.pins[f"network {role}"] for role in found.roles} == hashes
    assert "network" not in found.pins
    other = finished(cell(zoo, roles={"narrow": "zoo/raster"}))
    assert other.roles["narrow"] == "zoo/raster"
    assert other.key != found.key
    assert finished(found) == found
    assert Cell.from_json(found.to_json()).key == found.key


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"roles": {"narow": "zoo/raster"}},
            "unknown role 'narow' in strategy 'pair': did you mean 'narrow'",
        ),
        ({"network": "zoo/raster-narrow"}, r"strategy 'pair' takes roles = ..., one of each"),
        ({"roles": {"wide": "zoo/nothing"}}, "network 'zoo/nothing': no file"),
    ],
)
def test_roles_that_cannot_be_are_refused(zoo, changes, says):
    with pytest.raises(UserError, match=says):
        prepare(cell(zoo, **changes))


def test_one_network_takes_no_roles(zoo):
    with pytest.raises(UserError, match="roles: strategy 'raster' decodes one network"):
        prepare(normalised(Cell("raster", zoo=str(zoo), roles={"wide": "zoo/raster"})))


def test_both_networks_are_loaded_and_counted_apart(zoo):
    subject = load(prepare(finished(cell(zoo))))
    sizes = {role: one.config.trunk.width for role, one in subject.network.roles.items()}
    assert sizes == {"narrow": 16, "wide": 32}
    decoded = run_batch(subject, range(2)).decoded
    assert {role: count.forwards for role, count in decoded.counts.items()} == {"narrow": 64, "wide": 64}
    swapped = load(prepare(finished(cell(zoo, roles={"narrow": "zoo/raster"}))))
    assert not torch.equal(run_batch(swapped, range(2)).decoded.tokens, decoded.tokens)


@pytest.mark.parametrize("checkpoint", [None, "random"])
def test_a_row_records_each_network_by_its_role(zoo, tmp_path, monkeypatch, checkpoint):
    monkeypatch.setattr(measure, "BATCHES", (1,))
    whole = finished(cell(zoo, checkpoint=checkpoint, lossiness_images=0, steps=None))
    row = row_of(whole, tmp_path, monkeypatch)
    narrow, wide = row.networks
    assert (narrow["role"], wide["role"]) == ("narrow", "wide")
    assert row.parameters == narrow["parameters"] + wide["parameters"]
    assert row.weight_bytes == narrow["weight_bytes"] + wide["weight_bytes"] == 4 * row.parameters
    assert row.cache_bytes == narrow["cache_bytes"] + wide["cache_bytes"]
    assert wide["cache_bytes"] == 4 * narrow["cache_bytes"]  # twice the layers, twice the width
    assert row.forwards == narrow["forwards"] + wide["forwards"] == 128
    assert row.tokens_processed == narrow["tokens_processed"] + wide["tokens_processed"]
    for one, name in ((narrow, "raster-narrow"), (wide, "raster")):
        digest = file_sha256(zoo / f"{name}.safetensors")
        assert one["sha256"] == (digest if checkpoint is None else None)
    assert predict(prepare(whole)).cache_bytes == row.cache_bytes
    assert row_from_json(row_to_json(row)) == row


def catalogue(folder: Path) -> Path:
    """Two published raster networks and a pair of them, with files of its own or those of its parts."""
    size = "vocab_size = 11, num_classes = 3, block_size = 16, n_head = 4, multiple_of = 32"
    text = '[tokenizer.small]\ntitle = "t"\nfamily = "vq-llamagen"\ncodes = 11\nstride = 2\nparameters = 1\n'
    text += 'paper = "p"\nfiles = "https://huggingface.co/t/t"\nfile = "t.pt"\nlicence = "l"\nconfig = {}\n'
    for family, strategy in (("llamagen", "raster"), ("pair", "pair")):
        text += f'[family.{family}]\nstrategy = "{strategy}"\ntokenizer = "small"\npaper = "p"\n'
        text += f'files = "https://huggingface.co/f/{family}"\nlicence = "l"\n'
    for name, depth, count in (("slim", 1, 17_440), ("deep", 2, 34_000)):
        text += f'[preset.{name}]\ntitle = "{name}"\nfamily = "llamagen"\nparameters = {count}\n'
        text += f"config = {{ n_layer = {depth}, dim = 32, {size} }}\n[preset.{name}.8]\n"
        text += f'config = {{}}\nfile = "{name}.pt"\n'
    for name, files in (("both", ""), ("tuned", 'file = { narrow = "n.pt", wide = "w.pt" }\n')):
        text += f'[preset.{name}]\ntitle = "{name}"\nfamily = "pair"\nparameters = 0\nconfig = {{}}\n'
        text += f'networks = {{ narrow = "slim", wide = "deep" }}\n[preset.{name}.8]\nconfig = {{}}\n{files}'
    (folder / "presets.toml").write_text(text)
    return folder / "presets.toml"


@pytest.fixture
def pair_presets(tmp_path, monkeypatch):
    before = (published_tokenizers.PRESETS, presets.TABLES)
    registry.add_plugin(PAIR)
    monkeypatch.setattr(presets, "_place", lambda table: 0)
    file = catalogue(tmp_path)
    use_catalogue(file)
    total = 0
    for name in ("slim", "deep"):
        strategy, config, _ = presets.preset(name)
        with torch.device("meta"):
            total += parameter_count(strategy.network(config))
    file.write_text(file.read_text().replace("parameters = 0", f"parameters = {total}"))
    use_catalogue(file)
    yield tmp_path
    use_catalogue(*before)


def write(folder: Path, preset: str, file: str) -> Path:
    strategy, config, info = presets.preset(preset)
    keys = registry.by_family(info.family).keys
    from tests.backbones.published_files import to_published

    torch.save(to_published(strategy.network(config), keys), folder / file)
    return folder / file


def published_cell(preset: str, folder: Path, **changes) -> Cell:
    whole = {"network": preset, "checkpoints": str(folder), "threads": 1, "batch": 2, "images": 2}
    return normalised(Cell("pair", **whole | changes))


def test_published_files_of_two_networks_are_found_pinned_and_loaded(pair_presets):
    paths = {
        role: write(pair_presets, of, f)
        for role, of, f in (("narrow", "slim", "n.pt"), ("wide", "deep", "w.pt"))
    }
    found = finished(published_cell("tuned", pair_presets))
    assert found.roles == {role: str(path) for role, path in paths.items()}
    assert {role: found.pins[f"network {role}"] for role in paths} == {
        role: file_sha256(path) for role, path in paths.items()
    }
    subject = load(prepare(found))
    depths = {role: len(one.trunk.blocks) for role, one in subject.network.roles.items()}
    assert depths == {"narrow": 1, "wide": 2}
    moved = shutil.move(paths["wide"], pair_presets / "elsewhere.pt")
    again = finished(published_cell("tuned", pair_presets, roles={"wide": str(moved)}))
    assert again.key == found.key, "the same weights, wherever they lie"
    write(pair_presets, "deep", "w.pt")
    assert finished(published_cell("tuned", pair_presets)).key != found.key


def test_a_preset_without_files_of_its_own_takes_those_of_its_parts(pair_presets):
    with pytest.raises(
        UserError, match=r"no slim.pt in .* pardec fetch both; or set checkpoint = 'random' or roles"
    ):
        finished(published_cell("both", pair_presets))
    for name in ("slim", "deep"):
        write(pair_presets, name, f"{name}.pt")
    found = finished(published_cell("both", pair_presets))
    assert [Path(path).name for path in found.roles.values()] == ["slim.pt", "deep.pt"]
    assert file_names("both") == ["slim", "deep"]
    assert file_names("tuned") == ["tuned-narrow", "tuned-wide"]
    assert (published_files()["tuned-wide"].part_of, published_files()["tuned-wide"].shapes_of) == (
        "tuned",
        "deep",
    )


def test_random_weights_need_no_file(pair_presets):
    found = finished(published_cell("both", pair_presets, checkpoint="random"))
    assert found.roles == {}
    assert run_batch(load(prepare(found)), range(2)).decoded.forwards == 2 * 16
    with pytest.raises(UserError, match=r"is several: expected roles = ..., not checkpoint"):
        finished(published_cell("both", pair_presets, checkpoint="one.pt"))
