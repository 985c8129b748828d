"""Reads JSON that may come from anyone, and checks what is in it. Each error is one line that names the file.

    read_json(path)                   the value in a file
    parse_json(text, "FILE, line 3")  the value of a text
    check_fields(value, {"id": "a text"}, {"seconds": "a number"})   an object with these fields

Python's reader alone ends in a RecursionError for deep brackets, takes a file of any size, and returns whole numbers
that are too large for a float.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MOST_BYTES = 64 << 20
DEEPEST = 100  # brackets inside brackets
MOST_DIGITS = 300  # of a whole number, so that it fits into a float


class JsonError(ValueError):
    """A text that is not JSON, or is over a limit. The message names the file."""


def read_json(path: str | Path, most: int = MOST_BYTES) -> Any:
    """Return the value in a JSON file of at most `most` bytes.

    Raises JsonError, and OSError if the file cannot be opened. Both name the file.
    """
    path = Path(path)
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise JsonError(f"{path} is larger than {most >> 20:,} MiB, which is too large for this file")
    return parse_json(content, path)


def parse_json(text: str | bytes, name: object) -> Any:
    """Return the value of a JSON text. Bytes are UTF-8, with or without a byte-order mark.

    Raises JsonError, which begins with `name` unless that is empty, for a text that is not JSON, has more than
    `DEEPEST` brackets inside each other, or has a whole number of more than `MOST_DIGITS` digits.
    """
    start = f"{name}: " if name else ""
    try:
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        value = json.loads(text, parse_int=_whole_number)
        if text.count("[") + text.count("{") > DEEPEST:
            _check_depth(value)
        return value
    except UnicodeDecodeError as error:  # its own text would hold the whole file
        raise JsonError(f"{start}not valid JSON (byte {error.start} is not UTF-8)") from None
    except RecursionError:
        raise JsonError(f"{start}not valid JSON ({_too_deep()})") from None
    except ValueError as error:
        raise JsonError(f"{start}not valid JSON ({error!s:.200})") from None


def _whole_number(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a whole number has {len(digits):,} digits, more than {MOST_DIGITS}")
    return int(digits)


def _check_depth(value: Any) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    if level:
        raise ValueError(_too_deep())


def _too_deep() -> str:
    return f"more than {DEEPEST} brackets are inside each other"


def whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def text(value: Any) -> bool:
    return isinstance(value, str) and not has_surrogates(value)


def has_surrogates(value: str) -> bool:
    """Return whether a text holds half a character, which JSON can write as an escape but UTF-8 cannot."""
    return any("\ud800" <= character <= "\udfff" for character in value) if not value.isascii() else False


# What a field may hold, as a message calls it -> the test of a value. NaN stands for a figure that is not defined.
KINDS: dict[str, Callable[[Any], bool]] = {
    "a text": text,
    "a whole number": whole,
    "a number": lambda value: number(value) and math.isfinite(value),
    "a number or NaN": lambda value: number(value) and not math.isinf(value),
    "true or false": lambda value: isinstance(value, bool),
    "an object": lambda value: isinstance(value, dict),
    "a list of texts": lambda value: isinstance(value, list) and all(map(text, value)),
    "a list of whole numbers": lambda value: isinstance(value, list) and all(map(whole, value)),
    "a list of objects": lambda value: isinstance(value, list) and all(isinstance(item, dict) for item in value),
}


def check_fields(
    value: Any, required: Mapping[str, str], optional: Mapping[str, str] | None = None, name: object = ""
) -> dict[str, Any]:
    """Return `value` if it is an object with the required fields, and each field holds what is said in `KINDS`.

    An optional field may be missing or null. Other fields are not looked at. Raises JsonError, which begins with `name`
    and names the field.
    """
    start = f"{name}: " if name else ""
    if not isinstance(value, dict):
        raise JsonError(f"{start}it is not a JSON object")
    for key, kind in (optional or {}).items():
        if value.get(key) is not None and not KINDS[kind](value[key]):
            raise JsonError(f"{start}{key!r} must be {kind}, not {value[key]!r:.40}")
    for key, kind in required.items():
        if key not in value:
            raise JsonError(f"{start}{key!r} is missing")
        if not KINDS[kind](value[key]):
            raise JsonError(f"{start}{key!r} must be {kind}, not {value[key]!r:.40}")
    return value
