"""Two programs on one folder, a full disk, a read-only folder, a folder that goes, a clock set back, little memory."""

import argparse
import contextlib
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from benchmarks.trials.kills import chosen, difference, killed_once
from benchmarks.trials.programs import (
    LIMIT,
    Program,
    complaint,
    digests,
    finished,
    fresh,
    load,
    start,
    wait,
)

show = Console(highlight=False, soft_wrap=True).print
Faults = Iterator[str]
ROOM = 2 << 30  # bytes of a disk with enough room; a vision cache leaves 1 GiB of it free


def main(arguments: argparse.Namespace, folder: Path) -> int:
    """Try each fault of the system on each program. Return the number of faults."""
    load()
    draw, found, counts = random.Random(arguments.seed), [], {}
    for program in chosen(arguments, folder):
        began = time.monotonic()
        finished(program.argv, fresh(folder / "unbroken"))
        program.seconds, program.before = time.monotonic() - began, digests(folder / "unbroken" / program.out)
        for trial in (pair, full_disk, largest_file, read_only, folder_removed, clock_set_back, little_memory):
            title = trial.__name__.replace("_", " ")
            show(f"[dim]{title}, {program.name}[/]")
            for wrong in trial(program, folder, draw):
                if wrong.startswith("skipped"):
                    show(f"[dim]{title}, {program.name}: {wrong}[/]")
                    continue
                counts[title] = counts.get(title, 0) + 1
                if wrong:
                    found.append(f"{title}, {program.name}: {wrong}")
                    show(f"[red]{found[-1]}[/]")
    show(f"system: {', '.join(f'{title} {count}' for title, count in counts.items())}; {len(found)} faults")
    return len(found)


def after(program: Program, here: Path) -> str:
    """Run the program again, now without a fault. Return what is wrong, or an empty text."""
    code, text = finished(program.argv, here)
    return complaint(code, text) or difference(program, here) or ""


def pair(program: Program, folder: Path, draw: random.Random) -> Faults:
    """Of two programs on one folder, one works. The other says why it does not, or finds the work done.

    Two grids may share the cells. Then the same command makes the tables of all of them.
    """
    here = fresh(folder / "pair")
    pids = []
    for _ in range(2):
        pids.append(start(program.argv, here))
        time.sleep(draw.uniform(0, 0.3))
    codes = [wait(pid, LIMIT) for pid in pids]
    text = (here / "log.txt").read_text(errors="replace")
    wrong = complaint(0, text)
    if not wrong and (not set(codes) & {0, 3} or not set(codes) <= {0, 2, 3} & set(program.codes)):
        wrong = f"they ended with {codes}: {text[-300:]}"
    if not wrong and 2 in codes and "is in use by" not in text:
        wrong = f"the second one does not say why it stopped: {text[-300:]}"
    yield wrong or (after(program, here) if 3 in codes else difference(program, here)) or ""


@contextlib.contextmanager
def small_disk(place: Path, size: int) -> Iterator[Path | None]:
    """Yield a folder on a disk of `size` bytes, or None if this user may not mount one."""
    fresh(place)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True).returncode:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def full_disk(program: Program, folder: Path, draw: random.Random) -> Faults:
    """Each size up to what the program needs: one clear line, and with more room the files of an unbroken run."""
    needed = sum(f.stat().st_size for f in (folder / "unbroken" / program.out).rglob("*") if f.is_file())
    for _ in range(2):
        here = fresh(folder / "disk")
        with small_disk(here / "out", 4096 * max(4, int(needed * draw.uniform(0.1, 1.1)) // 4096)) as disk:
            if disk is None:
                yield "skipped: this user may not mount a small disk"
                return
            code, text = finished(program.argv, here)
            wrong = complaint(code, text, program.codes)
            subprocess.run(["mount", "-o", f"remount,size={ROOM}", disk], check=True)
            yield wrong or after(program, here)


def largest_file(program: Program, folder: Path, draw: random.Random) -> Faults:
    """`ulimit -f` stops a write in the middle of a file, as a full disk does."""
    here = fresh(folder / "largest")
    most = draw.choice((100, 5_000, 100_000))
    code, text = finished(program.argv, here, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)))
    yield complaint(code, text, program.codes) or after(program, here)


def read_only(program: Program, folder: Path, draw: random.Random) -> Faults:
    """Neither the folder nor what is in it may be written."""
    here = fresh(folder / "locked")
    with small_disk(here / "out", ROOM) as disk:
        if disk is None:  # not root, who may write everywhere
            (here / "out").chmod(0o555)
        else:
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        code, text = finished(program.argv, here)
        wrong = complaint(code, text, (2,))
        if not wrong and "out" not in text:
            wrong = f"the line does not name the folder: {text[-300:]}"
        if disk is None:
            (here / "out").chmod(0o755)
        else:
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        yield wrong or after(program, here)


def folder_removed(program: Program, folder: Path, draw: random.Random) -> Faults:
    """Someone deletes the folder while the program writes to it."""
    here = fresh(folder / "removed")
    pid = start(program.argv, here)
    code = wait(pid, draw.uniform(0.3, 0.9) * program.seconds)
    if code is None:
        shutil.rmtree(here / "out", ignore_errors=True)
        code = wait(pid, LIMIT)
    text = (here / "log.txt").read_text(errors="replace")
    yield complaint(code if code is not None else -9, text, program.codes) or after(program, fresh(here))


def clock_set_back(program: Program, folder: Path, draw: random.Random) -> Faults:
    """The program is killed, and the clock shows an earlier year when it is started again."""

    def earlier() -> None:
        now = time.time
        time.time = lambda: now() - 365 * 86400

    here = fresh(folder / "clock")
    killed_once(program, here, draw.uniform(0.4, 1) * program.seconds)
    code, text = finished(program.argv, here, earlier)
    yield complaint(code, text) or difference(program, here) or ""


def little_memory(program: Program, folder: Path, draw: random.Random) -> Faults:
    """`ulimit -v`, from nothing to spare up to nearly enough.

    Libraries in Rust and C++ end the program themselves (SIGABRT) when they get no memory, with a line of their own.
    """
    for spare in (draw.randint(0, 20), draw.randint(20, 150)):
        here = fresh(folder / "memory")

        def limit(spare: int = spare) -> None:
            now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (now + (spare << 20),) * 2)

        code, text = finished(program.argv, here, limit)
        told = code == -signal.SIGABRT and re.search(r"memory allocation of \d+ bytes failed|bad_alloc", text)
        wrong = None if told else complaint(code, text, program.codes)
        yield wrong or after(program, here)
