"""Standard output that takes every character. This file loads nothing, so that `--help` can use it too."""

import io
import sys


def escape_unknown_characters() -> None:
    """Make stdout write a character that its encoding lacks as an escape such as `\\u6587`, and not raise an error.

    Windows pipes (cp1252) and LANG=C (ASCII) are such encodings.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def takes_unicode() -> bool:
    """Return whether stdout can write every character as it is."""
    return (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
