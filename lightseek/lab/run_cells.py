"""Runs the cells of a grid, one after the other or several at a time in processes of their own.

    groups of cells --> workers --> events for the screen: a cell starts, takes a step, reads a page, ends
                                --> one `Outcome` for each cell

An error in a cell ends that cell only. The cell's folder then has `error.json`, with the error in one line and the
settings, and `error.log`, with the traceback. When the grid is started again, the cell is tried again. A cell that
another program works on is skipped.
"""

import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any, Literal

from lightseek.lab.grid import Cell, run_cell
from lightseek.lab.worker import Worker
from lightseek.tools.files import write_json, write_text
from lightseek.tools.json_files import read_json
from lightseek.tools.locks import Locked, locked_folder

ERROR, TRACEBACK = "error.json", "error.log"

# watch(worker, cell, event, value): the number of the worker, counted from 0, and what happens in its cell.
#   "start" None · "step" training.run.Progress · "read" (documents read, of) · "note" a text · "end" Outcome
Watch = Callable[[int, Cell, str, Any], None]


@dataclass(frozen=True)
class Outcome:
    """What became of a cell in this call.

    finished: it ran to its end · before: it was finished already · failed: `error` says why · held: another process
    works on it, and `error` says which · left: there was no time to start it.
    """

    cell: Cell
    kind: Literal["finished", "before", "failed", "held", "left"]
    results: dict[str, Any] | None = None  # the content of results.json
    error: str | None = None


def run_cells(
    groups: Sequence[Sequence[Cell]],
    watch: Watch,
    workers: int = 1,
    minutes: float | None = None,
    logs: Path | None = None,
) -> list[Outcome]:
    """Run all cells that are not finished, and return an outcome for each cell, in order.

    With one worker the cells run in this process. With more, each worker is a process that runs one group after the
    other, with its share of the cores and, if there are GPUs, with one of them. What a worker prints goes to a file in
    the folder `logs`. After `minutes` no cell is started any more, and those that run go on to their end.
    """
    end = None if minutes is None else time.monotonic() + 60 * minutes
    queue = Queue(groups, watch, lambda: end is not None and time.monotonic() >= end)
    if workers == 1:
        for cell in queue.cells(0):
            queue.end(0, attempt(cell, lambda event, value, cell=cell: watch(0, cell, event, value)))
    else:
        in_processes(queue, min(workers, len(groups)), logs)
    return [queue.outcomes.get(cell.folder) or Outcome(cell, "left") for group in groups for cell in group]


class Queue:
    """The groups that wait for a worker, and the outcomes of the cells that do not."""

    def __init__(self, groups: Sequence[Sequence[Cell]], watch: Watch, late: Callable[[], bool]) -> None:
        self.groups, self.watch, self.late = deque(groups), watch, late
        self.outcomes: dict[Path, Outcome] = {}

    def cells(self, worker: int) -> Iterator[Cell]:
        """Yield the cells that a worker has to run, of one group after the other, until the time is over."""
        while self.groups:
            for cell in self.groups.popleft():
                if (results := cell.finished()) is not None:
                    self.end(worker, Outcome(cell, "before", results))
                elif not self.late():
                    self.watch(worker, cell, "start", None)
                    yield cell

    def end(self, worker: int, outcome: Outcome) -> None:
        self.outcomes[outcome.cell.folder] = outcome
        self.watch(worker, outcome.cell, "end", outcome)


def attempt(cell: Cell, report: Callable[[str, Any], None]) -> Outcome:
    """Run one cell in this process. An error does not leave this function: it is written to the cell's folder."""
    try:
        with ExitStack() as locks:
            for folder in dict.fromkeys([cell.folder, cell.training]):  # the training may be that of another cell
                locks.enter_context(locked_folder(folder))
            (cell.folder / ERROR).unlink(missing_ok=True)
            (cell.folder / TRACEBACK).unlink(missing_ok=True)
            try:
                results = run_cell(
                    cell,
                    lambda progress: report("step", progress),
                    lambda done, of: report("read", (done, of)),
                )
                return Outcome(cell, "finished", results)
            except Exception as error:
                return failed(cell, one_line(error), traceback.format_exc())
    except Locked as held:
        return Outcome(cell, "held", error=f"cell runs in {held.holder}")
    except OSError as error:  # the folder cannot be written
        return Outcome(cell, "failed", error=one_line(error))


def failed(cell: Cell, error: str, details: str) -> Outcome:
    """Write the error of a cell to its folder. Raises OSError if that is impossible."""
    write_text(cell.folder / TRACEBACK, details)
    write_json(cell.folder / ERROR, {"error": error, "settings": asdict(cell.config)})
    return Outcome(cell, "failed", error=error)


def one_line(error: BaseException) -> str:
    """Return the first line of an error's message, with the kind of the error if the message alone says too little."""
    first = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, ValueError | OSError | FloatingPointError | ImportError | MemoryError) and first:
        return first
    return f"{type(error).__name__}: {first}".removesuffix(": ")


def in_folder(cells: Sequence[Cell]) -> tuple[list[dict[str, Any]], list[Cell]]:
    """Return (rows, cells without a row), as the folders show them, whichever program ran the cells.

    A row is the content of a `results.json`, or of an `error.json` if there is only that.
    """
    rows, missing = [], []
    for cell in cells:
        if (results := cell.finished()) is not None:
            rows.append(results)
        elif (path := cell.folder / ERROR).is_file():
            rows.append(read_json(path))
        else:
            missing.append(cell)
    return rows, missing


def in_processes(queue: Queue, workers: int, logs: Path | None) -> None:
    """Run the cells of the queue in processes. A process that dies is a failed cell, and a new one takes its place."""
    crew = [Worker(attempt, number, workers, logs, queue.cells(number)) for number in range(workers)]
    try:
        while busy := {worker.pipe: worker for worker in crew if worker.cell or worker.take()}:
            for pipe in connection.wait(list(busy)):
                worker = busy[pipe]
                try:
                    event, value = pipe.recv()
                except (EOFError, OSError):
                    event, value = "end", crashed(worker.cell, worker.died())
                if event == "end":
                    worker.cell = None
                    if value.kind == "failed":
                        worker.stop()  # an error can leave a GPU unusable for the process
                    queue.end(worker.number, value)
                else:
                    queue.watch(worker.number, worker.cell, event, value)
    finally:
        for worker in crew:
            worker.stop()


def crashed(cell: Cell, reason: str) -> Outcome:
    try:
        with locked_folder(cell.folder):
            return failed(cell, reason, reason + "\n")
    except OSError as error:
        return Outcome(cell, "failed", error=f"{reason} ({error})")
