"""Collects the sample documents of a report: pages as the models saw them, and outputs with the wrong letters marked.

predictions.jsonl and pages/ of each row's first cell -> `sample_documents` -> `Sample`, one for each document
"""

import base64
import hashlib
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from PIL import Image
from rapidfuzz.distance import Levenshtein

from lightseek.data.kinds import PAGELESS
from lightseek.lab.summary import PREDICTIONS, Row
from lightseek.scores.predictions import Prediction, read_predictions

Kind = Literal["equal", "delete", "insert"]
PAGE_FILE = re.compile(r"document-(\d+)-page-1-of-(\d+)\.png")
SPACES = str.maketrans("\n\t\r\u00a0", "    ")  # the metrics do not tell these apart either
MOST_PICTURES = 60  # in a report; more would be too small to read, and take minutes
QUALITY = 60  # of WebP, where a lossless picture would be too large
SMALLEST = 0.15  # share of the size of a page
NOISY = 0.2  # bytes a pixel, compressed; pages of text have about 0.05


@dataclass(frozen=True)
class Part:
    """A piece of an output. "delete" is text of the reference that is missing, "insert" is text that is too much."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Output:
    """What the model of one row wrote about a document."""

    row: int  # the row's place in the summary
    parts: list[Part]
    edits: int  # the number of wrong letters: missing, too much or replaced
    cut: bool  # whether the text ended at the length limit
    hidden: int  # letters of the output that are not shown, because it is long


@dataclass(frozen=True)
class Picture:
    """A page as one or more rows saw it."""

    width: int  # in pixels, as the model saw it
    height: int
    data: str  # a data URI
    scale: float  # size of the picture in `data`, as a share of the size that the model saw
    lossless: bool
    pages: int  # the number of pages of the document


@dataclass
class View:
    """The rows that saw a document in the same way: the same page, or its text if they are `pageless`."""

    pageless: bool = False
    picture: Picture | None = None  # also None if the page is not in the folder, or if there are too many
    outputs: list[Output] = field(default_factory=list)


@dataclass
class Sample:
    """One document, and what all rows made of it."""

    name: str
    reference: str
    source: str  # the document's text; "" for the task ocr, where the reference is that text
    hidden: int  # letters of the reference that are not shown
    views: list[View] = field(default_factory=list)


def sample_documents(
    rows: Sequence[Row], contexts: Sequence[str], documents: int, letters: int, bytes_of_pages: int
) -> list[Sample]:
    """Return the first documents with the outputs of every row that has predictions, from its first seed.

    `contexts` has the setting `context` of each row. At most `letters` characters of a text are shown. All pictures
    together take about `bytes_of_pages` bytes at most: if they are larger, they are compressed or made smaller.
    """
    found: dict[str, Sample] = {}
    views: dict[tuple[str, str], View] = {}  # document and digest of its page -> view
    pages: dict[int, tuple[Path, int]] = {}  # id of a view -> file of the page, and number of the document's pages
    for place, (row, context) in enumerate(zip(rows, contexts, strict=True)):
        for number, prediction in enumerate(_predictions(row, documents), 1):
            sample = found.get(prediction.id)
            if sample is None:
                if len(found) == documents:
                    continue
                text = prediction.reference
                sample = Sample(prediction.id, text[:letters], prediction.source[:letters], max(0, len(text) - letters))
                found[prediction.id] = sample
            page = None if context in PAGELESS else _page(row.folders[0], number)
            digest = hashlib.sha256(page[0].read_bytes()).hexdigest() if page else ""
            if (view := views.get((prediction.id, digest))) is None:
                view = views[prediction.id, digest] = View(pageless=context in PAGELESS)
                sample.views.append(view)
                if page:
                    pages[id(view)] = page
            view.outputs.append(_output(place, prediction, letters))
    samples, shown = list(found.values()), []
    for sample in samples:
        pictures = [(page, view) for view in sample.views if (page := pages.get(id(view)))]
        if shown and len(shown) + len(pictures) > MOST_PICTURES:
            samples = samples[: samples.index(sample)]
            break
        shown += pictures
    for (path, count), view in shown[:MOST_PICTURES]:
        view.picture = encode(path, count, bytes_of_pages // min(len(shown), MOST_PICTURES))
    return samples


def _predictions(row: Row, documents: int) -> list[Prediction]:
    path = row.folders[0] / PREDICTIONS if row.folders else Path()
    return read_predictions(path)[1][:documents] if path.is_file() else []


def _page(folder: Path, number: int) -> tuple[Path, int] | None:
    """Return the file of the first page of a document, counted from 1, and the number of its pages."""
    for path in sorted((folder / "pages").glob(f"document-{number}-page-1-of-*.png")):
        if match := PAGE_FILE.fullmatch(path.name):
            return path, int(match[2])
    first = folder / "page.png"  # cells of older releases have only this one
    return (first, 1) if number == 1 and first.is_file() else None


def _output(row: int, prediction: Prediction, letters: int) -> Output:
    text = prediction.prediction
    edits = Levenshtein.distance(prediction.reference.translate(SPACES), text.translate(SPACES))
    # The rest of a long reference would be marked as missing, so that both are shortened.
    parts = list(marked(prediction.reference[:letters], text[:letters]))
    return Output(row, parts, edits, prediction.finish_reason == "length", max(0, len(text) - letters))


def marked(reference: str, output: str) -> Iterator[Part]:
    """Yield the pieces of an output, with what is missing and what is too much according to the edit distance.

    A few equal letters between two longer wrong pieces are part of them, because single letters that are equal by
    chance make two different sentences hard to read.
    """
    codes = Levenshtein.opcodes(reference.translate(SPACES), output.translate(SPACES))
    spans = _joined([_Span(tag == "equal", *places) for tag, *places in codes])
    sizes = [span.size for span in spans]
    for place in range(1, len(spans) - 1):
        if spans[place].equal and sizes[place] < min(sizes[place - 1], sizes[place + 1], 4):
            spans[place] = spans[place]._replace(equal=False)
    for span in _joined(spans):
        missing, written = reference[span.start : span.end], output[span.begin : span.stop]
        if span.equal:
            yield Part("equal", written)
            continue
        if missing:
            yield Part("delete", visible(missing))
        if written:
            yield Part("insert", visible(written))


class _Span(NamedTuple):
    equal: bool
    start: int  # in the reference
    end: int
    begin: int  # in the output
    stop: int

    @property
    def size(self) -> int:
        return max(self.end - self.start, self.stop - self.begin)


def _joined(spans: list[_Span]) -> list[_Span]:
    """Join neighbours that are both equal or both wrong."""
    joined: list[_Span] = []
    for span in spans:
        if joined and joined[-1].equal == span.equal:
            span = joined.pop()._replace(end=span.end, stop=span.stop)
        joined.append(span)
    return joined


def visible(text: str) -> str:
    """Show white space that is missing or too much by signs, because a reader would not see it."""
    return text.replace(" ", "␣") if not text.strip(" ") else text.replace("\n", "↵\n") if not text.strip() else text


def encode(path: Path, pages: int, most: int) -> Picture:
    """Return a page as a grey or coloured WebP picture of about `most` bytes at most.

    The picture is lossless if that fits. Otherwise it is compressed, and then made smaller until it fits or is tiny.
    """
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    grey = image.convert("L")
    if grey.convert("RGB").tobytes() == image.tobytes():
        image = grey
    packed = len(zlib.compress(image.tobytes(), 1))
    if packed < min(2 * most, NOISY * image.width * image.height):  # WebP takes half a minute for a page full of noise
        data = _webp(image, lossless=True)
        if len(data) <= most:
            return Picture(image.width, image.height, data, 1.0, True, pages)
    data, scale = _webp(image, quality=QUALITY), 1.0
    while len(data) > most and scale > SMALLEST:
        scale = max(SMALLEST, scale * min(0.8, 0.9 * (most / len(data)) ** 0.5))
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        data = _webp(image.resize(size, Image.Resampling.LANCZOS), quality=QUALITY)
    return Picture(image.width, image.height, data, scale, False, pages)


def _webp(image: Image.Image, **how: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", method=2, **how)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
