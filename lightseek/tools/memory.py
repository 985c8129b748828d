"""Measure peak memory: the allocated bytes on a GPU, the resident size of the process on a CPU."""

import ctypes
import gc
import os
import threading
from collections.abc import Callable

import psutil
import torch


def release_memory() -> None:
    """Give freed memory back to the system, so that the next measurement starts with the memory that is in use."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if trim := from_glibc("malloc_trim"):  # otherwise glibc keeps freed blocks for later
        trim(0)


def keep_freed_memory() -> bool:
    """Let the process keep the memory that a training step on a CPU frees, so that the next step can use it.

    By default glibc gives large blocks back to the system at once. The next step then waits while the system clears and
    maps the same pages again. benchmarks/README.md says how much time this setting saves. Returns False without glibc.
    """
    set_option = from_glibc("mallopt")
    if set_option is None:
        return False
    blocks_of_their_own, free_at_the_end = -4, -1  # M_MMAP_MAX, M_TRIM_THRESHOLD in malloc.h
    return bool(set_option(blocks_of_their_own, 0) and set_option(free_at_the_end, 2**31 - 1))


def process_memory() -> int:
    """Return the resident memory of this process in bytes."""
    return psutil.Process().memory_info().rss


def from_glibc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None


class PeakMemory:
    """Measures peak memory: `with PeakMemory(device) as memory: ...` and then `memory.peak`, in bytes.

    On a CPU a thread reads the size of the process 20 times a second, so it can miss a shorter peak.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self._process = psutil.Process(os.getpid())
        self._highest = 0
        self._done = threading.Event()

    def __enter__(self) -> "PeakMemory":
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if not self.cuda:
            self._done.set()
            self._watcher.join()

    @property
    def peak(self) -> int:
        if self.cuda:
            return torch.cuda.max_memory_allocated()
        self._highest = max(self._highest, self._process.memory_info().rss)
        return self._highest

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            self._highest = max(self._highest, self._process.memory_info().rss)
