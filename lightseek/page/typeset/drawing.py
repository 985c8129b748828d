"""Put lines on pages, and draw the pages. Nothing is cut off: a line that does not fit goes on the next page."""

from collections.abc import Iterable, Iterator

from PIL import Image

from lightseek.page.typeset.fonts import Glyph, rasterise
from lightseek.page.typeset.lines import Line
from lightseek.page.typeset.style import PageStyle

GREY = 160  # colour of rules and bars, from 0, black, to 255, white

Layout = list[tuple[int, Line]]  # the lines of a page, each with its y in pixels from the upper margin


def paginate(lines: Iterable[Line], height: int) -> Iterator[Layout]:
    """Yield page after page, so that a caller can stop early. `height` is in pixels between the margins.

    Raises ValueError if a line is higher than that.
    """
    page: Layout = []
    bottom = 0
    for group in _unbreakable(lines):
        total = sum(line.before + line.height for line in group)
        for line in group:
            if line.height > height:
                raise ValueError(
                    f"a line is {line.height} pixels high and {height} are left between the margins:"
                    " use a smaller font, margin or line spacing"
                )
            # A group moves to the next page as a whole. If no page can hold it, its lines fill page after page.
            needed = total if line is group[0] else line.before + line.height
            if page and bottom + needed > height:
                yield page
                page, bottom = [], 0
            y = bottom + line.before if page else 0
            page.append((y, line))
            bottom = y + line.height
    if page:
        yield page


def _unbreakable(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Yield groups of lines that belong on one page. A line with `keep` is in one group with the next line."""
    group: list[Line] = []
    for line in lines:
        group.append(line)
        if not line.keep:
            yield group
            group = []
    if group:
        yield group


def glyphs(page: Layout, style: PageStyle) -> Iterator[tuple[str, Glyph, int, int]]:
    """Yield each character of a page in reading order: (character, glyph, pen's x, baseline's y) in pixels."""
    for y, line in page:
        shift, baseline = style.margin - min(line.left, 0), style.margin + y + line.above
        for x, text, face in line.pieces:
            pen = shift + x
            for character in text:
                glyph = rasterise(face, character)
                yield character, glyph, pen, baseline
                pen += glyph.extent.advance


def draw(page: Layout, style: PageStyle) -> Image.Image:
    """Return an RGB image of `style.width` x `style.height` pixels, black on white."""
    image = Image.new("L", (style.width, style.height), 255)
    above: Line | None = None
    for y, line in page:
        top, bottom = style.margin + y, style.margin + y + line.height
        for _, glyph, pen, baseline in glyphs([(y, line)], style):
            if glyph.ink is not None:
                image.paste(0, (pen + glyph.extent.left, baseline - glyph.extent.above), glyph.ink)
        thick = max(1, style.font_size // 12)
        for bar in line.bars:
            joined = above is not None and bar in above.bars
            start = style.margin + bar
            image.paste(GREY, (start, top - line.before * joined, start + 2 * thick, bottom))
        if line.rule:
            image.paste(GREY, (style.margin + line.rule[0], bottom - thick, style.margin + line.rule[1], bottom))
        above = line
    return Image.merge("RGB", (image, image, image))
