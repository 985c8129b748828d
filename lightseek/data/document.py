"""`load_documents` loads documents from any source: generated ones, docstrings, the hub's data sets, the user's files.

A document is a text to read and the summary that a model should write of it. The splits `train`, `validation` and
`test` share no text, unless the user's own files put one text into two splits. The split of a text never depends on
`seed` or `limit`.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from lightseek.data.splits import Split, check_split

TASKS = ("ocr", "summarize", "answer")  # the model writes the text, its summary, or the answer to a question

# `synthetic` has no end, so it needs a number of documents when the user gives no limit.
SYNTHETIC_COUNTS = {"train": 10_000, "validation": 500, "test": 500}


@dataclass(frozen=True)
class Document:
    """A text and its reference summary. `facts` are strings that a correct summary must contain; there may be none.

    `images` holds the pages of a document that comes as pictures: each is a path or the bytes of a picture file. The
    text or the summary of such a document may be unknown (""). If there is a `question`, the summary is its answer.
    """

    text: str
    summary: str
    name: str
    facts: tuple[str, ...] = ()
    images: tuple[Path | bytes, ...] = ()
    question: str = ""


def check_task(document: Document, task: str) -> None:
    """Raise ValueError, which names the document, when the document lacks something that the task needs."""
    if not document.text and not document.images:
        raise ValueError(f"document {document.name} has no text and no pictures")
    needed = {"ocr": ("text",), "summarize": ("summary",), "answer": ("question", "summary")}[task]
    for name in needed:
        if not getattr(document, name):
            usable = "answer" if document.question else "summarize" if document.summary else "ocr"
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
    task: str = "summarize",
    on_bad: Callable[[ValueError], None] | None = None,
) -> list[Document]:
    """Return at most `limit` documents of one split, in an order that depends on `source`, `split` and `seed` only.

    `source` is `"synthetic"`, `"pydoc"`, a name in `sources/registry.py`, or the path of a JSONL, JSON, CSV or
    parquet file or of a folder. The columns only matter for files. With `summary_column=None` the first sentence of
    each text is its summary. Texts longer than `max_characters` are left out and never cut; synthetic texts are
    written to fill that length. A document that lacks something `task` needs is passed to `on_bad` as a ValueError;
    without `on_bad` the error is raised. Raises ValueError for a wrong argument or if there is nothing to load, and
    FileNotFoundError if the path does not exist. The message says what was wrong and where.
    """
    from lightseek.data.sources.registry import DATA_SETS

    check_split(split)
    for name, value in (("limit", limit), ("max_characters", max_characters)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if source == "synthetic":
        from lightseek.data.sources import synthetic

        count = SYNTHETIC_COUNTS[split] if limit is None else limit
        found = synthetic.documents(split, count, seed, max_characters or synthetic.CHARACTERS)
    elif source == "pydoc":
        from lightseek.data.sources import pydoc

        found = pydoc.documents(split, limit, seed, max_characters)
    elif source in DATA_SETS:
        from lightseek.data.sources import hub

        found = list(hub.documents(DATA_SETS[source], split, limit, seed, task, max_characters, on_bad))
    elif Path(source).exists():
        from lightseek.data.sources import local
        from lightseek.data.sources.tables import Wanted

        wanted = Wanted(text_column, summary_column, task)
        found = local.documents(Path(source), split, limit, seed, wanted, max_characters, on_bad)
    elif isinstance(source, Path) or Path(source).suffix or len(Path(source).parts) > 1:
        raise FileNotFoundError(f"no documents at {source}: there is no such file or folder")
    else:
        raise ValueError(
            f"unknown source of documents {str(source)!r}: choose synthetic, pydoc, {', '.join(DATA_SETS)}, "
            "or the path of a .jsonl, .csv or .parquet file or of a folder"
        )
    if not found:
        shorter = f" of at most {max_characters} characters" if max_characters else ""
        raise ValueError(f"{source} has no {split} documents{shorter}")
    check_task(found[0], task)  # synthetic and docstrings have no questions
    return found


def split_key(document: Document) -> str:
    """Return the string whose hash decides a document's split: its text, or its first page if it comes as pictures."""
    if not document.images:
        return document.text
    page = document.images[0]
    return f"{crc32(page):08x}" if isinstance(page, bytes) else "/".join(page.parts[-2:])


# A sentence ends at a blank line, or at . ! ? and closing quotes, if white space and a possible first letter follow.
_SENTENCE_END = re.compile(r"""(?P<stop>[.!?]+["'”’»)\]`]*)\s+(?=["'“‘«(\[`¿¡*]*[^\Wa-z])|\n[^\S\n]*\n\s*""")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|cf|vs|etc|Mr|Mrs|Ms|Dr|Prof|St|No|Nr|Fig|Sec|Eq|al)|\b[A-Z])\.$")


def sentences(text: str) -> Iterator[str]:
    """Yield the stripped sentences of `text`, with inner line breaks. A heading between blank lines is a sentence."""
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
    """Return the first sentence on one line, and the rest of the text unchanged ("" if there is no more)."""
    text = text.strip()
    first = next(sentences(text), "")
    return " ".join(first.split()), text[len(first) :].strip()
