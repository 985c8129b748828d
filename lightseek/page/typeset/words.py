"""Turn source text into words. Each word knows its place in the source, so a page can say which text it shows."""

import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

NEWLINE = re.compile("[\v\f\x1c-\x1e\x85\u2028\u2029]")
SPACE = re.compile("[\r\x1f\u1680\u2000-\u2006\u2008-\u200a\u205f\u3000]")  # a no-break space counts as a letter
WIDE = "\u2e80-\u2fff\u3001-\ua4cf\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff"  # lines can break here
WORD = re.compile(f"([ \t\n]*)([{WIDE}]|[^ \t\n{WIDE}]+)")
CHUNK = re.compile(r"\s*(\S*)")


class Word(NamedTuple):
    gap: str  # white space before the word: one newline starts a new line, two start a new paragraph
    text: str
    face: str  # a key of `font_files`
    start: int  # offsets in the source
    end: int
    joined: bool = False  # no line break may come before it: **bo**ld is one word in two faces

    def letters(self) -> "list[Word]":
        """Return each character as a word of its own, with its place in the source."""
        last = len(self.text) - 1
        return [
            self._replace(text=c, end=self.end if i == last else min(self.start + i + 1, self.end))
            for i, c in enumerate(self.text)
        ]


class Cell(NamedTuple):
    words: list[Word]
    align: str  # "left", "center", "right" or ""


@dataclass
class Block:
    """A paragraph, a table if it has `rows`, or a horizontal rule if `rule` is true.

    Indents are in ems, multiples of the font size of running text.
    """

    words: list[Word] = field(default_factory=list)
    scale: float = 1.0
    before: float = 1.0  # space above, in paragraph spacings
    indent: float = 0.0
    bars: tuple[float, ...] = ()  # indents of the bars of block quotes
    markers: tuple[tuple[float, str], ...] = ()  # bullets and numbers: (indent of the text, what to draw)
    keep: bool = False  # keep it on one page with the next block
    rule: bool = False
    rows: list[list[Cell]] = field(default_factory=list)

    def all_words(self) -> Iterator[Word]:
        yield from self.words
        for row in self.rows:
            for cell in row:
                yield from cell.words


class Source:
    """Finds drawn words in the source, from front to back, and skips the markup between them.

    `closing` matches markup that belongs to the word before it. The search for a word goes from offset `at` to `stop`.
    """

    def __init__(self, text: str, closing: str = "") -> None:
        self.text, self.closing, self.at, self.stop = text, re.compile(closing), 0, len(text)

    def place(self, word: str) -> tuple[int, int]:
        found = self.text.find(word, self.at, self.stop)
        if found < 0:
            chunk = CHUNK.match(self.text, self.at, self.stop)
            if word not in html.unescape(chunk[1]):  # drawn but not written here: the address of a reference link
                return self.at, self.at
            found, self.at = chunk.span(1)
        else:
            self.at = self.closing.match(self.text, found + len(word)).end()
        return found, self.at


def split_words(segments: Iterable[tuple[str, str]], source: Source) -> list[Word]:
    """Return the words of consecutive (text, face) segments. A word may continue from one segment into the next."""
    words: list[Word] = []
    gap = ""
    for text, face in segments:
        text, end = SPACE.sub(" ", NEWLINE.sub("\n", text)), 0
        for match in WORD.finditer(text):
            gap += match[1]
            joined = bool(words) and not gap and end == 0 and not re.match(f"[{WIDE}]", match[2])
            words.append(Word(gap, match[2], face, *source.place(match[2]), joined))
            gap, end = "", match.end()
        gap += text[end:]
    return words


def parse_text(text: str) -> list[Block]:
    """Return plain text as one block. The gaps of its words hold the line breaks, paragraphs and indentation."""
    words = split_words([(text, "")], Source(text))
    return [Block(words)] if words else []
