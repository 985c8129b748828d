"""Turn documents into page images: plain text, Markdown, PDF files and pictures.

`lightseek.page.typeset` holds the steps for text: parse, break into lines, paginate, draw. Characters are drawn from
left to right in source order, with one glyph each. So Arabic, Hebrew and Indic scripts do not get their proper shapes.
"""

import errno
import math
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from PIL import Image

from lightseek.page.modes import Mode, find_mode
from lightseek.page.pdf import PdfPages, check_count, draw_together, render_pdf
from lightseek.page.pictures import PictureFrames
from lightseek.page.typeset.blocks import block_lines
from lightseek.page.typeset.drawing import Layout, draw, paginate
from lightseek.page.typeset.fonts import font_files, lacks
from lightseek.page.typeset.markdown import parse_markdown, shorten_data_uris
from lightseek.page.typeset.style import MAX_PAGES, MAX_PIXELS, PageStyle
from lightseek.page.typeset.words import Block, parse_text

__all__ = [
    "DEFAULT_STYLE",
    "MAX_PAGES",
    "MAX_PIXELS",
    "PageStyle",
    "RenderedPage",
    "Rendering",
    "count_pages",
    "fit_pages",
    "fit_style",
    "open_file",
    "page_style",
    "render_file",
    "render_pdf",
    "render_text",
]

DEFAULT_STYLE = PageStyle()
TILED_PAGE = 2  # a page drawn for a tiled mode has this many tiles per side


@dataclass(frozen=True)
class RenderedPage:
    """An RGB image and the source text that it shows (Markdown stays Markdown). PDF pages and pictures have ""."""

    image: Image.Image
    text: str


@dataclass(frozen=True)
class Rendering:
    """All pages of a document, and the count of each character that the font has no glyph for.

    Such a character is drawn as a box or as nothing.
    """

    pages: list[RenderedPage]
    missing_glyphs: dict[str, int] = field(default_factory=dict)
    dropped: int = 0  # number of characters that no page shows; above 0 only with `cut`
    style: PageStyle | None = None  # the style of the text; None for PDF pages and pictures


def render_text(
    text: str, style: PageStyle = DEFAULT_STYLE, markdown: bool = False, max_pages: int = MAX_PAGES, cut: bool = False
) -> Rendering:
    """Draw `text` on as many pages as it needs. An empty text gives one blank page.

    Plain text keeps its line breaks, indentation and runs of spaces, and blank lines separate paragraphs. Long lines
    wrap at white space, and a word wider than the page breaks anywhere. Markdown is CommonMark with tables. The
    addresses of links and images are drawn after them, HTML is drawn as it is written, and the language of a code
    fence is not drawn. Of a data URI only the type is drawn, and only that is part of the source.

    The texts of all pages together are the source, without the white space at each page's ends (`\\r\\n` and `\\r`
    become `\\n`). Each page has the text that it shows, with one exception: the text of a table row taller than a page
    belongs to the page of the row's last line.

    Raises ValueError if a glyph or a line is too big for the page, or if the text needs more than `max_pages`. With
    `cut`, only the first `max_pages` are drawn, and `dropped` counts the characters that are left out.
    """
    source, blocks = _parse(text, markdown)
    layout = _layout(blocks, style, max_pages + 1) or [[]]
    too_many = len(layout) > max_pages
    if too_many and not cut:
        raise ValueError(f"the text needs more than {max_pages} pages: raise max_pages, or use a smaller font")
    pages, start = [], 0
    for page in layout[:max_pages]:
        end = len(source) if page is layout[-1] else max([start, *(line.end for _, line in page)])
        pages.append(RenderedPage(draw(page, style), source[start:end].strip()))
        start = end
    return Rendering(pages, _missing(blocks, style.font), dropped=len(source[start:].strip()), style=style)


def page_style(mode: str | int | Mode, font: str = "DejaVuSans") -> PageStyle:
    """Return the style of the pages that a text is drawn on for `mode`: square, with the pixels that the encoder sees.

    For a tiled mode the page is as large as 2 x 2 tiles. Raises ValueError for an unknown mode.
    """
    mode = find_mode(mode)
    side = mode.tile * TILED_PAGE if mode.tile else mode.side
    return PageStyle(width=side, height=side, margin=side // 32, font=font)


def count_pages(text: str, style: PageStyle = DEFAULT_STYLE, most: int = MAX_PAGES, markdown: bool = False) -> int:
    """Return the number of pages that `text` needs in this style. Counting stops at `most`."""
    _, blocks = _parse(text, markdown)
    return max(1, len(_layout(blocks, style, most)))


def fit_pages(
    text: str, style: PageStyle, smallest: int, largest: int = 96, most: int = MAX_PAGES, markdown: bool = False
) -> PageStyle:
    """Return `style` with the largest letters that need no more pages for `text` than the smallest letters do.

    `smallest` and `largest` are font sizes in pixels. If even the smallest letters need more than `most` pages, the
    text gets the smallest letters.
    """
    needed = count_pages(text, replace(style, font_size=smallest), most + 1, markdown)
    if needed > most:
        return replace(style, font_size=smallest)
    return fit_style(text, style, needed, smallest, largest, markdown)


def fit_style(
    text: str,
    style: PageStyle = DEFAULT_STYLE,
    pages: int = 1,
    smallest: int = 8,
    largest: int = 96,
    markdown: bool = False,
) -> PageStyle:
    """Return `style` with the largest font size, from `smallest` to `largest`, at which the text fits on `pages` pages.

    A binary search finds the size, so the next larger size does not fit. In rare cases a still larger size would fit,
    by luck of the line breaks. Raises ValueError if the text does not fit even at `smallest`. `render_text` has no such
    limit: it draws more pages.
    """
    if pages < 1 or not 1 <= smallest <= largest:
        raise ValueError(f"need pages >= 1 and 1 <= smallest <= largest, got {pages}, {smallest}, {largest}")
    _, blocks = _parse(text, markdown)

    def fits(size: int) -> bool:
        return len(_layout(blocks, replace(style, font_size=size), pages + 1)) <= pages

    if not fits(smallest):
        raise ValueError(
            f"the text ({len(text)} characters) does not fit on {pages} page(s) of {style.width} x {style.height}"
            f" at {smallest} pixels: allow more pages or a smaller font"
        )
    # The size at which average letters would fill the pages: most searches end within a few sizes of it.
    guess = round(math.sqrt(pages * style.columns * style.rows / (0.55 * style.line_spacing * len(text) + 1)))
    low, high, step = smallest, largest + 1, 2  # low fits, high does not
    probe = min(max(guess, low + 1), largest)
    while high - low > 1:
        try:
            fit = fits(probe)
        except ValueError:  # a glyph is too wide or a line too high at this size
            fit = False
        low, high = (probe, high) if fit else (low, probe)
        probe = low + step if fit else high - step  # first move away from the guess in growing steps...
        step *= 2
        if not low < probe < high:
            probe = (low + high) // 2  # ...then halve the range
    return replace(style, font_size=low)


def _parse(text: str, markdown: bool) -> tuple[str, list[Block]]:
    source = text.replace("\r\n", "\n").replace("\r", "\n")
    if markdown:
        source = shorten_data_uris(source)
        return source, parse_markdown(source)
    return source, parse_text(source)


def _layout(blocks: list[Block], style: PageStyle, most: int) -> list[Layout]:
    """Return the first pages, and no more than `most`."""
    return list(islice(paginate(block_lines(blocks, style), style.rows), most))


def _missing(blocks: list[Block], font: str) -> dict[str, int]:
    texts: dict[str, list[str]] = {}
    for block in blocks:
        for word in block.all_words():
            texts.setdefault(word.face, []).append(word.text)
    counts: Counter[str] = Counter()
    for face, words in texts.items():
        text = "".join(words)
        counts.update({c: text.count(c) for c in sorted(lacks(font_files(font)[face], text))})
    return dict(counts)


TEXTS, MARKDOWNS = {".txt", ".text"}, {".md", ".markdown"}
PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


def check_file(path: str | Path) -> str:
    """Return the suffix of the file in lower case.

    Raises ValueError for a suffix that `render_file` does not know, and FileNotFoundError if there is no such file.
    """
    path = Path(path)
    kind, known = path.suffix.lower(), TEXTS | MARKDOWNS | PICTURES | {".pdf"}
    if kind not in known:
        raise ValueError(
            f"{path}: cannot tell what a {kind or 'suffixless'} file is; known are {' '.join(sorted(known))}"
        )
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return kind


def is_text(path: str | Path) -> bool:
    """Return whether the suffix says that the file is plain text or Markdown."""
    return Path(path).suffix.lower() in TEXTS | MARKDOWNS


def open_file(path: str | Path, password: str | None = None) -> PdfPages | PictureFrames:
    """Open a PDF or a picture file, whose pages are drawn one at a time. `password` opens an encrypted PDF.

    Raises FileNotFoundError and ValueError as `render_file` does, also for a text file.
    """
    kind = check_file(path)
    return PdfPages(path, password) if kind == ".pdf" else PictureFrames(path)


def render_file(
    path: str | Path,
    style: PageStyle = DEFAULT_STYLE,
    max_pages: int = MAX_PAGES,
    letters: tuple[int, int] | None = None,
    password: str | None = None,
) -> Rendering:
    """Return the pages of a .txt, .md, .pdf or picture file. The suffix says which it is.

    `style` and `letters` only matter for text. `letters` are the smallest and the largest font size in pixels; with
    them, `fit_pages` chooses the font size instead of `style`. A picture keeps its size. It is turned upright (EXIF),
    its transparent parts become white, and it becomes RGB. All pages are in memory at once; `open_file` draws one at a
    time. `password` opens an encrypted PDF.
    Raises FileNotFoundError, and ValueError, which names the file, for an unknown suffix, text that is not UTF-8, or a
    broken or huge file.
    """
    path = Path(path)
    kind = check_file(path)
    if kind in TEXTS | MARKDOWNS:
        try:
            text, markdown = path.read_bytes().decode("utf-8-sig"), kind in MARKDOWNS
            if letters:
                style = fit_pages(text, style, *letters, most=max_pages, markdown=markdown)
            return render_text(text, style, markdown, max_pages)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text: byte {error.start} cannot be decoded; convert it") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    with open_file(path, password) as file:
        check_count(path, len(file), len(file), max_pages)
        pages = draw_together(path, (file.draw(index) for index in range(len(file))))
        return Rendering([RenderedPage(page, "") for page in pages])
