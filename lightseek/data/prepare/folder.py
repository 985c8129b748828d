"""Turns a data set into a folder to train from. It holds shards of rows, pages as pictures, and a data card.

    documents -> split -> shards of rows (in parallel processes) -> final names -> card and plot

A shard is written whole or not at all, and its figures (counts and lengths) are written last. If a killed run is
started again with the same settings, it keeps every shard that has its figures.
"""

import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from lightseek.data.document import Document, split_key
from lightseek.data.prepare.shards import WORK, Figures, Job, figures_file, part_file, write_shard
from lightseek.data.sources import hub, local
from lightseek.data.sources.load import load_documents
from lightseek.data.sources.registry import DATA_SETS
from lightseek.data.sources.tables import OnBad, Wanted
from lightseek.data.splits import SMALL, SPLITS, Shares, Split, divide, share_of
from lightseek.tools.files import check_still_there, readable, remove_leftovers, write_json
from lightseek.tools.json_files import check_fields, read_json
from lightseek.tools.locks import LOCK


@dataclass
class Prepared:
    """The figures of each split in a folder, and what was wrong with the rows that were left out."""

    splits: dict[Split, Figures]
    bad: list[str]

    @property
    def total(self) -> Figures:
        total = Figures()
        for figures in self.splits.values():
            total.add(figures)
        return total


Report = Callable[[int], None]  # gets the number of documents written so far


def write_folder(
    job: Job, out: Path, processes: int = 1, report: Report | None = None, on_bad: OnBad | None = None
) -> Prepared:
    """Write the folder `out` and return its figures. If the folder is complete already, only return them.

    `on_bad` gets the error of each row that is left out. Raises ValueError for a bad row unless the job skips them.
    Also raises ValueError if the folder holds anything other than this job's files; a job that was begun without
    `skip_bad` may go on with it.
    """
    work = claim(job, out)
    remove_leftovers(out)
    done = work / "figures.json"
    if not done.is_file():
        bad: list[str] = []
        try:
            counts = write_shards(job, out, processes, report, _taking(job, bad, on_bad))
        except BrokenProcessPool:
            raise ValueError(
                "one of the processes was killed, perhaps because the memory was full: the same command continues, "
                "and --processes 1 needs the least memory"
            ) from None
        check_still_there(work / "job.json")
        figures = {split: merged(work, split, count) for split, count in counts.items()}
        for split, count in counts.items():
            for number in range(count):
                final = out / f"{split}-{number:05d}-of-{count:05d}.{job.format}"
                if not final.exists():
                    part_file(work, split, number, job).replace(final)
        write_json(done, {"bad": bad, "splits": {split: asdict(found) for split, found in figures.items()}})
    found = check_fields(read_json(done), {"splits": "an object", "bad": "a list of texts"}, name=done)
    splits = {split: figures_of(values, done) for split, values in found["splits"].items()}
    return Prepared(splits, found["bad"])


def claim(job: Job, out: Path) -> Path:
    """Return the working folder in `out`, and make it if `out` is new. Raises ValueError if `out` holds other files."""
    work, settings = out / WORK, json.loads(json.dumps(asdict(job) | {"state": _state(job.source)}))
    begun = work / "job.json"
    others = [file for file in out.iterdir() if file.name not in (WORK, LOCK)] if out.is_dir() else []
    if not begun.is_file() and (others or (out.exists() and not out.is_dir())):
        raise ValueError(f"{out} is there already: give an empty or a new folder")
    if not begun.is_file() or not (others or [file for file in work.iterdir() if file != begun]):  # nothing is written
        write_json(begun, settings)
    before = check_fields(read_json(begun), {"skip_bad": "true or false"}, name=begun)
    # Up to the first bad row, a job writes the same files with skip_bad as without.
    before["skip_bad"] = before["skip_bad"] or job.skip_bad
    unlike = [name for name in settings if settings[name] != before.get(name)]
    if unlike:
        names = ", ".join("files of the source" if name == "state" else name for name in unlike)
        raise ValueError(f"{out} was prepared with other settings ({names}): give a new folder, or delete this one")
    return work


def _state(source: str) -> list[Any]:
    """Return the names, sizes and times of the user's own files, which show whether they changed."""
    if source in DATA_SETS or not Path(source).exists():
        return []
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in local.files_of(Path(source))]


def assigned_documents(job: Job, on_bad: OnBad) -> Iterator[tuple[Split, Document]]:
    """Yield every document with its split, in the same order every time."""
    if job.source in DATA_SETS:
        entry = DATA_SETS[job.source]
        # With shares the limit holds for all documents together, so no split of the source needs more than that.
        found = (
            (s, d) for s in entry.splits for d in hub.documents(entry, s, job.limit, job.seed, job.task, on_bad=on_bad)
        )
        yield from found if job.shares is None else _shared(found, job.shares, job.limit)
    elif Path(job.source).exists():
        wanted = Wanted(job.text_column, job.summary_column, job.task)
        marked = list(local.read(Path(job.source), wanted, on_bad))
        assigned = list(zip(local.assign(marked, job.shares), (document for document, _ in marked), strict=True))
        if job.shares is not None:
            assigned = local.draw(assigned, job.limit, job.seed)
        for split in SPLITS:
            own = [(split, document) for other, document in assigned if other == split]
            yield from own if job.shares is not None else local.draw(own, job.limit, job.seed)
    else:
        found = ((s, d) for s in SPLITS for d in load_documents(job.source, s, job.limit, job.seed, task=job.task))
        yield from found if job.shares is None else _shared(found, job.shares, job.limit)


def _shared(
    found: Iterator[tuple[Split, Document]], shares: Shares, limit: int | None
) -> Iterator[tuple[Split, Document]]:
    """Divide documents by `shares` as they come. A small set is divided so that no split stays empty."""
    every = islice((document for _, document in found), limit)
    first = list(islice(every, SMALL))
    if len(first) < SMALL:
        splits = divide([split_key(document) for document in first], shares)
        yield from ((splits[split_key(document)], document) for document in first)
        return
    yield from ((share_of(split_key(document), shares), document) for document in chain(first, every))


def _taking(job: Job, bad: list[str], on_bad: OnBad | None) -> OnBad:
    """Return the function that handles a bad row: it adds the error to `bad`, or raises it if the job skips no rows."""

    def take(error: ValueError) -> None:
        if not job.skip_bad:
            raise ValueError(f"{error} (--skip-bad leaves such rows out)")
        bad.append(readable(error))
        if on_bad:
            on_bad(error)

    return take


def write_shards(job: Job, out: Path, processes: int, report: Report | None, on_bad: OnBad) -> dict[Split, int]:
    """Write the shards that are missing, and return the number of shards of each split."""
    counts: dict[Split, int] = {}
    written = 0
    pool = _pool(processes) if processes > 1 else None
    running: set[Future[Figures]] = set()

    def finished(figures: Figures) -> None:
        nonlocal written
        written += len(figures.text)
        for message in figures.bad:
            on_bad(ValueError(message))
        if report:
            report(written)

    try:
        for split, shard in _shards(assigned_documents(job, on_bad), job.rows):
            number = counts.get(split, 0)
            counts[split] = number + 1
            done = figures_file(out / WORK, split, number)
            if done.is_file():
                finished(figures_of(read_json(done), done))
            elif pool is None:
                finished(write_shard(job, out, split, number, shard))
            else:
                running.add(pool.submit(write_shard, job, out, split, number, shard))
                while len(running) > 2 * processes:  # so that documents do not pile up in memory
                    ready, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in ready:
                        finished(future.result())
        for future in running:
            finished(future.result())
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)
    if not counts:
        raise ValueError(f"{job.source} has no documents")
    return counts


def _shards(found: Iterator[tuple[Split, Document]], rows: int) -> Iterator[tuple[Split, list[Document]]]:
    shards: dict[Split, list[Document]] = {split: [] for split in SPLITS}
    for split, document in found:
        shards[split].append(document)
        if len(shards[split]) == rows:
            yield split, shards[split]
            shards[split] = []
    yield from ((split, left) for split, left in shards.items() if left)


def _pool(processes: int) -> ProcessPoolExecutor:
    # Not forked, because `datasets` and Arrow have started threads by now.
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_end_with_parent)


def _end_with_parent() -> None:
    """End this worker when the program that started it ends, so that it does not wait for work for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def figures_of(values: Any, path: Path) -> Figures:
    """Return the figures that a file holds. Raises JsonError, which names the file, if one is missing or wrong."""
    lists = dict.fromkeys(("text", "summary", "pages"), "a list of whole numbers")
    counts = dict.fromkeys(("pictures", "truncated", "dropped"), "a whole number")
    kinds = lists | counts | {"missing_glyphs": "an object", "bad": "a list of texts"}
    return Figures(**{name: check_fields(values, kinds, name=path)[name] for name in kinds})


def merged(work: Path, split: Split, count: int) -> Figures:
    total = Figures()
    for number in range(count):
        path = figures_file(work, split, number)
        total.add(figures_of(read_json(path), path))
    return total
