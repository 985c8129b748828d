"""Write files so that each is complete or absent: write under a temporary name, call fsync, then rename."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`. It replaces `target` at the end, or is removed if there is an exception.

    Even if a run is killed in the middle, a reader finds the old file or the new one, and never a part of a file.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
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
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(target: str | Path) -> None:
    """Remove the temporary files of writes to `target` that were killed."""
    target = Path(target)
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        leftover.unlink(missing_ok=True)


def write_text(target: str | Path, text: str) -> None:
    """Write `text` in UTF-8, atomically."""
    with atomic_write(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


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
