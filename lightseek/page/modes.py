"""Modes: a mode fixes how many pixels of a page go in and how many vision tokens come out.

| mode     | views                                  | vision tokens | sequence positions           |
|----------|----------------------------------------|---------------|------------------------------|
| tiny     | 512, image resized                     | 64            | 73                           |
| small    | 640, image resized                     | 100           | 111                          |
| base     | 1024, padded, aspect kept              | 256           | 273                          |
| large    | 1280, padded, aspect kept              | 400           | 421                          |
| gundam   | 2-9 tiles of 640 + 1024 global view    | n·100 + 256   | + newlines and one separator |
| gundam-m | 2-9 tiles of 1024 + 1280 global view   | n·256 + 400   | + newlines and one separator |

One vision token covers 64 x 64 pixels: a patch has 16 x 16, and the compressor joins 4 x 4 patches.
A sequence *position* is a vision token, a newline after each row of tokens, or the separator at the end.
Nothing here needs PyTorch. Sources: paper section 3.2 and table 1. The rules are those of the reference code.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels of a picture
TOKEN_SIDE = 64  # pixels per vision token along one side
MIN_TILES, MAX_TILES = 2, 9


@dataclass(frozen=True)
class Mode:
    """One compression mode. Sides are in pixels."""

    name: str
    side: int  # pixels per side of the global view
    padded: bool  # True: keep the aspect ratio and pad with grey; False: stretch to a square
    tile: int | None = None  # pixels per side of a tile; None in the modes without tiles

    @property
    def tokens(self) -> int:
        """The number of vision tokens of the global view, `(side / 64)²`."""
        return (self.side // TOKEN_SIDE) ** 2

    @property
    def label(self) -> str:
        """The name with the number of tokens: "100 (small)". Tiled modes have no fixed number: "gundam"."""
        return self.name if self.tile else f"{self.tokens} ({self.name})"

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
    """Return the mode with this name (`"base"`). A mode without tiles also goes by its token count (`256` or `"256"`).

    Raises ValueError, which lists the choices, if there is no such mode.
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


class Count(NamedTuple):
    """What fills the sequence positions of one image."""

    tokens: int
    newlines: int
    separators: int

    @property
    def positions(self) -> int:
        return sum(self)


@dataclass(frozen=True)
class Arithmetic:
    """How many positions an image fills: the one place that counts them. A model's is `config.arithmetic`."""

    token_side: int = TOKEN_SIDE  # pixels along a side of a vision token
    newlines: int = 1  # positions behind each row of tokens
    separators: int = 1  # positions behind each image

    def along(self, side: int) -> int:
        """Return the number of vision tokens along `side` pixels. Raises ValueError if they do not fill it."""
        if side % self.token_side:
            raise ValueError(f"a side of {side} pixels does not hold whole vision tokens of {self.token_side} pixels")
        return side // self.token_side

    def count(self, whole: int, tile: int = 0, grid: tuple[int, int] = (1, 1)) -> Count:
        """Count the positions of an image whose global view has `whole` tokens along a side.

        `grid` is (columns, rows) of the tiles, which have `tile` tokens along a side; without tiles, `tile` is 0.
        """
        columns, rows = grid
        return Count(
            tokens=whole**2 + columns * rows * tile**2,
            newlines=self.newlines * (whole + rows * tile),
            separators=self.separators,
        )

    def of_mode(self, mode: "str | int | Mode", grid: tuple[int, int] = (1, 1)) -> Count:
        """Count the positions of an image in a mode.

        `grid` is (columns, rows) of the tiles. Only the tiled modes use it, and (1, 1) means that there are no tiles.
        Raises ValueError for an unknown mode, a grid that the mode does not have, or sides without whole tokens.
        """
        mode = find_mode(mode)
        tiles = math.prod(grid) if mode.tile else 1
        if mode.tile and grid != (1, 1) and (min(grid) < 1 or not MIN_TILES <= tiles <= MAX_TILES):
            found = f"{grid[0]} x {grid[1]}"
            raise ValueError(f"no grid of {found} tiles: {mode.name} has {MIN_TILES} to {MAX_TILES}, or (1, 1)")
        return self.count(self.along(mode.side), self.along(mode.tile) if tiles > 1 else 0, grid)

    def check(self, mode: "str | int | Mode") -> None:
        """Raise ValueError if the views of a mode do not hold whole vision tokens."""
        mode = find_mode(mode)
        for side in filter(None, (mode.side, mode.tile)):
            try:
                self.along(side)
            except ValueError as error:
                raise ValueError(f"mode {mode.name}: {error}, which this model has") from None


OFFICIAL = Arithmetic()


def positions(mode: str | int | Mode, grid: tuple[int, int] = (1, 1), arithmetic: Arithmetic = OFFICIAL) -> int:
    """Return the number of sequence positions of one image: tokens, newlines and the separator.

    `grid` is (columns, rows) of the tiles. Only the tiled modes use it, and (1, 1) means that there are no tiles.
    `arithmetic` is `config.arithmetic` of a model whose compressor or layout is not the official one.
    Raises ValueError as `Arithmetic.of_mode` does.

    >>> positions("base"), positions("gundam", (2, 3))
    (273, 903)
    """
    return arithmetic.of_mode(mode, grid).positions


def vision_tokens(mode: str | int | Mode, grid: tuple[int, int] = (1, 1), arithmetic: Arithmetic = OFFICIAL) -> int:
    """Return the number of vision tokens of one image, without newlines and separator.

    Compression ratios divide by this number. `grid` and `arithmetic` are as in `positions`.
    """
    return arithmetic.of_mode(mode, grid).tokens


def valid_tokens(
    mode: str | int | Mode,
    width: int,
    height: int,
    grid: tuple[int, int] = (1, 1),
    arithmetic: Arithmetic = OFFICIAL,
) -> int:
    """Return the number of vision tokens that see the image and not the grey padding (paper, equation 1).

    This is `ceil(n · (1 - (long - short) / long))` for a padded global view. Stretched views and tiles have no padding,
    so all their tokens count. `width` and `height` are those of the image, in pixels.
    """
    mode = find_mode(mode)
    whole = vision_tokens(mode, arithmetic=arithmetic)
    if not mode.padded:
        return whole
    long, short = max(width, height), min(width, height)
    tiles = vision_tokens(mode, grid, arithmetic) - whole
    return tiles + math.ceil(whole * short / long)


def whole_page(size: tuple[int, int]) -> Box:
    return 0.0, 0.0, float(size[0]), float(size[1])


def padded_frame(size: tuple[int, int], mode: Mode) -> Box:
    """Return the square that a padded view shows, in pixels of the picture. It reaches over the edges of the page.

    The page is scaled to fit and put into the middle, as `PIL.ImageOps.pad` does.
    """
    width, height = size
    scale = mode.side / max(width, height)
    left = round((mode.side - round(width * scale)) * 0.5) / scale
    top = round((mode.side - round(height * scale)) * 0.5) / scale
    return -left, -top, mode.side / scale - left, mode.side / scale - top


def check_shape(width: int, height: int, mode: str | int | Mode) -> None:
    """Raise ValueError for an image so thin that the padded view of `mode` would have no pixel of it."""
    mode = find_mode(mode)
    if mode.padded and round(mode.side * min(width, height) / max(width, height)) < 1:
        raise ValueError(f"an image of {width} x {height} pixels is too thin to show on {mode.side} x {mode.side}")


def gundam_grid(width: int, height: int, tile: int = 640) -> tuple[int, int]:
    """Return (columns, rows) of the tiles that a tiled mode cuts an image of `width x height` pixels into.

    It is (1, 1), no tiles, if the whole image fits in one tile. Otherwise it is the grid of 2 to 9 tiles whose aspect
    ratio is nearest to the image's. On an exact tie the grid with more tiles wins if the image has more than half of
    that grid's pixels. `tile` is the side of the mode's tiles: 640 for gundam, 1024 for gundam-m.
    Raises ValueError for an image without pixels.
    """
    if width < 1 or height < 1:
        raise ValueError(f"an image needs at least one pixel per side, got {width} x {height}")
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
