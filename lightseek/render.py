"""Documents to page images: plain text, Markdown, PDF, pictures.

Text takes four steps, one section of this file each, and only the last one touches pixels:

    parse     source -> blocks of words; a word knows its face and its place in the source
    break     block  -> lines, by measured width
    paginate  lines  -> pages
    draw      page   -> image

So `fit_style` can try many font sizes without drawing, and each page knows exactly which source text it shows.
Glyphs are rasterised once per size and pasted from then on; that is what makes a page cost milliseconds.
Text runs left to right in source order, one glyph a character, no kerning: Arabic, Hebrew and Indic scripts are
drawn unshaped. Pixels depend on the font file and Pillow's FreeType alone.
"""

import html
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont, ImageOps, ImageSequence

MAX_PAGES = 1000
MAX_PIXELS = 50_000_000  # per page: A4 at 600 dpi is 35 million
TAB = 8  # a tab goes to the next multiple of this many spaces
GREY = 160
HEADING_SCALES = {"h1": 1.8, "h2": 1.5, "h3": 1.25, "h4": 1.1, "h5": 1.0, "h6": 1.0}


@dataclass(frozen=True)
class PageStyle:
    """How a page of text looks. Lengths in pixels; spacings in multiples of the font size.

    `font` is the name of a DejaVu face that comes with matplotlib, or the path of a .ttf/.otf file; its bold and
    oblique companions are looked up beside it (`X-Bold.ttf`, `X-Italic.ttf`...).
    Raises ValueError when nothing could be drawn on such a page.
    """

    width: int = 1024
    height: int = 1024
    font: str = "DejaVuSans"
    font_size: int = 20
    margin: int = 48
    line_spacing: float = 1.3
    paragraph_spacing: float = 0.6

    def __post_init__(self) -> None:
        for name in ("width", "height", "font_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"PageStyle.{name} is {getattr(self, name)}: use at least 1 pixel")
        for name in ("margin", "line_spacing", "paragraph_spacing"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"PageStyle.{name} is {getattr(self, name)}: use a finite number from 0 up")
        if self.width * self.height > MAX_PIXELS:
            raise ValueError(f"a page of {self.width} x {self.height} has more than {MAX_PIXELS} pixels")
        if min(self.columns, self.rows) < 1:
            raise ValueError(f"margins of {self.margin} leave nothing of a page of {self.width} x {self.height}")

    @property
    def columns(self) -> int:
        """Pixels between the left and the right margin."""
        return self.width - 2 * self.margin

    @property
    def rows(self) -> int:
        """Pixels between the upper and the lower margin."""
        return self.height - 2 * self.margin


DEFAULT_STYLE = PageStyle()


@dataclass(frozen=True)
class RenderedPage:
    """An RGB image, and the source text that stands on it (Markdown as Markdown); "" for PDF pages and pictures."""

    image: Image.Image
    text: str


@dataclass(frozen=True)
class Rendering:
    """All pages of a document, and how often each character without a glyph was met (drawn as a box or nothing)."""

    pages: list[RenderedPage]
    missing_glyphs: dict[str, int] = field(default_factory=dict)


def render_text(
    text: str, style: PageStyle = DEFAULT_STYLE, markdown: bool = False, max_pages: int = MAX_PAGES
) -> Rendering:
    """Set `text` on as many pages as it needs; an empty text makes one blank page.

    Plain text keeps its line breaks, indentation and runs of spaces; blank lines separate paragraphs; long lines
    wrap at white space, and a word wider than the page breaks anywhere. Markdown is CommonMark with tables; the
    addresses of links and images are spelled out, HTML is shown as it is written, a fence's language is not.
    The pages' texts together are the source, less the white space at their ends (`\\r\\n` and `\\r` become `\\n`).
    A table row taller than a page is the exception to "stands on it": its text goes with its last line.

    Raises ValueError when a glyph or a line is too big for the page, or when there are more than `max_pages`.
    """
    source, blocks = _parse(text, markdown)
    layout = list(islice(_paginate(_lines(blocks, style), style.rows), max_pages + 1)) or [[]]
    if len(layout) > max_pages:
        raise ValueError(f"the text needs more than {max_pages} pages: raise max_pages, or use a smaller font")
    ends = [0]
    for page in layout[:-1]:
        ends.append(max([ends[-1], *(line.end for _, line in page)]))
    ends.append(len(source))
    pages = [
        RenderedPage(_draw(page, style), source[start:end].strip())
        for page, start, end in zip(layout, ends, ends[1:], strict=False)
    ]
    return Rendering(pages, _missing(blocks, style.font))


def fit_style(
    text: str,
    style: PageStyle = DEFAULT_STYLE,
    pages: int = 1,
    smallest: int = 8,
    largest: int = 96,
    markdown: bool = False,
) -> PageStyle:
    """`style` with the largest font size, `smallest` to `largest`, at which the text fits on `pages` pages.

    "Largest" is a binary search's: the next size up does not fit. Now and then a still larger one would by luck of the
    line breaks. Raises ValueError when the text does not fit even at `smallest`; `render_text` then makes more pages.
    """
    if pages < 1 or not 1 <= smallest <= largest:
        raise ValueError(f"need pages >= 1 and 1 <= smallest <= largest, got {pages}, {smallest}, {largest}")
    _, blocks = _parse(text, markdown)

    def fits(size: int) -> bool:
        trial = replace(style, font_size=size)
        return len(list(islice(_paginate(_lines(blocks, trial), style.rows), pages + 1))) <= pages

    if not fits(smallest):
        raise ValueError(
            f"the text ({len(text)} characters) does not fit on {pages} page(s) of {style.width} x {style.height}"
            f" at {smallest} pixels: allow more pages or a smaller font"
        )
    # What a page of average letters would take: most searches end within a few sizes of it.
    guess = round(math.sqrt(pages * style.columns * style.rows / (0.55 * style.line_spacing * len(text) + 1)))
    low, high, step = smallest, largest + 1, 2  # low fits, high does not
    probe = min(max(guess, low + 1), largest)
    while high - low > 1:
        try:
            fit = fits(probe)
        except ValueError:  # one glyph too wide, or one line too high, at this size
            fit = False
        low, high = (probe, high) if fit else (low, probe)
        probe = low + step if fit else high - step  # gallop away from the guess...
        step *= 2
        if not low < probe < high:
            probe = (low + high) // 2  # ...then halve
    return replace(style, font_size=low)


# --- Files ------------------------------------------------------------------------------------------------------------

TEXTS, MARKDOWNS = {".txt", ".text"}, {".md", ".markdown"}
PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


def render_file(path: str | Path, style: PageStyle = DEFAULT_STYLE, max_pages: int = MAX_PAGES) -> Rendering:
    """Pages of a .txt, .md, .pdf or picture file, by suffix. `style` only matters to text.

    A picture keeps its size; it is turned upright (EXIF), put on white where transparent, and made RGB.
    Raises ValueError, naming the file, for an unknown suffix, text that is not UTF-8, or a broken or huge file.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind in TEXTS | MARKDOWNS:
        try:
            text = path.read_bytes().decode("utf-8-sig")
            return render_text(text, style, markdown=kind in MARKDOWNS, max_pages=max_pages)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text: byte {error.start} cannot be decoded; convert it") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    if kind == ".pdf":
        return Rendering([RenderedPage(image, "") for image in render_pdf(path, max_pages=max_pages)])
    if kind in PICTURES:
        return Rendering([RenderedPage(image, "") for image in _open_picture(path, max_pages)])
    known = " ".join(sorted(TEXTS | MARKDOWNS | PICTURES | {".pdf"}))
    raise ValueError(f"{path}: cannot tell what a {kind or 'nameless'} file is; known are {known}")


def render_pdf(
    path: str | Path,
    dpi: int | float = 144,
    side: int | None = None,
    pages: Iterable[int] | None = None,
    max_pages: int = MAX_PAGES,
    max_pixels: int = MAX_PIXELS,
    password: str | None = None,
) -> list[Image.Image]:
    """RGB images of a PDF's pages, at `dpi`, or with the longer side `side` pixels. `pages` counts from 0.

    Raises FileNotFoundError, and ValueError for a broken or encrypted file, a page that is not there, or more than
    `max_pages` pages or `max_pixels` pixels on one: checked before anything is drawn. Not thread-safe (PDFium).
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
        document.init_forms()  # else filled-in form fields stay empty
        chosen = list(islice(range(len(document)) if pages is None else pages, max_pages + 1))
        if len(chosen) > max_pages:
            raise ValueError(f"{path}: more than {max_pages} pages (it has {len(document)}): choose some with pages=")
        scales = [_pdf_scale(path, document, index, dpi, side, max_pixels) for index in chosen]
        return [
            document[index].render(scale=scale).to_pil().convert("RGB")
            for index, scale in zip(chosen, scales, strict=True)
        ]
    except pypdfium2.PdfiumError as error:
        raise ValueError(f"{path}: a page cannot be read: {error}") from error
    finally:
        document.close()


def _pdf_scale(path: Path, document: Any, index: int, dpi: int | float, side: int | None, max_pixels: int) -> float:
    if not 0 <= index < len(document):
        raise ValueError(f"{path}: no page {index}: it has {len(document)}, counted from 0")
    width, height = document.get_page_size(index)  # in points, 72 to the inch
    scale = side / max(width, height) if side else dpi / 72
    columns, rows = math.ceil(width * scale), math.ceil(height * scale)
    if columns * rows > max_pixels:
        size = f"{columns} x {rows}, over {max_pixels} pixels"
        raise ValueError(f"{path}: page {index} would be {size}: lower dpi or side")
    return scale


def _open_picture(path: Path, max_pages: int) -> list[Image.Image]:
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ValueError(f"{picture.width} x {picture.height} is over {MAX_PIXELS} pixels")
            # A TIFF's frames are a scan's pages; a JPEG's second frame is its preview.
            several = picture.format == "TIFF"
            frames = list(islice(_frames(picture) if several else iter([_upright(picture)]), max_pages + 1))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} is not a picture that can be read: {error}") from error
    if len(frames) > max_pages:
        raise ValueError(f"{path}: more than {max_pages} pages")
    return frames


def _frames(picture: Image.Image) -> Iterator[Image.Image]:
    for frame in ImageSequence.Iterator(picture):
        if frame.width * frame.height > MAX_PIXELS:
            raise ValueError(f"{frame.width} x {frame.height} is over {MAX_PIXELS} pixels")
        yield _upright(frame)


def _upright(picture: Image.Image) -> Image.Image:
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):  # 16 bits of grey: Pillow would clip, not scale
        picture = picture.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return picture.convert("RGB")


# --- Faces and glyphs -------------------------------------------------------------------------------------------------


class Face(NamedTuple):
    path: str
    size: int


class Glyph(NamedTuple):
    """One rasterised character. Offsets are pixels from the pen position on the baseline to the ink."""

    advance: int
    left: int
    top: int
    right: int
    bottom: int
    ink: Image.Image | None  # greyscale; None when it draws nothing


class Extent(NamedTuple):
    """A word: how far the pen moves, and its ink left and right of the start, above and below the baseline."""

    advance: int
    left: int
    right: int
    above: int
    below: int


@lru_cache
def _faces(font: str) -> dict[str, str]:
    """Font files by face: "" regular, b bold, i italic, bi both, m and mb monospaced."""
    from importlib.util import find_spec

    bundled = Path(find_spec("matplotlib").origin).parent / "mpl-data/fonts/ttf"  # without importing it
    path = Path(font) if Path(font).suffix.lower() in {".ttf", ".otf", ".ttc"} else bundled / f"{font}.ttf"
    if not path.is_file():
        names = ", ".join(sorted(face.stem for face in bundled.glob("DejaVu*.ttf")))
        raise ValueError(f"no font {font!r}: give the path of a .ttf or .otf file, or one of {names}")

    def companion(*suffixes: str) -> str:
        siblings = (path.with_stem(path.stem.removesuffix("-Regular") + f"-{suffix}") for suffix in suffixes)
        return str(next((sibling for sibling in siblings if sibling.is_file()), path))

    return {
        "": str(path),
        "b": companion("Bold"),
        "i": companion("Oblique", "Italic"),
        "bi": companion("BoldOblique", "BoldItalic", "Bold"),
        "m": str(bundled / "DejaVuSansMono.ttf"),
        "mb": str(bundled / "DejaVuSansMono-Bold.ttf"),
    }


@lru_cache(maxsize=256)
def _font(face: Face) -> ImageFont.FreeTypeFont:
    try:
        return ImageFont.truetype(face.path, face.size, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise ValueError(f"{face.path} is not a font that can be read: {error}") from error


@lru_cache
def _covered(path: str) -> frozenset[str]:
    """The characters that the font has a glyph for."""
    from fontTools.ttLib import TTFont

    with TTFont(path, fontNumber=0, lazy=True) as font:
        return frozenset(map(chr, font.getBestCmap() or ()))


@lru_cache(maxsize=1 << 14)
def _glyph(face: Face, character: str) -> Glyph:
    font = _font(face)
    if character not in _covered(face.path):
        category = unicodedata.category(character)
        if category == "Zs":
            character = " "
        elif category in {"Cc", "Cf", "Cs", "Zl", "Zp"}:  # controls have no shape; a box would be noise
            return Glyph(0, 0, 0, 0, 0, None)
    left, top, right, bottom = font.getbbox(character, anchor="ls")
    left, top, right, bottom = math.floor(left) - 1, math.floor(top) - 1, math.ceil(right) + 1, math.ceil(bottom) + 1
    ink = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(ink).text((-left, -top), character, font=font, fill=255, anchor="ls")
    box, advance = ink.getbbox(), math.ceil(font.getlength(character))
    if box is None:
        return Glyph(advance, 0, 0, 0, 0, None)
    return Glyph(advance, left + box[0], top + box[1], left + box[2], top + box[3], ink.crop(box))


@lru_cache(maxsize=1 << 16)
def _extent(face: Face, text: str) -> Extent:
    pen = left = right = top = bottom = 0
    for character in text:
        glyph = _glyph(face, character)
        left, right = min(left, pen + glyph.left), max(right, pen + glyph.right)
        top, bottom = min(top, glyph.top), max(bottom, glyph.bottom)
        pen += glyph.advance
    return Extent(pen, left, right, -top, bottom)


def _missing(blocks: "list[Block]", font: str) -> dict[str, int]:
    texts: dict[str, list[str]] = {}
    for block in blocks:
        for word in block.all_words():
            texts.setdefault(word.face, []).append(word.text)
    counts: Counter[str] = Counter()
    for face, words in texts.items():
        text = "".join(words)
        lacking = sorted(set(text) - _covered(_faces(font)[face]))
        counts.update({c: text.count(c) for c in lacking if unicodedata.category(c) != "Zs"})
    return dict(counts)


# --- Parse ------------------------------------------------------------------------------------------------------------

SPACE = "\t-\r\x1c-\x20\x85\u1680\u2000-\u2006\u2008-\u200a\u2028\u2029\u205f\u3000"  # all but no-break spaces
WIDE = "\u2e80-\u2fff\u3001-\ua4cf\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff"  # lines break anywhere
WORD = re.compile(f"([{SPACE}]*)([{WIDE}]|[^{SPACE}{WIDE}]+)")
GAPS = {ord(c): "\n" for c in "\v\f\x1c\x1d\x1e\x85\u2028\u2029"}
ODD_SPACE = re.compile(r"[^ \t\n]")
CHUNK = re.compile(r"\s*(\S*)")
CLOSING = re.compile(r"(?:(?<=&)#?\w+;)?[*_`~\]]*")  # markup that ends right after a word belongs to it


class Word(NamedTuple):
    gap: str  # white space before it; a newline starts a new line, two a new paragraph
    text: str
    face: str  # a key of `_faces`
    start: int  # its place in the source
    end: int
    joined: bool = False  # no line break before it: **bo**ld is one word in two faces


@dataclass
class Block:
    """A paragraph, or a table when it has `rows`. Indents are in ems of the body size."""

    end: int  # source offset
    words: list[Word] = field(default_factory=list)
    scale: float = 1.0
    before: float = 1.0  # space above, in paragraph spacings
    indent: float = 0.0
    bars: tuple[float, ...] = ()  # of block quotes
    markers: tuple[tuple[float, str], ...] = ()  # bullets and numbers: (indent of the text, what to draw)
    keep: bool = False  # on one page with what follows
    rule: bool = False
    rows: list[list[tuple[list[Word], str]]] = field(default_factory=list)  # cells: words, alignment

    def all_words(self) -> Iterator[Word]:
        yield from self.words
        for row in self.rows:
            for words, _ in row:
                yield from words


class _Source:
    """Finds drawn words in the source, front to back, stepping over the markup between them."""

    def __init__(self, text: str, closing: re.Pattern[str]) -> None:
        self.text, self.closing, self.at, self.stop = text, closing, 0, len(text)

    def place(self, word: str) -> tuple[int, int]:
        found = self.text.find(word, self.at, self.stop)
        if found < 0:
            chunk = CHUNK.match(self.text, self.at, self.stop)
            if word not in html.unescape(chunk[1]):  # drawn, but not written so: a reference link's address
                return self.at, self.at
            found, self.at = chunk.span(1)
        else:
            self.at = self.closing.match(self.text, found + len(word)).end()
        return found, self.at


def _words(segments: Iterable[tuple[str, str]], source: _Source) -> list[Word]:
    words: list[Word] = []
    gap = ""
    for text, face in segments:
        end = 0
        for match in WORD.finditer(text):
            gap += match[1]
            if ODD_SPACE.search(gap):
                gap = ODD_SPACE.sub(" ", gap.translate(GAPS))
            joined = bool(words) and not gap and end == 0 and not re.match(f"[{WIDE}]", match[2])
            words.append(Word(gap, match[2], face, *source.place(match[2]), joined))
            gap, end = "", match.end()
        gap += text[end:]
    return words


def _parse(text: str, markdown: bool) -> tuple[str, list[Block]]:
    source = text.replace("\r\n", "\n").replace("\r", "\n")
    if markdown:
        return source, _Markdown(source).blocks
    words = _words([(source, "")], _Source(source, re.compile("")))
    return source, [Block(len(source), words)] if words else []


class _Markdown:
    """CommonMark and tables -> blocks. One method a kind of token of markdown-it's flat list."""

    def __init__(self, text: str) -> None:
        from markdown_it import MarkdownIt

        # The default nesting limit drops deeper text without a word.
        parser = MarkdownIt("commonmark", {"maxNesting": 1 << 30}).enable("table")
        try:
            tokens = parser.parse(text)
        except RecursionError as error:
            raise ValueError("Markdown nested too deeply: render it as plain text") from error
        self.source = _Source(text, CLOSING)
        self.line_starts = [0, *(match.end() for match in re.finditer("\n", text)), len(text)]
        self.blocks: list[Block] = []
        self.indents: list[tuple[float, bool]] = []  # open lists and quotes: ems, is a quote
        self.markers: list[tuple[float, str]] = []  # drawn with the next block
        self.row: list[tuple[list[Word], str]] = []
        self.block = Block(0)
        self.opens_list = False
        skip_to = ""
        for token in tokens:
            if token.map:
                self.source.stop = self.line_starts[token.map[1]]
            if token.type == skip_to or not skip_to:
                skip_to = getattr(self, token.type, lambda token: None)(token) or ""

    def emit(self, **fields: Any) -> None:
        bars = tuple(
            sum((ems for ems, _ in self.indents[:i]), 0.0) for i, (_, quote) in enumerate(self.indents) if quote
        )
        indent = sum((ems for ems, _ in self.indents), 0.0)
        self.source.at = max(self.source.at, self.source.stop)
        _extend(fields.get("words"), self.source.at)
        fields = {"end": self.source.at, "indent": indent, "bars": bars, "markers": tuple(self.markers), **fields}
        self.blocks.append(Block(**fields))
        self.markers, self.opens_list = [], False

    def heading_open(self, token: Any) -> None:
        self.block = Block(0, scale=HEADING_SCALES[token.tag], before=1.6, keep=True)

    def paragraph_open(self, token: Any) -> None:
        self.block = Block(0, before=0.25 if token.hidden and not self.opens_list else 1.0)  # hidden: in a tight list

    def th_open(self, token: Any) -> None:
        self.row.append(([], str(token.attrGet("style") or "").removeprefix("text-align:")))

    td_open = th_open

    def inline(self, token: Any) -> None:
        block = self.block
        bold = block.keep or len(block.rows) == 1  # a heading, or a table's first row
        words = _words(_segments(token.children, bold), self.source)
        if block.rows:
            self.row[-1][0].extend(words)
        else:
            self.emit(words=words, scale=block.scale, before=block.before, keep=block.keep)

    def fence(self, token: Any) -> None:
        words = _words([(token.content, "m")], self.source)
        self.emit(words=words)

    code_block = html_block = fence

    def hr(self, token: Any) -> None:
        self.emit(rule=True)

    def bullet_list_open(self, token: Any) -> None:
        self.opens_list = self.opens_list or all(quote for _, quote in self.indents)
        self.indents.append((2.0 if token.type == "ordered_list_open" else 1.4, False))

    ordered_list_open = bullet_list_open

    def list_item_open(self, token: Any) -> None:
        text = f"{token.info}{token.markup}" if token.info else "•"
        self.markers.append((sum((ems for ems, _ in self.indents), 0.0), text))

    def list_item_close(self, token: Any) -> None:
        if self.markers:  # an empty item
            self.emit(before=0.25)

    def blockquote_open(self, token: Any) -> None:
        self.indents.append((1.2, True))

    def blockquote_close(self, token: Any) -> None:
        self.indents.pop()

    bullet_list_close = ordered_list_close = blockquote_close

    def table_open(self, token: Any) -> str:
        lines = self.source.text[self.line_starts[token.map[0]] : self.source.stop].splitlines()
        sizes = [len(re.split(r"(?<!\\)\|", line.strip().strip("|"))) for line in lines]
        if max(sizes) > sizes[0]:  # a row with more cells than the head: the parser would drop them
            token.content = "\n".join(lines)
            self.fence(token)
            return "table_close"
        self.block = Block(0)
        return ""

    def tr_open(self, token: Any) -> None:
        self.row = []
        self.block.rows.append(self.row)

    def tr_close(self, token: Any) -> None:
        self.source.at = max(self.source.at, self.source.stop)
        _extend(next((words for words, _ in reversed(self.row) if words), None), self.source.at)

    def table_close(self, token: Any) -> None:
        if self.block.rows:
            self.emit(rows=self.block.rows)
        self.block = Block(0)


def _extend(words: list[Word] | None, end: int) -> None:
    """What is not drawn at the end of a block, such as a closing fence, stays on the page of its last word."""
    if words:
        words[-1] = words[-1]._replace(end=end)


def _segments(children: Sequence[Any], bold: bool) -> Iterator[tuple[str, str]]:
    """Inline tokens -> (text, face). Link and image addresses are spelled out: paper has no links."""
    strong, em, links = int(bold), 0, []
    for child in children:
        face = "b" * bool(strong) + "i" * bool(em)
        match child.type:
            case "strong_open" | "strong_close":
                strong += child.nesting
            case "em_open" | "em_close":
                em += child.nesting
            case "code_inline" | "html_inline":
                yield child.content, "m" + "b" * bool(strong)
            case "softbreak" | "hardbreak":
                yield (" " if child.type == "softbreak" else "\n"), face
            case "link_open":
                links.append("" if child.info == "auto" else _address(child, "href"))
            case "link_close":
                yield links.pop(), face
            case "image":
                yield child.content + _address(child, "src"), "bi" if strong else "i"
            case _:
                yield child.content, face


def _address(token: Any, key: str) -> str:
    title = f' "{token.attrGet("title")}"' if token.attrGet("title") else ""
    return f" ({token.attrGet(key)}{title})"


# --- Break ------------------------------------------------------------------------------------------------------------


class Setting(NamedTuple):
    """What breaking one block needs: its faces at its size, the room, and the line's share above and below."""

    faces: dict[str, Face]
    width: int
    above: int
    below: int
    space: int  # advance of a space
    paragraph: int


@dataclass(slots=True)
class Line:
    """Words with their x, pixels from the left margin; `above` + `below` the baseline is the line's height."""

    above: int
    below: int
    pen: int = 0
    left: int = 0  # of the ink; below 0 the whole line moves right by as much
    right: int = 0
    end: int = 0  # source offset
    pieces: list[tuple[int, str, Face]] = field(default_factory=list)
    words: int = 0
    before: int = 0
    keep: bool = False
    rule: tuple[int, int] | None = None
    bars: tuple[int, ...] = ()

    @property
    def height(self) -> int:
        return self.above + self.below

    @property
    def ink(self) -> int:
        return self.right - self.left

    def fits(self, x: int, extent: Extent, width: int) -> bool:
        return max(self.right, x + extent.right) - min(self.left, x + extent.left) <= width

    def add(self, x: int, text: str, face: Face) -> None:
        extent = _extent(face, text)
        self.pieces.append((x, text, face))
        self.pen = x + extent.advance
        self.left, self.right = min(self.left, x + extent.left), max(self.right, x + extent.right)
        self.above, self.below = max(self.above, extent.above), max(self.below, extent.below)

    def after(self, gap: str, space: int) -> int:
        """Where a word starts after white space."""
        if "\t" not in gap:
            return self.pen + len(gap) * space
        x, stop = self.pen, max(1, TAB * space)
        for character in gap:
            x = (x // stop + 1) * stop if character == "\t" else x + space
        return x


def _setting(style: PageStyle, scale: float) -> Setting:
    size = max(1, round(style.font_size * scale))
    faces = {face: Face(path, size) for face, path in _faces(style.font).items()}
    ascent, descent = _font(faces[""]).getmetrics()
    pitch = round(size * style.line_spacing)
    above = (pitch + ascent - descent) // 2
    space, paragraph = _glyph(faces[""], " ").advance, round(style.paragraph_spacing * style.font_size)
    return Setting(faces, style.columns, above, pitch - above, space, paragraph)


def _break(words: list[Word], setting: Setting, line: Line, indent: int = 0) -> Iterator[Line]:
    """Fill `line` and as many more as it takes, the later ones from `indent` on."""
    faces, width = setting.faces, setting.width
    space = _glyph(faces[words[0].face], " ").advance if words else setting.space
    for group in _groups(words):
        gap = group[0].gap
        extent = _group_extent(group, faces)
        newlines = gap.count("\n")
        if newlines:
            gap = gap[gap.rfind("\n") + 1 :]
        if line.words and (newlines or not line.fits(line.after(gap, space), extent, width)):
            yield line
            line = Line(setting.above, setting.below, pen=indent, before=setting.paragraph * (newlines > 1))
            gap = gap if newlines else ""
        x = line.after(gap, space)
        if not line.fits(x, extent, width):
            x = line.pen  # indentation gives way before a word breaks
            if not line.fits(x, extent, width):
                group = [letter for word in group for letter in _letters(word)]
        for word in group:
            face = faces[word.face]
            extent = _extent(face, word.text)
            if not line.fits(x, extent, width):
                if line.pieces:  # a bullet at least
                    yield line
                line = Line(setting.above, setting.below, pen=indent)
                x = indent
                if not line.fits(x, extent, width):
                    raise ValueError(
                        f"the character {word.text!r} is {extent.right - extent.left} pixels wide in {face.size}-pixel"
                        f" type, and {width - indent} are left beside the margins: use a smaller font or margin"
                    )
            line.add(x, word.text, face)
            line.end, x = word.end, line.pen
            line.words += 1
    yield line


def _groups(words: list[Word]) -> Iterator[list[Word]]:
    """Words that no line break may part, together."""
    group: list[Word] = []
    for word in words:
        if group and not word.joined:
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def _group_extent(group: list[Word], faces: dict[str, Face]) -> Extent:
    total = _extent(faces[group[0].face], group[0].text)
    for word in group[1:]:
        extent, pen = _extent(faces[word.face], word.text), total.advance
        left, right = min(total.left, pen + extent.left), max(total.right, pen + extent.right)
        total = Extent(pen + extent.advance, left, right, 0, 0)
    return total


def _letters(word: Word) -> list[Word]:
    """A word as one word a character, each with its place in the source."""
    last = len(word.text) - 1
    return [
        word._replace(text=c, end=word.end if i == last else min(word.start + i + 1, word.end))
        for i, c in enumerate(word.text)
    ]


def _lines(blocks: list[Block], style: PageStyle) -> Iterator[Line]:
    for block in blocks:
        setting = _setting(style, block.scale)
        em, limit = style.font_size, style.columns // 2  # deep nesting must leave room for words
        indent = min(round(block.indent * em), limit)
        lines = [Line(setting.above, setting.below, pen=indent)]
        for ems, text in block.markers:
            _add_marker(lines, text, min(round(ems * em), limit), em, setting)
        if not (block.rule or block.rows):
            body = _break(block.words, setting, lines.pop(), indent)
        else:
            lines = lines if block.markers else []  # a bullet cannot share a line with a rule or a table
            rule = Line(em, 0, end=block.end, rule=(indent, style.columns))
            body = _break_table(block.rows, setting, indent, em) if block.rows else iter([rule])
        for i, line in enumerate(chain(lines, body)):
            line.before = line.before or (round(block.before * setting.paragraph) if i == 0 else 0)
            line.keep = line.keep or block.keep
            line.bars = tuple(min(round(ems * em), limit) for ems in block.bars)
            line.end = line.end or (0 if block.words or block.rows else block.end)
            yield line


def _add_marker(lines: list[Line], text: str, indent: int, em: int, setting: Setting) -> None:
    """Put a bullet or number right before `indent`; several of them, "- 1. word", share a line while there is room."""
    face, line = setting.faces[""], lines[-1]
    if text == "•" and text not in _covered(face.path):
        text = "-"
    gap, extent = round(0.4 * em), _extent(face, text)
    x = max(0, indent - gap - extent.advance)
    x = max(x, line.pen) if line.pieces else x
    if line.pieces and not line.fits(x, extent, setting.width):
        line = Line(setting.above, setting.below)
        lines.append(line)
        x = max(0, indent - gap - extent.advance)
    if not line.fits(x, extent, setting.width):
        raise ValueError(f"the list number {text!r} is wider than the page: use a smaller font or margin")
    line.add(x, text, face)
    line.pen = max(indent, line.pen + gap)


def _break_table(rows: list[list[tuple[list[Word], str]]], setting: Setting, indent: int, em: int) -> Iterator[Line]:
    """Aligned columns; when they would be too narrow to read, each row as a line with bars between its cells."""

    def cell_lines(words: list[Word], width: int) -> list[Line]:
        words = [words[0]._replace(gap=""), *words[1:]] if words else []
        return list(_break(words, setting._replace(width=width), Line(setting.above, setting.below)))

    count = len(rows[0])
    natural = [max(cell_lines(row[i][0], 1 << 30)[0].ink for row in rows) for i in range(count)]
    left = setting.width - indent - em * (count - 1)
    widths = [0] * count
    for done, i in enumerate(sorted(range(count), key=lambda i: natural[i])):  # narrow columns first, the rest share
        widths[i] = min(natural[i], left // (count - done))
        left -= widths[i]
    if any(width < min(3 * em, wish) for width, wish in zip(widths, natural, strict=True)):
        for row in rows:
            yield from _break(_barred(row), setting, Line(setting.above, setting.below, pen=indent), indent)
        return
    for number, row in enumerate(rows):
        cells = [cell_lines(words, width) for (words, _), width in zip(row, widths, strict=True)]
        merged = []
        for parts in zip_longest(*cells):
            line, x = Line(setting.above, setting.below, keep=True), indent
            for part, width, (_, align) in zip(parts, widths, row, strict=True):
                if part is not None:
                    slack = width - part.ink
                    shift = x - part.left + {"right": slack, "center": slack // 2}.get(align, 0)
                    line.pieces += [(shift + at, text, face) for at, text, face in part.pieces]
                    line.above, line.below = max(line.above, part.above), max(line.below, part.below)
                x += width + em
            line.right = x - em
            merged.append(line)
        merged[0].before = em // 4 if number else 0
        merged[-1].keep = number == 0  # a row stays whole, and the head with the first row
        merged[-1].end = max((word.end for words, _ in row for word in words), default=0)
        merged[-1].rule = (indent, merged[-1].right) if number == 0 else None
        yield from merged


def _barred(row: list[tuple[list[Word], str]]) -> list[Word]:
    words: list[Word] = []
    for cell, _ in row:
        if words:
            words.append(Word(" ", "|", "", words[-1].end, words[-1].end))
        words += [cell[0]._replace(gap=" " * bool(words)), *cell[1:]] if cell else []
    return words


# --- Paginate and draw ------------------------------------------------------------------------------------------------


def _paginate(lines: Iterable[Line], height: int) -> Iterator[list[tuple[int, Line]]]:
    """Pages of (y, line), lazily, so that a caller may stop early. Lines marked `keep` go with the next one."""
    page: list[tuple[int, Line]] = []
    for line in lines:
        if line.height > height:
            raise ValueError(
                f"a line is {line.height} pixels high and {height} are left between the margins:"
                " use a smaller font, margin or line spacing"
            )
        while page and _bottom(page) + line.before + line.height > height:
            cut = len(page)
            while cut and page[cut - 1][1].keep:
                cut -= 1
            cut = cut or len(page)
            yield page[:cut]
            page, moved = [], page[cut:]
            for _, kept in moved:
                page.append((_bottom(page) + kept.before if page else 0, kept))
        page.append((_bottom(page) + line.before if page else 0, line))
    if page:
        yield page


def _bottom(page: list[tuple[int, Line]]) -> int:
    y, line = page[-1] if page else (0, Line(0, 0))
    return y + line.height


def _draw(page: list[tuple[int, Line]], style: PageStyle) -> Image.Image:
    image = Image.new("L", (style.width, style.height), 255)
    above: Line | None = None
    for y, line in page:
        top, bottom = style.margin + y, style.margin + y + line.height
        shift, baseline = style.margin - min(line.left, 0), top + line.above
        for x, text, face in line.pieces:
            pen = shift + x
            for character in text:
                glyph = _glyph(face, character)
                if glyph.ink is not None:
                    image.paste(0, (pen + glyph.left, baseline + glyph.top), glyph.ink)
                pen += glyph.advance
        thick = max(1, style.font_size // 12)
        for bar in line.bars:
            joined = above is not None and bar in above.bars
            start = style.margin + bar
            image.paste(GREY, (start, top - line.before * joined, start + 2 * thick, bottom))
        if line.rule:
            image.paste(GREY, (style.margin + line.rule[0], bottom - thick, style.margin + line.rule[1], bottom))
        above = line
    return Image.merge("RGB", (image, image, image))
