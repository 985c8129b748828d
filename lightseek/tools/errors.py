"""Errors of the machine: too little memory, a full disk."""

SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "failed to allocate")  # CUDA, CPU, MPS


class OutOfMemory(MemoryError):
    """The memory a run needed was not there; the message says what to do."""


class DiskFull(OSError):
    """The disk a run writes to is full; the message says what to do."""


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)
