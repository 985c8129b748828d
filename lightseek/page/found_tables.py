"""Finds the tables in a text that a model wrote, in HTML or in Markdown, and writes them as CSV or as plain HTML."""

import csv
import html
import io
from collections.abc import Sequence
from html.parser import HTMLParser

Table = list[list[str]]  # the texts of its rows; all rows have the same number of cells
MOST_SPAN, MOST_CELLS = 100, 20_000  # larger numbers in a text are a model's mistake
CELLS = ("td", "th")


def find_tables(text: str) -> list[Table]:
    """Return all tables of a text in their order. Never raises an error.

    A cell over several rows or columns gives its text to the first of them; the others are empty. A table that is not
    closed ends with the text. Tables inside other tables are parts of the cell.
    """
    reader, found = _Reader(), []
    rows: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.lstrip().startswith("|"):
            rows.append(line.strip())
            continue
        if table := _of_markdown(rows):
            found.append((reader.place, table))
        rows = []
        reader.feed_line(line)
    reader.end()
    found += [(place, table) for place, table in reader.found if table]
    return [table for _, table in sorted(found, key=lambda pair: pair[0])]


def as_csv(table: Table) -> str:
    """Return a table as CSV, as RFC 4180 describes it."""
    file = io.StringIO(newline="")
    csv.writer(file).writerows(table)
    return file.getvalue()


def as_html(table: Table) -> str:
    """Return a table as HTML. Nothing in a cell becomes markup."""
    rows = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in table)
    return "<table>\n" + "".join(f"<tr>{row}</tr>\n" for row in rows) + "</table>\n"


def _of_markdown(lines: Sequence[str]) -> Table:
    """Return the table in lines that begin with a bar, or an empty one if the second line is no line of dashes."""
    rows = [_cells(line) for line in lines]
    if len(rows) < 2 or not all(set(cell) <= set(":- ") and "-" in cell for cell in rows[1]):
        return []
    return _square([rows[0], *rows[2:]])


def _cells(line: str) -> list[str]:
    cells, cell, escaped = [], "", False
    for character in line.strip()[1:]:
        if character == "|" and not escaped:
            cells.append(cell.strip())
            cell = ""
        else:
            cell = cell[:-1] + "|" if escaped and character == "|" else cell + character
        escaped = character == "\\" and not escaped
    return [*cells, cell.strip()] if cell.strip() else cells


def _square(rows: list[list[str]]) -> Table:
    width = max(map(len, rows), default=0)
    if width * len(rows) > MOST_CELLS:
        return []
    return [row + [""] * (width - len(row)) for row in rows] if width else []


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, Table]] = []
        self.place = 0  # counts lines, so that tables of both kinds come in their order
        self.depth = 0  # tables inside tables
        self.grid: dict[tuple[int, int], str] = {}
        self.row, self.column, self.begin = -1, 0, 0
        self.cell: list[str] | None = None
        self.span = (1, 1)

    def feed_line(self, line: str) -> None:
        self.place += 1
        self.feed(line + "\n")

    def end(self) -> None:
        self.close()
        self._close_table()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.depth += 1
            if self.depth == 1:
                self.grid, self.row, self.begin = {}, -1, self.place
        if self.depth != 1:
            return
        if tag == "tr":
            self._close_cell()
            self.row, self.column = self.row + 1, 0
        elif tag in CELLS:
            self._close_cell()
            self.row = max(self.row, 0)
            sides = dict(attrs)
            self.span = _span(sides.get("rowspan")), _span(sides.get("colspan"))
            self.cell = []
        elif tag == "br" and self.cell is not None:
            self.cell.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag in (*CELLS, "tr") and self.depth == 1:
            self._close_cell()
        if tag == "table" and self.depth:
            self.depth -= 1
            if not self.depth:
                self._close_table()

    def handle_data(self, data: str) -> None:
        if self.cell is not None:
            self.cell.append(data)

    def _close_cell(self) -> None:
        if self.cell is None:
            return
        while (self.row, self.column) in self.grid:  # a cell of an earlier row reaches down to here
            self.column += 1
        words = " ".join("".join(self.cell).split())
        for row in range(self.span[0]):
            for column in range(self.span[1]):
                if len(self.grid) < MOST_CELLS:
                    self.grid[self.row + row, self.column + column] = "" if row or column else words
        self.cell = None

    def _close_table(self) -> None:
        self._close_cell()
        if self.grid:
            width = 1 + max(column for _, column in self.grid)
            height = 1 + min(self.row, max(row for row, _ in self.grid))
            if width * height <= MOST_CELLS:
                table = [[self.grid.get((row, column), "") for column in range(width)] for row in range(height)]
                self.found.append((self.begin, table))
        self.grid, self.row, self.depth = {}, -1, 0


def _span(value: str | None) -> int:
    return min(int(value), MOST_SPAN) if value and value.isascii() and value.isdigit() and int(value[:9]) else 1
