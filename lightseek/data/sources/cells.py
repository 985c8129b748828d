"""Reads the pictures in a cell of a table, in all forms that data sets use.

    "pages/1.png"                            a path below the folder of the table
    bytes, {"bytes": bytes, "path": ...}     a picture file, as in the hub's parquet files
    "iVBORw0KGgo...", {"bytes": "iVBO..."}   the same in base64, because JSON has no bytes
    "data:image/png;base64,iVBORw0KGgo..."   a data URI
    {"url": ...}, {"image_url": {"url": ...}}  one of these texts, as in the messages of chat models
    [...]                                    a list of these: the pages of one document

A path must not lead out of the folder, because the rows of a downloaded data set would then choose which files of the
user's machine are read and, with `prepare --push-to-hub`, published.
"""

import base64
import binascii
import re
from pathlib import Path
from typing import Any

from lightseek.tools.files import leads_out
from lightseek.tools.json_files import has_surrogates

# How the picture files begin that Pillow reads: PNG, JPEG, GIF, BMP, TIFF (both byte orders), WebP, JPEG 2000.
BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF", b"\0\0\0\x0cjP", b"\xffO\xffQ")
DATA_URI = re.compile(r"data:([^,;]*)((?:;[^,;]*)*),", re.IGNORECASE)
LONGEST_PATH = 1000  # characters; longer texts are not even looked for
SHORTEST = 40  # characters of a picture in base64; shorter texts are paths
INSIDE = ("bytes", "path", "url", "image_url", "image")  # where a structure has its picture, in this order


def pictures(value: Any, folder: Path | None, root: Path | None = None) -> tuple[Path | bytes, ...]:
    """Return the path or the bytes of each picture in a cell.

    Paths are relative to `folder` and stay below `root` (default: `folder`); without a folder none is allowed.
    Raises ValueError with a short message for anything else, and for a file that does not exist.
    """
    items = value if isinstance(value, list | tuple) else [value]
    return tuple(_picture(item, folder, root or folder) for item in items)


def _picture(value: Any, folder: Path | None, root: Path | None) -> Path | bytes:
    while isinstance(value, dict):
        value = next((value[name] for name in INSIDE if value.get(name)), None)
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError(f"a picture is a path or bytes, not {value!r:.40}")
    if uri := DATA_URI.match(value):
        if not uri[1].lower().startswith("image/") or not uri[2].lower().endswith(";base64"):
            raise ValueError(f"a data URI of a picture begins with data:image/...;base64, and not with {uri[0]!r:.60}")
        return _decoded(value[uri.end() :])
    if value.startswith(("http://", "https://")):
        raise ValueError(f"pictures are not downloaded, put the file beside the table: {value:.80}")
    if _beginning(value).startswith(BEGINNINGS):
        return _decoded(value)
    if folder is None or root is None:
        raise ValueError(f"a picture of this data set is bytes, not the path {value!r:.40}")
    return _path(value, folder, root)


def _beginning(text: str) -> bytes:
    """Return the first bytes of a text in base64, or none if it is a path."""
    try:
        return base64.b64decode("".join(text[:80].split())[:32], validate=True) if len(text) >= SHORTEST else b""
    except (binascii.Error, ValueError):
        return b""


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"a picture of {len(text):,} characters is not whole base64: {error}") from None


def _path(text: str, folder: Path, root: Path) -> Path:
    shown = text if len(text) <= 80 else f"{text[:40]}... ({len(text):,} characters)"
    if len(text) > LONGEST_PATH or "\0" in text or has_surrogates(text):
        raise ValueError(f"a picture is neither a path nor base64: {shown!r}")
    path = folder / text
    if Path(text).is_absolute() or leads_out(path, root):
        raise ValueError(f"the picture {shown} is not in {root}: a path or a link must not lead out of the folder")
    try:
        if path.is_file():
            return path
    except OSError:  # such as a name that is too long
        pass
    raise ValueError(f"there is no picture {shown} in {folder}")
