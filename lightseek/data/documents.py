"""One entrance to all documents: generated ones, docstrings, or the user's own files.

A document is a text to read, and the summary a model should write of it. Wherever it comes from, `train`,
`validation` and `test` share no text (unless the user's own files put it in two), and which of them a text belongs to
never depends on `seed` or `limit`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from zlib import crc32

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
TASKS = ("ocr", "summarize", "answer")  # what a model can learn to write: the text, its summary, or an answer

# What `synthetic`, which never ends, gives without a limit.
SYNTHETIC_COUNTS = {"train": 10_000, "validation": 500, "test": 500}


@dataclass(frozen=True)
class Document:
    """A text and its reference summary; `facts` are strings that a correct summary must contain (may be empty).

    `images` are its pages where it comes as pictures, as files or as the bytes of files; then the text or the summary
    may be unknown (""). With a `question`, the summary is the answer to it.
    """

    text: str
    summary: str
    name: str
    facts: tuple[str, ...] = ()
    images: tuple[Path | bytes, ...] = ()
    question: str = ""


def check_task(document: Document, task: str) -> None:
    """Raise ValueError, naming the document, when it lacks what a task needs."""
    needed = {"ocr": ("text",), "summarize": ("summary",), "answer": ("question", "summary")}[task]
    for name in needed:
        if not getattr(document, name):
            usable = "answer" if document.question else "ocr" if document.text else "summarize"
            raise ValueError(f"document {document.name} has no {name}, which --task {task} needs: try --task {usable}")


def load_documents(
    source: str | Path,
    split: Split,
    limit: int | None = None,
    seed: int = 0,
    *,
    text_column: str = "text",
    summary_column: str | None = "summary",
    max_characters: int | None = None,
) -> list[Document]:
    """At most `limit` documents of one split, in an order that `source`, `split` and `seed` decide.

    `source` is `"synthetic"`, `"pydoc"`, or the path of a JSONL, CSV or parquet file or of a folder.
    The columns only matter for files; `summary_column=None` takes each text's first sentence as its summary.
    Texts longer than `max_characters` are left out, never cut (synthetic ones are written to fill that length).
    Raises ValueError, or FileNotFoundError for a path that isn't there, saying what was wrong and where.
    """
    check_split(split)
    for name, value in (("limit", limit), ("max_characters", max_characters)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if source == "synthetic":
        from lightseek.data import synthetic

        count = SYNTHETIC_COUNTS[split] if limit is None else limit
        return synthetic.documents(split, count, seed, max_characters or synthetic.CHARACTERS)
    if source == "pydoc":
        from lightseek.data import pydoc

        found = pydoc.documents(split, limit, seed, max_characters)
    elif Path(source).exists():
        from lightseek.data import local

        found = local.documents(Path(source), split, limit, seed, text_column, summary_column, max_characters)
    elif isinstance(source, Path) or Path(source).suffix or len(Path(source).parts) > 1:
        raise FileNotFoundError(f"no documents at {source}: there is no such file or folder")
    else:
        raise ValueError(
            f"unknown source of documents {str(source)!r}: choose synthetic, pydoc, "
            "or the path of a .jsonl, .csv or .parquet file or of a folder"
        )
    if not found:
        shorter = f" of at most {max_characters} characters" if max_characters else ""
        raise ValueError(f"{source} has no {split} documents{shorter}")
    return found


def check_split(split: str) -> None:
    """Raise ValueError, listing the choices, unless `split` is one of `SPLITS`."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")


def text_split(text: str) -> Split:
    """The split that a text belongs to, by its hash alone: 80 % train, 10 % validation, 10 % test."""
    bucket = crc32(text.encode()) % 10
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


# A sentence ends at . ! ? (and closing quotes) before white space and something that can start one, or at a blank line.
_SENTENCE_END = re.compile(r"""(?P<stop>[.!?]+["'”’»)\]`]*)\s+(?=["'“‘«(\[`¿¡*]*[^\Wa-z])|\n[^\S\n]*\n\s*""")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|cf|vs|etc|Mr|Mrs|Ms|Dr|Prof|St|No|Nr|Fig|Sec|Eq|al)|\b[A-Z])\.$")


def sentences(text: str) -> Iterator[str]:
    """The sentences of `text`, stripped, inner line breaks kept. A heading on a paragraph of its own counts as one."""
    start = 0
    for end in _SENTENCE_END.finditer(text):
        stop = end["stop"]
        sentence = text[start : end.start() + len(stop or "")]
        if stop == "." and _ABBREVIATION.search(sentence):
            continue
        if sentence.strip():
            yield sentence.strip()
        start = end.end()
    if text[start:].strip():
        yield text[start:].strip()


def split_first_sentence(text: str) -> tuple[str, str]:
    """The first sentence on one line, and the rest as it stands (empty when there is no more)."""
    text = text.strip()
    first = next(sentences(text), "")
    return " ".join(first.split()), text[len(first) :].strip()
