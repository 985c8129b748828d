"""The official preprocessing, exact to the pixel: it turns images and a prompt into the inputs of the model.

    page -> upright RGB -> square views of the mode's sizes -> (x/255 - 0.5) / 0.5

Every resize uses PIL's bicubic filter. The reference code uses it too: it is the default of `Image.resize` and of
`ImageOps.pad`.
"""

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from lightseek.page.modes import Mode, find_mode, gundam_grid
from lightseek.page.views import PageViews

GREY = (127, 127, 127)  # pads a page to a square


def page_views(image: Image.Image, mode: str | int | Mode) -> PageViews:
    """Return the square views of one page that the encoder sees in this mode.

    Tiny and small stretch the page. Base and large keep its aspect ratio and pad it with grey. The gundam modes also
    stretch the page to a whole grid of tiles and cut it into them, unless the page fits in one tile.
    Raises ValueError for an unknown mode, or for an image so thin that the padded view would have no pixel of it.
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
    """Return the picture as a viewer shows it: turned as its EXIF data say, white where it is transparent, in RGB.

    Raises TypeError for anything but a PIL image.
    """
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
    """Return `page` on `side x side` pixels: either stretched, or `padded` with grey to keep its aspect ratio."""
    if padded:
        return ImageOps.pad(page, (side, side), Image.Resampling.BICUBIC, GREY)
    return page.resize((side, side), Image.Resampling.BICUBIC)


def normalised(picture: Image.Image) -> Float[Tensor, "3 height width"]:
    """Turn RGB bytes into floats in [-1, 1]."""
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
    return (pixels.float() / 255 - 0.5) / 0.5
