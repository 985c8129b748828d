"""Errors of the machine (too little memory, a full disk), and notes, which are warnings in one line."""

import warnings

NO_PRIMITIVE = "could not create a primitive"  # oneDNN without memory; a longer text has other causes
SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "failed to allocate")  # CUDA, CPU, MPS


class OutOfMemory(MemoryError):
    """The memory a run needed was not there; the message says what to do."""


class DiskFull(OSError):
    """The disk a run writes to is full; the message says what to do."""


class Note(UserWarning):
    """Something that a user should know, although nothing is wrong. The programs print it in one line on stderr."""


_usual = warnings.formatwarning


def show_notes_in_one_line() -> None:
    """Let Python print a `Note` as one line, without the place in the code. Each text is printed once."""

    def formatted(message, category, *place, **source) -> str:
        return f"note: {message}\n" if issubclass(category, Note) else _usual(message, category, *place, **source)

    warnings.formatwarning = formatted


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    told = str(error).lower()
    return isinstance(error, RuntimeError) and (told == NO_PRIMITIVE or any(sign in told for sign in SIGNS))
