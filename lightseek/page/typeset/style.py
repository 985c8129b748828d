"""The look of a page, and the limits on its size."""

import math
from dataclasses import dataclass

MAX_PAGES = 1000
MAX_PIXELS = 50_000_000  # per page: A4 at 600 dpi is 35 million
MAX_TOGETHER = 8 * MAX_PIXELS  # of all pages of a document that are in memory at once: 1.2 GB in RGB


@dataclass(frozen=True)
class PageStyle:
    """The look of a page of text. Lengths are in pixels, and spacings are multiples of the font size.

    `font` is the name of a DejaVu face that comes with matplotlib, or the path of a .ttf or .otf file. Its bold and
    oblique companions are looked up in the same folder (`X-Bold.ttf`, `X-Italic.ttf`, ...).
    Raises ValueError if nothing could be drawn on such a page, or if it has more than `MAX_PIXELS` pixels.
    """

    width: int = 1024
    height: int = 1024
    font: str = "DejaVuSans"
    font_size: int = 20
    margin: int = 48
    line_spacing: float | int = 1.3
    paragraph_spacing: float | int = 0.6

    def __post_init__(self) -> None:
        for name in ("width", "height", "font_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"PageStyle.{name} is {getattr(self, name)}: use at least 1 pixel")
        for name in ("margin", "line_spacing", "paragraph_spacing"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"PageStyle.{name} is {getattr(self, name)}: use a finite number of at least 0")
        if self.width * self.height > MAX_PIXELS:
            raise ValueError(f"a page of {self.width} x {self.height} has more than {MAX_PIXELS} pixels")
        if min(self.columns, self.rows) < 1:
            raise ValueError(f"margins of {self.margin} leave nothing of a page of {self.width} x {self.height}")

    @property
    def columns(self) -> int:
        """The number of pixels between the left and the right margin."""
        return self.width - 2 * self.margin

    @property
    def rows(self) -> int:
        """The number of pixels between the upper and the lower margin."""
        return self.height - 2 * self.margin
