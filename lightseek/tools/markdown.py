"""Puts texts that came from data into Markdown, so that nothing in them is a heading, a link, a picture or HTML."""

import re

UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def block(text: str) -> str:
    """Return a text as a fenced block of Markdown, which shows its lines as they are."""
    ticks = _ticks(text, 3)
    lines = "\n".join(UNSEEN.sub("\ufffd", line) for line in (text or "(nothing)").splitlines())
    return f"{ticks}text\n{lines}\n{ticks}"


def code(text: object, most: int = 300) -> str:
    """Return a text as one line of code, for a heading, a list or a table. It is cut after `most` characters."""
    line = UNSEEN.sub("\ufffd", " ".join(str(text).split())) or " "
    line = f"{line[:most]}..." if len(line) > most else line
    ticks = _ticks(line, 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{pad}{line}{pad}{ticks}".replace("|", "\\|")  # a bar would end the cell of a table


def _ticks(text: str, least: int) -> str:
    """Return more backticks than the text has in a row, so that it cannot end the code."""
    return "`" * max(least, 1 + max(map(len, re.findall("`+", text)), default=0))
