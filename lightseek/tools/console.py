"""What the programs print: progress bars, the table of trainable parameters, and errors on one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lightseek.tools.errors import OutOfMemory, is_out_of_memory, show_notes_in_one_line

console = Console(highlight=False)
if not console.is_terminal:
    console.width = 132  # room for tables in a file or a pipe
errors = Console(stderr=True)
LONGEST = 2000  # characters of an error: a name from a broken file may have millions


def fail(error: BaseException) -> int:
    """Print an error that the user can fix, without a traceback. Return the exit code, 2."""
    filename = getattr(error, "filename", None)  # an OSError's own text starts with "[Errno 2]"
    told = f"{filename}: {error.strerror}" if filename and error.strerror else str(error) or type(error).__name__
    told = told if len(told) <= LONGEST else f"{told[:LONGEST]}... ({len(told):,} characters)"
    errors.print(f"[bold red]error:[/] {escape(told)}", highlight=False, soft_wrap=True)
    return 2


@contextmanager
def failing() -> Iterator[None]:
    """Turn errors that the user can fix into one line and an exit code: 2, or 130 for Ctrl-C."""
    show_notes_in_one_line()
    try:
        yield
    except KeyboardInterrupt:
        errors.print("stopped: the same command continues from the last checkpoint")
        raise SystemExit(130) from None
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        raise SystemExit(fail(error)) from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        advice = "" if isinstance(error, OutOfMemory) else "out of memory, lower batch or tokens: "
        raise SystemExit(fail(ValueError(f"{advice}{error}"))) from None


def bars() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    hidden = not console.is_terminal  # in a file the bars would leave empty lines
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=hidden)
