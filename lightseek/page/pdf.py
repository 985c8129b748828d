"""Turn the pages of a PDF file into images, with PDFium."""

import math
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from lightseek.page.typeset.style import MAX_PAGES, MAX_PIXELS


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

    `pages` are the numbers of the pages to draw, counted from 0; the default is all pages. PDFium is not thread-safe.
    Raises FileNotFoundError, and ValueError for a broken or encrypted file, a page that does not exist, more than
    `max_pages` pages, or a page of more than `max_pixels` pixels. These limits are checked before anything is drawn.
    """
    import pypdfium2

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if (side is not None and side < 1) or not 0 < dpi < math.inf:
        raise ValueError(f"dpi and side must be above 0, got {dpi} and {side}")
    try:
        document = pypdfium2.PdfDocument(path, password=password)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise ValueError(f"{path} is encrypted: give its password, or save it without one") from error
        raise ValueError(f"{path} is not a readable PDF: {error}") from error
    try:
        document.init_forms()  # without this, filled-in form fields stay empty
        chosen = list(islice(range(len(document)) if pages is None else pages, max_pages + 1))
        if len(chosen) > max_pages:
            raise ValueError(f"{path}: more than {max_pages} pages (it has {len(document)}): choose some with pages=")
        scales = [_scale(path, document, index, dpi, side, max_pixels) for index in chosen]
        return [
            document[index].render(scale=scale).to_pil().convert("RGB")
            for index, scale in zip(chosen, scales, strict=True)
        ]
    except pypdfium2.PdfiumError as error:
        raise ValueError(f"{path}: a page cannot be read: {error}") from error
    finally:
        document.close()


def _scale(path: Path, document: Any, index: int, dpi: int | float, side: int | None, max_pixels: int) -> float:
    if not 0 <= index < len(document):
        raise ValueError(f"{path}: no page {index}: the file has {len(document)} pages, counted from 0")
    width, height = document.get_page_size(index)  # in points: 72 points are an inch
    scale = side / max(width, height) if side else dpi / 72
    columns, rows = math.ceil(width * scale), math.ceil(height * scale)
    if columns * rows > max_pixels:
        size = f"{columns} x {rows}, over {max_pixels} pixels"
        raise ValueError(f"{path}: page {index} would be {size}: lower dpi or side")
    return scale
