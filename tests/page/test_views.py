"""Preprocessing turns a picture and a prompt into inputs: the reference's pixels, the ids and the batches."""

from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from lightseek.model.config import OCRConfig
from lightseek.page.modes import MODES, gundam_grid, positions, vision_tokens
from lightseek.page.views import image_positions, image_tokens, page_views
from lightseek.text.kinds import PROMPTS
from lightseek.text.prompts import prepare, prompt_ids
from lightseek.text.tokenizer import Tokenizer
from lightseek.tools.padding import pad_batch
from lightseek.weights.formula import uniform

PIXELS = load_file(Path(__file__).parents[1] / "goldens" / "pixels.safetensors")
CONFIG = OCRConfig.preset("nano")
IMAGE = CONFIG.image_token_id
WHITE, BLACK = 1.0, -1.0


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.nano()


def formula_picture(name: str, width: int, height: int) -> Image.Image:
    """Return a smooth picture: noise at a sixteenth of the size, scaled up."""
    columns, rows = max(8, width // 16), max(8, height // 16)
    noise = uniform(f"image:{name}", 0, 3 * rows * columns).astype(np.float32).reshape(3, rows, columns)
    small = Image.fromarray(((noise.transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("key", sorted(PIXELS))
def test_pixels_are_the_reference_implementations(key):
    """The golden file keeps every 61st row and 67th column. One step of 1/255 is 0.0078 in normalised units."""
    name, size, mode, view = key.split(".")
    width, height = map(int, size.split("x"))
    views = page_views(formula_picture(name, width, height), mode)
    ours = views.global_view if view == "global" else views.tiles[int(view.removeprefix("tile"))]
    apart = (ours[:, 5::61, 3::67] - PIXELS[key]).abs()
    if int(PIL.__version__.split(".")[0]) < 13:  # in one of these views it rounds 6 % of the values the other way
        assert apart.max() <= 2 / 255 + 1e-6 and (apart > 1e-6).float().mean() <= 0.06
    else:
        assert apart.max() <= 1e-6


@pytest.mark.parametrize("mode", MODES.values(), ids=str)
def test_every_mode_gives_views_of_its_sizes_and_the_positions_it_promises(mode):
    views = page_views(formula_picture("wide", 1600, 700), mode)
    assert views.global_view.shape == (3, mode.side, mode.side)
    assert views.grid == (gundam_grid(1600, 700, mode.tile) if mode.tile else (1, 1))
    if mode.tile:
        columns, rows = views.grid
        assert views.tiles.shape == (columns * rows, 3, mode.tile, mode.tile)
    assert image_positions(views) == positions(mode, views.grid)
    assert image_tokens(views) == vision_tokens(mode, views.grid)


def test_an_image_that_fits_in_one_tile_has_no_tiles():
    views = page_views(Image.new("RGB", (640, 600)), "gundam")
    assert views.tiles is None and views.grid == (1, 1)


def test_tiles_come_row_by_row():
    """The page has six flat colours on a 2 x 3 grid, so tile k must have colour k."""
    wall = Image.new("RGB", (1280, 1920))
    for k in range(6):
        wall.paste((40 * k,) * 3, (k % 2 * 640, k // 2 * 640, k % 2 * 640 + 640, k // 2 * 640 + 640))
    views = page_views(wall, "gundam")
    assert views.grid == (2, 3)
    middles = views.tiles[:, 0, 320, 320]
    assert torch.allclose((middles + 1) * 127.5, torch.arange(6) * 40.0, atol=1e-3)


def test_a_mode_can_be_named_by_its_token_count():
    picture = formula_picture("page", 300, 200)
    assert torch.equal(page_views(picture, 100).global_view, page_views(picture, "small").global_view)


def test_padding_is_grey_and_the_page_in_the_middle():
    view = page_views(Image.new("RGB", (200, 100), "white"), "base").global_view
    grey = (127 / 255 - 0.5) / 0.5
    assert torch.allclose(view[:, :250], torch.tensor(grey)) and torch.allclose(view[:, -250:], torch.tensor(grey))
    assert torch.equal(view[:, 260:760], torch.ones(3, 500, 1024))


def test_a_photo_taken_sideways_is_turned_upright():
    photo = Image.new("RGB", (100, 60), "white")
    photo.paste("black", (0, 0, 100, 30))  # black above white, but stored lying on its side
    photo.getexif()[0x0112] = 6  # "rotate by 90 degrees clockwise to view"
    view = page_views(photo, "tiny").global_view
    assert (view[:, :, -200:] == BLACK).all() and (view[:, :, :200] == WHITE).all()


def transparent_palette() -> Image.Image:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.info["transparency"] = 0
    return image


@pytest.mark.parametrize(
    "image",
    [Image.new("RGBA", (8, 8), (0, 0, 0, 0)), Image.new("LA", (8, 8), (0, 0)), transparent_palette()],
    ids=lambda image: image.mode,
)
def test_what_is_transparent_shows_white_paper(image):
    assert (page_views(image, "tiny").global_view == WHITE).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "RGBX", "YCbCr"])
def test_any_kind_of_picture_becomes_three_channels(mode):
    assert page_views(Image.new("RGB", (20, 30), "white").convert(mode), "tiny").global_view.shape == (3, 512, 512)


def test_sixteen_bit_scans_are_scaled_not_clipped():
    image = Image.fromarray(np.full((8, 8), 0x8000, dtype=np.uint16))
    assert page_views(image, "tiny").global_view.mean().item() == pytest.approx(0, abs=0.01)


def test_an_image_too_thin_to_show_is_refused_with_its_size():
    with pytest.raises(ValueError, match=r"1 x 5000 pixels is too thin"):
        page_views(Image.new("RGB", (1, 5000)), "base")


def test_the_prompt_is_bos_image_positions_text(tokenizer):
    ids = prompt_ids(CONFIG, tokenizer, PROMPTS["ocr"], [73])
    assert ids[: 1 + 73] == [CONFIG.bos_token_id] + [IMAGE] * 73
    assert ids[74:] == tokenizer.encode("\nFree OCR.")  # the reference strips the prompt's ends too


def test_several_images_take_their_places_in_order(tokenizer):
    ids = prompt_ids(CONFIG, tokenizer, "Compare <image> with <image>.", [2, 3])
    text = [tokenizer.encode(piece) for piece in ("Compare ", " with ", ".")]
    assert ids == [CONFIG.bos_token_id, *text[0], IMAGE, IMAGE, *text[1], IMAGE, IMAGE, IMAGE, *text[2]]


def test_special_tokens_in_a_prompt_are_tokens(tokenizer):
    end = CONFIG.eos_token_id
    ids = prompt_ids(CONFIG, tokenizer, f"a{tokenizer.decode([end], keep_special=True)}b", [])
    assert ids == [CONFIG.bos_token_id, *tokenizer.encode("a"), end, *tokenizer.encode("b")]


@pytest.mark.parametrize(("prompt", "images"), [("no image", 1), ("<image>", 0), ("<image><image>", 1)])
def test_as_many_images_as_the_prompt_names(tokenizer, prompt, images):
    with pytest.raises(ValueError, match=f"{prompt.count('<image>')} <image> but there are {images} image"):
        prompt_ids(CONFIG, tokenizer, prompt, [1] * images)


@settings(deadline=None)  # the machine may be busy
@given(
    rows=st.lists(st.lists(st.integers(5, 99), max_size=7), min_size=1, max_size=5),
    side=st.sampled_from(["left", "right"]),
)
def test_padding_comes_off_again(rows, side):
    ids, mask = pad_batch(rows, pad=2, side=side)
    assert [row[real].tolist() for row, real in zip(ids, mask, strict=True)] == rows
    assert (ids[~mask] == 2).all() and ids.shape[1] == max(map(len, rows))
    flags = mask.int() if side == "left" else mask.int().flip(1)
    assert (flags.diff(dim=1) >= 0).all()  # the padding is on one side only


def test_padding_has_two_sides():
    with pytest.raises(ValueError, match="'middle'"):
        pad_batch([[1]], 0, "middle")


def test_prepare_puts_unlike_modes_into_one_batch(tokenizer):
    pages = [formula_picture("page", 900, 1270), formula_picture("wide", 1600, 700)]
    ready = page_views(pages[0], "small")
    inputs = prepare(CONFIG, tokenizer, ["<image>a", "<image>b", "<image>c"], [[p] for p in (*pages, ready)],
                     ["tiny", "gundam", "base"])  # fmt: skip
    assert (inputs.input_ids == IMAGE).sum(1).tolist() == [73, 483, 111]
    assert inputs.mask[:, -1].all() and inputs.mask.sum(1).tolist() == [75, 485, 113]
    assert inputs.pages[2][0] is ready


def test_prepare_wants_one_of_each_per_row(tokenizer):
    with pytest.raises(ValueError, match="2 prompts, 1 lists of images and 2 modes"):
        prepare(CONFIG, tokenizer, ["a", "b"], [[]])
