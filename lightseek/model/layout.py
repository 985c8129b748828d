"""Layout: the vision tokens of an image become a sequence in the decoder's input, row after row of the page.

A learned vector `newline` follows each row of tokens, and a learned vector `separator` ends the image. An image in
tiles comes first as one picture stitched from its tiles, and then as its global view.

The kind `plain` has neither vector, so that an ablation can ask what they are for. `newlines` and `separators` of a
kind say how many positions it adds behind each row and behind each image: `config.arithmetic` counts with them.

    base:   16 x (16 tokens + newline) + separator                            = 273
    gundam: 30 x (20 tokens + newline) + 16 x (16 tokens + newline) + separator = 903   for 2 x 3 tiles
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lightseek.model.config import OCRConfig


class Layout(nn.Module):
    """Lays out the vision tokens of one image. In the shapes, d is the decoder's width and p the positions it fills."""

    newlines, separators = 1, 1

    def __init__(self, config: OCRConfig) -> None:
        super().__init__()
        self.newline = nn.Parameter(torch.zeros(config.decoder.width))
        self.separator = nn.Parameter(torch.zeros(config.decoder.width))

    def reset_parameters(self) -> None:
        nn.init.normal_(self.newline, std=0.02)
        nn.init.normal_(self.separator, std=0.02)

    def forward(
        self,
        global_view: Float[Tensor, "t d"],
        tiles: Float[Tensor, "k t2 d"] | None = None,
        grid: tuple[int, int] = (1, 1),
    ) -> Float[Tensor, "p d"]:
        """Return the sequence of one image: t tokens of its global view, and t2 of each of its k tiles.

        `grid` is the number of columns and of rows of tiles. The tiles come row by row.
        """
        pictures = [self.rows(picture) for picture in stitch(global_view, tiles, grid)]
        return torch.cat([*pictures, self.separator[None].to(global_view.dtype)])

    def rows(self, picture: Float[Tensor, "y x d"]) -> Float[Tensor, "p d"]:
        """Return the rows of a picture one after the other, each with a newline behind it."""
        newline = self.newline.to(picture.dtype).expand(len(picture), 1, -1)
        return rearrange(torch.cat([picture, newline], dim=1), "y x d -> (y x) d")


class PlainLayout(nn.Module):
    """Lays out the same tokens in the same order, row after row, and nothing between or behind them."""

    newlines, separators = 0, 0

    def __init__(self, config: OCRConfig) -> None:
        super().__init__()

    def forward(
        self,
        global_view: Float[Tensor, "t d"],
        tiles: Float[Tensor, "k t2 d"] | None = None,
        grid: tuple[int, int] = (1, 1),
    ) -> Float[Tensor, "p d"]:
        """Return the sequence of one image, from the same arguments as `Layout.forward`."""
        return torch.cat([picture.flatten(0, 1) for picture in stitch(global_view, tiles, grid)])


def stitch(
    global_view: Float[Tensor, "t d"], tiles: Float[Tensor, "k t2 d"] | None, grid: tuple[int, int]
) -> list[Float[Tensor, "_ _ d"]]:
    """Return the pictures of an image in their order: the one put together from its tiles, and its global view."""
    whole = to_grid(global_view)
    if tiles is None:
        return [whole]
    pictures = torch.stack([to_grid(tile) for tile in tiles])  # k r r d
    return [rearrange(pictures, "(rows cols) y x d -> (rows y) (cols x) d", cols=grid[0]), whole]


def to_grid(tokens: Float[Tensor, "t d"]) -> Float[Tensor, "r r d"]:
    """Return the tokens of a square view in rows and columns."""
    side = round(len(tokens) ** 0.5)
    return rearrange(tokens, "(y x) d -> y x d", y=side)
