"""Reads the user's own documents: a JSONL, JSON, CSV or parquet file, or a folder of such files or .txt and .md files.

JSON Lines may also be called .json, and both may be compressed (.jsonl.gz, .json.gz).

These rules decide the split of a document:
1. A file or folder name names it: train (training), validation (valid, val, dev) or test (testing, eval, evaluation),
   such as "test.jsonl", "train/a.txt" or "train-00001-of-00004.parquet". In the name of a table or of its folder other
   words may stand beside it ("news-test.csv"). So does such a value in a row's `split` column, and, if neither names
   one, a folder in the path of the row's picture ("test/1.png"), or the picture's own name if a number follows
   ("test_1.png"). If some splits are named and another is not, the documents of that other split are taken from train,
   by rules 2 and 3.
2. If nothing names it, a hash of its text decides, or of its first page if it comes as pictures: 80 % train, 10 %
   validation, 10 % test.
3. With fewer than 100 different documents a hash could leave a split empty. So they are sorted by their hashes: the
   first tenth is test and the second is validation, and each has at least one. Two documents give train and
   validation; one gives train.

A text file's summary is in `name.summary.txt` beside it (or `name.summary.md`). If there is no such file, the summary
is the first sentence, which is then left out of the text. If a folder holds tables, only the tables are read; if it
holds .json files and pictures, or .json files and no texts, only the .json files with their pictures. A README, a
licence and the like are read only if there is no other file. A `Note` names the pictures, tables and archives that stay
unread beside texts.
"""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import TypeVar

from lightseek.data.document import Document, split_first_sentence, split_key
from lightseek.data.sources.tables import (
    ANNOTATIONS,
    MAX_TEXT_BYTES,
    PICTURE_FILES,
    TABLES,
    WANTED,
    Marked,
    OnBad,
    Wanted,
    check_size,
    kind_of,
    read_table,
)
from lightseek.data.splits import SPLITS, Shares, Split, divide, named_split
from lightseek.page.typeset.markdown import shorten_data_uris
from lightseek.tools.errors import Note
from lightseek.tools.files import leads_out, readable

TEXTS = (".txt", ".md")
READ = (*TABLES, *ANNOTATIONS, *TEXTS)
FILES = (".arrow", ".feather", ".tsv", ".xlsx", ".xml", ".zip", ".tar", ".tar.gz", ".tgz", ".zst")
UNREAD = (*ANNOTATIONS, *PICTURE_FILES, *FILES)  # named if only texts are read
ABOUT = re.compile(
    r"(readme|licen[cs]e|copying|notice|changelog|citation|contributing|requirements)([-._ ].*)?", re.IGNORECASE
)
MAX_FILES = 100_000
Found = TypeVar("Found")


def documents(
    path: Path,
    split: Split,
    limit: int | None = None,
    seed: int = 0,
    wanted: Wanted = WANTED,
    max_characters: int | None = None,
    on_bad: OnBad | None = None,
) -> list[Document]:
    """Return the documents of one split in file order. With a limit, `seed` draws that many of them.

    A smaller limit draws a part of what a larger one draws. Anything that can't be read as a document goes to `on_bad`
    as a ValueError; without `on_bad` the error is raised. It names the file and the row, if there is one (counted from
    1; the line number in JSONL).
    """
    marked = list(read(path, wanted, on_bad))
    if not marked:
        raise ValueError(f"{path} holds no documents")
    whole = len(marked)
    if max_characters is not None:  # before the split, because long texts could leave a split of a small folder empty
        marked = [(document, mark) for document, mark in marked if len(document.text) <= max_characters]
        if not marked:
            raise ValueError(f"{path}: all {whole} documents are longer than {max_characters} characters")
    splits = assign(marked)
    found = [document for (document, _), own in zip(marked, splits, strict=True) if own == split]
    if not found:
        others = " and ".join(f"{splits.count(other)} {other}" for other in SPLITS if other in splits)
        longer = f"; {whole - len(marked)} are longer than {max_characters} characters" if whole > len(marked) else ""
        raise ValueError(f"{path} has no {split} documents, only {others}{longer}")
    return draw(found, limit, seed)


def draw(found: list[Found], limit: int | None, seed: int) -> list[Found]:
    """Draw at most `limit` items and keep their order. A smaller limit draws a part of what a larger one draws."""
    if limit is None or limit >= len(found):
        return found
    order = list(range(len(found)))
    Random(seed).shuffle(order)
    return [found[i] for i in sorted(order[:limit])]


def assign(marked: list[Marked], shares: Shares | None = None) -> list[Split]:
    """Return the split of each document by rules 1 to 3. With `shares` only the shares decide, not the names."""
    if shares is not None:
        marked = [(document, None) for document, _ in marked]
    named = {mark for _, mark in marked}
    hashed = divide([split_key(document) for document, mark in marked if mark in (None, "train")], shares)
    splits: list[Split] = []
    for document, mark in marked:
        own = hashed.get(split_key(document), "train")
        taken_from_train = mark == "train" and own not in named
        splits.append(own if mark is None or taken_from_train else mark)
    return splits


def read(path: Path, wanted: Wanted = WANTED, on_bad: OnBad | None = None) -> Iterator[Marked]:
    """Yield every document under `path` with the split that its file, folder or row names, or None."""
    files = files_of(path)
    root = path if path.is_dir() else path.parent
    for file in files:
        table = kind_of(file) in TABLES + ANNOTATIONS
        name = readable(file.name if file == path else file.relative_to(path).as_posix())
        place = _place(file, path, table)
        if table:
            yield from read_table(file, name, wanted, on_bad, root, place)
            continue
        try:
            document = _read_text(file, name, wanted)
        except (ValueError, OSError) as error:
            if on_bad is None:
                raise
            on_bad(error if isinstance(error, ValueError) else ValueError(f"can't read {file}: {error.strerror}"))
            continue
        yield document, place


def files_of(path: Path) -> list[Path]:
    """Return the files to read: tables, or else annotations of pictures, or else texts. Raises ValueError for none."""
    if path.is_file():
        if kind_of(path) not in READ:
            raise ValueError(f"can't read {path}: documents come as {', '.join(READ)} files or a folder of them")
        return [path]
    files = sorted(file for file in path.rglob("*") if file.is_file() and not _hidden(file.relative_to(path)))

    def only(*suffixes: str) -> list[Path]:
        return [file for file in files if kind_of(file) in suffixes]

    texts = [file for file in only(*TEXTS) if not file.stem.endswith(".summary")]
    if len(files) > 1:  # a README beside other files is about them
        texts = [file for file in texts if not ABOUT.fullmatch(file.stem)]
    annotations = only(*ANNOTATIONS) if only(*PICTURE_FILES) or not texts else []
    found = only(*TABLES) or annotations or texts
    if not found:
        names = ", ".join(file.relative_to(path).as_posix() for file in files[:5]) + ", ..." * (len(files) > 5)
        unread = f" (it holds {names})" if files else ""
        raise ValueError(f"{path} holds no documents{unread}: put {', '.join(READ)} files there")
    unread = [file.name for file in files if kind_of(file) in UNREAD and file not in found]
    if unread and found == texts:
        names = ", ".join(unread[:5]) + ", ..." * (len(unread) > 5)
        warnings.warn(f"only the texts in {path} are read, and not {names}", Note, stacklevel=2)
    if outside := [file for file in found if leads_out(file, path)]:
        raise ValueError(f"{outside[0]} is a link that leads out of {path}: put the file itself there")
    if len(found) > MAX_FILES:
        raise ValueError(f"{path} holds {len(found):,} files, more than {MAX_FILES:,}: put them into one .jsonl file")
    return found


def _hidden(file: Path) -> bool:
    return any(part.startswith(".") for part in file.parts)


def _place(file: Path, root: Path, table: bool) -> Split | None:
    """Return the split that the name of the file, or of a folder between `root` and it, stands for."""
    stem = file.name[: len(file.name) - len(kind_of(file))]
    names = [*file.relative_to(root).parent.parts, stem] if file != root else [stem]
    return next((split for name in reversed(names) if (split := named_split(name, alone=not table))), None)


def _read_text(file: Path, name: str, wanted: Wanted) -> Document:
    check_size(file, MAX_TEXT_BYTES)
    beside = [file.with_name(f"{file.stem}.summary{suffix}") for suffix in TEXTS]
    beside = [summary for summary in beside if summary.is_file() and not leads_out(summary, file.parent)][:1]
    try:
        text = file.read_text(encoding="utf-8-sig").strip()
        summary = beside[0].read_text(encoding="utf-8-sig").strip() if beside else ""
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} or its summary is not UTF-8 text: {error}") from None
    if file.suffix.lower() == ".md":
        text = shorten_data_uris(text)
    if not text:
        raise ValueError(f"{file} is empty")
    if beside and not summary:
        raise ValueError(f"{beside[0]} is empty")
    if not beside and wanted.task != "ocr":
        summary, text = split_first_sentence(text)
    if not text:
        raise ValueError(f"{file} is one sentence only: put its summary into {file.stem}.summary.txt beside it")
    return Document(text, summary, name)
