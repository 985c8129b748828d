"""Loads documents from any source: generated ones, docstrings, data sets of the hub, or the user's own files."""

from collections.abc import Callable
from pathlib import Path

from lightseek.data.document import Document, check_task
from lightseek.data.kinds import DERIVED, SOURCES
from lightseek.data.sources.registry import DATA_SETS
from lightseek.data.splits import Split, check_split
from lightseek.data.tasks import derive


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
    check_split(split)
    for name, value in (("limit", limit), ("max_characters", max_characters)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    check_source(source)
    needed = "ocr" if task in DERIVED else task  # such a task makes its documents from texts
    if source in SOURCES:
        found = SOURCES[str(source)](split, limit, seed, max_characters)
    elif source in DATA_SETS:
        from lightseek.data.sources import hub

        found = list(hub.documents(DATA_SETS[source], split, limit, seed, needed, max_characters, on_bad))
    else:
        from lightseek.data.sources import local
        from lightseek.data.sources.tables import Wanted

        wanted = Wanted(text_column, summary_column, needed)
        found = local.documents(Path(source), split, limit, seed, wanted, max_characters, on_bad)
    if not found:
        shorter = f" of at most {max_characters} characters" if max_characters else ""
        raise ValueError(f"{source} has no {split} documents{shorter}")
    found = derive(found, task, on_bad)
    if not found:
        raise ValueError(f"{source} has no {split} documents for --task {task}")
    check_task(found[0], task)  # synthetic and docstrings have no questions
    return found


def check_source(source: str | Path) -> None:
    """Raise ValueError for an unknown source of documents, and FileNotFoundError for a path that does not exist."""
    if source in SOURCES or source in DATA_SETS or Path(source).exists():
        return
    if isinstance(source, Path) or Path(source).suffix or len(Path(source).parts) > 1:
        raise FileNotFoundError(f"no documents at {source}: there is no such file or folder")
    raise ValueError(
        f"unknown source of documents {source!r}: choose {SOURCES.choices}, {', '.join(DATA_SETS)}, "
        "or the path of a .jsonl, .csv or .parquet file or of a folder"
    )
