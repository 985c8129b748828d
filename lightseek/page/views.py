"""One image as the encoder takes it, square views of pixels, or as the encoder gave it back, vision tokens.

The model takes either. A frozen encoder gives a page the same tokens every time, so they can be kept and the encoder
left out (`lightseek.data.context.vision_cache`).
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lightseek.page.modes import TOKEN_SIDE, rows_and_newlines


@dataclass(frozen=True, eq=False)
class PageViews:
    """A global view and, in the tiled modes, the tiles row by row. `grid` is (columns, rows) of the tiles."""

    global_view: Float[Tensor, "3 s s"]
    tiles: Float[Tensor, "k 3 t t"] | None = None
    grid: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        check_grid(self)
        for view in (self.global_view, *(() if self.tiles is None else self.tiles[:1])):
            if view.ndim != 3 or view.shape[0] != 3 or view.shape[1] != view.shape[2] or view.shape[1] % TOKEN_SIDE:
                raise ValueError(f"a view is 3 x S x S with S a multiple of {TOKEN_SIDE}, got {tuple(view.shape)}")

    @staticmethod
    def side(view: Float[Tensor, "3 s s"]) -> int:
        """Vision tokens along one side of a view."""
        return view.shape[-1] // TOKEN_SIDE


@dataclass(frozen=True, eq=False)
class EncodedPage:
    """The encoder's output for each view, before the projector, which may still learn: t tokens of d channels."""

    global_view: Float[Tensor, "t d"]
    tiles: Float[Tensor, "k t2 d"] | None = None
    grid: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        check_grid(self)
        for view in (self.global_view, *(() if self.tiles is None else self.tiles[:1])):
            if view.ndim != 2 or self.side(view) ** 2 != len(view):
                raise ValueError(f"an encoded view is t x d with t a square number, got {tuple(view.shape)}")

    @staticmethod
    def side(view: Float[Tensor, "t d"]) -> int:
        """Vision tokens along one side of a view."""
        return round(len(view) ** 0.5)


Page = PageViews | EncodedPage


def check_grid(page: Page) -> None:
    """Raise ValueError when a page does not have the tiles that its grid says."""
    columns, rows = page.grid
    tiles = 0 if page.tiles is None else len(page.tiles)
    if tiles != (columns * rows if columns * rows > 1 else 0) or (page.tiles is not None and not tiles):
        raise ValueError(f"a grid of {columns} x {rows} tiles does not go with {tiles} tiles")


def image_positions(page: Page) -> int:
    """Sequence positions that this page fills: tokens, newlines and the separator (as `modes.positions`)."""
    side = page.side(page.global_view)
    count = rows_and_newlines(side, side) + 1
    if page.tiles is not None:
        (columns, rows), per_tile = page.grid, page.side(page.tiles[0])
        count += rows_and_newlines(columns * per_tile, rows * per_tile)
    return count


def image_tokens(page: Page) -> int:
    """Vision tokens of this page, without newlines and separator (as `modes.vision_tokens`)."""
    tiles = () if page.tiles is None else page.tiles
    return sum(page.side(view) ** 2 for view in (page.global_view, *tiles))
