"""How documents become pages: one value for training, evaluation and `generate`, so that all draw the same pages."""

import re
from dataclasses import dataclass

from lightseek.page.modes import Mode, find_mode

SMALLEST_FONT = 8  # pixels
MOST_PAGES = 8  # of base, a quarter of the official decoder's positions
LETTER = 0.55  # width of an average letter, in font sizes
LETTERS = re.compile(r"([1-9]\d{0,4})(/line)?")


@dataclass(frozen=True)
class PageSpec:
    """Everything that decides what the pages of a document look like.

    `mode` may be given by its name or its number of tokens. `letters` are `"20"` (pixels) or `"60/line"` (about 60
    characters a line); `"fit"` is the same as None, and so is the noise `"clean"`.
    Raises ValueError for an unknown mode, noise or size of letters, and if `max_pages` is below 1.
    """

    mode: str | int | Mode
    font: str = "DejaVuSans"  # a DejaVu face or a font file
    noise: str | None = None  # of NOISES, drawn from `seed`
    max_pages: int = MOST_PAGES  # the text and the pictures beyond are left out and counted
    smallest_font: int = SMALLEST_FONT  # pixels; a text that needs smaller letters gets more pages
    seed: int = 0
    letters: str | None = None  # None takes the largest with which the text needs no more pages than with the smallest

    def __post_init__(self) -> None:
        object.__setattr__(self, "mode", find_mode(self.mode))
        object.__setattr__(self, "noise", None if self.noise == "clean" else self.noise)
        object.__setattr__(self, "letters", None if self.letters == "fit" else self.letters)
        if self.noise is not None:
            from lightseek.page.noise import check_noise  # needs NumPy, which the checks of a command line do not

            check_noise(self.noise)
        if self.letters is not None and not LETTERS.fullmatch(self.letters):
            raise ValueError(f"letters={self.letters}: expected fit, pixels such as 20, or 60/line")
        if self.max_pages < 1:
            raise ValueError(f"max_pages must be at least 1, got {self.max_pages}")

    def letter_size(self, columns: int) -> int | None:
        """Return the size of the letters in pixels on a page with this width between its margins.

        Returns None if the text decides it. Raises ValueError for lines with so many characters that none is readable.
        """
        if self.letters is None:
            return None
        count, a_line = LETTERS.fullmatch(self.letters).groups()
        size = int(columns / (LETTER * int(count))) if a_line else int(count)
        if size < 1:
            raise ValueError(f"letters={self.letters}: a line of {columns} pixels has no room for so many characters")
        return size
