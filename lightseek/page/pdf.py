"""Turn the pages of a PDF file into images, with PDFium."""

import math
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from PIL import Image

from lightseek.page.typeset.style import MAX_PAGES, MAX_PIXELS, MAX_TOGETHER


class PdfPages:
    """The pages of a PDF file. A page is drawn when it is asked for, so one at a time is in memory.

    Use it in a `with` block, which closes the file. PDFium is not thread-safe.
    Raises FileNotFoundError, and ValueError for a broken file, a file without pages, or one whose password is missing
    or wrong.
    """

    def __init__(self, path: str | Path, password: str | None = None) -> None:
        import pypdfium2

        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        try:
            self.document = pypdfium2.PdfDocument(self.path, password=password)
        except pypdfium2.PdfiumError as error:
            if "password" in str(error).lower():
                told = "give its password (--password)" if password is None else "this is not its password"
                raise ValueError(f"{path} is encrypted: {told}") from error
            told = "it has no pages" if "Success" in str(error) else error  # PDFium has no error of its own for this
            raise ValueError(f"{path} is not a readable PDF: {told}") from error
        self.document.init_forms()  # without this, filled-in form fields stay empty

    def __enter__(self) -> "PdfPages":
        return self

    def __exit__(self, *_: object) -> None:
        self.document.close()

    def __len__(self) -> int:
        return len(self.document)

    def draw(
        self, index: int, dpi: int | float = 144, side: int | None = None, max_pixels: int = MAX_PIXELS
    ) -> Image.Image:
        """Return page `index`, counted from 0, as an RGB image at `dpi`, or with `side` pixels on its longer side.

        A page that would have more than `max_pixels` pixels, such as a plan, is drawn smaller. Raises ValueError for a
        page that does not exist or cannot be read.
        """
        import pypdfium2

        if not 0 <= index < len(self):
            raise ValueError(f"{self.path}: no page {index + 1}: the file has {len(self)} pages")
        try:
            width, height = self.document.get_page_size(index)  # in points: 72 points are an inch
            scale = side / max(width, height) if side else dpi / 72
            scale = min(scale, math.sqrt(max_pixels / (width * height)))
            page = self.document[index]
            try:
                return page.render(scale=scale).to_pil().convert("RGB")
            finally:
                page.close()
        except (pypdfium2.PdfiumError, ZeroDivisionError) as error:
            raise ValueError(f"{self.path}: page {index + 1} cannot be read: {error}") from error


def render_pdf(
    path: str | Path,
    dpi: int | float = 144,
    side: int | None = None,
    pages: Iterable[int] | None = None,
    max_pages: int = MAX_PAGES,
    max_pixels: int = MAX_PIXELS,
    password: str | None = None,
) -> list[Image.Image]:
    """Return RGB images of a PDF's pages, drawn at `dpi` or, if `side` is given, with `side` pixels on the longer side.

    `pages` are the numbers of the pages to draw, counted from 0; the default is all pages. A page that would have more
    than `max_pixels` pixels is drawn smaller. All images are in memory at once; `PdfPages` draws one page at a time.
    Raises FileNotFoundError, and ValueError for a broken or encrypted file, a page that does not exist, no pages, more
    than `max_pages` pages, or more than `MAX_TOGETHER` pixels in all.
    """
    if (side is not None and side < 1) or not 0 < dpi < math.inf:
        raise ValueError(f"dpi and side must be above 0, got {dpi} and {side}")
    with PdfPages(path, password) as file:
        chosen = list(islice(range(len(file)) if pages is None else pages, max_pages + 1))
        check_count(path, len(chosen), len(file), max_pages)
        return draw_together(path, (file.draw(index, dpi, side, max_pixels) for index in chosen))


def draw_together(path: object, pages: Iterable[Image.Image]) -> list[Image.Image]:
    """Return all pages of a document. Raises ValueError as soon as they have more than `MAX_TOGETHER` pixels."""
    found: list[Image.Image] = []
    pixels = 0
    for page in pages:
        pixels += page.width * page.height
        if pixels > MAX_TOGETHER:
            raise ValueError(
                f"{path}: its first {len(found) + 1} pages have more than {MAX_TOGETHER // 10**6} million pixels, too "
                "many to be in memory at once: take fewer pages, or smaller ones"
            )
        found.append(page)
    return found


def check_count(path: str | Path, chosen: int, count: int, max_pages: int) -> None:
    """Raise ValueError if more than `max_pages` pages of a file that has `count` pages are to be drawn."""
    if chosen > max_pages:
        raise ValueError(f"{path}: more than {max_pages} pages (it has {count}): choose some (--page-range)")
