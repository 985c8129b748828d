"""Which part of the page each position of an image stands for: the bridge between the decoder's sequence and a picture.

    image_places(views, mode, picture.size, config.arithmetic)[37].box     # (left, top, right, bottom) on the page

An image in tiles comes first as its tiles, put together row by row, and then as its global view. A newline follows each
row of tokens, and a separator ends the image (`model/layout.py`).
"""

from dataclasses import dataclass
from typing import Literal

from lightseek.page.modes import OFFICIAL, Arithmetic, Box, Mode, find_mode, padded_frame, whole_page
from lightseek.page.views import PageViews


@dataclass(frozen=True)
class Place:
    """What one position of an image stands for."""

    kind: Literal["token", "newline", "separator"]
    part: Literal["tiles", "whole"]  # which picture of the page it belongs to
    row: int = 0  # of the token grid of that picture
    column: int = 0
    box: Box | None = None  # the part of the page that the token covers; None for newlines, the separator and padding


def image_places(
    views: PageViews, mode: str | int | Mode, size: tuple[int, int], arithmetic: Arithmetic = OFFICIAL
) -> list[Place]:
    """Return the place of each position of one image, in the order of the decoder's sequence.

    `size` is the width and height of the picture in pixels. A token in the grey padding has no box, and a token at its
    edge has only the part of its square that is on the page.
    """
    found: list[Place] = []
    if views.tiles is not None:
        side = arithmetic.along(views.tiles.shape[-1])
        columns, rows = views.grid[0] * side, views.grid[1] * side
        found += picture_places("tiles", rows, columns, whole_page(size), size, arithmetic)
    side = arithmetic.along(views.global_view.shape[-1])
    frame = padded_frame(size, find_mode(mode)) if find_mode(mode).padded else whole_page(size)
    found += picture_places("whole", side, side, frame, size, arithmetic)
    return found + [Place("separator", "whole")] * arithmetic.separators


def picture_places(
    part: Literal["tiles", "whole"],
    rows: int,
    columns: int,
    frame: Box,
    size: tuple[int, int],
    arithmetic: Arithmetic,
) -> list[Place]:
    """Return the places of one picture of `rows` x `columns` tokens that shows the part `frame` of the page."""
    left, top, right, bottom = frame
    found = []
    for row in range(rows):
        for column in range(columns):
            box = (
                max(0.0, left + (right - left) * column / columns),
                max(0.0, top + (bottom - top) * row / rows),
                min(float(size[0]), left + (right - left) * (column + 1) / columns),
                min(float(size[1]), top + (bottom - top) * (row + 1) / rows),
            )
            inside = box[0] < box[2] and box[1] < box[3]
            found.append(Place("token", part, row, column, box if inside else None))
        found += [Place("newline", part, row, columns)] * arithmetic.newlines
    return found
