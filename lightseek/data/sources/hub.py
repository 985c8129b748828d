"""Turns rows of the hub's data sets into documents. The library `datasets` reads them; no data set's code is executed.

With a limit of up to `STREAMED` documents, the rows are streamed: row groups of the parquet files come in an order that
the seed decides, so a few documents cost a few megabytes. With a larger limit or none, the split is downloaded once and
kept in the cache of `datasets`; the seed decides the order of its rows, too.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from random import Random
from typing import Any

from lightseek.data.document import Document, check_task, split_key
from lightseek.data.sources.cells import pictures
from lightseek.data.sources.registry import DataSet
from lightseek.data.sources.tables import MAX_TABLE_BYTES, OnBad
from lightseek.data.splits import Split, part_of
from lightseek.tools.json_files import read_json

STREAMED = 20_000  # documents
# The size of the shuffle buffer in rows, and from how many row groups (1000 texts or 100 pictures each) it is filled.
BUFFERS = {"text": (1000, 10), "vision": (100, 1)}
MANY_FILES = 32  # the order of so many files mixes enough; to ask each for its row groups would take minutes


def documents(
    entry: DataSet,
    split: Split,
    limit: int | None = None,
    seed: int = 0,
    task: str = "summarize",
    max_characters: int | None = None,
    on_bad: OnBad | None = None,
) -> Iterator[Document]:
    """Yield the documents of one split. Of two streams, the one with the smaller limit is the beginning of the other.

    A row that lacks something the task needs goes to `on_bad` as a ValueError with its number; without `on_bad` the
    error is raised. Raises ValueError for a split or a task that the data set does not have, and for every error of the
    network or the hub.
    """
    if task not in entry.tasks:
        raise ValueError(f"{entry.name} is for --task {' or '.join(entry.tasks)}, not {task}")
    if split not in entry.splits:
        raise ValueError(f"{entry.name} has no {split} documents, only {' and '.join(entry.splits)}: {entry.note}")
    theirs = entry.splits[split]
    ours = tuple(other for other, name in entry.splits.items() if name == theirs)
    found = 0
    for where, result in _documents(entry, theirs, seed, limit is not None and limit <= STREAMED):
        try:
            if isinstance(result, ValueError):
                raise result
            check_task(result, task)
        except ValueError as error:
            bad = ValueError(f"{where}: {error}")
            if on_bad is None:
                raise bad from None
            on_bad(bad)
            continue
        too_long = max_characters is not None and len(result.text) > max_characters
        if too_long or part_of(split_key(result), ours) != split:
            continue
        yield result
        found += 1
        if found == limit:
            return


def _documents(entry: DataSet, theirs: str, seed: int, stream: bool) -> Iterator[tuple[str, Document | ValueError]]:
    """Yield (where, document or its error) for everything in one of the data set's own splits."""
    files = {"omnidocbench": _omnidocbench, "haystack": _haystack}
    try:
        if entry.reader in files:
            yield from files[entry.reader](entry, seed)
            return
        for number, row in _rows(entry, theirs, seed, stream):
            where = f"{entry.name} {theirs}, row {number}"
            try:
                for document in _of_row(row, f"{entry.name}/{theirs}:{number}", entry):
                    yield where, document
            except ValueError as error:
                yield where, error
    except Exception as error:  # the network, the hub, `datasets` and Arrow each have their own errors
        raise ValueError(
            f"can't read {theirs} of {entry.name} ({entry.hub_id}) from the hub: {error}. {entry.note} "
            "Without a connection, give the folder that `python -m lightseek prepare` once made of it"
        ) from error


def _rows(entry: DataSet, theirs: str, seed: int, stream: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number, row). Numbers count from 1 in the split, or in the order of a stream. Pictures stay bytes."""
    import datasets

    files = entry.files.format(configuration=entry.configuration, split=theirs)
    source = {theirs: f"hf://datasets/{entry.hub_id}@{entry.revision}/{files}"}
    table = datasets.load_dataset("parquet", data_files=source, split=theirs, streaming=stream)
    if stream:
        buffer, groups = BUFFERS[entry.kind]
        table = table.decode(False)
        table = table if table.num_shards > MANY_FILES else table.reshard()
        yield from enumerate(table.shuffle(seed=seed, buffer_size=buffer, max_buffer_input_shards=groups), start=1)
        return
    order = list(range(len(table)))
    Random(seed).shuffle(order)
    table = table.with_format("arrow")
    for index in order:
        yield index + 1, table[index].to_pylist()[0]


def _of_row(row: dict[str, Any], name: str, entry: DataSet) -> Iterator[Document]:
    """Yield the document of a row, or one document for each question of a conversation about the same pages."""
    images = pictures(_cell(row, entry.image), None) if entry.image else ()
    if entry.reader == "conversations":
        for number, turn in enumerate(_cell(row, "texts"), start=1):
            answer, question = _text(turn, entry.answers), _text(turn, entry.question)
            yield Document("", answer, f"{name}.{number}", images=images, question=question)
        return
    summary, question = _text(row, entry.summary or entry.answers), _text(row, entry.question)
    yield Document(_text(row, entry.text), summary, name, images=images, question=question)


def _cell(row: dict[str, Any], column: str) -> Any:
    if column not in row:
        raise ValueError(f"there is no column {column!r}; its columns are {', '.join(map(repr, row))}")
    return row[column]


def _text(row: dict[str, Any], column: str) -> str:
    """Return a cell's stripped text, or the first text of a list; "" if the cell is empty or `column` is ""."""
    if not column:
        return ""
    value = _cell(row, column)
    value = (value or [None])[0] if isinstance(value, list) else value
    if not isinstance(value, str | None):
        raise ValueError(f"{column!r} must be a text, not {value!r:.40}")
    return (value or "").strip()


def _omnidocbench(entry: DataSet, seed: int) -> Iterator[tuple[str, Document | ValueError]]:
    """Yield one document for each page. Its text is that of the blocks that have a place in the reading order."""
    pages = read_json(_download(entry, entry.files), MAX_TABLE_BYTES)
    order = list(range(len(pages)))
    Random(seed).shuffle(order)
    for index in order:
        name = PurePosixPath(pages[index]["page_info"]["image_path"]).name
        blocks = [
            block for block in pages[index]["layout_dets"] if not block.get("ignore") and block.get("order") is not None
        ]
        blocks.sort(key=lambda block: block["order"])
        texts = [block.get("text") or block.get("html") or block.get("latex") or "" for block in blocks]
        text = "\n\n".join(text.strip() for text in texts if text.strip())
        image = _download(entry, f"images/{name}")
        yield f"{entry.name}, page {index + 1}", Document(text, "", f"{entry.name}/{name}", images=(image,))


def _haystack(entry: DataSet, seed: int) -> Iterator[tuple[str, Document | ValueError]]:
    """Yield all pages of a report for each question. Line i of `needles.csv` answers line i of the questions."""
    from huggingface_hub import HfApi

    def below(folder: str | None = None) -> list[str]:
        tree = HfApi().list_repo_tree(entry.hub_id, folder, repo_type="dataset", revision=entry.revision)
        return [item.path for item in tree]

    for company in sorted(path for path in below() if "." not in path):
        folder = f"{company}/{company}_{entry.configuration}Pages"
        if folder not in below(company):
            continue
        names = [path for path in below(f"{folder}/Images_TextNeedles") if path.endswith(".jpg")]
        names.sort(key=lambda path: int(re.findall(r"\d+", path)[-1]))
        images = tuple(_download(entry, name) for name in names)
        questions = _lines(_download(entry, f"{folder}/prompt_questions.txt"))
        needles = _lines(_download(entry, f"{folder}/needles.csv"))
        for number, (question, needle) in enumerate(zip(questions, needles, strict=True), start=1):
            value = re.search(r'"(.*?)"', needle)
            where = f"{entry.name} {folder}, question {number}"
            if value is None:
                yield where, ValueError(f"no value in quotes in {needle!r}")
                continue
            yield where, Document("", value[1], f"{entry.name}/{company}:{number}", images=images, question=question)


def _lines(file: Path) -> list[str]:
    return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _download(entry: DataSet, name: str) -> Path:
    """Return the path of a file of the data set, from the hub or from its cache."""
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(entry.hub_id, name, repo_type="dataset", revision=entry.revision))
