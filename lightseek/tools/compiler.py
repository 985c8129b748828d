"""Compile a file of C once on this machine, and load it: for the loops that no library has."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-ffp-contract=fast", "-fPIC", "-shared")
HEADER = Path(__file__).with_name("vectors.h")
SECONDS = 120  # at most for the compiler


@cache
def load_compiled(source: Path) -> ctypes.CDLL | None:
    """Return the functions of a file of C. Returns None if this machine has no compiler that can make them.

    The compiler is `$CC` or else `cc`. It must know OpenMP. The source may include `vectors.h`. What is made is kept in
    the user's cache folder, where no other user may write. The name of that file changes with the source, the compiler
    and the processor.
    """
    compiler = find_compiler()
    if compiler is None:
        return None
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, timeout=SECONDS, check=True).stdout
        parts = [source.read_bytes(), HEADER.read_bytes(), " ".join(FLAGS).encode(), version, processor()]
        key = hashlib.sha256(b"\0".join(parts))
        target = cache_folder() / f"{source.stem}-{key.hexdigest()[:20]}.so"
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not is_ours(target.parent):
            return None
        if not target.is_file():
            with tempfile.TemporaryDirectory(dir=target.parent) as folder:
                made = Path(folder) / target.name
                command = [compiler, *FLAGS, f"-I{HEADER.parent}", str(source), "-o", str(made), "-lm"]
                subprocess.run(command, capture_output=True, timeout=SECONDS, check=True)
                made.replace(target)  # another process may make the same file at the same time
        return ctypes.CDLL(str(target))
    except (OSError, subprocess.SubprocessError):
        return None


def find_compiler() -> str | None:
    """Return the path of this machine's C compiler, if it has one."""
    return shutil.which(os.environ.get("CC") or "cc") if os.name == "posix" else None


def is_ours(folder: Path) -> bool:
    """Return whether no other user can put a file into this folder, because what is in it will be run."""
    status = folder.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def processor() -> bytes:
    """Return what tells apart the processors that `-march=native` tells apart."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().split(b"\n\n")[0].splitlines()
    except OSError:
        return platform.processor().encode()
    names = (b"vendor", b"cpu family", b"model", b"flags", b"Features", b"CPU")
    return b"\n".join(line for line in lines if line.startswith(names))


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightseek"
