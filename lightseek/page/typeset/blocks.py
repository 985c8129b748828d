"""Turn blocks into lines. Here text gets what Markdown adds to it: indents, bullets, quote bars, rules and tables."""

from collections.abc import Iterable, Iterator
from itertools import chain

from lightseek.page.typeset.fonts import covered, measure
from lightseek.page.typeset.lines import Line, Setting, break_lines
from lightseek.page.typeset.style import PageStyle
from lightseek.page.typeset.tables import table_lines
from lightseek.page.typeset.words import Block


def block_lines(blocks: Iterable[Block], style: PageStyle) -> Iterator[Line]:
    """Yield the lines of all blocks one by one, so that a caller can stop early.

    Raises ValueError if a character or a list number is wider than the page.
    """
    for block in blocks:
        setting = Setting.of(style, block.scale)
        indent = setting.indent(block.indent)
        lines = _marker_lines(block.markers, setting, indent)
        if block.rows:
            body = table_lines(block.rows, setting, indent)
        elif block.rule:
            body = iter([Line(setting.em, 0, end=block.words[-1].end, rule=(indent, setting.width))])
        else:  # only running text begins on the line of its bullet
            body = break_lines(block.words, setting, lines.pop() if lines else setting.line(indent), indent)
        for i, line in enumerate(chain(lines, body)):
            line.before = line.before or (round(block.before * setting.paragraph) if i == 0 else 0)
            line.keep = line.keep or block.keep
            line.bars = tuple(setting.indent(ems) for ems in block.bars)
            yield line


def _marker_lines(markers: Iterable[tuple[float, str]], setting: Setting, indent: int) -> list[Line]:
    """Return lines of bullets and numbers, each just left of its item's text. They share a line if there is room."""
    face, gap, lines = setting.faces[""], round(0.4 * setting.em), []
    for ems, text in markers:
        if text == "•" and text not in covered(face.path):
            text = "-"
        extent, right = measure(face, text), setting.indent(ems)
        x = max(0, right - gap - extent.advance)
        if not lines or not lines[-1].fits(max(x, lines[-1].pen), extent, setting.width):
            lines.append(setting.line())
        line = lines[-1]
        x = max(x, line.pen)
        if not line.fits(x, extent, setting.width):
            raise ValueError(f"the list number {text!r} is wider than the page: use a smaller font or margin")
        line.add(x, text, face)
        line.pen = max(right, line.pen + gap)
    if lines:
        lines[-1].pen = max(indent, lines[-1].pen)
    return lines
