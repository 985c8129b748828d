"""Turns rows of JSONL, JSON, CSV and parquet files into documents.

A row has a text and its summary, or it has pictures. Pictures are in the column `image`, `images` or the hub's
`file_name` (or `image_file_name`, or a list in `file_names`), in one of the forms that `cells.py` reads. A row with
pictures may also have a text, a summary, or a `question` and its `answer`.
"""

import csv
import gzip
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightseek.data.document import Document, check_task, split_first_sentence
from lightseek.data.sources.cells import pictures
from lightseek.data.splits import SPLIT_NAMES, Split, named_split
from lightseek.tools.json_files import JsonError, has_surrogates, parse_json

TABLES = (".jsonl", ".csv", ".parquet", ".jsonl.gz")
# A list of objects, an object a line, or one object that maps pictures to texts. The suffix also means other things.
ANNOTATIONS = (".json", ".json.gz")
MAX_TABLE_BYTES = 2 << 30  # the whole table is read into memory
MAX_TEXT_BYTES = 10 << 20
PARQUET_ROWS = 100  # read at once
PICTURES = ("images", "image", "file_name", "file_names", "image_file_name", "image_file_names", "images_file_names")
ONE_PICTURE = ("image", "file_name", "image_file_name")  # a row without pictures may have an empty list of them
PICTURE_FILES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
OnBad = Callable[[ValueError], None]
Row = dict[str, Any]
Marked = tuple[Document, Split | None]  # a document, and the split that its file, folder or row names


@dataclass(frozen=True)
class Wanted:
    """The columns to read, and the task that decides what a row must have.

    With `summary=None` the first sentence of the text is the summary, unless the task needs no summary.
    """

    text: str = "text"
    summary: str | None = "summary"
    task: str = "summarize"

    @property
    def sentence(self) -> bool:
        return self.summary is None and self.task != "ocr"


WANTED = Wanted()


def kind_of(file: Path) -> str:
    """Return the suffix of a file in lower case, which has two parts if it is compressed: ".jsonl.gz"."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    return "".join(suffixes[-2:] if suffixes[-1:] == [".gz"] else suffixes[-1:])


def read_table(
    file: Path,
    name: str,
    wanted: Wanted,
    on_bad: OnBad | None = None,
    root: Path | None = None,
    place: Split | None = None,
) -> Iterator[Marked]:
    """Yield a table's documents. A bad row, or a file whose rest can't be read, goes to `on_bad` as a ValueError.

    Without `on_bad` the error is raised. The paths of pictures are relative to the file and stay below `root` (default:
    the file's folder). The split of a row is that of its column `split`, or else `place`, or else the one that the path
    of its first picture names.
    """
    for number, row in _rows(file):
        try:
            if isinstance(row, ValueError):
                raise row
            document = _document(row, file.parent, root or file.parent, f"{name}:{number}", wanted)
            mark = _mark(row) or place or _picture_mark(document, file.parent)
        except ValueError as error:
            bad = ValueError(f"{file}, row {number}: {error}" if number else str(error))
            if on_bad is None:
                raise bad from None
            on_bad(bad)
            continue
        yield document, mark


def _document(row: Row, folder: Path, root: Path, name: str, wanted: Wanted) -> Document:
    column = next((column for column in PICTURES if row.get(column)), None)
    if column is None and (empty := next((column for column in ONE_PICTURE if column in row), None)):
        raise ValueError(f"{empty!r} is empty, so the picture is missing")
    images = pictures(row[column], folder, root) if column else ()
    question = _text(row, "question") if row.get("question") else ""
    answer = "answer" if question and not row.get(wanted.summary or "") else wanted.summary
    if images:
        text = _text(row, wanted.text) if row.get(wanted.text) else ""
        summary = _text(row, answer) if answer and row.get(answer) else ""
    else:
        text = _text(row, wanted.text)
        summary = ""
        if wanted.sentence:
            summary, text = split_first_sentence(text)
            if not text:
                raise ValueError(f"{wanted.text!r} is one sentence only, and there is no summary column")
        elif answer and (wanted.task != "ocr" or row.get(answer)):
            summary = _text(row, answer)
    facts = row.get("facts")
    facts = tuple(fact for fact in facts if isinstance(fact, str)) if isinstance(facts, list) else ()
    if any(map(has_surrogates, facts)):
        raise ValueError("'facts' holds half a character (a lone surrogate)")
    document = Document(text, summary, name, facts, images, question)
    check_task(document, wanted.task)
    return document


def _text(row: Row, column: str) -> str:
    if column not in row:
        raise ValueError(f"there is no column {column!r}; its columns are {', '.join(map(repr, row))}")
    value = row[column]
    if not isinstance(value, str) or not value.strip():
        found = "nothing" if value is None or value == "" else repr(value)[:40]
        raise ValueError(f"{column!r} must be a text, not {found}")
    if has_surrogates(value):
        raise ValueError(f"{column!r} holds half a character (a lone surrogate)")
    return value.strip()


def _mark(row: Row) -> Split | None:
    if not row.get("split"):
        return None
    mark = SPLIT_NAMES.get(str(row["split"]).lower())
    if mark is None:
        raise ValueError(f"unknown split {row['split']!r:.40}: choose one of {', '.join(SPLIT_NAMES)}")
    return mark


def _picture_mark(document: Document, folder: Path) -> Split | None:
    """Return the split that the path of the first picture names, below the table: "test/1.png" or "test_1.png"."""
    first = document.images[0] if document.images else None
    if not isinstance(first, Path):
        return None
    path = first.relative_to(folder)
    numbered = re.match(r"[^\W\d_]+[-._ ]*\d", path.name)  # "test-plan.png" is a page like any other
    own = path.stem if numbered else ""
    return next((split for name in (*reversed(path.parent.parts), own) if (split := named_split(name))), None)


def _rows(file: Path) -> Iterator[tuple[int, Row | ValueError]]:
    """Yield (number, row or its error). If the rest of the file can't be read either, the last number is 0."""
    read = {".jsonl": _json_lines, ".json": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
    try:
        check_size(file, MAX_TABLE_BYTES)
        yield from read[kind_of(file).removesuffix(".gz")](file)
    except OSError as error:
        yield 0, ValueError(f"can't read {file}: {error.strerror or error}")
    except ValueError as error:
        yield 0, error


def check_size(file: Path, most: int) -> None:
    """Raise ValueError if a file has more than `most` bytes."""
    size = file.stat().st_size
    if size > most:
        raise ValueError(
            f"{file} has {size / 2**20:,.0f} MiB, more than the {most >> 20:,} MiB that can be read: split it up"
        )


def _lines(file: Path) -> Iterator[bytes]:
    """Yield the lines of a file, which may be compressed. Raises ValueError if it is damaged or grows too large."""
    size = 0
    try:
        with gzip.open(file) if kind_of(file).endswith(".gz") else file.open("rb") as lines:
            while line := lines.readline(MAX_TABLE_BYTES + 1):
                size += len(line)
                if size > MAX_TABLE_BYTES:
                    raise ValueError(f"{file} has more than {MAX_TABLE_BYTES >> 20:,} MiB unpacked: split it up")
                yield line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"can't read {file}: {error}") from None


def _json_lines(file: Path) -> Iterator[tuple[int, Row | ValueError]]:
    """Read line by line, so that the error of a bad line has its number and no line decides the type of a column."""
    for number, line in enumerate(_lines(file), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line, "")
        except JsonError as error:
            yield number, error
            continue
        yield number, row if isinstance(row, dict) else ValueError(f"must be a JSON object, not {line[:40]!r}")


def _json_rows(file: Path) -> Iterator[tuple[int, Row | ValueError]]:
    """Read a list of rows, an object of pictures and their texts, or an object a line, as `Dataset.to_json` writes."""
    text = b"".join(_lines(file))
    try:
        rows = parse_json(text, file)
    except JsonError:
        if _is_object(text.lstrip(b"\xef\xbb\xbf").lstrip().partition(b"\n")[0]):
            yield from _json_lines(file)
            return
        raise
    if isinstance(rows, dict) and not any(Path(key[-300:]).suffix.lower() in PICTURE_FILES for key in rows):
        rows = [rows]  # a single row
    if isinstance(rows, dict):
        rows = [
            {"image": image, **(about if isinstance(about, dict) else {"text": about})} for image, about in rows.items()
        ]
    if not isinstance(rows, list):
        raise ValueError(f"{file} must hold a list of objects, or one object of pictures and their texts")
    for number, row in enumerate(rows, start=1):
        yield number, row if isinstance(row, dict) else ValueError(f"must be a JSON object, not {row!r:.40}")


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(parse_json(line, ""), dict)
    except JsonError:
        return False


def _csv_rows(file: Path) -> Iterator[tuple[int, Row | ValueError]]:
    """Keep every value as text: "007" does not become a number and "NA" does not become an empty value."""
    limit = csv.field_size_limit(MAX_TEXT_BYTES)  # the default is shorter than some articles
    try:
        # Bytes that are not UTF-8 become surrogates, which no valid text has, so they spoil one row and not the file.
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            yield from _csv_lines(file, lines)
    finally:
        csv.field_size_limit(limit)


def _csv_lines(file: Path, lines: Iterator[str]) -> Iterator[tuple[int, Row | ValueError]]:
    """Yield (number, row or its error). Rows are counted from 1, without the header and empty lines."""
    header: list[str] | None = None
    for number, values in enumerate(_csv_values(lines)):
        if header is None:
            if isinstance(values, ValueError) or any(map(has_surrogates, values)):
                told = values if isinstance(values, ValueError) else "it is not UTF-8, convert it"
                raise ValueError(f"can't read the header of {file}: {told}")
            header = values
        elif isinstance(values, ValueError):
            yield number, values
        elif len(values) > len(header):
            yield number, ValueError("more values than the header has columns")
        elif any(map(has_surrogates, values)):
            yield number, ValueError("it is not UTF-8")
        else:
            yield number, dict(zip(header, [*values, *[None] * (len(header) - len(values))], strict=True))


def _csv_values(lines: Iterator[str]) -> Iterator[list[str] | ValueError]:
    """Yield the values of each row, or the error of a row with wrong quotes.

    A quote that is never closed takes all that follows into its row. So after an error, the reader begins again at the
    line after the one where the bad row began.
    """
    waiting: deque[str] = deque()
    taken: list[str] = []  # the lines of the row that is being read

    def feed() -> Iterator[str]:
        while (line := waiting.popleft() if waiting else next(lines, None)) is not None:
            taken.append(line)
            yield line

    rows = csv.reader(feed(), strict=True)
    while True:
        taken.clear()
        try:
            values = next(rows, None)
        except csv.Error as error:
            yield ValueError(f"wrong quotes in the row that begins with {taken[0].strip()[:40]!r} ({error})")
            waiting.extendleft(reversed(taken[1:]))
            rows = csv.reader(feed(), strict=True)
            continue
        if values is None:
            return
        if values:
            yield values


def _parquet_rows(file: Path) -> Iterator[tuple[int, Row | ValueError]]:
    """Read a few rows at a time. A row with a text that is not UTF-8 is a bad row, and the others are read."""
    from pyarrow import ArrowException, parquet

    number = 0
    try:
        with parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(PARQUET_ROWS):
                batch.validate(full=False)
                for index in range(batch.num_rows):
                    number += 1
                    try:
                        yield number, batch.slice(index, 1).to_pylist()[0]
                    except (UnicodeDecodeError, OverflowError) as error:
                        yield number, ValueError(f"a value cannot be read: {error!s:.200}")
    except (ArrowException, OSError, ValueError, NotImplementedError, KeyError) as error:
        raise ValueError(f"can't read {file}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return f"{(str(error).splitlines() or [type(error).__name__])[0]:.200}"
