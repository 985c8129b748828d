"""Images and a prompt in, model inputs out: the official preprocessing, to the pixel.

    page -> upright RGB -> square views of the mode's sizes -> (x/255 - 0.5) / 0.5
    "<image>\\nFree OCR." -> BOS, one image token per position, the text's tokens

Every resize is PIL's bicubic, the filter of the reference code (there both as `Image.resize`'s and as `ImageOps.pad`'s
default).
"""

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from lightseek.page.modes import Mode, find_mode, gundam_grid
from lightseek.page.views import PageViews

GREY = (127, 127, 127)  # what pads a page to a square


def page_views(image: Image.Image, mode: str | int | Mode) -> PageViews:
    """The square views the encoder gets to see of one page in this mode.

    Tiny and small stretch the page; base and large keep its aspect and pad with grey; the gundam modes add tiles, cut
    from the page stretched to the whole grid, unless the page fits in one tile.
    Raises ValueError for an unknown mode, or an image so thin that nothing of it would be left.
    """
    mode = find_mode(mode)
    page = upright_rgb(image)
    width, height = page.size
    if mode.padded and round(mode.side * min(width, height) / max(width, height)) < 1:
        raise ValueError(f"an image of {width} x {height} pixels is too thin to show on {mode.side} x {mode.side}")
    whole = square(page, mode.side, mode.padded)
    columns, rows = gundam_grid(width, height, mode.tile) if mode.tile else (1, 1)
    if mode.tile is None or columns * rows == 1:
        return PageViews(normalised(whole))
    wall = normalised(page.resize((columns * mode.tile, rows * mode.tile), Image.Resampling.BICUBIC))
    tiles = [tile for band in wall.split(mode.tile, dim=1) for tile in band.split(mode.tile, dim=2)]
    return PageViews(normalised(whole), torch.stack(tiles), (columns, rows))


def upright_rgb(image: Image.Image) -> Image.Image:
    """The picture as a viewer shows it: turned as its EXIF data say, on white where it is transparent, in RGB."""
    if not isinstance(image, Image.Image):
        raise TypeError(f"a page is a PIL image, got {type(image).__name__}: PIL.Image.open(path) or Image.fromarray")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # PIL would clip 16 bits to 8 instead of scaling them
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image)
    return image.convert("RGB")


def square(page: Image.Image, side: int, padded: bool) -> Image.Image:
    """`page` on `side x side` pixels: in the middle of grey with its aspect kept, or stretched."""
    if padded:
        return ImageOps.pad(page, (side, side), Image.Resampling.BICUBIC, GREY)
    return page.resize((side, side), Image.Resampling.BICUBIC)


def normalised(picture: Image.Image) -> Float[Tensor, "3 height width"]:
    """RGB bytes to floats in [-1, 1]."""
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
    return (pixels.float() / 255 - 0.5) / 0.5
