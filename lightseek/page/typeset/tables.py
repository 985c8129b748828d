"""Turn a table into lines: aligned columns or, if these would be too narrow to read, cells with bars between them."""

from collections.abc import Iterator
from itertools import zip_longest

from lightseek.page.typeset.lines import Line, Setting, break_lines
from lightseek.page.typeset.words import Cell, Word


def table_lines(rows: list[list[Cell]], setting: Setting, indent: int) -> Iterator[Line]:
    """Yield the lines of a table. All rows have the same number of cells, and the first row is the head.

    A row stays on one page if it fits there, and the head stays with the next row.
    """
    natural = [max(_cell_lines(row[i], setting, 1 << 30)[0].ink for row in rows) for i in range(len(rows[0]))]
    widths = _share(natural, setting.width - indent - setting.em * (len(natural) - 1))
    if any(width < min(3 * setting.em, wish) for width, wish in zip(widths, natural, strict=True)):
        for row in rows:
            yield from break_lines(_barred(row), setting, setting.line(indent), indent)
        return
    for number, row in enumerate(rows):
        lines = _row_lines(row, widths, setting, indent)
        lines[-1].end = max((word.end for cell in row for word in cell.words), default=0)
        if number == 0:
            lines[-1].rule = (indent, lines[-1].right)
        else:
            lines[0].before = setting.em // 4
            lines[-1].keep = False
        yield from lines


def _share(natural: list[int], room: int) -> list[int]:
    """Return the widths of the columns. Narrow columns get their natural width; the others share the rest equally."""
    widths = [0] * len(natural)
    for done, i in enumerate(sorted(range(len(natural)), key=lambda i: natural[i])):
        widths[i] = min(natural[i], room // (len(natural) - done))
        room -= widths[i]
    return widths


def _row_lines(row: list[Cell], widths: list[int], setting: Setting, indent: int) -> list[Line]:
    cells = [_cell_lines(cell, setting, width) for cell, width in zip(row, widths, strict=True)]
    lines = []
    for parts in zip_longest(*cells):
        line, x = setting.line(), indent
        line.keep = True
        for part, width, cell in zip(parts, widths, row, strict=True):
            if part is not None:
                slack = width - part.ink
                shift = x - part.left + {"right": slack, "center": slack // 2}.get(cell.align, 0)
                line.pieces += [(shift + at, text, face) for at, text, face in part.pieces]
                line.above, line.below = max(line.above, part.above), max(line.below, part.below)
            x += width + setting.em
        line.right = x - setting.em
        lines.append(line)
    return lines


def _cell_lines(cell: Cell, setting: Setting, width: int) -> list[Line]:
    return list(break_lines(_flush(cell.words, ""), setting._replace(width=width), setting.line()))


def _barred(row: list[Cell]) -> list[Word]:
    words: list[Word] = []
    for cell in row:
        if words:
            words.append(Word(" ", "|", "", words[-1].end, words[-1].end))
        words += _flush(cell.words, " " * bool(words))
    return words


def _flush(words: list[Word], gap: str) -> list[Word]:
    return [words[0]._replace(gap=gap), *words[1:]] if words else []
