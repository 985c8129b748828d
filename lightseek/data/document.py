"""One entrance to all documents: generated ones, docstrings, the hub's data sets, or the user's own files.

A document is a text to read, and the summary a model should write of it. Wherever it comes from, `train`,
`validation` and `test` share no text (unless the user's own files put it in two), and which of them a text belongs to
never depends on `seed` or `limit`.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from lightseek.data.splits import Split, check_split

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
    """At most `limit` documents of one split, in an order that `source`, `split` and `seed` decide.

    `source` is `"synthetic"`, `"pydoc"`, a name in `sources/registry.py`, or the path of a JSONL, JSON, CSV or
    parquet file or of a folder. The columns only matter for files; `summary_column=None` takes each text's first
    sentence as its summary. Texts longer than `max_characters` are left out, never cut (synthetic ones are written to
    fill that length). Every document has what `task` needs; one that doesn't raises ValueError or goes to `on_bad`.
    Raises ValueError, or FileNotFoundError for a path that isn't there, saying what was wrong and where.
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
    """What decides a document's split where nothing names it: its text, or its first page if it comes as pictures."""
    if not document.images:
        return document.text
    page = document.images[0]
    return f"{crc32(page):08x}" if isinstance(page, bytes) else "/".join(page.parts[-2:])


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
