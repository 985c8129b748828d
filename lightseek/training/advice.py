"""Explains out-of-memory and full-disk errors: which setting to change, and from which step the run can resume."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightseek.tools.errors import DiskFull, OutOfMemory, is_out_of_memory
from lightseek.training.settings import RunConfig, is_free


@contextmanager
def explaining(config: RunConfig, folder: Path, saved_step) -> Iterator[None]:
    """Turn an out-of-memory or full-disk error in the `with` block into OutOfMemory or DiskFull, with advice.

    `saved_step()` returns the step of the last checkpoint, or 0 if there is none.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise disk_full(error, folder, saved_step()) from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"out of memory ({_first_line(error)}): {lower(config)}; {goes_on(saved_step())}") from error


def lower(config: RunConfig) -> str:
    """Return the advice which settings to change. Settings that cost only time come first."""
    ways, others = [], []
    if config.accumulate < config.batch:
        way = f"accumulate={min(config.batch, 2 * config.accumulate)} (now {config.accumulate})"
        (ways if is_free("accumulate", config) else others).append(way)
    if not config.gradient_checkpointing:
        ways.append("gradient_checkpointing=true")
    free = " or ".join(ways)
    others += ["a smaller batch"] if config.batch > 1 else []
    others += ["fewer tokens a page", "freezing more (freeze=all-but-decoder-last-1)"]
    others = f"{', '.join(others[:-1])} or {others[-1]}"
    if not free:
        return f"use {others}"
    return f"set {free}, with the same results; if that is not enough, use {others} in a new --out"


def disk_full(error: OSError, folder: Path, step: int) -> DiskFull:
    free = shutil.disk_usage(folder).free if folder.is_dir() else 0
    explained = DiskFull(
        f"the disk of {folder} is full ({free / 1e9:.1f} GB free; a new checkpoint needs space beside the last two): "
        f"free some space, or let less learn (freeze), which makes checkpoints smaller; {goes_on(step)}"
    )
    explained.errno = error.errno
    return explained


def goes_on(step: int) -> str:
    if not step:
        return "there is no checkpoint yet, so the same command starts again"
    return f"the checkpoint of step {step} is complete, and the same command resumes from it"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
