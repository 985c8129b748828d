"""The user's own documents: a JSONL, CSV or parquet file, or a folder of such files or of .txt and .md files.

Which split a document belongs to, in this order:
1. its file or folder is called train, validation (valid, val, dev) or test ("test.jsonl", "train/a.txt",
   "train-00001-of-00004.parquet"), or its row has such a value in a `split` column. A split that nothing names is
   then taken from train, by rules 2 and 3;
2. otherwise a hash of its text: 80 % train, 10 % validation, 10 % test;
3. but with fewer than 100 different texts, where that could leave a split empty, the texts are put in the order of
   their hashes, and the first tenth is test and the second validation, at least one each. Two texts give train and
   validation; one gives train.

A text file's summary is in `name.summary.txt` beside it (or `name.summary.md`); without one, it is the first sentence
of the text, which is then left out of the text. A folder that holds tables is read for its tables alone.
"""

import csv
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

from lightseek.data.documents import SPLITS, Document, Split, split_first_sentence, text_split

TABLES = (".jsonl", ".csv", ".parquet")
TEXTS = (".txt", ".md")
MAX_TABLE_BYTES = 2 << 30  # read whole into memory
MAX_TEXT_BYTES = 10 << 20
MAX_FILES = 100_000
SMALL = 100  # different texts
Marked = tuple[Document, Split | None]  # the split that its place or row names
_SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


def documents(
    path: Path,
    split: Split,
    limit: int | None = None,
    seed: int = 0,
    text_column: str = "text",
    summary_column: str | None = "summary",
    max_characters: int | None = None,
) -> list[Document]:
    """The documents of one split in file order; with a limit, that many of them, drawn by `seed`.

    A smaller limit draws a part of what a larger one does. Raises ValueError naming the file, and the row where there
    is one (counted from 1; line numbers in JSONL), for anything that can't be read as a document.
    """
    marked = list(_read(path, text_column, summary_column))
    if not marked:
        raise ValueError(f"{path} holds no documents")
    whole = len(marked)
    if max_characters is not None:  # before the split, or a small folder could lose one to its long texts
        marked = [(document, mark) for document, mark in marked if len(document.text) <= max_characters]
        if not marked:
            raise ValueError(f"{path}: all {whole} documents are longer than {max_characters} characters")
    splits = _assign(marked)
    found = [document for (document, _), own in zip(marked, splits, strict=True) if own == split]
    if not found:
        others = " and ".join(f"{splits.count(other)} {other}" for other in SPLITS if other in splits)
        longer = f"; {whole - len(marked)} are longer than {max_characters} characters" if whole > len(marked) else ""
        raise ValueError(f"{path} has no {split} documents, only {others}{longer}")
    if limit is not None and limit < len(found):
        order = list(range(len(found)))
        Random(seed).shuffle(order)
        found = [found[i] for i in sorted(order[:limit])]
    return found


def _assign(marked: list[Marked]) -> list[Split]:
    """The split of each document, by rules 1 to 3."""
    named = {mark for _, mark in marked}
    hashed = _split_by_hash([document.text for document, mark in marked if mark in (None, "train")])
    splits: list[Split] = []
    for document, mark in marked:
        own = hashed.get(document.text, "train")
        taken_from_train = mark == "train" and own not in named
        splits.append(own if mark is None or taken_from_train else mark)
    return splits


def _split_by_hash(texts: list[str]) -> dict[str, Split]:
    different = set(texts)
    if len(different) >= SMALL:
        return {text: text_split(text) for text in different}
    ranked = sorted(different, key=lambda text: (crc32(text.encode()), text))
    share = max(1, len(ranked) // 10)
    validation = share if len(ranked) >= 2 else 0
    test = share if len(ranked) >= 3 else 0
    return {
        text: "test" if rank < test else "validation" if rank < test + validation else "train"
        for rank, text in enumerate(ranked)
    }


def _read(path: Path, text_column: str, summary_column: str | None) -> Iterator[Marked]:
    """Every document under `path`, each with the split that its place or row names."""
    if path.is_file():
        files = [path]
    else:
        files = sorted(file for file in path.rglob("*") if file.is_file() and not _hidden(file.relative_to(path)))
        tables = [file for file in files if file.suffix.lower() in TABLES]
        files = tables or [file for file in files if file.suffix.lower() in TEXTS]
        files = [file for file in files if not file.stem.endswith(".summary")]
        if not files:
            raise ValueError(f"{path} holds no documents: put {', '.join(TABLES + TEXTS)} files there")
        if len(files) > MAX_FILES:
            raise ValueError(
                f"{path} holds {len(files):,} files, more than {MAX_FILES:,}: put them into one .jsonl file"
            )
    for file in files:
        suffix = file.suffix.lower()
        if suffix not in TABLES + TEXTS:
            raise ValueError(
                f"can't read {file}: documents come as {', '.join(TABLES + TEXTS)} files or a folder of them"
            )
        _check_size(file, MAX_TABLE_BYTES if suffix in TABLES else MAX_TEXT_BYTES)
        name = file.name if file == path else file.relative_to(path).as_posix()
        place = _place(file, path)
        if suffix in TABLES:
            for document, mark in _read_table(file, name, text_column, summary_column):
                yield document, mark or place
        else:
            yield _read_text(file, name), place


def _hidden(file: Path) -> bool:
    return any(part.startswith(".") for part in file.parts)


def _check_size(file: Path, most: int) -> None:
    size = file.stat().st_size
    if size > most:
        raise ValueError(
            f"{file} has {size / 2**20:,.0f} MiB, more than the {most >> 20:,} MiB read at once: split it up"
        )


def _place(file: Path, root: Path) -> Split | None:
    """The split that the file's name, or a folder's on the way to it from `root`, stands for."""
    names = [*file.relative_to(root).parent.parts, file.stem] if file != root else [file.stem]
    for name in reversed(names):
        start = name.lower().replace("_", "-").split("-")[0].split(".")[0]
        # "test-plan.txt" is a document called so; "test-00000-of-00001.parquet" is a shard.
        if start in _SPLIT_NAMES and (name.lower() == start or file.suffix.lower() == ".parquet"):
            return _SPLIT_NAMES[start]
    return None


def _read_text(file: Path, name: str) -> Document:
    beside = [file.with_name(f"{file.stem}.summary{suffix}") for suffix in TEXTS]
    beside = [summary for summary in beside if summary.is_file()][:1]
    try:
        text = file.read_text(encoding="utf-8-sig").strip()
        summary = beside[0].read_text(encoding="utf-8-sig").strip() if beside else ""
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} or its summary is not UTF-8 text: {error}") from None
    if not text:
        raise ValueError(f"{file} is empty")
    if beside and not summary:
        raise ValueError(f"{beside[0]} is empty")
    if not beside:
        summary, text = split_first_sentence(text)
    if not text:
        raise ValueError(f"{file} is one sentence only: put its summary into {file.stem}.summary.txt beside it")
    return Document(text, summary, name)


def _read_table(file: Path, name: str, text_column: str, summary_column: str | None) -> Iterator[Marked]:
    wanted = [text_column] if summary_column is None else [text_column, summary_column]
    for number, row in _rows(file):
        where = f"{file}, row {number}"
        for column in wanted:
            if column not in row:
                raise ValueError(f"{where} has no column {column!r}; its columns are {', '.join(map(repr, row))}")
            if not isinstance(row[column], str) or not row[column].strip():
                found = "nothing" if row[column] is None or row[column] == "" else repr(row[column])[:40]
                raise ValueError(f"{where}: {column!r} must be a text, not {found}")
            if not _is_unicode(row[column]):
                raise ValueError(f"{where}: {column!r} holds half a character (a lone surrogate)")
        text = row[text_column].strip()
        summary, rest = split_first_sentence(text) if summary_column is None else (row[summary_column].strip(), text)
        if not rest:
            raise ValueError(f"{where}: {text_column!r} is one sentence only, and there is no summary column")
        mark = None
        if row.get("split"):
            mark = _SPLIT_NAMES.get(str(row["split"]).lower())
            if mark is None:
                raise ValueError(f"{where}: unknown split {row['split']!r}: choose one of {', '.join(_SPLIT_NAMES)}")
        yield Document(rest, summary, f"{name}:{number}"), mark


def _is_unicode(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:  # JSON can spell what UTF-8 can't
        return False


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    read = {".jsonl": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
    return read[file.suffix.lower()](file)


def _json_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line by line, so that a bad one is named and those before it don't decide what type a column has."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:  # also what UTF-8 and JSON errors are
                raise ValueError(f"{file}, row {number} is not JSON: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"{file}, row {number} must be a JSON object, not {line[:40]!r}")
            yield number, row


def _csv_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every value stays the text it is: "007" is no number and "NA" not nothing."""
    limit = csv.field_size_limit(MAX_TEXT_BYTES)  # the default is shorter than some articles
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            for number, row in enumerate(csv.DictReader(lines, strict=True), start=1):
                if None in row:
                    raise ValueError(f"{file}, row {number} has more values than the header has columns")
                yield number, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"can't read {file}: {error}") from None
    finally:
        csv.field_size_limit(limit)


def _parquet_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import datasets

    silent = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with tempfile.TemporaryDirectory() as cache:  # not the user's: a changed file must be read again
            table = datasets.Dataset.from_parquet(str(file), cache_dir=cache, keep_in_memory=True)
    except Exception as error:  # whatever Arrow raises, `datasets` wraps in its own
        raise ValueError(f"can't read {file}: {error.__cause__ or error}") from error
    finally:
        if not silent:
            datasets.enable_progress_bars()
    yield from enumerate(table, start=1)
