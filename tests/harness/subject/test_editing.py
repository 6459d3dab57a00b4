"""Inpainting, outpainting and editing: what is given comes back, and only whole patches are given."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from harness.cell.cell import Cell, normalised
from harness.cli import main
from harness.images import pixels
from harness.subject import enlarging
from harness.subject.editing import Edit, complete, demonstrate, make_edit, read_edit, task_masks
from harness.subject.enlarging import enlarge, settings_of
from harness.subject.prepare import prepare
from harness.subject.subject import Subject, load, run_batch
from pardec.errors import UserError
from reports.artifacts import Edits, edits_path, load_edits
from strategies.decoding.contract.recording import run
from strategies.decoding.contract.recording import subject as random_subject
from strategies.decoding.guidance import Guidance
from strategies.decoding.sampling import StreamSampler
from strategies.decoding.streams import Streams
from strategies.zero_shot.randar import Extrapolation

SIZE = 32
WAYS = [
    ("arpg", {"prefill": "split"}),
    ("arpg", {"prefill": "joint"}),
    ("randar", {}),
    ("lpd", {}),
    ("halton", {}),
]
ALL_WAYS = [*WAYS, ("maskgit", {}), ("maskgit", {"resample_known": True})]
"""Those too that draw a place anew at every step."""


def subject(small_zoo, strategy: str, options: dict | None = None, **changes) -> Subject:
    cell = Cell(strategy, options=options or {}, steps=5, zoo=str(small_zoo), threads=1, batch=3)
    return load(prepare(normalised(dataclasses.replace(cell, **changes))))


def picture(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (3, SIZE, SIZE), generator=generator, dtype=torch.uint8)


def mask(rows: slice, columns: slice = slice(None)) -> torch.Tensor:
    found = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    found[rows, columns] = True
    return found


def edit_of(one: Subject, drawn_anew: torch.Tensor) -> Edit:
    assert one.tokenizer is not None
    return make_edit(one.tokenizer, picture(), drawn_anew)


# Patches ---------------------------------------------------------------------------------------------------


def test_a_code_is_known_only_if_its_whole_patch_is(small_zoo):
    one = subject(small_zoo, "arpg")
    edit = edit_of(one, mask(slice(9, 10), slice(5, 12)))  # one row of pixels across two patches
    expected = torch.ones(8, 8, dtype=torch.bool)
    expected[2, 1:3] = False
    assert torch.equal(edit.known, expected)
    assert np.array_equal(edit.given.positions, np.setdiff1d(np.arange(64), [17, 18]))
    grey = (edit.masked() == 127).all(dim=0)
    assert grey[8:12, 4:12].all()
    assert torch.equal(edit.masked()[:, :8], edit.pixels[:, :8])
    new = torch.full_like(edit.pixels, 7).expand(2, -1, -1, -1)
    pasted = edit.paste(new)
    assert (pasted[:, :, edit.drawn_anew] == 7).all()
    assert (pasted == edit.pixels)[:, :, ~edit.drawn_anew].all()


@pytest.mark.parametrize(
    ("drawn_anew", "text"),
    [
        (mask(slice(0, 0)), "nothing is drawn anew"),
        (mask(slice(None)), "leaves no 4x4 patch whole"),
        (mask(slice(0, None, 4)), "leaves no 4x4 patch whole"),
    ],
)
def test_masks_that_leave_nothing_to_do_or_to_keep(small_zoo, drawn_anew, text):
    with pytest.raises(UserError, match=text) as caught:
        edit_of(subject(small_zoo, "arpg"), drawn_anew)
    assert "\n" not in str(caught.value)


LOWER = mask(slice(16, None))


def layer(shades: torch.Tensor, opaque: torch.Tensor) -> torch.Tensor:
    """A mask file's pixels uint8 [H, W, 4] of grey shades or a picture, clear where not opaque."""
    colours = shades.expand(3, -1, -1).permute(1, 2, 0).to(torch.uint8)
    return torch.cat([colours, 255 * opaque.to(torch.uint8).unsqueeze(2)], dim=2)


@pytest.mark.parametrize(
    "pixels",
    [
        layer(255 * LOWER, LOWER),  # white painted on nothing
        layer(255 * LOWER, torch.ones_like(LOWER)),
        layer(torch.zeros_like(LOWER), ~LOWER),  # a hole in black
        layer(255 * LOWER, ~LOWER),  # a hole in black, white beneath
        layer(picture(), ~LOWER),  # a hole in the picture itself
    ],
)
def test_a_mask_is_white_or_a_hole(small_zoo, tmp_path, pixels):
    Image.fromarray(picture().permute(1, 2, 0).numpy()).save(tmp_path / "image.png")
    Image.fromarray(pixels.numpy()).save(tmp_path / "mask.png")
    tokenizer = subject(small_zoo, "arpg").tokenizer
    edit = read_edit(tokenizer, tmp_path / "image.png", tmp_path / "mask.png")
    assert torch.equal(edit.drawn_anew, LOWER)
    assert torch.equal(edit.pixels, picture())


@pytest.mark.parametrize(
    ("pixels", "text"),
    [
        (layer(picture(1), ~LOWER), "doesn't say which are drawn anew"),
        (layer(255 * LOWER, mask(slice(4, None))), "doesn't say which are drawn anew"),
        (layer(255 * LOWER, torch.zeros_like(LOWER)), "leaves no 4x4 patch whole"),
    ],
)
def test_masks_that_can_be_read_either_way(small_zoo, tmp_path, pixels, text):
    Image.fromarray(picture().permute(1, 2, 0).numpy()).save(tmp_path / "image.png")
    Image.fromarray(pixels.numpy()).save(tmp_path / "mask.png")
    with pytest.raises(UserError, match=text) as caught:
        read_edit(subject(small_zoo, "arpg").tokenizer, tmp_path / "image.png", tmp_path / "mask.png")
    assert "\n" not in str(caught.value)


def test_the_tasks_keep_a_half_or_the_middle():
    kept = {name: int((~drawn).sum()) for name, drawn in task_masks((SIZE, SIZE)).items()}
    assert list(kept.values()) == [SIZE * SIZE // 2, SIZE * SIZE // 2, SIZE * SIZE // 4]


# Completions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("strategy", "options"), ALL_WAYS)
@pytest.mark.parametrize("guidance", [None, 2.0])
def test_known_tokens_come_back_and_the_others_differ(small_zoo, strategy, options, guidance):
    one = subject(small_zoo, strategy, options, guidance=guidance)
    edit = edit_of(one, mask(slice(16, None)))
    pixels, tokens = complete(one, edit, (3, 13, 23, 33))
    assert pixels.shape == (4, 3, SIZE, SIZE)
    assert torch.equal(tokens[:, :32], edit.codes[:32].expand(4, -1))
    assert len(tokens[:, 32:].unique(dim=0)) == 4


@pytest.mark.parametrize(("strategy", "options"), ALL_WAYS)
def test_a_completion_depends_on_its_seed_and_image_alone(small_zoo, strategy, options):
    one = subject(small_zoo, strategy, options)
    edit = edit_of(one, mask(slice(None), slice(12, None)))
    _, together = complete(one, edit, (3, 13, 23))
    _, alone = complete(one, edit, (23,))
    assert torch.equal(together[2:], alone)
    _, other = complete(subject(small_zoo, strategy, options, seed=1), edit, (23,))
    assert not torch.equal(other, alone)


@pytest.mark.parametrize(("strategy", "options"), WAYS)
def test_the_draw_of_an_unknown_place_does_not_depend_on_what_is_given(small_zoo, strategy, options):
    from strategies.decoding import registry

    case, images = random_subject(registry.get(strategy, **options)), (2, 5)
    tokens, labels = case.tokens(2), case.labels(images)
    expected = torch.from_numpy(Streams(0, images).uniform("token", 16))
    for known in ([0, 1, 2, 3], [5, 6, 9, 10, 15]):
        plan = case.strategy.plan((4, 4), 3, Streams(0, images), known=np.array(known))
        found = run(case, plan, labels, StreamSampler(Streams(0, images)), Guidance(2.0), known=tokens)
        order = torch.as_tensor(plan.order).expand(2, -1)[:, len(known) :]
        assert torch.equal(torch.cat(found.noises, dim=1), expected.gather(1, order))


def test_a_completion_is_as_large_as_its_image_whatever_it_is_judged_at(small_zoo):
    found = []
    for size in (None, 16):
        one = subject(small_zoo, "arpg", evaluation_size=size)
        edit = edit_of(one, mask(slice(16, None)))
        found.append(edit.paste(complete(one, edit, range(2))[0]))
    assert torch.equal(*found)


def test_a_changed_token_is_not_passed_on(small_zoo, monkeypatch):
    one = subject(small_zoo, "arpg")
    edit = edit_of(one, mask(slice(16, None)))

    def careless(*arguments):
        batch = run_batch(*arguments)
        decoded = dataclasses.replace(batch.decoded, tokens=batch.decoded.tokens + 1)
        return dataclasses.replace(batch, decoded=decoded)

    monkeypatch.setattr("harness.subject.editing.run_batch", careless)
    with pytest.raises(RuntimeError, match="'arpg' changed a given token"):
        complete(one, edit, (3,))


# The command -----------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """PNG files of a picture and of a mask over its lower half."""
    paths = {"image": tmp_path / "image.png", "mask": tmp_path / "mask.png"}
    Image.fromarray(picture().permute(1, 2, 0).numpy()).save(paths["image"])
    Image.fromarray(mask(slice(14, None)).numpy()).save(paths["mask"])
    return paths


def sample(small_zoo, out, *more: object, cell: str = "strategy=arpg,steps=4") -> int:
    words = ["sample", cell, "--zoo", small_zoo, "--out", out, "--scale", 1, "--per-class", 3, *more]
    return main([str(word) for word in words])


@pytest.mark.parametrize("cell", ["strategy=arpg,steps=4", "strategy=arpg,steps=4,prefill=joint",
                                  "strategy=randar,steps=4,guidance=2", "strategy=lpd,steps=1"])  # fmt: skip
@pytest.mark.parametrize("paste", [False, True])
def test_the_command_draws_around_the_given_part(small_zoo, tmp_path, files, cell, paste):
    out = tmp_path / "new" / "out.png"
    flags = ["--image", files["image"], "--mask", files["mask"], *(["--paste-known"] if paste else [])]
    assert sample(small_zoo, out, *flags, "--classes", "3,8", cell=cell) == 0
    with Image.open(out) as image:
        grid = torch.from_numpy(np.array(image)).unflatten(0, (2, SIZE)).unflatten(2, (5, SIZE))
    rows = grid.permute(0, 2, 4, 1, 3)  # [classes, columns, 3, H, W]
    original = picture()
    for row in rows:
        assert torch.equal(row[0], original)
        assert torch.equal(row[1, :, :12], original[:, :12])  # patches end at 12, the mask begins at 14
        assert (row[1, :, 12:] == 127).all()
        assert (row[2:, :, :14] == original[:, :14]).all() == paste
    assert not torch.equal(rows[0, 2], rows[1, 2])


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--image", "{image}", "--class", "3"], "--image needs --mask"),
        (["--mask", "{mask}", "--class", "3"], "--mask needs --image"),
        (["--image", "{image}", "--mask", "{mask}"], "--image needs --class"),
        (["--paste-known"], "--paste-known needs --image and --mask"),
        (["--class", "3", "--classes", "4"], "give one of them"),
        (["--class", "3,4"], "--class '3,4': expected a whole number"),
        (["--class", "10"], "--class '10': no class 10; valid: 0 to 9"),
        (["--image", "{image}", "--mask", "none.png", "--class", "3"], "--mask 'none.png': no such file"),
        (["--image", "{text}", "--mask", "{mask}", "--class", "3"], "can't be decoded"),
        (["--image", "{small}", "--mask", "{mask}", "--class", "3"], "is 28x20 pixels; expected 32x32"),
        (["--image", "{image}", "--mask", "{small}", "--class", "3"], "is 28x20 pixels; expected 32x32"),
        (["--image", "{image}", "--mask", "{black}", "--class", "3"], "nothing is drawn anew"),
        (["--image", "{image}", "--mask", "{white}", "--class", "3"], "leaves no 4x4 patch whole"),
        (["--image", "{image}", "--mask", "{mask}", "--inpaint-demo", "x"], "brings its own images"),
    ],
)
def test_mistakes_are_one_line(capsys, small_zoo, tmp_path, files, flags, text):
    for name, size, shade in (("small", (28, 20), 0), ("black", (32, 32), 0), ("white", (32, 32), 255)):
        files[name] = tmp_path / f"{name}.png"
        Image.new("L", size, shade).save(files[name])
    files["text"] = tmp_path / "text.png"
    files["text"].write_text("no picture")
    assert sample(small_zoo, tmp_path / "out.png", *(flag.format(**files) for flag in flags)) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("strategy", ["raster", "rar", "par"])
def test_a_fixed_order_takes_no_given_tokens(capsys, small_zoo, tmp_path, files, strategy):
    flags = ["--image", files["image"], "--mask", files["mask"], "--class", 3]
    assert sample(small_zoo, tmp_path / "out.png", *flags, cell=f"strategy={strategy}") == 2
    error = capsys.readouterr().err
    said = f"strategy '{strategy}' has a fixed order and takes no given tokens"
    assert f"{said}; valid: arpg, halton, lpd, maskgit, randar" in error


# The demonstration -----------------------------------------------------------------------------------------


def test_the_demonstration_is_stored_and_drawn(capsys, small_zoo, tmp_path):
    results, out = tmp_path / "results", tmp_path / "demo.png"
    assert sample(small_zoo, out, "--inpaint-demo", results, cell="strategy=randar,steps=3") == 0
    with Image.open(out) as image:
        assert min(image.size) > 300
    (edits,) = load_edits(results)
    assert edits.strategy == "randar"
    assert edits.images.shape == (9, 10, SIZE, SIZE, 3)
    assert edits.labels[0].startswith("pullover, lower half anew")
    assert "3 steps" in edits.caption
    assert (edits.images[0, 1, 16:] == 127).all()
    assert np.array_equal(edits.images[0, 0, :16], edits.images[0, 1, :16])
    assert len(np.unique(edits.images[0, 2:6], axis=0)) == 4


def test_a_damaged_demonstration_is_named_in_one_line(tmp_path):
    path = edits_path(tmp_path, "arpg")
    path.parent.mkdir()
    path.write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"editing-arpg\.npz' can't be read"):
        load_edits(tmp_path)
    whole = Edits("arpg", "c", ("a", "b"), ("x",), np.zeros((1, 1, 4, 4, 3), np.uint8))
    np.savez(path, **whole.arrays())
    with pytest.raises(UserError, match=r"holds images uint8"):
        load_edits(tmp_path)


def test_only_digits_are_demonstrated(small_zoo):
    with pytest.raises(UserError, match="controlled tier"):
        demonstrate(subject(small_zoo, "arpg", data="imagefolder:nowhere"))


# Resolution extrapolation ----------------------------------------------------------------------------------


def test_enlarged_images_are_drawn_by_the_cell_s_batches_and_decoded_a_few_at_a_time(small_zoo, monkeypatch):
    found, drawn, decoded = [], [], []

    def decode(network, strategy, plan, labels, *rest):
        drawn.append(len(labels))
        return original(network, strategy, plan, labels, *rest)

    original = enlarging.decode
    monkeypatch.setattr(enlarging, "decode", decode)
    for batch, images in ((3, 8), (2, 4)):
        one = subject(small_zoo, "randar", batch=batch)
        monkeypatch.setattr(pixels, "PIXELS", images * SIZE**2)
        monkeypatch.setattr(
            one.tokenizer,
            "decode",
            lambda codes, whole=one.tokenizer.decode: decoded.append(codes.shape) or whole(codes),
        )
        found.append(enlarge(one, range(3), settings_of(one, 1.0)))
    assert drawn == [3, 2, 1]
    assert [tuple(shape) for shape in decoded] == [
        *((3, 8, 8), (2, 16, 16), (1, 16, 16)),
        *((2, 8, 8), (1, 16, 16), (1, 16, 16), (1, 8, 8), (1, 16, 16)),
    ]
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_enlarged_images_stand_beside_those_they_grew_from(small_zoo, tmp_path):
    out = tmp_path / "out.png"
    cell = "strategy=randar,steps=8,guidance=2,guidance_schedule=linear"
    assert sample(small_zoo, out, "--enlarge", "--class", 3, cell=cell) == 0
    with Image.open(out) as image:
        assert image.size == (6 * 2 * SIZE, 2 * SIZE)
        grid = torch.from_numpy(np.array(image)).unflatten(1, (6, 2 * SIZE))  # [2H, columns, 2W, 3]
    one = subject(small_zoo, "randar", steps=8, guidance=2.0, guidance_schedule="linear")
    settings = settings_of(one, 2.5)
    assert settings == Extrapolation(8, (1.0, 2.0), (2.5, 2.5))
    small, large = enlarge(one, (13,), settings)
    assert torch.equal(grid[:SIZE, 2, :SIZE], small[0].permute(1, 2, 0))
    assert torch.equal(grid[:, 3], large[0].permute(1, 2, 0))
    assert (grid[SIZE:, 2] == 127).all()
    assert torch.equal(enlarge(one, (3, 13), settings)[1][1:], large)
    assert not torch.equal(enlarge(one, (13,), settings_of(one, 1.0))[1], large)


@pytest.mark.parametrize(
    ("cell", "flags", "text"),
    [
        ("strategy=arpg,steps=4", ["--enlarge"], "resolution extrapolation is RandAR's; valid: randar"),
        (
            "strategy=randar,steps=4,guidance=2,guidance_schedule=power-cosine",
            ["--enlarge"],
            "constant or linear",
        ),
        ("strategy=randar,steps=4", ["--enlarge", "--inpaint-demo", "x"], "--enlarge draws whole images"),
    ],
)
def test_what_cannot_be_enlarged(capsys, small_zoo, tmp_path, cell, flags, text):
    assert sample(small_zoo, tmp_path / "out.png", *flags, cell=cell) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
