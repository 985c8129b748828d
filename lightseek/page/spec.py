"""How documents become pages: one value for training, evaluation and `generate`, so that all draw the same pages."""

from dataclasses import dataclass

from lightseek.page.kinds import NOISES
from lightseek.page.modes import Mode, find_mode

SMALLEST_FONT = 8  # pixels
MOST_PAGES = 8  # of base, a quarter of the official decoder's positions


@dataclass(frozen=True)
class PageSpec:
    """Everything that decides what the pages of a document look like.

    `mode` may be given by its name or its number of tokens. Raises ValueError for an unknown mode or noise, and if
    `max_pages` is below 1.
    """

    mode: str | int | Mode
    font: str = "DejaVuSans"  # a DejaVu face or a font file
    noise: str | None = None  # one of NOISES, drawn from `seed`
    max_pages: int = MOST_PAGES  # the text and the pictures beyond are left out and counted
    smallest_font: int = SMALLEST_FONT  # pixels; a text that needs smaller letters gets more pages
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "mode", find_mode(self.mode))
        if self.noise is not None:
            NOISES.check(self.noise)
        if self.max_pages < 1:
            raise ValueError(f"max_pages must be at least 1, got {self.max_pages}")
