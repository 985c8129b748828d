"""Starts the project's programs in forks of this process, and compares what they leave in their folders."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

# Everything that a run imports, so that a fork need not. Nothing here is run before the forks: threads do not survive.
IMPORTS = (
    *("torch", "transformers", "peft", "accelerate", "pyarrow.parquet", "matplotlib.figure", "rouge_score", "jiwer"),
    *("tensorboard", "pypdfium2", "train", "ablate", "lightseek.__main__", "lightseek.lab.publish"),
    *("lightseek.lab.results", "lightseek.training.run", "lightseek.data.prepare.card", "lightseek.weights.lora_files"),
    *("lightseek.data.sources.synthetic", "lightseek.scores.compare", "lightseek.page.render", "huggingface_hub"),
    *("lightseek.weights.hf", "lightseek.commands.progress", "torch.utils.tensorboard", "PIL.ImageCms"),
)
TIMES = re.compile(r"seconds|peak_bytes|^peak$|eval_seconds")  # figures that differ from run to run
LIMIT = 600  # seconds of a whole program


@dataclass
class Program:
    """A command, and where it writes: `argv` begins with train.py, ablate.py or a command, and OUT stands for `out`."""

    name: str
    argv: list[str]
    out: str = "out"
    before: dict[str, str] = field(default_factory=dict)  # what an unbroken run leaves: file -> digest
    seconds: float = 1.0
    codes: tuple[int, ...] = (0, 2)  # exit codes of a program that had a fault and told it


def load() -> None:
    for name in IMPORTS:
        with contextlib.suppress(ImportError):
            import_module(name)


def start(argv: list[str], folder: Path, prepare: Callable[[], Any] | None = None) -> int:
    """Start a command in `folder` in a fork, and return its process id. `prepare()` is called in the fork before."""
    folder.mkdir(parents=True, exist_ok=True)
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        os.setsid()
        os.chdir(folder)
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if prepare:
            prepare()
        code = run(argv)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 2
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            os.sys.stdout.flush()
            os.sys.stderr.flush()
        os._exit(code or 0)


def run(argv: list[str]) -> int:
    program, *rest = argv
    if program in ("train.py", "ablate.py"):
        return import_module(program.removesuffix(".py")).main(rest) or 0
    return import_module("lightseek.__main__").main(argv) or 0


def wait(pid: int, seconds: float) -> int | None:
    """Return the exit code (negative for a signal), or None if the process still runs after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None


def kill(pid: int) -> None:
    """Kill a process with its children, as the system does when memory is short: nothing can be tidied up."""
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def finished(argv: list[str], folder: Path, prepare: Callable[[], Any] | None = None) -> tuple[int, str]:
    """Run a command to its end. Return its exit code and what it printed; a program that hangs is killed: -9."""
    (folder / "log.txt").unlink(missing_ok=True)
    pid = start(argv, folder, prepare)
    code = wait(pid, LIMIT)
    if code is None:
        kill(pid)
        code = -9
    log = folder / "log.txt"
    return code, log.read_text(errors="replace") if log.exists() else ""


def complaint(code: int, text: str, allowed: tuple[int, ...] = (0,)) -> str | None:
    """Return what is wrong with the end of a program: a traceback, a signal, a hang or a code that is not allowed."""
    if "Traceback (most recent call last)" in text:
        return f"a traceback: {text.strip().splitlines()[-1][:300]}"
    if code < 0:
        return f"ended by signal {-code}: {text.strip()[-300:]}"
    if code not in allowed:
        return f"exit code {code}: {text.strip()[-300:]}"
    return None


# The older checkpoint, the command, and what is made from the results of the cells with their times.
NOT_COMPARED = ("checkpoint.previous.safetensors", "grid.json", "log.txt", "report.html", "results.csv")


def digests(folder: Path) -> dict[str, str]:
    """Return a digest of each file below a folder, without times, sizes of memory and what is for one run only."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and path.name not in NOT_COMPARED and not unfinished(path, folder):
            found[name] = hashlib.sha256(content(path)).hexdigest()[:16]
    return found


def unfinished(path: Path, folder: Path) -> bool:
    """Whether a file is a young temporary one in a vision cache, which has no lock and keeps them for a minute."""
    return path.suffix == ".tmp" and path.is_relative_to(folder / "cache")


def content(path: Path) -> bytes:
    read = path.read_bytes()
    if path.suffix in (".json", ".jsonl"):
        rows = [json.loads(line) for line in (read.splitlines() if path.suffix == ".jsonl" else [read])]
        return json.dumps([untimed(row) for row in rows]).encode()
    if path.name == "README.md":
        return re.sub(rb"## What it took.*?##", b"##", read, flags=re.DOTALL)
    if path.name == "checkpoint.safetensors":  # its header holds the seconds of the run, and tensors come in any order
        start = 8 + int.from_bytes(read[:8], "little")
        header = json.loads(read[8:start])
        about = untimed(json.loads(header.pop("__metadata__")["place"]))
        pieces = [(key, [start + offset for offset in header[key]["data_offsets"]]) for key in sorted(header)]
        return repr(about).encode() + b"".join(key.encode() + read[first:last] for key, (first, last) in pieces)
    return read


def untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: untimed(inner) for key, inner in value.items() if not TIMES.search(key)}
    return [untimed(inner) for inner in value] if isinstance(value, list) else value


def unlike(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Return the files that are missing, new or different."""
    return sorted(name for name in {**before, **now} if before.get(name) != now.get(name))


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
