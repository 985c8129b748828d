"""`python -m lightseek summarize`: prints a summary of each document."""

import argparse
import sys
from dataclasses import asdict
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightseek.commands.common import Failures, Pages, add, add_files, guard_of, say
from lightseek.commands.generate import add_writing, open_maker, writing_options

if TYPE_CHECKING:
    from lightseek.data.document import Document

TEXTS = (".txt", ".md")
WANTED = "?"  # the task needs a document with a summary, and this one's is not known yet


def summarize(arguments: argparse.Namespace) -> int:
    """Print one summary for each file. All pages of a file are in one prompt. On stderr, say how much was dropped.

    A file that cannot be read is named on stderr, and the others are summarized; the exit code is then 2.
    """
    from lightseek.commands.progress import tell_missing, tell_truncated
    from lightseek.scores.predictions import predict

    arguments.task = "summarize"
    options = writing_options(arguments)
    failures, documents = Failures(), []
    left: dict[str, int] = {}  # pages beyond --max-pages, which are not even drawn
    for path in arguments.files:
        with failures.of(path):
            documents.append(open_document(path, arguments, left))
    if not documents:
        return failures.code
    model, make = open_maker(arguments)
    for count in left.values():
        make.truncated.documents += 1
        make.truncated.pages += count
    guard = partial(guard_of, arguments)
    for found in predict(model, make, documents, guard=guard, on_bad=failures.tell, **options):
        if len(arguments.files) > 1:
            print(f"--- {found.id} ---")
        print(found.prediction, flush=True)
        end = "" if found.finish_reason == "eos" else ", cut off at --max-new-tokens"
        say(f"{found.id}: {found.vision_tokens} vision tokens, {found.seconds:.1f} s{end}")
    tell_missing(make.missing_glyphs)
    tell_truncated(asdict(make.truncated))
    return failures.code


def open_document(path: Path, arguments: argparse.Namespace, left: dict[str, int]) -> "Document":
    """Return a file as a document: a text or Markdown file as text, a PDF or a picture as pages.

    `left` gets the number of pages for which `--max-pages` has no room. Raises ValueError for a text that is empty or
    not UTF-8.
    """
    from lightseek.data.document import Document

    if str(path) == "-" or path.suffix.lower() in TEXTS:
        try:
            # UTF-8 like a file, whatever the encoding of the terminal is.
            read = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
            text = read.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text: {error}") from None
        if path.suffix.lower() == ".md":
            from lightseek.page.typeset.markdown import shorten_data_uris

            text = shorten_data_uris(text)
        if not text.strip():
            raise ValueError(f"{path} is empty")
        return Document(text, WANTED, str(path))
    images, pages = [], Pages(path, arguments)
    if len(pages.numbers) > arguments.max_pages:
        left[str(path)] = len(pages.numbers) - arguments.max_pages
    for page in islice(pages, arguments.max_pages):
        image = BytesIO()
        page.image.save(image, format="PNG", compress_level=1)
        images.append(image.getvalue())
    return Document("", WANTED, str(path), images=tuple(images))


def add_parser(commands: Any) -> None:
    command = add(commands, summarize, "summarize documents: text, Markdown, PDFs, pictures")
    command.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="each file gives one summary; - reads text from stdin"
    )
    add_files(command)
    add_writing(command)
