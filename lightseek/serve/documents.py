"""What clients send becomes pages: the bytes of a picture, a PDF or a text, within the limits of the service.

The bytes decide what a file is. Its name is never opened, printed or trusted. Pictures and texts stay in memory; a PDF
lies in a private folder while its pages are drawn, because PDFium reads files.
"""

import base64
import binascii
import re
import tempfile
import threading
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from lightseek.model.config import OCRConfig
from lightseek.page.pdf import PdfPages
from lightseek.page.pictures import PictureFrames
from lightseek.page.render import fit_pages, page_style, render_text
from lightseek.serve.errors import bad, too_large
from lightseek.serve.limits import Limits

PDFIUM = threading.Lock()  # PDFium is not thread-safe
DATA_URI = re.compile(r"data:[\w.+-]*/?[\w.+-]*(?:;[\w=.+-]+)*;base64,", re.ASCII)


@dataclass
class Document:
    """The pages of what a client sent."""

    pages: list[Image.Image]
    numbers: list[int]  # of these pages in the document, counted from 1
    kind: str  # "picture", "pdf" or "text"
    text: str | None = None  # of a text


def kind_of(data: bytes) -> str:
    """Return what the bytes are: "pdf", "picture" or "text". Raises Refused for anything else."""
    if data[:1024].lstrip()[:5] == b"%PDF-":
        return "pdf"
    try:
        with Image.open(BytesIO(data)):
            return "picture"
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        pass
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if not data or "\0" in text:
        raise bad("this is no picture, no PDF and no text in UTF-8: send one of these", "file")
    return "text"


def open_document(
    data: bytes,
    limits: Limits,
    mode: str,
    config: OCRConfig,
    markdown: bool = False,
    first: int = 1,
    last: int | None = None,
    password: str | None = None,
) -> Document:
    """Return the pages `first` to `last` of a document, drawn for `mode`. Raises Refused for what cannot be read."""
    kind = kind_of(data)
    try:
        if kind == "text":
            return drawn_text(data.decode("utf-8-sig"), limits, mode, config, markdown)
        if kind == "pdf":
            return drawn_pdf(data, limits, first, last, password)
        with PictureFrames(BytesIO(data)) as frames:
            width, height = frames.picture.size
            if width * height > limits.pixels:
                raise too_large(f"the picture has {width} x {height} pixels; the limit is {limits.pixels}", "file")
            chosen = numbers(len(frames), first, last, limits)
            return Document([frames.draw(number - 1) for number in chosen], chosen, kind)
    except (ValueError, OSError) as error:
        raise bad(without_path(str(error)), "file") from None


def numbers(count: int, first: int, last: int | None, limits: Limits) -> list[int]:
    """Return the page numbers of a request. Raises Refused if there are none or too many."""
    chosen = list(range(max(1, first), min(count, last or count) + 1))
    if not chosen:
        raise bad(f"the document has {count} page(s): there is none from {first} to {last or count}", "pages")
    if len(chosen) > limits.pdf_pages:
        raise too_large(f"{len(chosen)} pages; a request may read {limits.pdf_pages}: choose some of them", "pages")
    return chosen


def drawn_pdf(data: bytes, limits: Limits, first: int, last: int | None, password: str | None) -> Document:
    with tempfile.TemporaryDirectory(prefix="lightseek-") as folder, PDFIUM:
        path = Path(folder) / "document.pdf"
        path.write_bytes(data)
        with PdfPages(path, password) as pdf:
            chosen = numbers(len(pdf), first, last, limits)
            return Document([pdf.draw(number - 1) for number in chosen], chosen, "pdf")


def drawn_text(text: str, limits: Limits, mode: str, config: OCRConfig, markdown: bool) -> Document:
    if not text.strip():
        raise bad("the text is empty", "text")
    if len(text) > limits.prompt_characters:
        raise too_large(f"the text has {len(text)} characters; the limit is {limits.prompt_characters}", "text")
    style = fit_pages(text, page_style(mode), *config.letters, most=limits.pdf_pages, markdown=markdown)
    pages = [page.image for page in render_text(text, style, markdown, limits.pdf_pages).pages]
    return Document(pages, list(range(1, len(pages) + 1)), "text", text)


def data_uri(uri: str) -> bytes:
    """Return the bytes of a data URI. Raises Refused for any other address: nothing is fetched, no file is opened."""
    match = DATA_URI.match(uri[:200])
    if not match:
        raise bad("a picture comes as a data URI (data:image/png;base64,...): no address is fetched", "image_url")
    try:
        return base64.b64decode(uri[match.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise bad("the data URI is no valid base64", "image_url") from None


def without_path(message: str) -> str:
    """Return an error message without the name of the temporary file in it."""
    return (
        re.sub(r"\S*document\.pdf:?\s*", "", re.sub(r"<_io\.BytesIO object at \w+>:?\s*", "", message)) or "unreadable"
    )
