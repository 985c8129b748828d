"""A page as the square views that the encoder sees: how they are cut from an image, exact to the pixel.

    page -> upright RGB -> square views of the mode's sizes -> (x/255 - 0.5) / 0.5

The model takes a page in one of two forms: as these views (`PageViews`), or as the vision tokens of the views
(`EncodedPage`). A frozen encoder gives a page the same tokens every time, so they can be stored, and later steps skip
the encoder (data/context/vision_cache.py). Every resize uses PIL's bicubic filter, as the reference code does.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image, ImageOps
from torch import Tensor

from lightseek.page.modes import OFFICIAL, TOKEN_SIDE, Arithmetic, Count, Mode, check_shape, find_mode, gundam_grid
from lightseek.page.pictures import upright_rgb

GREY = (127, 127, 127)  # pads a page to a square


@dataclass(frozen=True, eq=False)
class PageViews:
    """A page as pixels: the global view and, in the tiled modes, the tiles row by row.

    `s` and `t` are pixels per side, and `grid` is (columns, rows) of the k tiles.
    Raises ValueError for views that are not square, or whose side is not a multiple of 64, or that do not fit the grid.
    """

    global_view: Float[Tensor, "3 s s"]
    tiles: Float[Tensor, "k 3 t t"] | None = None
    grid: tuple[int, int] = (1, 1)
    key: int = 0  # tells pages apart where an edit of their tokens is random

    def __post_init__(self) -> None:
        check_grid(self)
        for view in (self.global_view, *(() if self.tiles is None else self.tiles[:1])):
            if view.ndim != 3 or view.shape[0] != 3 or view.shape[1] != view.shape[2] or view.shape[1] % TOKEN_SIDE:
                raise ValueError(f"a view is 3 x S x S with S a multiple of {TOKEN_SIDE}, got {tuple(view.shape)}")

    @staticmethod
    def side(view: Float[Tensor, "3 s s"], arithmetic: Arithmetic = OFFICIAL) -> int:
        """Return the number of vision tokens along one side of a view."""
        return arithmetic.along(view.shape[-1])


@dataclass(frozen=True, eq=False)
class EncodedPage:
    """A page as vision tokens: the encoder's output for each view, t tokens of d channels.

    The projector comes after this, because it may still learn while the encoder is frozen.
    Raises ValueError for views whose number of tokens is not a square, or that do not fit the grid.
    """

    global_view: Float[Tensor, "t d"]
    tiles: Float[Tensor, "k t2 d"] | None = None
    grid: tuple[int, int] = (1, 1)
    key: int = 0  # tells pages apart where an edit of their tokens is random

    def __post_init__(self) -> None:
        check_grid(self)
        for view in (self.global_view, *(() if self.tiles is None else self.tiles[:1])):
            if view.ndim != 2 or self.side(view) ** 2 != len(view):
                raise ValueError(f"an encoded view is t x d with t a square number, got {tuple(view.shape)}")

    @staticmethod
    def side(view: Float[Tensor, "t d"], arithmetic: Arithmetic = OFFICIAL) -> int:
        """Return the number of vision tokens along one side of a view. Their size in pixels does not matter here."""
        return round(len(view) ** 0.5)


@dataclass(frozen=True, eq=False)
class TextRun:
    """A text in the place of a page: the model's text encoder shortens its `ids` to so many `vectors`.

    Raises ValueError for an empty text or a number of vectors below 1.
    """

    ids: Int[Tensor, " n"]
    vectors: int

    def __post_init__(self) -> None:
        if not len(self.ids) or self.vectors < 1:
            raise ValueError(f"a text of {len(self.ids)} tokens cannot be shortened to {self.vectors} vectors")


Page = PageViews | EncodedPage | TextRun


def check_grid(page: PageViews | EncodedPage) -> None:
    """Raise ValueError if the number of tiles of a page does not match its grid."""
    columns, rows = page.grid
    tiles = 0 if page.tiles is None else len(page.tiles)
    if tiles != (columns * rows if columns * rows > 1 else 0) or (page.tiles is not None and not tiles):
        raise ValueError(f"a grid of {columns} x {rows} tiles does not go with {tiles} tiles")


def count(page: Page, arithmetic: Arithmetic = OFFICIAL) -> Count:
    """Return what fills the sequence positions of this page in a model whose `config.arithmetic` is given."""
    if isinstance(page, TextRun):
        return Count(page.vectors, 0, 0)
    tile = 0 if page.tiles is None else page.side(page.tiles[0], arithmetic)
    return arithmetic.count(page.side(page.global_view, arithmetic), tile, page.grid)


def image_positions(page: Page, arithmetic: Arithmetic = OFFICIAL) -> int:
    """Return the number of sequence positions that this page fills, as `modes.positions` counts them."""
    return count(page, arithmetic).positions


def image_tokens(page: Page, arithmetic: Arithmetic = OFFICIAL) -> int:
    """Return the number of vision tokens of this page, without newlines and separator."""
    return count(page, arithmetic).tokens


def page_views(image: Image.Image, mode: str | int | Mode) -> PageViews:
    """Return the square views of one page that the encoder sees in this mode.

    Tiny and small stretch the page. Base and large keep its aspect ratio and pad it with grey. The gundam modes also
    stretch the page to a whole grid of tiles and cut it into them, unless the page fits in one tile.
    Raises ValueError for an unknown mode, or for an image so thin that the padded view would have no pixel of it.
    """
    mode = find_mode(mode)
    page = upright_rgb(image)
    width, height = page.size
    check_shape(width, height, mode)
    whole = square(page, mode.side, mode.padded)
    columns, rows = gundam_grid(width, height, mode.tile) if mode.tile else (1, 1)
    if mode.tile is None or columns * rows == 1:
        return PageViews(normalised(whole))
    wall = normalised(page.resize((columns * mode.tile, rows * mode.tile), Image.Resampling.BICUBIC))
    tiles = [tile for band in wall.split(mode.tile, dim=1) for tile in band.split(mode.tile, dim=2)]
    return PageViews(normalised(whole), torch.stack(tiles), (columns, rows))


def square(page: Image.Image, side: int, padded: bool) -> Image.Image:
    """Return `page` on `side x side` pixels: either stretched, or `padded` with grey to keep its aspect ratio."""
    if padded:
        return ImageOps.pad(page, (side, side), Image.Resampling.BICUBIC, GREY)
    return page.resize((side, side), Image.Resampling.BICUBIC)


def normalised(picture: Image.Image) -> Float[Tensor, "3 height width"]:
    """Turn RGB bytes into floats in [-1, 1]."""
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
    return (pixels.float() / 255 - 0.5) / 0.5
