"""Words -> lines: each word goes on the current line if it fits by measured width, else on a new one."""

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
    """Words with their x, pixels from the left margin; `above` + `below` the baseline is the line's height."""

    above: int
    below: int
    pen: int = 0
    left: int = 0  # of the ink; below 0 the whole line moves right by as much
    right: int = 0
    pieces: list[tuple[int, str, Face]] = field(default_factory=list)
    words: int = 0  # a bullet is a piece, but no word
    end: int = 0  # source offset
    before: int = 0
    keep: bool = False  # on one page with the next line
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
        extent = measure(face, text)
        self.pieces.append((x, text, face))
        self.pen = x + extent.advance
        self.left, self.right = min(self.left, x + extent.left), max(self.right, x + extent.right)
        self.above, self.below = max(self.above, extent.above), max(self.below, extent.below)

    def after(self, gap: str, space: int) -> int:
        """Where a word starts after white space."""
        x, stop = self.pen, max(1, TAB * space)
        for character in gap:
            x = (x // stop + 1) * stop if character == "\t" else x + space
        return x


class Setting(NamedTuple):
    """What breaking one block needs: its faces at its size, the room, and the line's share above and below."""

    faces: dict[str, Face]
    width: int
    em: int  # of the body, whatever the block's size
    above: int
    below: int
    paragraph: int

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
    """Fill `line` and as many more as it takes, the later ones from `indent` on.

    Raises ValueError when a single character is wider than the page.
    """
    faces, width = setting.faces, setting.width
    plainest = min((word.face for word in words), default="")  # monospaced, "m", only where everything is
    space = measure(faces[plainest], " ").advance
    starts = [i for i, word in enumerate(words) if not word.joined]
    for start, end in pairwise([*starts, len(words)]):
        group = words[start:end]  # no line break may part these
        gap, extent = group[0].gap, reduce(Extent.then, (measure(faces[word.face], word.text) for word in group))
        newlines, gap = gap.count("\n"), gap[gap.rfind("\n") + 1 :]
        x = line.after(gap, space)
        if line.words and (newlines or not line.fits(x, extent, width)):
            yield line
            line = setting.line(indent, before=setting.paragraph * (newlines > 1))
            x = line.after(gap if newlines else "", space)
        if not line.fits(x, extent, width):
            x = line.pen  # indentation gives way before a word breaks
            if not line.fits(x, extent, width):
                group = [letter for word in group for letter in word.letters()]
        for word in group:
            face = faces[word.face]
            extent = measure(face, word.text)
            if not line.fits(x, extent, width):
                if line.pieces:  # a bullet at least
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
