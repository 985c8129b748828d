"""Source text -> words, each with its place in the source: a page can then say exactly which text it shows."""

import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

NEWLINE = re.compile("[\v\f\x1c-\x1e\x85\u2028\u2029]")
SPACE = re.compile("[\r\x1f\u1680\u2000-\u2006\u2008-\u200a\u205f\u3000]")  # no-break spaces are letters to us
WIDE = "\u2e80-\u2fff\u3001-\ua4cf\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff"  # lines break anywhere
WORD = re.compile(f"([ \t\n]*)([{WIDE}]|[^ \t\n{WIDE}]+)")
CHUNK = re.compile(r"\s*(\S*)")


class Word(NamedTuple):
    gap: str  # white space before it; a newline starts a new line, two a new paragraph
    text: str
    face: str  # a key of `font_files`
    start: int  # its place in the source
    end: int
    joined: bool = False  # no line break before it: **bo**ld is one word in two faces

    def letters(self) -> "list[Word]":
        """One word a character, each with its place in the source."""
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
    """A paragraph, a table when it has `rows`, or a rule. Indents are in ems of the body size."""

    words: list[Word] = field(default_factory=list)
    scale: float = 1.0
    before: float = 1.0  # space above, in paragraph spacings
    indent: float = 0.0
    bars: tuple[float, ...] = ()  # of block quotes
    markers: tuple[tuple[float, str], ...] = ()  # bullets and numbers: (indent of the text, what to draw)
    keep: bool = False  # on one page with what follows
    rule: bool = False
    rows: list[list[Cell]] = field(default_factory=list)

    def all_words(self) -> Iterator[Word]:
        yield from self.words
        for row in self.rows:
            for cell in row:
                yield from cell.words


class Source:
    """Finds drawn words in the source, front to back, stepping over the markup between them.

    `closing` matches markup that belongs to the word it follows. Words are sought from `at`, up to `stop`.
    """

    def __init__(self, text: str, closing: str = "") -> None:
        self.text, self.closing, self.at, self.stop = text, re.compile(closing), 0, len(text)

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


def split_words(segments: Iterable[tuple[str, str]], source: Source) -> list[Word]:
    """Words of consecutive (text, face) segments; a word may go on from one segment into the next."""
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
    """Plain text: one block, whose words' gaps hold its line breaks, paragraphs and indentation."""
    words = split_words([(text, "")], Source(text))
    return [Block(words)] if words else []
