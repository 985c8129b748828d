"""Turn picture files into page images that are upright, opaque and RGB."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from lightseek.page.pdf import draw_together
from lightseek.page.typeset.style import MAX_PAGES, MAX_PIXELS

MAX_STORED = 3 * MAX_PIXELS  # pixels of a picture file; one with more than MAX_PIXELS is scaled down
ORIENTATION, BITS, PHOTOMETRIC = 274, 258, 262  # tags of TIFF and EXIF
ENDS = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}  # what a whole file has within its last bytes
TAIL = 64  # bytes
DEPTHS = (1, 255, 4095, 65535)  # the largest values of samples that do not say how many bits they have


class PictureFrames:
    """The pages in a picture file: all frames of a TIFF file, or one image of any other file.

    A frame is decoded when it is asked for. Use it in a `with` block, which closes the file.
    Raises FileNotFoundError, and ValueError for a file that is no picture.
    """

    def __init__(self, path: str | Path | BytesIO) -> None:
        self.path = path
        with ExitStack() as files, _naming(path):
            # Given a path, Pillow maps the file into memory and confuses the sides of a TIFF that lies on its side.
            file = path if isinstance(path, BytesIO) else files.enter_context(Path(path).open("rb"))
            self.file, self.picture = file, files.enter_context(Image.open(file))
            # The frames of a TIFF are the pages of a scan. The second frame of a JPEG is only its preview.
            self.count = getattr(self.picture, "n_frames", 1) if self.picture.format == "TIFF" else 1
            self.close = files.pop_all().close

    def __enter__(self) -> "PictureFrames":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self.count

    def check(self) -> None:
        """Raise ValueError if the file was cut off, as by a download that broke.

        Only the end of a PNG or JPEG file is read. Other files, and those that end in another way, are decoded.
        """
        file = self.file
        place, size = file.tell(), file.seek(0, 2)
        file.seek(max(0, size - TAIL))
        tail = file.read()
        file.seek(place)
        if self.picture.format not in ENDS or ENDS[self.picture.format] not in tail:
            for index in range(self.count):
                self.draw(index)

    def draw(self, index: int) -> Image.Image:
        """Return frame `index`, counted from 0, upright (EXIF) and in RGB, with white where it is transparent.

        A frame of more than `MAX_PIXELS` pixels is scaled down. Raises ValueError if it cannot be read, or if it has
        more than `MAX_STORED` pixels, which is checked before they are decoded.
        """
        with _naming(self.path):
            if self.count > 1:
                self.picture.seek(index)
            width, height = self.picture.size
            if width * height > MAX_STORED:
                raise ValueError(f"{width} x {height} is over {MAX_STORED} pixels")
            return upright_rgb(self.picture)


def open_picture(path: str | Path | BytesIO, max_pages: int = MAX_PAGES) -> list[Image.Image]:
    """Return the RGB images of a picture file: all frames of a TIFF file, or one image of any other file.

    `path` may also be an open file. `PictureFrames` says what happens to a frame, and decodes one frame at a time.
    Raises FileNotFoundError, and ValueError for a broken file, more than `max_pages` frames or too many pixels.
    """
    with PictureFrames(path) as frames:
        if len(frames) > max_pages:
            raise ValueError(f"{path}: more than {max_pages} pages (it has {len(frames)})")
        return draw_together(path, (frames.draw(index) for index in range(len(frames))))


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return the picture as a viewer shows it: turned as its EXIF data say, white where it is transparent, in RGB.

    A sample of 16 bits becomes its upper 8 bits, as Pillow does with 16-bit colour. 32-bit integers and floats are
    scaled by the smallest usual range (1 for floats, 255, 4095, 65535) that holds them. Colour profiles are ignored, as
    the reference code ignores them. A picture of more than `MAX_PIXELS` pixels is reduced by a whole factor.

    Raises TypeError for anything but a PIL image.
    """
    if not isinstance(image, Image.Image):
        raise TypeError(f"a page is a PIL image, got {type(image).__name__}: PIL.Image.open(path) or Image.fromarray")
    key = _transparent_value(image)  # before the pixels are loaded: after that Pillow has forgotten the file's depth
    inverted = image.mode[0] in "IF" and getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0  # TIFF: 0 is white
    factor = int(np.ceil(np.sqrt(image.width * image.height / MAX_PIXELS)))
    if hasattr(image, "tag_v2"):  # Pillow turns every frame of a TIFF file as the first one's EXIF data say
        image.getexif()[ORIENTATION] = image.tag_v2.get(ORIENTATION, 1)
    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":  # Pillow would clip these to 8 bits instead of scaling them
        image = _eight_bits(image, key, inverted)
    elif key is not None:
        image.info["transparency"] = key
    if factor > 1 and image.mode in ("1", "L") and not image.has_transparency_data:
        image = image.convert("L").reduce(factor)  # before it takes three bytes a pixel
        factor = 1
    if image.has_transparency_data:
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    image = _lab_to_rgb(image) if image.mode == "LAB" else image.convert("RGB")
    return image.reduce(factor) if factor > 1 else image


def _transparent_value(image: Image.Image) -> Any:
    """Return the one grey or colour that is transparent, on the scale of Pillow's samples; None if there is none.

    A PNG file gives it with the depth of the file. Pillow brings the samples to 8 bits (16-bit greys stay) and leaves
    this value as it is, so that another grey would become transparent.
    """
    key = image.info.get("transparency")
    if image.mode[0] in "IFP" or isinstance(key, bytes) or key is None:
        return key
    raw = str(image.tile[0][3]) if getattr(image, "tile", None) else ""
    values = key if isinstance(key, tuple) else (key,)
    if ";16" in raw or max(values) > 255:
        values = tuple(value >> 8 for value in values)
    elif raw in ("L;2", "L;4"):
        values = tuple(value * (85 if raw == "L;2" else 17) for value in values)
    return values if isinstance(key, tuple) else values[0]


def _eight_bits(image: Image.Image, key: Any, inverted: bool) -> Image.Image:
    """Scale grey samples of more than 8 bits to 8, with white where they have the transparent value `key`."""
    samples = np.asarray(image)
    if image.mode.startswith("I;16"):
        bits = getattr(image, "tag_v2", {}).get(BITS, (16,))[0]
        grey = (samples.astype(np.uint16) >> (bits - 8)).clip(0, 255)
    else:
        finite = np.nan_to_num(samples.astype(np.float64), posinf=0, neginf=0).clip(0)
        highest = float(finite.max(initial=0))
        ranges = DEPTHS if image.mode == "F" else DEPTHS[1:]
        grey = finite * 255 / next((most for most in ranges if highest <= most), highest)
    grey = 255 - grey if inverted else grey
    if isinstance(key, int):
        grey = np.where(samples == key, 255, grey)
    return Image.fromarray(grey.round().astype(np.uint8))


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    rgb = ImageCms.profileToProfile(
        image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert rgb is not None  # it is None only for a conversion in place
    return rgb


@contextmanager
def _naming(path: str | Path | BytesIO) -> Iterator[None]:
    """Turn every error of a picture file into a ValueError that names the file.

    The decoders of Pillow raise errors of many types for a broken file, such as KeyError, struct.error and
    NotImplementedError.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit is the stricter one
            yield
    except (FileNotFoundError, MemoryError):
        raise
    except Exception as error:
        name = path if isinstance(path, str | Path) else "this"
        told = f"{error!s:.200}" or type(error).__name__
        raise ValueError(f"{name} is not a picture that can be read: {told}") from error
