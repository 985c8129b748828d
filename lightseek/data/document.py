"""One entrance to all documents: generated ones, docstrings, the hub's data sets, or the user's own files.

A document is a text to read, and the summary a model should write of it. Wherever it comes from, `train`,
`validation` and `test` share no text (unless the user's own files put it in two), and which of them a text belongs to
never depends on `seed` or `limit`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from lightseek.data.kinds import TASKS


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
    for name in TASKS.find(task):
        if not getattr(document, name):
            usable = "answer" if document.question else "summarize" if document.summary else "ocr"
            raise ValueError(f"document {document.name} has no {name}, which --task {task} needs: try --task {usable}")


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
