"""Layout: vision tokens become a run of text-like positions that keeps the page's rows.

After each row of tokens stands a learned `newline`; after the whole image a learned `separator`. A tiled image comes
first as one picture stitched from its tiles, then as its global view.

    base:   16 x (16 tokens + newline) + separator                            = 273
    gundam: 30 x (20 tokens + newline) + 16 x (16 tokens + newline) + separator = 903   for 2 x 3 tiles
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


class Layout(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.newline = nn.Parameter(torch.zeros(width))
        self.separator = nn.Parameter(torch.zeros(width))

    def forward(
        self,
        global_view: Float[Tensor, "t d"],
        tiles: Float[Tensor, "k t2 d"] | None = None,
        grid: tuple[int, int] = (1, 1),
    ) -> Float[Tensor, "p d"]:
        """Tokens of one image to its sequence positions. `grid` is (columns, rows) of tiles."""
        parts = [self.rows(to_grid(global_view)), self.separator[None].to(global_view.dtype)]
        if tiles is not None:
            pictures = torch.stack([to_grid(tile) for tile in tiles])  # k r r d
            stitched = rearrange(pictures, "(rows cols) y x d -> (rows y) (cols x) d", cols=grid[0])
            parts.insert(0, self.rows(stitched))
        return torch.cat(parts)

    def rows(self, picture: Float[Tensor, "y x d"]) -> Float[Tensor, "p d"]:
        newline = self.newline.to(picture.dtype).expand(len(picture), 1, -1)
        return rearrange(torch.cat([picture, newline], dim=1), "y x d -> (y x) d")


def to_grid(tokens: Float[Tensor, "t d"]) -> Float[Tensor, "r r d"]:
    """The tokens of a square view, back in rows and columns."""
    side = round(len(tokens) ** 0.5)
    return rearrange(tokens, "(y x) d -> y x d", y=side)
