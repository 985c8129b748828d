"""Picture files -> page images: upright, opaque, RGB."""

from io import BytesIO
from itertools import islice
from pathlib import Path

from PIL import Image, ImageOps, ImageSequence

from lightseek.page.typeset.style import MAX_PAGES, MAX_PIXELS


def open_picture(path: str | Path | BytesIO, max_pages: int = MAX_PAGES) -> list[Image.Image]:
    """RGB images of a picture file, open or not: one, or a TIFF's frames. Upright (EXIF), on white where transparent.

    Raises FileNotFoundError, and ValueError for a broken file, more than `max_pages` frames or too many pixels.
    """
    try:
        with Image.open(path) as picture:
            # A TIFF's frames are a scan's pages; a JPEG's second frame is its preview.
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
    if picture.width * picture.height > MAX_PIXELS:  # before its pixels are decoded
        raise ValueError(f"{picture.width} x {picture.height} is over {MAX_PIXELS} pixels")
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):  # 16 bits of grey: Pillow would clip, not scale
        picture = picture.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return picture.convert("RGB")
