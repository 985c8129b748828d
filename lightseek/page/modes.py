"""Modes: how many pixels go in, how many vision tokens come out.

| mode     | views                                  | vision tokens | sequence positions           |
|----------|----------------------------------------|---------------|------------------------------|
| tiny     | 512, image resized                     | 64            | 73                           |
| small    | 640, image resized                     | 100           | 111                          |
| base     | 1024, padded, aspect kept              | 256           | 273                          |
| large    | 1280, padded, aspect kept              | 400           | 421                          |
| gundam   | 2-9 tiles of 640 + 1024 global view    | n·100 + 256   | + newlines and one separator |
| gundam-m | 2-9 tiles of 1024 + 1280 global view   | n·256 + 400   | likewise                     |

One vision token covers 64 x 64 pixels: a patch of 16, then the 16x compressor (4 per side).
A sequence *position* is a vision token, a newline after each row of tokens, or the separator at the end.
Nothing here needs PyTorch. Sources: paper section 3.2 and table 1; rules read off the reference implementation.
"""

import math
from dataclasses import dataclass

TOKEN_SIDE = 64  # pixels per vision token along one side
MIN_TILES, MAX_TILES = 2, 9


@dataclass(frozen=True)
class Mode:
    """One compression mode. Sides are in pixels."""

    name: str
    side: int  # of the global view
    padded: bool  # True: keep the aspect and pad with grey; False: stretch to a square
    tile: int | None = None  # side of a local tile, for the tiled modes

    @property
    def tokens(self) -> int:
        """Vision tokens of the global view, `(side / 64)²`."""
        return (self.side // TOKEN_SIDE) ** 2

    @property
    def description(self) -> str:
        fit = "padded" if self.padded else "resized"
        tiles = f"{MIN_TILES}-{MAX_TILES} tiles of {self.tile} + " if self.tile else ""
        return f"{tiles}{self.side} x {self.side} {fit}"


MODES: dict[str, Mode] = {
    mode.name: mode
    for mode in (
        Mode("tiny", 512, padded=False),
        Mode("small", 640, padded=False),
        Mode("base", 1024, padded=True),
        Mode("large", 1280, padded=True),
        Mode("gundam", 1024, padded=True, tile=640),
        Mode("gundam-m", 1280, padded=True, tile=1024),
    )
}


def find_mode(name: "str | int | Mode") -> Mode:
    """The mode of that name (`"base"`) or, for the untiled ones, of that token count (`256` or `"256"`).

    Raises ValueError, listing the choices, when there is none.
    """
    if isinstance(name, Mode):
        return name
    if name in MODES:
        return MODES[name]
    for mode in MODES.values():
        if mode.tile is None and str(name) == str(mode.tokens):
            return mode
    choices = ", ".join(f"{m.name}" + ("" if m.tile else f" (= {m.tokens})") for m in MODES.values())
    raise ValueError(f"unknown mode {name!r}: choose one of {choices}")


def rows_and_newlines(columns: int, rows: int) -> int:
    """Positions of a `columns x rows` picture of tokens, each row ended by a newline."""
    return rows * (columns + 1)


def positions(mode: str | int | Mode, grid: tuple[int, int] = (1, 1)) -> int:
    """Sequence positions of one image: tokens, newlines and the separator.

    `grid` is (columns, rows) of tiles; it only counts in the tiled modes, and (1, 1) means no tiles.

    >>> positions("base"), positions("gundam", (2, 3))
    (273, 903)
    """
    mode = find_mode(mode)
    columns, rows = grid
    if mode.tile and grid != (1, 1) and (min(grid) < 1 or not MIN_TILES <= columns * rows <= MAX_TILES):
        raise ValueError(f"a grid of {columns} x {rows} tiles: {mode.name} has {MIN_TILES} to {MAX_TILES}, or (1, 1)")
    side = mode.side // TOKEN_SIDE
    count = rows_and_newlines(side, side) + 1  # the separator
    if mode.tile and columns * rows > 1:
        per_tile = mode.tile // TOKEN_SIDE
        count += rows_and_newlines(columns * per_tile, rows * per_tile)
    return count


def vision_tokens(mode: str | int | Mode, grid: tuple[int, int] = (1, 1)) -> int:
    """Vision tokens of one image, without newlines and separator: what a compression ratio divides by."""
    mode = find_mode(mode)
    columns, rows = grid
    tiles = columns * rows if mode.tile and columns * rows > 1 else 0
    return mode.tokens + tiles * ((mode.tile or 0) // TOKEN_SIDE) ** 2


def valid_tokens(mode: str | int | Mode, width: int, height: int, grid: tuple[int, int] = (1, 1)) -> int:
    """Vision tokens that see the image rather than the grey padding (paper, equation 1).

    `ceil(n · (1 - (long - short) / long))` for the padded global view; resized views and tiles count whole.
    """
    mode = find_mode(mode)
    if not mode.padded:
        return mode.tokens
    long, short = max(width, height), min(width, height)
    tiles = vision_tokens(mode, grid) - mode.tokens
    return tiles + math.ceil(mode.tokens * short / long)


def gundam_grid(width: int, height: int, tile: int = 640) -> tuple[int, int]:
    """(columns, rows) of the tiles that a tiled mode cuts an image of `width x height` pixels into.

    (1, 1), no tiles, when both sides fit in one tile. Otherwise, of all grids of 2 to 9 tiles, the one whose
    aspect ratio is nearest the image's; on an exact tie the later one (more tiles) wins if the image has more than
    half of that grid's pixels. `tile` is the mode's: 640 for gundam, 1024 for gundam-m.
    """
    if width < 1 or height < 1:
        raise ValueError(f"an image needs at least one pixel a side, got {width} x {height}")
    if width <= tile and height <= tile:
        return 1, 1
    candidates = [(c, r) for c in range(1, MAX_TILES + 1) for r in range(1, MAX_TILES + 1)]
    candidates = [(c, r) for c, r in candidates if MIN_TILES <= c * r <= MAX_TILES]
    candidates.sort(key=lambda grid: grid[0] * grid[1])
    aspect, area = width / height, width * height
    best, best_gap = (1, 1), math.inf
    for columns, rows in candidates:
        gap = abs(aspect - columns / rows)
        if gap < best_gap or (gap == best_gap and area > 0.5 * tile * tile * columns * rows):
            best, best_gap = (columns, rows), gap
    return best
