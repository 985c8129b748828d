"""Makes the pages of a document: its own pictures, or its text drawn on as few pages as possible.

A text gets one page if a readable font allows that, and otherwise several, up to a budget. The text and the pictures
beyond the budget are left out and counted.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image

from lightseek.data.document import Document
from lightseek.page.modes import Mode, find_mode
from lightseek.page.render import PageStyle, count_pages, fit_pages, page_style, render_text
from lightseek.page.typeset.pictures import open_picture

if TYPE_CHECKING:
    from lightseek.page.views import Page

SMALLEST_FONT = 8  # pixels
MOST_PAGES = 8  # in the mode base they take a quarter of the official decoder's positions


@dataclass(frozen=True)
class Pages:
    """The images of a document, the text on them, and how much had no room."""

    images: list[Image.Image]
    text: str
    dropped_characters: int = 0
    dropped_pages: int = 0  # of a document that came as pictures
    missing_glyphs: dict[str, int] = field(default_factory=dict)  # characters the font could not draw


@dataclass
class Truncation:
    """How much a page budget left out so far. Each document counts once."""

    documents: int = 0
    characters: int = 0
    pages: int = 0  # of documents that came as pictures


class PageMaker:
    """Makes pages for one mode. The same document always gives the same pages."""

    def __init__(self, mode: str | int | Mode, font: str, most: int = MOST_PAGES) -> None:
        """A document gets at most `most` pages. Raises ValueError for an unknown mode or if `most` is below 1."""
        if most < 1:
            raise ValueError(f"pages must be at least 1, got {most}")
        self.mode, self.most = find_mode(mode), most
        self.style = page_style(self.mode, font)
        self.missing_glyphs: Counter[str] = Counter()  # characters the font could not draw, over all pages so far
        self.truncated = Truncation()
        self._cut: set[str] = set()  # documents in `truncated`

    def __call__(self, document: Document) -> Pages:
        """Make a document's pages. Raises ValueError, which names the document, for a picture that can't be read."""
        pages = self.draw(document)
        self.count(document, pages)
        return pages

    def draw(self, document: Document) -> Pages:
        """Make a document's pages without counting what was left out."""
        return self.show(document) if document.images else self.render(document.text)

    def pictures(self, document: Document) -> list[Image.Image]:
        """Return the document as pictures that people can look at."""
        return self.draw(document).images

    def views(self, pages: Pages) -> "list[Page]":
        """Return the pages as the model takes them."""
        from lightseek.page.preprocessing import page_views  # needs PyTorch; drawing does not

        return [page_views(image, self.mode) for image in pages.images]

    def count(self, document: Document, pages: Pages) -> None:
        self.missing_glyphs.update(pages.missing_glyphs)
        if (pages.dropped_characters or pages.dropped_pages) and document.name not in self._cut:
            self._cut.add(document.name)
            self.truncated.documents += 1
            self.truncated.characters += pages.dropped_characters
            self.truncated.pages += pages.dropped_pages

    def show(self, document: Document) -> Pages:
        """Return the pictures of a document that came as pictures."""
        images: list[Image.Image] = []
        for picture in document.images[: self.most]:
            try:
                images += open_picture(BytesIO(picture) if isinstance(picture, bytes) else picture)
            except (ValueError, FileNotFoundError) as error:
                what = f"a picture of {len(picture)} bytes that can't be read" if isinstance(picture, bytes) else error
                raise ValueError(f"document {document.name}: {what}") from error
        dropped = max(0, len(images) - self.most) + len(document.images[self.most :])
        return Pages(images[: self.most], document.text, dropped_pages=dropped)

    def render(self, text: str) -> Pages:
        """Draw a text on pages."""
        rendering = render_text(text, self.fit(text), max_pages=self.most, cut=True)
        if rendering.dropped:
            source = text.replace("\r\n", "\n").replace("\r", "\n").strip()
            text = source[: -rendering.dropped].rstrip()
        images = [page.image for page in rendering.pages]
        return Pages(images, text, rendering.dropped, missing_glyphs=rendering.missing_glyphs)

    def visible(self, document: Document) -> str:
        """Return the text that is on a document's pages: all of it, unless the budget is too small."""
        if document.images or self.needed(document.text) <= self.most:
            return document.text
        return self.render(document.text).text

    def needed(self, text: str) -> int:
        """Return how many pages `text` needs in the smallest font. Counting stops one page above the budget."""
        return count_pages(text, replace(self.style, font_size=SMALLEST_FONT), self.most + 1)

    def fit(self, text: str) -> PageStyle:
        """Return the style with the largest font that needs no more pages than the smallest font does."""
        return fit_pages(text, self.style, SMALLEST_FONT, most=self.most)
