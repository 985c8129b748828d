"""Defines a document: a text to read and the summary that a model should write of it. Also splits texts into sentences.

The splits `train`, `validation` and `test` share no text, unless the user's own files put one text into two splits. The
split of a text never depends on `seed` or `limit`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from lightseek.data.kinds import TASKS


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
    for name in TASKS.find(task):
        if not getattr(document, name):
            usable = "answer" if document.question else "summarize" if document.summary else "ocr"
            raise ValueError(f"document {document.name} has no {name}, which --task {task} needs: try --task {usable}")


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
