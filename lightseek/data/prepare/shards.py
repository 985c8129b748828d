"""Writes one shard of a prepared folder: its pictures, then its rows, then its figures, which mark it as done."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

from lightseek.data.context.pages import PageMaker
from lightseek.data.document import Document, check_task
from lightseek.data.sources.registry import DATA_SETS
from lightseek.data.splits import Shares, Split
from lightseek.page.modes import check_shape
from lightseek.page.spec import MOST_PAGES, PageSpec
from lightseek.tools.files import atomic_write, readable, write_json

WORK = ".prepare"  # the folder for unfinished shards and for the figures
SHARD = 1000  # rows
PICTURED_SHARD = 100  # rows with pages


@dataclass(frozen=True)
class Job:
    """All settings that decide what is written."""

    source: str
    task: str = "summarize"
    images: bool = False  # draw the pages and keep them as pictures
    mode: str = "small"
    font: str = "DejaVuSans"
    max_pages: int = MOST_PAGES
    format: str = "jsonl"  # one of FORMATS
    limit: int | None = None  # documents of each split; with shares, of all splits together
    shares: Shares | None = None
    seed: int = 0
    skip_bad: bool = False
    text_column: str = "text"
    summary_column: str | None = "summary"
    shard: int | None = None  # rows; None means `SHARD`, or `PICTURED_SHARD` for rows with pages

    @property
    def rows(self) -> int:
        pictured = self.images or (self.source in DATA_SETS and DATA_SETS[self.source].kind == "vision")
        return self.shard or (PICTURED_SHARD if pictured else SHARD)


@dataclass
class Figures:
    """The counts of one shard, of one split or of everything. Each list of numbers has one number for each document."""

    text: list[int] = field(default_factory=list)  # characters
    summary: list[int] = field(default_factory=list)  # characters
    pages: list[int] = field(default_factory=list)
    pictures: int = 0  # documents that came as pictures
    truncated: int = 0  # documents that need more pages than the budget
    dropped: int = 0  # characters of these documents that no page shows
    missing_glyphs: dict[str, int] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)  # the errors of rows that were left out

    def add(self, other: "Figures") -> None:
        for name in ("text", "summary", "pages", "bad"):
            getattr(self, name).extend(getattr(other, name))
        self.pictures += other.pictures
        self.truncated += other.truncated
        self.dropped += other.dropped
        self.missing_glyphs = dict(Counter(self.missing_glyphs) + Counter(other.missing_glyphs))


def part_file(work: Path, split: Split, number: int, job: Job) -> Path:
    return work / f"{split}-{number:05d}.{job.format}"


def figures_file(work: Path, split: Split, number: int) -> Path:
    return work / f"{split}-{number:05d}.figures.json"


def write_shard(job: Job, out: Path, split: Split, number: int, shard: list[Document]) -> Figures:
    """Write one shard: its pictures, then its rows, then its figures, which mark it as done. Returns the figures."""
    figures, rows = Figures(), []
    maker = PageMaker(PageSpec(job.mode, job.font, max_pages=job.max_pages))
    for index, document in enumerate(shard):
        name = f"images/{split}-{number:05d}/{index:05d}"
        try:
            row, pages = _row(job, document, maker)
            check_task(document, job.task)
        except ValueError as error:
            figures.bad.append(readable(error))
            continue
        if job.format == "parquet":
            pictures = [{"bytes": data, "path": f"{name}-{k}{suffix}"} for k, (data, suffix) in enumerate(pages)]
        else:
            pictures = [f"{name}-{k}{suffix}" for k, (_, suffix) in enumerate(pages)]
            for path, (data, _) in zip(pictures, pages, strict=True):
                with atomic_write(out / path) as temporary:
                    temporary.write_bytes(data)
        rows.append(row | ({"images": pictures} if pages else {}))
        figures.text.append(len(row["text"]))
        figures.summary.append(len(row["summary"]))
        figures.pages.append(len(pages) or maker.needed(document.text))
        figures.pictures += bool(document.images)
        figures.truncated += figures.pages[-1] > job.max_pages  # false for drawn pages, which are counted below
    figures.truncated += maker.truncated.documents
    figures.dropped, figures.missing_glyphs = maker.truncated.characters, dict(maker.missing_glyphs)
    with atomic_write(part_file(out / WORK, split, number, job)) as temporary:
        _write_rows(temporary, rows, job.format)
    write_json(figures_file(out / WORK, split, number), asdict(figures))
    return figures


def _row(job: Job, document: Document, maker: PageMaker) -> tuple[dict[str, Any], list[tuple[bytes, str]]]:
    """Return a row, and the bytes and suffix of each page. Drawn pages are PNG files; pictures stay unchanged."""
    text, pages = document.text, []
    if document.images:
        for image in maker.show(document).images:  # raises ValueError if a picture cannot be read
            try:
                check_shape(*image.size, "base")  # whatever mode is trained later
            except ValueError as error:
                raise ValueError(f"document {document.name}: {error}") from None
        pages = [_bytes(picture) for picture in document.images]
    elif job.images:
        made = maker(document)
        text = made.text  # only the text that the pages show, so that a model can learn to read it
        pages = [(_png(image), ".png") for image in made.images]
    row: dict[str, Any] = {"name": document.name, "text": text, "summary": document.summary}
    if document.question:
        row["question"] = document.question
    if document.facts:
        row["facts"] = list(document.facts)
    return row, pages


def _bytes(picture: Path | bytes) -> tuple[bytes, str]:
    from PIL import Image

    if isinstance(picture, Path):
        return picture.read_bytes(), picture.suffix.lower()
    return picture, f".{Image.open(BytesIO(picture)).format}".lower()


def _png(image: Any) -> bytes:
    file = BytesIO()
    image.convert("L").save(file, "PNG", optimize=False)  # pages are black on white
    return file.getvalue()


def _write_rows(path: Path, rows: list[dict[str, Any]], form: str) -> None:
    if form == "jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return
    import datasets

    datasets.disable_progress_bars()
    text = datasets.Value("string")
    kinds = {"facts": datasets.List(text), "images": datasets.List(datasets.Image())}
    columns = dict.fromkeys(chain(("name", "text", "summary"), *rows))
    whole = [{column: row.get(column) for column in columns} for row in rows]
    features = datasets.Features({column: kinds.get(column, text) for column in columns})
    datasets.Dataset.from_list(whole, features=features).to_parquet(str(path))
