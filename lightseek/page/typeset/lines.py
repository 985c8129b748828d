"""Turn words into lines. A word goes on the current line if its measured width fits there, otherwise on a new line."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise
from typing import NamedTuple

from lightseek.page.typeset.fonts import Extent, Face, font_files, measure, open_font
from lightseek.page.typeset.style import PageStyle
from lightseek.page.typeset.words import Word

TAB = 8  # a tab goes to the next multiple of this many spaces


@dataclass(slots=True)
class Line:
    """The words of one line, each with its x in pixels from the left margin.

    The line reaches `above` pixels above the baseline and `below` pixels below it.
    """

    above: int
    below: int
    pen: int = 0
    left: int = 0  # left edge of the ink; if it is below 0, the whole line moves right by as much
    right: int = 0
    pieces: list[tuple[int, str, Face]] = field(default_factory=list)
    words: int = 0  # a bullet is a piece but not a word
    end: int = 0  # offset in the source after the last word
    before: int = 0  # space above, in pixels
    keep: bool = False  # keep this line on one page with the next line
    rule: tuple[int, int] | None = None  # the x where a horizontal rule begins and ends
    bars: tuple[int, ...] = ()  # the x of each quote bar

    @property
    def height(self) -> int:
        return self.above + self.below

    @property
    def ink(self) -> int:
        return self.right - self.left

    def fits(self, x: int, extent: Extent, width: int) -> bool:
        return max(self.right, x + extent.right) - min(self.left, x + extent.left) <= width

    def add(self, x: int, text: str, face: Face) -> None:
        extent = measure(face, text)
        self.pieces.append((x, text, face))
        self.pen = x + extent.advance
        self.left, self.right = min(self.left, x + extent.left), max(self.right, x + extent.right)
        self.above, self.below = max(self.above, extent.above), max(self.below, extent.below)

    def after(self, gap: str, space: int) -> int:
        """Return the x at which a word starts after the white space `gap`. `space` is the width of a space."""
        x, stop = self.pen, max(1, TAB * space)
        for character in gap:
            x = (x // stop + 1) * stop if character == "\t" else x + space
        return x


class Setting(NamedTuple):
    """What it takes to break one block into lines. Lengths are in pixels."""

    faces: dict[str, Face]  # at the block's font size
    width: int  # between the margins
    em: int  # font size of running text, whatever the block's own size
    above: int  # height of a line above its baseline
    below: int
    paragraph: int  # space between paragraphs

    @classmethod
    def of(cls, style: PageStyle, scale: float) -> "Setting":
        size = max(1, round(style.font_size * scale))
        faces = {name: Face(path, size) for name, path in font_files(style.font).items()}
        ascent, descent = open_font(faces[""]).getmetrics()
        pitch = round(size * style.line_spacing)
        above = (pitch + ascent - descent) // 2
        paragraph = round(style.paragraph_spacing * style.font_size)
        return cls(faces, style.columns, style.font_size, above, pitch - above, paragraph)

    def line(self, pen: int = 0, before: int = 0) -> Line:
        return Line(self.above, self.below, pen, before=before)

    def indent(self, ems: float) -> int:
        return min(round(ems * self.em), self.width // 2)  # deep nesting must leave room for words


def break_lines(words: list[Word], setting: Setting, line: Line, indent: int = 0) -> Iterator[Line]:
    """Put the words on `line` and on as many new lines as they need. The new lines start at `indent`.

    Raises ValueError if a single character is wider than the page.
    """
    faces, width = setting.faces, setting.width
    plainest = min((word.face for word in words), default="")  # "m", monospaced, only if all words are
    space = measure(faces[plainest], " ").advance
    starts = [i for i, word in enumerate(words) if not word.joined]
    for start, end in pairwise([*starts, len(words)]):
        group = words[start:end]  # words that no line break may separate
        gap, extent = group[0].gap, reduce(Extent.then, (measure(faces[word.face], word.text) for word in group))
        newlines, gap = gap.count("\n"), gap[gap.rfind("\n") + 1 :]
        x = line.after(gap, space)
        if line.words and (newlines or not line.fits(x, extent, width)):
            yield line
            line = setting.line(indent, before=setting.paragraph * (newlines > 1))
            x = line.after(gap if newlines else "", space)
        if not line.fits(x, extent, width):
            x = line.pen  # drop the indentation before breaking a word
            if not line.fits(x, extent, width):
                group = [letter for word in group for letter in word.letters()]
        for word in group:
            face = faces[word.face]
            extent = measure(face, word.text)
            if not line.fits(x, extent, width):
                if line.pieces:  # at least a bullet is on it
                    yield line
                line, x = setting.line(indent), indent
                if not line.fits(x, extent, width):
                    raise ValueError(
                        f"the character {word.text!r} is {extent.right - extent.left} pixels wide in {face.size}-pixel"
                        f" type, and {width - indent} are left beside the margins: use a smaller font or margin"
                    )
            line.add(x, word.text, face)
            line.end, x = word.end, line.pen
            line.words += 1
    yield line
