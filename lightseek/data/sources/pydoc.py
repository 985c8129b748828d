"""Finds English texts on every machine with Python: docstrings of the standard library and of installed packages.

The first sentence is the summary of the rest. Files are parsed and never imported or run. The standard library comes
first, because every machine has it; the seed shuffles the files within each group. A docstring's split depends on its
text only, and a text that occurs twice counts once.
"""

import ast
import inspect
import os
import sysconfig
import warnings
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from random import Random

from lightseek.data.document import Document, split_first_sentence
from lightseek.data.splits import Split, check_split, text_split

MIN_TEXT, MIN_SUMMARY, MAX_SUMMARY = 100, 20, 250  # characters
CHARACTERS, LONGEST = 300, 1500  # of a passage whose length is not given, and of the docstrings in passages
MAX_FILE_BYTES = 1_000_000
MAX_FILES = 4_000
_SKIP_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "__phello__"}


def documents(
    split: Split, limit: int | None = None, seed: int = 0, max_characters: int | None = None
) -> list[Document]:
    """Return at most `limit` docstrings of a split. It stops reading files when it has that many.

    Without a limit it reads up to `MAX_FILES` files, which takes about 15 seconds; the other splits are then quick.
    """
    check_split(split)
    return list(islice(_stream(split, seed, max_characters), limit))


def _stream(split: Split, seed: int, max_characters: int | None) -> Iterator[Document]:
    """Yield the docstrings of a split. Files are read as the docstrings are asked for."""
    seen: set[str] = set()
    for name, path in _files(seed):
        for where, docstring in _docstrings(path):
            summary, text = split_first_sentence(docstring)
            fits = MIN_TEXT <= len(text) <= (max_characters or len(text))
            if not fits or text in seen or text_split(text) != split or not _is_prose(summary, text):
                continue
            seen.add(text)
            yield Document(text, summary, f"{name}:{where}")


def passages(
    split: Split, limit: int | None = None, seed: int = 0, max_characters: int | None = None
) -> list[Document]:
    """Return at most `limit` texts of one length: docstrings of a split, joined and cut at a word.

    Each has at most `max_characters` (`CHARACTERS` if it is not given) and lacks less than a word to that length. No
    docstring is in two passages, but some docstrings begin alike: of 200 passages of 100 characters in each of two
    splits, 1 to 3 are in both. A passage has no summary, so the tasks are ocr, continue and those made of texts.
    """
    check_split(split)
    return list(islice(_passages(split, seed, max_characters or CHARACTERS), limit))


def _passages(split: Split, seed: int, length: int) -> Iterator[Document]:
    text = name = ""
    for document in _stream(split, seed, LONGEST):
        name = name or document.name
        text = f"{text} {' '.join(document.text.split())}".strip()
        if len(text) > length:
            cut = text[: length + 1].rpartition(" ")[0] or text[:length]
            yield Document(cut, "", f"passage-{length}:{name}")
            text = name = ""


def _files(seed: int) -> Iterator[tuple[str, Path]]:
    """Yield (name, path) of at most `MAX_FILES` Python files. `seed` decides the order within each folder."""
    folders = dict.fromkeys(sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib"))
    left = MAX_FILES
    for folder in folders:
        names = sorted(_python_files(Path(folder)))
        Random(f"{seed}").shuffle(names)
        for name in names[:left]:
            yield name, Path(folder, name)
        left -= min(left, len(names))


def _python_files(folder: Path) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in _SKIP_FOLDERS and not name.startswith(".")]
        for file in files:
            if file.endswith(".py"):
                yield Path(parent, file).relative_to(folder).as_posix()


@cache  # train, validation and test ask for the same files
def _docstrings(path: Path) -> tuple[tuple[str, str], ...]:
    """Return (qualified name, cleaned docstring) for everything in a file; nothing if the file can't be parsed."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return ()
        source = path.read_bytes()
        with warnings.catch_warnings(action="ignore"):  # other people's strings may have invalid escapes
            tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    found: list[tuple[str, str]] = []

    def collect(node: ast.AST, name: str) -> None:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            if docstring:
                found.append((name or "module", inspect.cleandoc(docstring)))
            for child in node.body:
                collect(child, f"{name}.{child.name}".lstrip(".") if hasattr(child, "name") else name)

    collect(tree, "")
    return tuple(found)


def _is_prose(summary: str, text: str) -> bool:
    """Return whether the text is printable and the summary looks like a sentence, not a signature or a heading."""
    return (
        MIN_SUMMARY <= len(summary) <= MAX_SUMMARY
        and summary[0].isalpha()
        and summary[-1] in ".!?"
        and summary.count(" ") >= 3
        and text.replace("\n", "").isprintable()
        and not text.startswith(">>>")  # examples only
    )
