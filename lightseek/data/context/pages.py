"""Makes the pages of a document: its own pictures, or its text drawn on as few pages as possible.

A text gets one page if a readable font allows that, and otherwise several, up to a budget. The text and the pictures
beyond the budget are left out and counted.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from lightseek.data.context.base import ContextMaker, Shown
from lightseek.data.document import Document
from lightseek.page.modes import MAX_TILES, OFFICIAL, Arithmetic, check_shape, find_mode, gundam_grid
from lightseek.page.noise import add_noise
from lightseek.page.pictures import PictureFrames, open_picture
from lightseek.page.render import PageStyle, count_pages, fit_pages, page_style, render_text
from lightseek.page.spec import LETTER, PageSpec
from lightseek.page.typeset.fonts import font_files

if TYPE_CHECKING:
    from lightseek.page.views import Page

LARGEST_FONT = 96  # pixels


@dataclass(frozen=True)
class Pages(Shown):
    """The images of a document. `text` is the text on them."""

    images: list[Image.Image]


class PageMaker(ContextMaker):
    """Makes the pages of documents. Equal documents give equal pages."""

    def __init__(self, spec: PageSpec, arithmetic: Arithmetic = OFFICIAL) -> None:
        """`spec` says what the pages look like, and `arithmetic` counts the model's vision tokens.

        Raises ValueError if the views of the mode do not hold whole vision tokens of that model, if there is no such
        font, or if the letters are too large for the pages.
        """
        super().__init__()
        arithmetic.check(spec.mode)
        font_files(spec.font)
        self.arithmetic = arithmetic
        self.spec, self.mode, self.most = spec, find_mode(spec.mode), spec.max_pages
        self.style = page_style(self.mode, spec.font)
        size = spec.letter_size(self.style.columns)
        self.smallest, self.largest = (spec.smallest_font, LARGEST_FONT) if size is None else (size, size)
        if size is not None:
            render_text("W", replace(self.style, font_size=size))  # letters that are too large show now

    def make(self, document: Document) -> Pages:
        return self.draw(document)

    def draw(self, document: Document) -> Pages:
        """Return the pages as images. Raises ValueError, naming the document, for a picture that can't be read."""
        pages = self.show(document) if document.images else self.render(document.text)
        if self.spec.noise is None:
            return pages
        return replace(pages, images=[add_noise(image, self.spec.noise, self.spec.seed) for image in pages.images])

    def pictures(self, document: Document) -> list[Image.Image]:
        """Return the pages that the model sees."""
        return self.draw(document).images

    def views(self, pages: Pages) -> "list[Page]":
        """Return the pages as the model takes them."""
        from lightseek.page.views import page_views  # needs PyTorch; drawing does not

        return [page_views(image, self.mode) for image in pages.images]

    def positions(self, document: Document, tokens_per_character: float) -> int:
        """Estimate the positions of a document's pictures, or of the pages of its text in the smallest letters."""
        style, mode = self.style, self.mode
        grid = gundam_grid(style.width, style.height, mode.tile) if mode.tile else (1, 1)
        letter = LETTER * style.line_spacing * self.smallest**2  # pixels
        drawn = math.ceil(len(document.text) * letter / (style.columns * style.rows))
        return min(self.most, len(document.images) or max(1, drawn)) * self.arithmetic.of_mode(mode, grid).positions

    def show(self, document: Document) -> Pages:
        """Return the pictures of a document that came as pictures."""
        images: list[Image.Image] = []
        for picture in document.images[: self.most]:
            with _naming(document, picture) as file:
                images += open_picture(file)
        self._check_shapes(document, [image.size for image in images[: self.most]])
        dropped = max(0, len(images) - self.most) + len(document.images[self.most :])
        return Pages(images[: self.most], text=document.text, dropped_pages=dropped)

    def check(self, document: Document) -> int | float:
        """Return a number of positions that the pages never exceed.

        Raises ValueError, naming the document, if a picture can't be opened, is cut off, or is too thin for the mode.
        It reads only the beginning and the end of each file.
        """
        frames = 0
        for picture in document.images[: self.most]:
            with _naming(document, picture) as file, PictureFrames(file) as opened:
                opened.check()
                frames, size = frames + len(opened), opened.picture.size
            self._check_shapes(document, [size])
        if frames > self.most or len(document.images) > self.most:
            return math.inf  # some pages are left out, which not every task allows: only the example shows it
        grid = (1, MAX_TILES) if self.mode.tile else (1, 1)
        return (frames or self.most) * self.arithmetic.of_mode(self.mode, grid).positions

    def _check_shapes(self, document: Document, sizes: Sequence[tuple[int, int]]) -> None:
        try:
            for width, height in sizes:
                check_shape(width, height, self.mode)
        except ValueError as error:
            raise ValueError(f"document {document.name}: {error}") from None

    def render(self, text: str) -> Pages:
        """Draw a text on pages."""
        rendering = render_text(text, self.fit(text), max_pages=self.most, cut=True)
        if rendering.dropped:
            source = text.replace("\r\n", "\n").replace("\r", "\n").strip()
            text = source[: -rendering.dropped].rstrip()
        images = [page.image for page in rendering.pages]
        return Pages(images, text=text, dropped_characters=rendering.dropped, missing_glyphs=rendering.missing_glyphs)

    def visible(self, document: Document) -> str:
        """Return the text that is on a document's pages: all of it, unless the budget is too small."""
        if document.images or self.needed(document.text) <= self.most:
            return document.text
        return self.render(document.text).text

    def needed(self, text: str) -> int:
        """Return how many pages `text` needs in the smallest font. Counting stops one page above the budget."""
        return count_pages(text, replace(self.style, font_size=self.smallest), self.most + 1)

    def fit(self, text: str) -> PageStyle:
        """Return the style with the largest font that needs no more pages than the smallest font does."""
        return fit_pages(text, self.style, self.smallest, self.largest, self.most)


@contextmanager
def _naming(document: Document, picture: Path | bytes) -> Iterator[Path | BytesIO]:
    """Yield a picture as something to open, and name its document in errors."""
    try:
        yield BytesIO(picture) if isinstance(picture, bytes) else picture
    except (ValueError, FileNotFoundError) as error:
        what = f"a picture of {len(picture)} bytes that can't be read" if isinstance(picture, bytes) else error
        raise ValueError(f"document {document.name}: {what}") from error
