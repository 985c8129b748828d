"""A worker: a process that runs cells for the program that started it, and ends when that program ends.

The program sends a cell through a pipe, and the worker sends back what happens in it. A worker that is alone again,
because the program was killed, ends at once. What it was doing continues from the last checkpoint when the program is
started again.
"""

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any, NoReturn

from lightseek.lab.grid import Cell
from lightseek.tools.errors import Note

PATIENCE = 5  # seconds that a worker has to end when it is asked to

# run(cell, report): runs a cell, calls report(event, value) while it runs, and returns the value of the event "end".
Run = Callable[[Cell, Callable[[str, Any], None]], Any]


class Worker:
    """One worker as the program sees it. Its process starts with its first cell, and again after it has died."""

    def __init__(self, run: Run, number: int, workers: int, logs: Path | None, cells: Iterator[Cell]) -> None:
        self.run, self.number, self.workers, self.cells = run, number, workers, cells
        self.log = logs and logs / f"worker-{number + 1}.log"
        self.cell: Cell | None = None  # the one that it runs
        self.process, self.pipe = None, None

    def take(self) -> bool:
        """Start the next cell. Returns whether there was one."""
        self.cell = next(self.cells, None)
        if self.cell is None:
            self.stop()
            return False
        if self.process is None:
            self.start()
        with suppress(OSError):  # if it has died since its last cell, the pipe tells so when it is read
            self.pipe.send(self.cell)
        return True

    def start(self) -> None:
        context = get_context("spawn")  # a forked process could not use a GPU
        self.pipe, theirs = context.Pipe()
        there = gpus()
        gpu = there[self.number % len(there)] if there else None
        self.process = context.Process(
            target=serve, args=(self.run, theirs, share_of_cores(self.workers), gpu, self.log)
        )
        with ignoring_interrupts():
            self.process.start()
        theirs.close()

    def died(self) -> str:
        """Return why the process has ended, and let the next cell start a new one."""
        self.process.join()
        code = self.process.exitcode
        self.process = None
        if code < 0:
            return f"the process of this cell was ended by {signal.Signals(-code).name} (too little memory?)"
        return f"the process of this cell ended with exit code {code}; see {self.log}"

    def stop(self) -> None:
        """End the process, gently at first."""
        if self.process is not None:
            self.process.terminate()
            self.process.join(PATIENCE)
            self.process.kill()
            self.process.join()
            self.process = None
        if self.log and self.log.is_file() and not self.log.read_text(errors="replace").strip():
            self.log.unlink()
            with suppress(OSError):  # the others have printed something
                self.log.parent.rmdir()


class ignoring_interrupts:
    """A process that starts in this block ignores Ctrl-C: the program ends its workers itself."""

    def __enter__(self) -> None:
        self.main = threading.current_thread() is threading.main_thread()
        if self.main:
            self.before = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def __exit__(self, *exception: object) -> None:
        if self.main:
            signal.signal(signal.SIGINT, self.before)


def serve(run: Run, pipe: connection.Connection, threads: int, gpu: str | None, log: Path | None) -> None:
    """Run the cells that come through the pipe, until the program ends this process. This is the process's `main`."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception, so that unfinished files are removed
    write_to(log)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # CUDA reads this when it starts, which is later
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), threads))
    usual = warnings.showwarning

    def show(message, category, *place, **more) -> None:
        if issubclass(category, Note):
            pipe.send(("note", str(message)))
        usual(message, category, *place, **more)

    warnings.showwarning = show
    with suppress(EOFError, OSError):  # the program has closed the pipe
        while True:
            outcome = run(pipe.recv(), lambda event, value: pipe.send((event, value)))
            pipe.send(("end", outcome))


def end_with_parent() -> NoReturn:
    """Wait until the program that started this process has ended, and end at once, as if killed."""
    connection.wait([parent_process().sentinel])
    os._exit(1)


def write_to(log: Path | None) -> None:
    """Let this process print to a file, so that the workers do not write over each other's lines on the screen."""
    if log is None:
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)


def gpus() -> list[str]:
    """Return the names of the GPUs as `CUDA_VISIBLE_DEVICES` lists them. The list is empty if there is none."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return named.split(",")[:count] if named else [str(index) for index in range(count)]


def share_of_cores(workers: int) -> int:
    """Return the number of threads that each of some workers may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers)
