"""What a frozen encoder makes of each page, kept on disk: SAM and CLIP see a page once, not once an epoch.

    folder/                  the user's cache folder, or --cache-dir
      5f0c.../               one encoder: the digest of its weights, dtype and sizes
        pages/3a/3a91....safetensors    the views of one page through the encoder, before the projector
        documents/c7/c704....json       which pages a document has, so that they need not be drawn again

Files appear whole or not at all, are named by what they were made from, and never change. So a run may be killed at
any moment, several may share a folder, and any of it may be deleted: what is missing is made again. Pages are
memory-mapped.
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

from lightseek.model.ocr import DeepSeekOCR
from lightseek.page.modes import Mode
from lightseek.page.preprocessing import page_views, upright_rgb
from lightseek.page.views import EncodedPage, PageViews
from lightseek.text.generate import evaluating
from lightseek.tools.files import atomic_write, write_text

FORMAT = 1  # of the files, or of the arithmetic that led to them: another number, another folder
AUTOCAST = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}
UNFINISHED = 3600  # seconds after which a temporary file belongs to nobody alive
SPARE = 1 << 30  # bytes of the disk that the cache leaves to others


def cache_folder(chosen: str | Path | None = None) -> Path:
    """`chosen`, or the place for vision caches in the user's cache folder."""
    if chosen is not None:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightseek" / "vision"


class VisionCache:
    """Encoded pages of one encoder, by the content of the page's image and the mode.

    The key has the arithmetic's dtype but not the device or the attention kernel: those differ by rounding only.
    """

    def __init__(self, model: DeepSeekOCR, folder: str | Path, limit: int | None = None, precision: str = "no") -> None:
        """`limit` is in bytes, for all of `folder`; `precision` the mixed precision that the run trains in.

        Raises ValueError when the encoder can learn.
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
        """(key, page): from disk, or encoded and put there. Raises ValueError when it would exceed the limit."""
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
        """One page alone, so that its tokens never depend on the batch it came in."""
        device, dtype = self.model.device, self.model.dtype
        autocast = torch.autocast(device.type, self.autocast, enabled=self.autocast is not None)
        with evaluating(self.model), autocast:
            tiles = None if page.tiles is None else self.model.encoder(page.tiles.to(device, dtype))
            return EncodedPage(self.model.encoder(page.global_view[None].to(device, dtype))[0], tiles, page.grid)

    def load(self, key: str) -> EncodedPage | None:
        """The page, memory-mapped, or None if it is not there or damaged."""
        try:
            with safe_open(self.path("pages", key), "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                columns, rows = json.loads(file.metadata()["grid"])
            return EncodedPage(tensors["global"], tensors.get("tiles"), (columns, rows))
        except (FileNotFoundError, SafetensorError):
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
        """Raise ValueError when so many more bytes would exceed the limit, or leave the disk without any to spare."""
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
        """What `note` wrote of a document."""
        try:
            return json.loads(self.path("documents", key).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def note(self, key: str, record: dict[str, Any]) -> None:
        write_text(self.path("documents", key), json.dumps(record))

    def path(self, kind: str, key: str) -> Path:
        suffix = {"pages": "safetensors", "documents": "json"}[kind]
        return self.folder / kind / key[:2] / f"{key}.{suffix}"


def check_frozen(encoder: nn.Module) -> None:
    """Raise ValueError if a parameter of the encoder learns: what it makes of a page then changes with every step."""
    learning = [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]
    if learning:
        raise ValueError(
            f"--cache-vision keeps what the encoder makes of a page, but the encoder learns ({len(learning)} "
            f"tensors, {learning[0]} first): add --freeze encoder, or leave out --cache-vision"
        )


def encoder_digest(model: DeepSeekOCR, precision: str = "no") -> str:
    """A name for what the encoder computes: its sizes, its parts, every weight with its dtype, and the precision."""
    config = model.config
    sha = sha256(repr((FORMAT, config.sam, config.compressor, config.clip, str(model.encoder), precision)).encode())
    for name, tensor in sorted(model.encoder.state_dict().items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return sha.hexdigest()[:32]


def digest(*parts: Any) -> str:
    """A name for a list of bytes, and of values by their `repr`."""
    sha = sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else repr(part).encode()
        sha.update(f"{type(part).__name__} {len(content)} ".encode())
        sha.update(content)
    return sha.hexdigest()[:32]


def survey(root: Path) -> tuple[int, int]:
    """(pages, bytes) of all caches in a folder, and an end to the files that a killed run left unfinished."""
    pages = size = 0
    for file in root.rglob("*"):
        try:
            state = file.stat()
            if file.suffix == ".tmp" and time.time() - state.st_mtime > UNFINISHED:
                file.unlink()
            elif file.suffix == ".safetensors":
                pages, size = pages + 1, size + state.st_size
        except FileNotFoundError:  # another run's, finished in between
            continue
    return pages, size


def nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
