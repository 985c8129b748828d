"""Noise on pages: what each kind does to a page, and that training and `generate` see the same noisy pages."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lightseek.data.context.pages import PageMaker
from lightseek.data.document import Document
from lightseek.page.kinds import NOISES
from lightseek.page.noise import ANGLE, SPREAD, add_noise
from lightseek.page.spec import PageSpec

DOCUMENT = Document("The pump failed at 7:15. Nobody was there.", "It failed.", "pump")


@pytest.fixture
def page():
    image = Image.new("RGB", (96, 64), "white")
    ImageDraw.Draw(image).rectangle((40, 10, 55, 50), fill="black")
    return image


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=float)


@pytest.mark.parametrize("kind", list(NOISES))
def test_noise_keeps_the_size_and_depends_on_its_arguments_alone(kind, page):
    before = page.copy()
    noisy = add_noise(page, kind, 3)
    assert noisy.size == page.size and noisy.mode == "RGB" and (pixels(page) == pixels(before)).all()
    assert (pixels(noisy) == pixels(add_noise(page, kind, 3))).all()
    assert (pixels(noisy) == pixels(page)).all() == (kind == "clean")
    other = (pixels(noisy) != pixels(add_noise(page, kind, 4))).any()
    assert other == (kind in ("speckle", "rotate"))  # the others are not random


def test_blur_softens_edges_and_keeps_the_ink(page):
    blurred = pixels(add_noise(page, "blur"))
    assert 0 < blurred[30, 40, 0] < 255 and blurred.mean() == pytest.approx(pixels(page).mean(), rel=0.01)


def test_speckle_has_its_spread_and_no_colour():
    grey = Image.new("RGB", (200, 200), (128, 128, 128))
    noise = pixels(add_noise(grey, "speckle")) - 128
    assert noise.std() == pytest.approx(SPREAD, rel=0.02) and abs(noise.mean()) < 1
    assert (noise[..., 0] == noise[..., 2]).all()


def test_rotation_turns_about_the_centre_by_a_few_degrees_onto_white():
    line = Image.new("RGB", (201, 201), "white")
    ImageDraw.Draw(line).line((0, 100, 200, 100), fill="black", width=1)
    for seed in range(5):
        dark = pixels(add_noise(line, "rotate", seed))[..., 0]
        rises = np.argmin(dark[:, 20]) - np.argmin(dark[:, 180])
        assert abs(np.degrees(np.arctan2(rises, 160))) <= ANGLE + 0.5
        assert np.argmin(dark[:, 100]) == 100 and dark[0, 0] == 255


@pytest.mark.parametrize(
    ("usual", "weak"),
    [
        ("blur:radius=1", "blur:radius=0"),
        ("speckle:spread=32", "speckle:spread=0"),
        ("rotate:degrees=2", "rotate:degrees=0"),
        ("jpeg:quality=20", "jpeg:quality=95"),
    ],
)
def test_a_kind_takes_its_setting(usual, weak, page):
    plain, usually = pixels(page), pixels(add_noise(page, usual, 3))
    assert (usually == pixels(add_noise(page, usual.partition(":")[0], 3))).all()
    weakly = pixels(add_noise(page, weak, 3))
    assert abs(weakly - plain).mean() < 0.1 * abs(usually - plain).mean()


def test_kinds_are_joined_in_their_order(page):
    blurred = add_noise(page, "blur:radius=2", 3)
    assert (pixels(add_noise(page, "blur:radius=2+speckle", 3)) == pixels(add_noise(blurred, "speckle", 3))).all()
    assert (pixels(add_noise(page, "speckle+blur", 3)) != pixels(add_noise(page, "blur+speckle", 3))).any()


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ("blur+coffee", "unknown noise 'coffee': choose one of blur, speckle, jpeg, rotate, clean"),
        ("rotate:degrees=200", "degrees must be a number from 0 to 180, got 200"),
        ("jpeg:quality=true", "quality must be a number from 1 to 95, got True"),
        ("blur:degrees=3", "noise 'blur:degrees=3': got an unexpected keyword argument 'degrees'"),
        ("blur:3", "settings of a kind are KEY=VALUE"),
    ],
)
def test_noise_that_cannot_be_is_refused_before_there_is_a_page(noise, message):
    with pytest.raises(ValueError, match=message):
        PageSpec("tiny", noise=noise)


def test_a_page_maker_adds_the_noise_of_its_spec_and_none_by_default():
    plain, noisy = PageMaker(PageSpec("tiny")), PageMaker(PageSpec("tiny", noise="speckle", seed=1))
    (clean,), (dirty,) = plain(DOCUMENT).images, noisy(DOCUMENT).images
    assert (pixels(dirty) == pixels(add_noise(clean, "speckle", 1))).all()
    assert noisy(DOCUMENT).text == plain(DOCUMENT).text
    with pytest.raises(ValueError, match="unknown noise 'coffee': choose one of blur, speckle, jpeg, rotate"):
        PageSpec("tiny", noise="coffee")
