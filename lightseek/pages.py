"""One image as the encoder takes it: normalised square views."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PageViews:
    """A global view and, in the tiled modes, the tiles row by row. `grid` is (columns, rows) of the tiles."""

    global_view: Float[Tensor, "3 s s"]
    tiles: Float[Tensor, "k 3 t t"] | None = None
    grid: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        columns, rows = self.grid
        tiles = 0 if self.tiles is None else len(self.tiles)
        if tiles != (columns * rows if columns * rows > 1 else 0) or (self.tiles is not None and not tiles):
            raise ValueError(f"a grid of {columns} x {rows} tiles does not go with {tiles} tiles")
        for view in (self.global_view, *(() if self.tiles is None else self.tiles[:1])):
            if view.ndim != 3 or view.shape[0] != 3 or view.shape[1] != view.shape[2] or view.shape[1] % 64:
                raise ValueError(f"a view is 3 x S x S with S a multiple of 64, got {tuple(view.shape)}")
