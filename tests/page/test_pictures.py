"""Every way in which a file can store the same page gives the same pixels."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightseek.page.pictures import MAX_STORED, PictureFrames, open_picture, upright_rgb
from lightseek.page.views import page_views

INK = (4, 6, 20, 12)  # left, top, right, bottom


def page(mode: str = "L", paper: object = 255, ink: object = 0) -> Image.Image:
    """White paper of 40 x 30 pixels with a black rectangle of 16 x 6."""
    image = Image.new(mode, (40, 30), paper)
    image.paste(ink, INK)
    return image


EXPECTED = np.asarray(page("RGB", (255, 255, 255), (0, 0, 0)))


def png(depth: int, colour: int, paper: tuple[int, ...], ink: tuple[int, ...], key: tuple[int, ...] = ()) -> BytesIO:
    """A PNG file of the page with samples of `depth` bits. `key` is the value that its tRNS calls transparent."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    where = np.asarray(page()) == 0
    samples = np.where(where[..., None], ink, paper).reshape(30, -1)
    bits = (samples[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    rows = np.packbits(bits.reshape(30, -1).astype(np.uint8), axis=1)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 30, depth, colour, 0, 0, 0))
    trns = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)) if key else b""
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))
    return BytesIO(b"\x89PNG\r\n\x1a\n" + head + trns + body + chunk(b"IEND", b""))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("clear", ["nothing", "paper", "absent"])
def test_a_grey_png_of_any_depth_is_the_same_page(depth: int, clear: str):
    white = (1 << depth) - 1
    key = {"nothing": (), "paper": (white,), "absent": (white // 3 + 1,) if depth > 1 else ()}[clear]
    (image,) = open_picture(png(depth, 0, (white,), (0,), key))
    assert np.array_equal(np.asarray(image), EXPECTED)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_what_a_grey_png_calls_transparent_is_white_though_it_is_not_white_inside(depth: int):
    """The paper is stored as the grey above black, the ink is black, and the paper's grey is transparent."""
    (image,) = open_picture(png(depth, 0, (1,), (0,), (1,)))
    assert np.array_equal(np.asarray(image), EXPECTED)


@pytest.mark.parametrize("paper", [0xFF00, 0xFFFF, 0x8012, 0x0100])
def test_a_transparent_16_bit_colour_is_white_paper(paper: int):
    for colour, samples in ((2, 3), (0, 1)):
        (image,) = open_picture(png(16, colour, (paper,) * samples, (0,) * samples, (paper,) * samples))
        assert np.array_equal(np.asarray(image), EXPECTED)


@pytest.mark.parametrize("depth", [8, 16])
def test_transparent_paper_in_an_alpha_channel_is_white(depth: int):
    opaque = (1 << depth) - 1
    for colour, samples in ((4, 1), (6, 3)):
        black = (0,) * samples
        (image,) = open_picture(png(depth, colour, (*black, 0), (*black, opaque)))
        assert np.array_equal(np.asarray(image), EXPECTED)


def palette(mode: str = "P") -> Image.Image:
    image = page("P", 1, 0)
    image.putpalette([0, 0, 0, 90, 0, 0])  # the paper's colour is a dark red...
    image.info["transparency"] = 1  # ...and transparent
    return image if mode == "P" else image.convert(mode)


DARK = {
    "1": page("1", 1, 0),
    "L": page(),
    "P": palette(),
    "PA": palette("PA"),
    "P with a table of alphas": palette(),
    "LA": page("LA", (0, 0), (0, 255)),
    "La": page("LA", (0, 0), (0, 255)).convert("La"),
    "RGBA": page("RGBA", (0, 0, 0, 0), (0, 0, 0, 255)),
    "RGBa": page("RGBA", (0, 0, 0, 0), (0, 0, 0, 255)).convert("RGBa"),
    "RGBX": page("RGB", (255, 255, 255), (0, 0, 0)).convert("RGBX"),
    "CMYK": page("CMYK", (0, 0, 0, 0), (0, 0, 0, 255)),
    "YCbCr": page("RGB", (255, 255, 255), (0, 0, 0)).convert("YCbCr"),
    "HSV": page("RGB", (255, 255, 255), (0, 0, 0)).convert("HSV"),
    "LAB": page("LAB", (255, 128, 128), (0, 128, 128)),
    "I of 8 bits": page("I", 255, 0),
    "I of 16 bits": page("I", 65535, 0),
    "I of 31 bits": page("I", 2**31 - 1, 0),
    "I;16": Image.fromarray(np.asarray(page()).astype(np.uint16) * 257),
    "I;16B": Image.frombytes("I;16B", (40, 30), (np.asarray(page()).astype(">u2") * 257).tobytes()),
    "F to 1": page("F", 1.0, 0.0),
    "F to 255": page("F", 255.0, 0.0),
    "F to 65535": page("F", 65535.0, -3.0),
}
DARK["P with a table of alphas"].info["transparency"] = bytes([255, 0])


@pytest.mark.parametrize("name", DARK)
def test_every_mode_has_the_same_dark_pixels(name: str):
    found = np.asarray(upright_rgb(DARK[name])).astype(int)
    assert np.abs(found - EXPECTED).max() <= 1  # LAB is rounded
    assert page_views(DARK[name], "tiny").global_view.shape == (3, 512, 512)


@pytest.mark.parametrize("form", ["TIFF", "JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_undone_once(form: str, orientation: int):
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the Transpose that stores an upright page so
    stored = page() if orientation == 1 else page().transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = BytesIO()
    stored.save(file, form, exif=exif)
    (image,) = open_picture(file)
    dark = np.asarray(image.convert("L")) < 128
    assert image.size == (40, 30) and (dark != (EXPECTED[..., 0] == 0)).mean() < 0.02  # JPEG blurs
    assert np.array_equal(np.asarray(upright_rgb(image)), np.asarray(image))


def test_the_frames_of_a_scan_each_have_their_own_mode_and_orientation(tmp_path: Path):
    frames = [page("1", 1, 0), page(), page("RGBA", (0, 0, 0, 0), (0, 0, 0, 255)), page("CMYK", 0, (0, 0, 0, 255))]
    frames.append(Image.fromarray(np.asarray(page()).astype(np.uint16) * 257))
    frames[1] = frames[1].transpose(Image.Transpose.ROTATE_90)
    frames[1].encoderinfo = {"tiffinfo": {274: 6}}
    frames[0] = frames[0].transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    frames[0].encoderinfo = {"tiffinfo": {274: 4}}
    frames[0].save(tmp_path / "scan.tif", save_all=True, append_images=frames[1:])
    found = open_picture(tmp_path / "scan.tif")
    assert len(found) == 5 and all(np.array_equal(np.asarray(image), EXPECTED) for image in found)
    with PictureFrames(tmp_path / "scan.tif") as scan:  # in any order
        assert np.array_equal(np.asarray(scan.draw(4)), EXPECTED) and np.array_equal(np.asarray(scan.draw(1)), EXPECTED)


def test_a_tiff_of_16_bits_in_which_white_is_0_is_turned_round(tmp_path: Path):
    grey = 65535 - np.asarray(page()).astype(np.uint16) * 257
    Image.fromarray(grey).save(tmp_path / "negative.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "negative.tif") as file:
        assert file.tag_v2[262] == 0
    assert np.array_equal(np.asarray(open_picture(tmp_path / "negative.tif")[0]), EXPECTED)


def test_a_large_scan_is_scaled_down_and_a_bomb_is_refused(tmp_path: Path):
    sheet = Image.new("1", (7016, 9921), 1)  # A3 at 600 dpi: 69.6 million pixels
    sheet.paste(0, (1000, 1000, 3000, 3000))
    sheet.save(tmp_path / "a3.tif", compression="group4")
    (image,) = open_picture(tmp_path / "a3.tif")
    assert (
        image.size == (3508, 4961)
        and np.asarray(image.convert("1")).size - np.asarray(image.convert("1")).sum() == 10**6
    )
    Image.new("1", (20_000, MAX_STORED // 20_000 + 1)).save(tmp_path / "bomb.tif", compression="group4")
    with pytest.raises(ValueError, match=r"bomb.tif is not a picture that can be read: 20000 x \d+ is over"):
        open_picture(tmp_path / "bomb.tif")


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_tiff_file_that_lies_on_its_side_is_turned(tmp_path: Path, compression: str, orientation: int):
    stored = page().rotate({1: 0, 3: 180, 6: 90, 8: 270}[orientation], expand=True)
    stored.save(tmp_path / "side.tif", compression=compression, tiffinfo={274: orientation})
    assert np.array_equal(np.asarray(open_picture(tmp_path / "side.tif")[0]), EXPECTED)
