"""Turn picture files into page images that are upright, opaque and RGB."""

from io import BytesIO
from itertools import islice
from pathlib import Path

from PIL import Image, ImageOps, ImageSequence

from lightseek.page.typeset.style import MAX_PAGES, MAX_PIXELS


def open_picture(path: str | Path | BytesIO, max_pages: int = MAX_PAGES) -> list[Image.Image]:
    """Return the RGB images of a picture file: all frames of a TIFF file, or one image of any other file.

    `path` may also be an open file. The images are upright (EXIF), and their transparent parts become white.
    Raises FileNotFoundError, and ValueError for a broken file, more than `max_pages` frames or too many pixels.
    """
    try:
        with Image.open(path) as picture:
            # The frames of a TIFF are the pages of a scan. The second frame of a JPEG is only its preview.
            frames = ImageSequence.Iterator(picture) if picture.format == "TIFF" else [picture]
            images = [_upright(frame) for frame in islice(frames, max_pages + 1)]
    except FileNotFoundError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a picture that can be read: {error}") from error
    if len(images) > max_pages:
        raise ValueError(f"{path}: more than {max_pages} pages")
    return images


def _upright(picture: Image.Image) -> Image.Image:
    if picture.width * picture.height > MAX_PIXELS:  # checked before the pixels are decoded
        raise ValueError(f"{picture.width} x {picture.height} is over {MAX_PIXELS} pixels")
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip instead of scaling
        picture = picture.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return picture.convert("RGB")
