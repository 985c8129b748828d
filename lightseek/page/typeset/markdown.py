"""Turn Markdown into blocks of words. Addresses, HTML and irregular tables are drawn too.

Only the content of pictures that are pasted into the text is dropped (`shorten_data_uris`).
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from lightseek.page.typeset.words import Block, Cell, Source, Word, split_words

HEADING_SCALES = {"h1": 1.8, "h2": 1.5, "h3": 1.25, "h4": 1.1, "h5": 1.0, "h6": 1.0}
CLOSING = r"(?:(?<=&)#?\w+;)?[*_`~\]]*"  # markup that ends right after a word belongs to it
BULLET_INDENT, NUMBER_INDENT, QUOTE_INDENT = 1.4, 2.0, 1.2  # ems
TIGHT = 0.25  # space above an item of a tight list, in paragraph spacings

# A file that is written into an address, such as data:image/png;base64,iVBORw0KGgo...: type and content.
DATA_URI = re.compile(r"""(\bdata:[\w.+-]+/[\w.+-]+[^\s,()<>"']{0,80},)[^\s()<>"']{64,}""", re.IGNORECASE)


def shorten_data_uris(text: str) -> str:
    """Return Markdown whose data URIs end after their type: "data:image/png;base64,…".

    Editors paste pictures so. The hundred thousands of letters of such an address are no text that someone wrote.
    """
    return DATA_URI.sub(r"\1…", text)


def parse_markdown(text: str) -> list[Block]:
    """Parse CommonMark with tables. Raises ValueError if it is nested too deeply for Python's recursion limit."""
    return _Parser(text).blocks


class _Parser:
    """Reads markdown-it's flat list of tokens. Each kind of token has a method of its name; the others are ignored."""

    def __init__(self, text: str) -> None:
        from markdown_it import MarkdownIt

        # The default nesting limit silently drops deeper text.
        parser = MarkdownIt("commonmark", {"maxNesting": 1 << 30}).enable("table")
        try:
            self.tokens = iter(parser.parse(text))
        except RecursionError as error:
            raise ValueError("Markdown nested too deeply: render it as plain text") from error
        self.source = Source(text, CLOSING)
        self.line_starts = [0, *(match.end() for match in re.finditer("\n", text)), len(text)]
        self.blocks: list[Block] = []
        self.indents = [0.0]  # one for each open list and quote
        self.bars: list[float] = []  # one for each open quote
        self.markers: list[tuple[float, str]] = []  # drawn with the next block
        self.opens_list = False
        self.look: dict[str, Any] = {}  # fields of the open heading or paragraph
        self.rows: list[list[Cell]] = []  # rows of the open table
        for token in self.tokens:
            if token.map:
                self.source.stop = self.line_starts[token.map[1]]
            getattr(self, token.type, lambda token: None)(token)

    def emit(self, words: Sequence[Word] = (), **look: Any) -> None:
        at = self.end_of_block()
        words = list(words) or [Word("", "", "", at, at)]  # so that an empty item or a rule has a place too
        _extend(words, at)
        layout = {"indent": self.indents[-1], "bars": tuple(self.bars), "markers": tuple(self.markers)}
        self.blocks.append(Block(words, **layout, **look))
        self.markers, self.opens_list = [], False

    def end_of_block(self) -> int:
        self.source.at = max(self.source.at, self.source.stop)
        return self.source.at

    def heading_open(self, token: Any) -> None:
        self.look = {"scale": HEADING_SCALES[token.tag], "before": 1.6, "keep": True}

    def paragraph_open(self, token: Any) -> None:
        self.look = {"before": TIGHT if token.hidden and not self.opens_list else 1.0}  # hidden: in a tight list

    def inline(self, token: Any) -> None:
        if self.rows:
            bold = len(self.rows) == 1
            self.rows[-1][-1].words.extend(split_words(_segments(token.children, bold), self.source))
        else:
            bold = "keep" in self.look
            self.emit(split_words(_segments(token.children, bold), self.source), **self.look)

    def fence(self, token: Any) -> None:
        self.emit(split_words([(token.content, "m")], self.source))

    code_block = html_block = fence

    def hr(self, token: Any) -> None:
        self.emit(rule=True)

    def bullet_list_open(self, token: Any) -> None:
        self.opens_list = self.opens_list or len(self.indents) == 1 + len(self.bars)  # no other list is open
        self.indents.append(self.indents[-1] + (BULLET_INDENT if token.tag == "ul" else NUMBER_INDENT))

    def bullet_list_close(self, token: Any) -> None:
        self.indents.pop()

    ordered_list_open, ordered_list_close = bullet_list_open, bullet_list_close

    def list_item_open(self, token: Any) -> None:
        self.markers.append((self.indents[-1], f"{token.info}{token.markup}" if token.info else "•"))

    def list_item_close(self, token: Any) -> None:
        if self.markers:  # an empty item
            self.emit(before=TIGHT)

    def blockquote_open(self, token: Any) -> None:
        self.bars.append(self.indents[-1])
        self.indents.append(self.indents[-1] + QUOTE_INDENT)

    def blockquote_close(self, token: Any) -> None:
        self.bars.pop()
        self.indents.pop()

    def table_open(self, token: Any) -> None:
        lines = self.source.text[self.line_starts[token.map[0]] : self.source.stop].splitlines()
        sizes = [len(re.split(r"(?<!\\)\|", line.strip().strip("|"))) for line in lines]
        if max(sizes) > sizes[0]:  # a row with more cells than the head: the parser would drop them
            token.content = "\n".join(lines)
            self.fence(token)
            next(token for token in self.tokens if token.type == "table_close")

    def tr_open(self, token: Any) -> None:
        self.rows.append([])

    def th_open(self, token: Any) -> None:
        self.rows[-1].append(Cell([], str(token.attrGet("style") or "").removeprefix("text-align:")))

    td_open = th_open

    def tr_close(self, token: Any) -> None:
        at = self.end_of_block()
        _extend(next((cell.words for cell in reversed(self.rows[-1]) if cell.words), []), at)

    def table_close(self, token: Any) -> None:
        self.emit(rows=self.rows)
        self.rows = []


def _extend(words: list[Word], end: int) -> None:
    """Let the last word reach to `end`. Undrawn markup after it, such as a closing fence, then stays on its page."""
    if words:
        words[-1] = words[-1]._replace(end=end)


def _segments(children: Sequence[Any], bold: bool) -> Iterator[tuple[str, str]]:
    """Yield the inline tokens as (text, face). Addresses of links and images are drawn, because paper has no links."""
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
