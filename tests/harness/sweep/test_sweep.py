"""Sweep files: products, includes, excludes, selection, and one clear line for every mistake."""

from pathlib import Path

import pytest

from harness.cell import sweep_file
from harness.sweep.sweep import sweep_cells
from harness.weights.zoo import first_of, read_card
from pardec.errors import UserError
from strategies.decoding.presets import preset_info
from strategies.decoding.registry import by_family


def load(tmp_path: Path, text: str) -> list:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return list(sweep_file.load(str(path)).cells)


def test_quick_has_every_kind_of_decoder_once():
    sweep = sweep_file.load("quick")
    strategies = [cell.strategy for cell in sweep.cells]
    assert len(strategies) == len(set(strategies)) >= 12
    assert {cell.images for cell in sweep.cells} == {80}
    assert {cell.strategy for cell in sweep.cells} >= {
        "real",
        "reconstruction",
        "raster",
        "rar",
        "par",
        "lpd",
        "arpg",
    }


def test_grid_is_a_product_includes_add_and_excludes_remove(tmp_path):
    cells = load(
        tmp_path,
        """
        [defaults]
        seed = 3
        [grid]
        strategy = ["lpd", "arpg"]
        steps = [8, 16]
        [[include]]
        strategy = "raster"
        guidance = [1.5, 2.0]
        [[exclude]]
        strategy = "arpg"
        steps = [16, 32]
        """,
    )
    found = [(cell.strategy, cell.steps, cell.guidance, cell.seed) for cell in cells]
    assert found == [
        ("lpd", 8, None, 3),
        ("lpd", 16, None, 3),
        ("arpg", 8, None, 3),
        ("raster", None, 1.5, 3),
        ("raster", None, 2.0, 3),
    ]


def test_equal_cells_collapse(tmp_path):
    text = '[grid]\nstrategy = ["real", "lpd"]\nsteps = [8, 8]\n[[include]]\nstrategy = "lpd"\nsteps = 8\n'
    assert [cell.strategy for cell in load(tmp_path, text)] == ["real", "lpd"]


def test_excludes_match_defaults_too(tmp_path):
    text = '[grid]\nstrategy = "lpd"\nguidance = [false, 2.0]\n[[exclude]]\nguidance = false\n'
    assert [cell.guidance for cell in load(tmp_path, text)] == [2.0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["is empty", "[grid]"]),
        ("# nothing\n", ["is empty"]),
        ("strategy = [", ["is not TOML", "line 1", "column 13"]),
        ("[grid]\nsteps = = 3", ["is not TOML", "line 2", "column 9"]),
        ("[gird]\nstrategy = 'lpd'", ["unknown section 'gird'", "did you mean 'grid'"]),
        ("[grid]\nstrategy = 'lpdd'", ["unknown strategy 'lpdd'", "did you mean 'lpd'"]),
        ("[grid]\nstrategy = 'lpd'\nstep = 3", ["unknown key 'step'", "[grid]", "did you mean 'steps'"]),
        ("[defaults]\nbacth = 3\n[grid]\nstrategy = 'lpd'", ["unknown key 'bacth'", "'batch'", "[defaults]"]),
        ("[grid]\nstrategy = 'lpd'\nsteps = [4, 0]", ["steps = 0", "at least 1", "[grid]"]),
        ("[[include]]\nstrategy = 'lpd'\nsteps = -1", ["steps = -1", "[[include]] 1"]),
        ("[grid]\nstrategy = 'lpd'\nsteps = []", ["steps = []", "at least one value"]),
        ("[grid]\nsteps = 4", ["no strategy", "raster"]),
        ("[grid]\nstrategy = 4", ["strategy = 4", "name of a strategy"]),
        ("[[grid]]\nstrategy = 'lpd'", ["one table [grid]"]),
        ("[include]\nstrategy = 'lpd'", ["tables [[include]]"]),
        ("[sweep]\nnmae = 'x'\n[grid]\nstrategy = 'lpd'", ["unknown key 'nmae'", "'name'"]),
        ("[sweep]\nin_turn = 'al'\n[grid]\nstrategy = 'lpd'", ["in_turn = 'al'", "one of network, all"]),
        ("[sweep]\nrounds = 1\n[grid]\nstrategy = 'lpd'", ["rounds = 1", "from 2 to"]),
        ("[grid]\nstrategy = 'lpd'\nmemory_limit_gb = 0", ["memory_limit_gb = 0", "above 0"]),
        ("[grid]\nstrategy = 'lpd'\ngated = 1", ["gated = 1", "true or false"]),
        ("[sweep]\nname = 'x'", ["describes no cell"]),
        ("[grid]\nstrategy = 'lpd'\n[[exclude]]\nstrategy = 'lpd'", ["describes no cell"]),
        ("[grid]\nstrategy = 'lpd'\n[[exclude]]", ["an empty table"]),
        ("[grid]\nstrategy = 'lpd'\n[[exclude]]\nstpes = 4", ["unknown key 'stpes'", "[[exclude]] 1"]),
        (
            "[grid]\nstrategy = 'lpd'\n[[exclude]]\nstrategy = ['real', 'ldp']",
            ["unknown strategy 'ldp'", "[[exclude]]", "did you mean 'lpd'"],
        ),
        (
            f"[grid]\nstrategy = 'lpd'\nseed = {[*range(401)]}\nsteps = {[*range(1, 301)]}",
            ["120,300 cells", "at most 100,000"],
        ),
        ("[grid]\nstrategy = 'lpd'\ndtype = 'float'", ["dtype", "float32"]),
        ("[grid]\nstrategy = 'lpd'\ntop_p = 0", ["top_p = 0", "at most 1"]),
    ],
)
def test_mistakes_name_file_key_and_expectation(tmp_path, text, words):
    with pytest.raises(UserError) as error:
        load(tmp_path, text)
    message = str(error.value)
    assert "mine.toml" in message
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("name", "words"),
    [("quik", ["unknown sweep 'quik'", "did you mean 'quick'"]), ("no/such.toml", ["does not exist"])],
)
def test_a_sweep_that_is_not_there(name, words):
    with pytest.raises(UserError) as error:
        sweep_file.load(name)
    for word in words:
        assert word in str(error.value)


SELECTABLE = """
[[include]]
strategy = "real"
[[include]]
strategy = "raster"
steps = 64
guidance = 2
[[include]]
strategy = "lpd"
steps = [20, 10, 6]
guidance = 3
[[include]]
strategy = "lpd"
options = { order = "random" }
steps = 10
[[include]]
strategy = "arpg"
steps = [32, 16]
"""


@pytest.mark.parametrize(
    ("expression", "count"),
    [
        ("strategy=lpd", 4),
        ("strategy=lpd,steps<=10", 3),
        ("strategy=lpd|arpg", 6),
        ("steps>20", 2),
        ("strategy!=lpd", 4),
        ("order=random", 1),
        ("guidance=3", 3),
        ("guidance=none", 4),
    ],
)
def test_selection(tmp_path, expression, count):
    assert len(sweep_file.select(load(tmp_path, SELECTABLE), expression)) == count


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("stratgy=lpd", ["unknown key 'stratgy'", "did you mean 'strategy'"]),
        ("strategy", ["is no condition"]),
        ("steps<=many", ["is no number"]),
        ("strategy<4", ["is text"]),
        ("strategy=lpd,steps=9", ["selects none of the 8 cells"]),
        (
            "strategy=par",
            ["selects none of the 8 cells: none is of 'par', but of arpg, lpd", "--also", "[[include]]"],
        ),
        ("strategy=spirl", ["selects none of the 8 cells; ", "valid: "]),
    ],
)
def test_selections_that_cannot_be(tmp_path, expression, words):
    with pytest.raises(UserError) as error:
        sweep_file.select(load(tmp_path, SELECTABLE), expression)
    for word in words:
        assert word in str(error.value)


def test_a_cell_that_joins_a_file_has_the_settings_of_its_cells():
    """So that its row stands in one facet with theirs; their keys stay, so their rows are kept."""
    alone = sweep_file.load("quick")
    sweep = sweep_file.load("quick", {"plugin": ("/a/b.py",)}, ["strategy=lpd,steps=12,order=random", "sjd"])
    *old, joined, other = sweep.cells
    assert [cell.key for cell in old] == [cell.key for cell in alone.cells]
    assert {cell.plugin for cell in sweep.cells} == {()}
    assert (joined.strategy, joined.steps, joined.options) == ("lpd", 12, {"order": "random"})
    assert (other.strategy, other.options) == ("sjd", {})
    for name in ("data", "images", "batch", "by_batch", "lossiness_images", "guidance", "seed"):
        assert getattr(joined, name) == getattr(alone.cells[4], name)
    assert sweep_file.load("quick", {}, ["strategy=lpd,steps=20"]).cells == alone.cells


def test_a_cell_that_joins_a_file_has_the_options_of_its_defaults(tmp_path):
    path = tmp_path / "mine.toml"
    defaults = "[defaults]\nonce = true\nbatch = 8\noptions = { order = 'random' }\n"
    path.write_text(f"{defaults}[[include]]\nstrategy = 'lpd'\nsteps = 8\n")
    own, *joined = sweep_file.load(str(path), {}, ["lpd,steps=10", "lpd,steps=10,order=raster"]).cells
    assert [one.options for one in (own, *joined)] == [{"order": "random"}] * 2 + [{"order": "raster"}]
    assert {one.images for one in (own, *joined)} == {8}


@pytest.mark.parametrize(
    ("file", "also", "words"),
    [
        ("strategy=lpd,steps=4", "strategy=par", ["--also 'strategy=par'", "is one cell"]),
        ("quick", "strategy=lpdd", ["lpdd", "did you mean"]),
        ("quick", "strategy=lpd,stps=4", ["unknown key 'stps'"]),
        ("quick", "steps=4", ["no strategy"]),
    ],
)
def test_cells_that_cannot_join(file, also, words):
    with pytest.raises(UserError) as error:
        sweep_file.load(file, {}, [also])
    for word in words:
        assert word in str(error.value)


SPECULATIVE = ("jacobi", "sjd", "sjd-mc", "sjd-gs", "gsd")


def test_speculative_decoders_stand_beside_raster_at_two_windows():
    cells = [cell for cell in sweep_file.load("imagenet256").cells if cell.strategy in SPECULATIVE]
    assert {(cell.network, cell.guidance, cell.acceptance) for cell in cells} == {
        ("llamagen-l-256", 1.75, None)
    }
    assert sorted({cell.options["window"] for cell in cells}) == [16, 32]
    untrained = sweep_file.load("imagenet256", {"checkpoint": "random"}).cells
    assert {cell.acceptance for cell in untrained if cell.strategy in SPECULATIVE} == {0.75}
    assert {cell.acceptance for cell in untrained if cell.strategy not in SPECULATIVE} == {None}


def test_imagenet256_has_one_cell_of_each_method_per_size():
    cells = sweep_file.load("imagenet256").cells
    large = sweep_file.select(cells, "size=L")
    papers = [
        "raster",
        "rar",
        "par",
        "lpd",
        "arpg",
        "randar",
        "ctf",
        "var",
        "halton",
        "maskgit",
        "nar",
        "zipar",
    ]
    assert [cell.strategy for cell in large] == [*papers, *SPECULATIVE]
    windows = sweep_file.select(cells, "size=L windows")
    assert [cell.strategy for cell in windows] == ["zipar", "zipar", *SPECULATIVE]
    for cell in cells:
        info = preset_info(cell.network)
        assert (info.image_size > 256) == (cell.evaluation_size == 256), cell.network
        assert (cell.images, cell.data) == (50_000, "imagenet256")
    keys = {cell.key for cell in cells}
    assert len(keys) == len(cells)


@pytest.mark.parametrize("strategy", ["raster", "rar", "par", "lpd", "arpg", "randar", "halton", "maskgit"])
def test_imagenet256_holds_the_papers_settings(strategy):
    """Steps and guidance of every sized cell are those of the preset's published run."""
    cells = [
        c for c in sweep_file.load("imagenet256").cells if c.strategy == strategy and "around" not in c.size
    ]
    assert cells
    for cell in cells:
        published = by_family(preset_info(cell.network).family)
        found = [
            (run.steps, published.setting(run.sampling))
            for run in preset_info(cell.network).runs
            if run.steps == cell.steps
            and strategy == (run.strategy or published.strategy)
            and dict(run.options).items() >= dict(cell.options).items()
        ]
        assert len(found) == 1
        guidance, temperature = found[0][1].guidance, found[0][1].temperature
        if cell.network == "par-xl-4x-384":
            assert cell.guidance == 1.5
        assert guidance is not None
        assert (cell.guidance, cell.guidance_schedule, cell.guidance_power, cell.temperature) == (
            guidance.scale,
            guidance.schedule,
            guidance.power,
            temperature,
        )


def test_at_most_so_many_images_once():
    sweep = sweep_file.once(sweep_file.load("quick"), 5)
    decoding = [cell for cell in sweep.cells if not cell.is_anchor]
    assert {(cell.images, cell.batch, cell.once) for cell in decoding} == {(5, 5, True)}
    assert sweep.in_turn == "none"
    assert sweep_file.once(sweep_file.load("quick"), 10**6).cells[2].images == 80


@pytest.mark.parametrize("name", ["quick", "steps", "windows", "seeds", "robust", "learning"])
def test_shipped_sweeps_use_the_scales_that_the_cards_record(name):
    assert {cell.guidance for cell in sweep_file.load(name).cells if not cell.is_anchor} == {"tuned"}
    for cell in sweep_cells(name).cells:
        if not cell.is_anchor:
            card = read_card(first_of(cell.network))
            assert cell.guidance == card.content["guidance"]["chosen"], cell.describe()


def test_curves_hold_one_scale_along_each_setting():
    """That of the card where a network has one; of networks without, the same for all of a curve."""
    stated = {cell.strategy for cell in sweep_file.load("curves").cells if cell.guidance != "tuned"}
    assert stated - {"real", "reconstruction"} == {"var", "code", "ctf"}
    for curve in (("var", "code"), ("ctf",)):
        scales = {cell.guidance for cell in sweep_cells("curves").cells if cell.strategy in curve}
        assert len(scales) == 1
        if "var" in curve:
            assert scales == {read_card("var").content["guidance"]["chosen"]}


@pytest.mark.parametrize("strategy", ["var", "code"])
def test_imagenet256_holds_the_settings_of_next_scale_decoders(strategy):
    cells = [cell for cell in sweep_file.load("imagenet256").cells if cell.strategy == strategy]
    for cell in cells:
        (run,) = preset_info(cell.network).runs
        wanted = by_family("var").setting(run.sampling)
        assert wanted.guidance is not None
        guided = (wanted.guidance.scale, wanted.guidance.schedule)
        assert (cell.steps, cell.guidance, cell.guidance_schedule) == (run.steps, *guided)
        if cell.size != "CoDe baseline":
            assert (cell.top_k, cell.top_p) == (wanted.top_k, wanted.top_p)
            assert cell.options == run.options
    pair = next(cell for cell in sweep_file.load("imagenet256").cells if cell.size == "CoDe")
    (baseline,) = [cell for cell in sweep_file.load("imagenet256").cells if cell.size == "CoDe baseline"]
    for key in ("options", "top_k", "top_p", "guidance", "guidance_schedule", "temperature", "dtype"):
        assert getattr(baseline, key) == getattr(pair, key)
    assert baseline.network == preset_info(pair.network).networks["drafter"]
