"""Locks: while a program works on a folder or a file, a second program that wants the same one is told who holds it.

    with locked_folder("runs/train"):   # raises Locked if another process is in such a block
        ...

A lock is a small file with the holder's name: `.lock` in a folder, `.NAME.lock` beside a file. What locks is not that
the file exists but `flock` on it, which the system takes back when the holder dies, even by kill -9. So a file that a
killed program left behind locks nothing. The file is removed at the end.
"""

import errno
import json
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightseek.tools.errors import Note
from lightseek.tools.json_files import parse_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".lock"  # the file that locks a folder
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)  # some file systems of clusters have no locks
_held: set[int] = set()  # the open lock files of this process


def _forget_in_child() -> None:
    """Close the lock files in a forked process. Otherwise it would keep the locks after its parent has died."""
    for handle in _held:
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


class Locked(BlockingIOError):
    """Another process works on the folder or the file. `holder` says which: "process 123 on HOST since TIME"."""

    def __init__(self, target: Path, holder: str) -> None:
        super().__init__(f"{target} is in use by {holder}: wait until it ends, or choose another place")
        self.holder = holder


@contextmanager
def locked_folder(folder: str | Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made if it is missing, and removed again if it stays empty.

    Raises Locked, at once and without waiting, if another process holds it.
    """
    folder = Path(folder)
    made = not folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(folder / LOCK, folder):
            yield
    finally:
        if made:
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def locked_file(file: str | Path) -> Iterator[None]:
    """Hold the lock of a file, which need not exist. Raises Locked, at once, if another process holds it."""
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with _locked(file.with_name(f".{file.name}.lock"), file):
        yield


@contextmanager
def _locked(path: Path, target: Path) -> Iterator[None]:
    handle = _acquire(path, target)
    if handle is None:
        warnings.warn(f"{target} cannot be locked here: start no second program on it", Note, stacklevel=4)
        yield
        return
    _held.add(handle)
    try:
        name = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        with suppress(OSError):  # on a full disk the lock holds without the name
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps(name).encode())
        yield
    finally:
        path.unlink(missing_ok=True)  # before the lock is given up, so that it is not the file of the next holder
        if handle in _held:
            _held.remove(handle)
            os.close(handle)


def _acquire(path: Path, target: Path) -> int | None:
    """Return the open and locked file, or None if the system or the file system has no locks. Raises Locked."""
    while fcntl is not None:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(path)):  # noqa: PTH116 - beside os.fstat
                    return handle
        except BlockingIOError:
            holder = _holder(handle)
            os.close(handle)
            raise Locked(target, holder) from None
        except OSError as error:
            os.close(handle)
            if error.errno in UNSUPPORTED:
                path.unlink(missing_ok=True)
                return None
            raise
        os.close(handle)  # the last holder removed this file between the two lines: lock the new one
    return None


def _holder(handle: int) -> str:
    try:
        name: dict[str, Any] = parse_json(os.pread(handle, 4096, 0), "")
        return f"process {name['pid']} on {name['host']} since {name['since']}"
    except (ValueError, KeyError, TypeError):  # the holder has not written its name yet
        return "another process"
