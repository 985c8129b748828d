"""Write files so that each is complete or absent: write under a temporary name, call fsync, then rename."""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LEFTOVER = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp")  # the names that `tempfile` makes below
UNFINISHED = 3600  # seconds; where there are no locks, the program that wrote an older temporary file must have ended
NOT_UPLOADED = [".*", "*/.*"]  # hidden files: temporary ones, locks and what belongs to this machine


@contextmanager
def atomic_write(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`. It replaces `target` at the end, or is removed if there is an exception.

    Even if a run is killed in the middle, a reader finds the old file or the new one, and never a part of a file.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    # A name may have 255 bytes, and this one is longer than the target's.
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:60]}.", suffix=".tmp")
    temporary = Path(name)
    try:
        if fcntl is not None:
            with suppress(OSError):  # some file systems have no locks
                fcntl.flock(handle, fcntl.LOCK_EX)  # the system gives it back when this process ends: see `abandoned`
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
            os.fchmod(written.fileno(), 0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        temporary.replace(target)
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)  # the rename must survive a power cut too
        finally:
            os.close(directory)
    except OSError as error:  # a write that fails does not say which file it was
        error.filename = error.filename or str(target)
        raise
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def remove_leftovers(folder: str | Path, below: bool = True) -> None:
    """Remove the temporary files and folders that a killed program left in `folder` and, with `below`, in its folders.

    The caller must hold the lock of the folder (`locks.py`): another program might just have made a file that it has
    not locked yet.
    """
    found = Path(folder).rglob(".*.tmp") if below else Path(folder).glob(".*.tmp")
    for leftover in [path for path in found if LEFTOVER.fullmatch(path.name)]:
        if leftover.is_symlink() or not abandoned(leftover):
            continue
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def abandoned(temporary: Path) -> bool:
    """Return whether the program that wrote a temporary file has ended. Without locks, that takes an hour to be sure.

    A program holds a lock on its temporary file, which the system gives back when the program ends or is killed.
    """
    try:
        age = abs(time.time() - temporary.stat().st_mtime)
        handle = os.open(temporary, os.O_RDONLY)
    except OSError:  # another program has removed it
        return False
    try:
        if fcntl is None:
            return age > UNFINISHED
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return age > UNFINISHED
    finally:
        os.close(handle)


def check_still_there(file: Path) -> None:
    """Raise FileNotFoundError if a file that this program is writing was removed: what was written to it is lost."""
    if not file.exists():
        raise FileNotFoundError(errno.ENOENT, "it was removed while this program wrote it: start again", str(file))


def leads_out(file: Path, root: Path) -> bool:
    """Return whether a file is outside of the folder `root`, by `..`, an absolute path or a link.

    Data of others would otherwise choose which files of this machine are read and published. The only links that may
    lead out are those of the hub's cache: from snapshots/REVISION/ to the folder blobs/ of the same repository.
    """
    real, top = file.resolve(), root.resolve()
    cached = top.parent.name == "snapshots" and real.is_relative_to(top.parents[1] / "blobs")
    return not (real.is_relative_to(top) or cached)


def write_text(target: str | Path, text: str) -> None:
    """Write `text` in UTF-8, atomically. Half a character, as in a file's name that is not UTF-8, becomes an escape."""
    with atomic_write(target) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # in JSON these escapes are valid


def readable(text: object) -> str:
    """Return a text that UTF-8 can encode: half a character, as in a file's name that is not UTF-8, is escaped."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def write_json(target: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def fingerprint(path: str | Path | None) -> str:
    """Return a short hash of the sizes and times of a file or of all files in a folder. It is "" for a missing path.

    The hash changes when a file is written again.
    """
    if path is None or not Path(path).exists():
        return ""
    root = Path(path)
    files = [root] if root.is_file() else sorted(file for file in root.rglob("*") if file.is_file())
    states = [(str(file.relative_to(root)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps(states).encode()).hexdigest()[:8]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
