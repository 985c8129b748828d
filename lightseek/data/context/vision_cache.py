"""Keeps the encoded pages of a frozen encoder on disk, so that SAM and CLIP run once for each page, not once an epoch.

    folder/                  the user's cache folder, or --cache-dir
      5f0c.../               one encoder; the name is the digest of its weights, dtype and sizes
        pages/3a/3a91....safetensors    the encoder's output for the views of one page, before the projector
        documents/c7/c704....json       which pages a document has, so that they need not be drawn again

Each file appears complete or not at all. Its name is a digest of its source, and it never changes. So a run may be
killed at any moment, several runs may share a folder, and any file may be deleted: missing files are made again. Pages
are memory-mapped.
"""

import json
import os
import shutil
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from lightseek.model.kinds import BOXES
from lightseek.model.ocr import DeepSeekOCR
from lightseek.page.modes import Mode
from lightseek.page.pictures import upright_rgb
from lightseek.page.views import EncodedPage, PageViews, page_views
from lightseek.text.generate import evaluating
from lightseek.tools.files import abandoned, atomic_write, write_text
from lightseek.tools.json_files import check_fields, parse_json, read_json

FORMAT = 1  # raise it when the files or the arithmetic behind them change, so that a new folder is used
AUTOCAST = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}
YOUNG = 60  # seconds; a temporary file younger than that may not be locked yet, because runs share a cache unlocked
SPARE = 1 << 30  # bytes that the cache leaves free on the disk


def cache_folder(chosen: str | Path | None = None) -> Path:
    """Return `chosen`, or the default: a folder for vision caches in the user's cache folder."""
    if chosen is not None:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightseek" / "vision"


class VisionCache:
    """The encoded pages of one encoder. A page's key is a digest of its image and the mode.

    The folder's name depends on the dtype of the arithmetic, but not on the device or the attention kernel, because
    those change the result by rounding only.
    """

    def __init__(self, model: DeepSeekOCR, folder: str | Path, limit: int | None = None, precision: str = "no") -> None:
        """Open the cache of the model's encoder in `folder`.

        `limit` is the largest size of all caches in `folder`, in bytes. `precision` is the mixed precision of the run.

        Raises ValueError if the encoder learns.
        """
        check_frozen(model.encoder)
        self.model, self.root, self.limit = model, Path(folder), limit
        self.autocast = AUTOCAST[precision]
        self.folder = self.root / encoder_digest(model, precision)
        self.pages, self.bytes = survey(self.root)

    def __str__(self) -> str:
        limit = "" if self.limit is None else f" of at most {self.limit:,}"
        return f"vision cache: {self.pages:,} pages in {self.bytes:,} bytes{limit}, in {self.root}"

    def page(self, image: Image.Image, mode: Mode) -> tuple[str, EncodedPage]:
        """Return (key, page) from disk. A new page is encoded and saved first.

        Raises ValueError if there is no room for the page, and OSError if the disk does not give it back.
        """
        key = digest(mode, image.size, upright_rgb(image).tobytes())
        found = self.load(key)
        if found is None:
            self.save(key, self.encode(page_views(image, mode)))
            found = self.load(key)
        if found is None:
            raise OSError(f"{self.path('pages', key)} cannot be read back: is the disk failing?")
        return key, found

    @torch.no_grad()
    def encode(self, page: PageViews) -> EncodedPage:
        """Encode one page alone, so that its tokens never depend on other pages in a batch."""
        device, dtype = self.model.device, self.model.dtype
        autocast = torch.autocast(device.type, self.autocast, enabled=self.autocast is not None)
        with evaluating(self.model), autocast:
            tiles = None if page.tiles is None else self.model.encoder(page.tiles.to(device, dtype))
            return EncodedPage(self.model.encoder(page.global_view[None].to(device, dtype))[0], tiles, page.grid)

    def load(self, key: str) -> EncodedPage | None:
        """Return the page, memory-mapped, or None if its file is missing or damaged."""
        try:
            with safe_open(self.path("pages", key), "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                columns, rows = parse_json((file.metadata() or {})["grid"], self.path("pages", key))
            return EncodedPage(tensors["global"], tensors.get("tiles"), (columns, rows))
        except (FileNotFoundError, SafetensorError, KeyError, TypeError, ValueError):
            return None

    def save(self, key: str, page: EncodedPage) -> None:
        tensors = {"global": page.global_view.cpu().contiguous()}
        if page.tiles is not None:
            tensors["tiles"] = page.tiles.cpu().contiguous()
        content = save(tensors, {"grid": json.dumps(page.grid)})
        self.check_room(len(content))
        with atomic_write(self.path("pages", key)) as temporary:
            temporary.write_bytes(content)
        self.pages, self.bytes = self.pages + 1, self.bytes + len(content)

    def check_room(self, more: int) -> None:
        """Raise ValueError if `more` bytes would exceed the limit or use the disk space that must stay free."""
        if self.limit is not None and self.bytes + more > self.limit:
            raise ValueError(
                f"{self}, has no room for {more:,} bytes more: raise --cache-gb, or delete older caches there"
            )
        free = shutil.disk_usage(nearest(self.root)).free - SPARE
        if more > free:
            raise ValueError(
                f"{self}, needs {more:,} bytes more, and its disk has {max(0, free):,} to give: "
                "delete older caches there, or choose another disk with --cache-dir"
            )

    def recall(self, key: str) -> dict[str, Any] | None:
        """Return the record that `note` wrote for a document, or None if there is none that can be read."""
        try:
            return check_fields(read_json(self.path("documents", key)), {})
        except (FileNotFoundError, ValueError):
            return None

    def note(self, key: str, record: dict[str, Any]) -> None:
        write_text(self.path("documents", key), json.dumps(record))

    def path(self, kind: str, key: str) -> Path:
        suffix = {"pages": "safetensors", "documents": "json"}[kind]
        return self.folder / kind / key[:2] / f"{key}.{suffix}"


def check_frozen(encoder: nn.Module) -> None:
    """Raise ValueError if a parameter of the encoder learns, because the output for a page then changes every step."""
    learning = [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]
    if learning:
        raise ValueError(
            f"--cache-vision keeps the encoder's output for each page, but the encoder learns ({len(learning)} "
            f"tensors, {learning[0]} first): add --freeze encoder, or leave out --cache-vision"
        )


def encoder_digest(model: DeepSeekOCR, precision: str = "no") -> str:
    """Return a digest of everything that decides the encoder's output: sizes, parts, weights and precision."""
    config = model.config
    sizes = (FORMAT, config.sam, config.compressor, config.clip, str(model.encoder), precision)
    boxes = {axis: box for axis, box in config.boxes.items() if BOXES[axis].path.startswith("encoder.")}
    sha = sha256(repr(sizes + ((boxes,) if boxes else ())).encode())
    for name, tensor in sorted(model.encoder.state_dict().items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return sha.hexdigest()[:32]


def digest(*parts: Any) -> str:
    """Return a digest of a list of parts. Bytes are hashed directly, and other values by their `repr`."""
    sha = sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else repr(part).encode()
        sha.update(f"{type(part).__name__} {len(content)} ".encode())
        sha.update(content)
    return sha.hexdigest()[:32]


def survey(root: Path) -> tuple[int, int]:
    """Return (pages, bytes) of all caches in a folder. Deletes the unfinished files of killed runs."""
    pages = size = 0
    for file in root.rglob("*"):
        try:
            state = file.stat()
            if file.suffix == ".tmp":
                if abs(time.time() - state.st_mtime) > YOUNG and abandoned(file):
                    file.unlink()
            elif file.suffix == ".safetensors":
                pages, size = pages + 1, size + state.st_size
        except FileNotFoundError:  # another run finished or deleted it meanwhile
            continue
    return pages, size


def nearest(folder: Path) -> Path:
    """Return the folder, or the nearest folder above it that exists."""
    return next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
