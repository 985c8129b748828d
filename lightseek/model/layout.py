"""Layout: the vision tokens of an image become a sequence in the decoder's input, row after row of the page.

A learned vector `newline` follows each row of tokens, and a learned vector `separator` ends the image. An image in
tiles comes first as one picture stitched from its tiles, and then as its global view.

    base:   16 x (16 tokens + newline) + separator                            = 273
    gundam: 30 x (20 tokens + newline) + 16 x (16 tokens + newline) + separator = 903   for 2 x 3 tiles
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


class Layout(nn.Module):
    """Lays out the vision tokens of one image. In the shapes, d is the decoder's width and p the positions it fills."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.newline = nn.Parameter(torch.zeros(width))
        self.separator = nn.Parameter(torch.zeros(width))

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
        parts = [self.rows(to_grid(global_view)), self.separator[None].to(global_view.dtype)]
        if tiles is not None:
            pictures = torch.stack([to_grid(tile) for tile in tiles])  # k r r d
            stitched = rearrange(pictures, "(rows cols) y x d -> (rows y) (cols x) d", cols=grid[0])
            parts.insert(0, self.rows(stitched))
        return torch.cat(parts)

    def rows(self, picture: Float[Tensor, "y x d"]) -> Float[Tensor, "p d"]:
        """Return the rows of a picture one after the other, each with a newline behind it."""
        newline = self.newline.to(picture.dtype).expand(len(picture), 1, -1)
        return rearrange(torch.cat([picture, newline], dim=1), "y x d -> (y x) d")


def to_grid(tokens: Float[Tensor, "t d"]) -> Float[Tensor, "r r d"]:
    """Return the tokens of a square view in rows and columns."""
    side = round(len(tokens) ** 0.5)
    return rearrange(tokens, "(y x) d -> y x d", y=side)
