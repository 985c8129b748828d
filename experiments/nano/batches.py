"""From pages to tensors: what a step of the pre-training takes, and what its aids are told.

    Batches(recipe, config, tokenizer, start, stop)[i] -> Batch

A batch follows from its step (and its process's number, where there are several) alone, so workers, resumed runs and
machines all see the same ones.
"""

from collections import deque
from dataclasses import dataclass, fields, replace
from random import Random

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from experiments.nano.pages import NOWHERE, PATCH, TOKEN, Kind, Page, draw_page
from lightseek.config import OCRConfig
from lightseek.model.ocr import IGNORED
from lightseek.pages import EncodedPage, PageViews
from lightseek.processing import PROMPTS, image_positions, pad_batch, page_views, prompt_ids
from lightseek.tokenizer import Tokenizer

LENGTHS = 64  # rows are a multiple of it: in bfloat16 a CPU has to make new kernels for every new shape
SPOTS = 64  # of a page's side: small enough to tell its lines apart
NONE = (0, 0, 0, 0)  # the place of what stands nowhere


@dataclass
class Batch:
    """Pages of one kind. The aids' classes and places are 0 where there is nothing to tell.

    Where a page comes in tiles too, they tell of the view that shows it whole.
    """

    pixels: Float[Tensor, "b 1 s s"]  # grey: the three channels are the same
    tiles: Float[Tensor, "b k 1 t t"] | None
    grid: tuple[int, int]  # columns and rows of tiles
    ids: Int[Tensor, "b n"]  # padded at the end, which only the balance of the experts sees
    labels: Int[Tensor, "b n"]
    patches: Int[Tensor, "b g g"]  # the class of the character on each patch
    centres: Int[Tensor, "b g g centres"]  # classes of the characters whose centre is on each patch
    begins: Bool[Tensor, "b g g"]  # whether one of them is the first of a word
    order: Int[Tensor, "b n rows"]  # characters of the text before a vision token's first in each row of patches, or -1
    here: Int[Tensor, "b n 4"]  # where the last letter written stands, as `places` tells it
    next: Int[Tensor, "b n 4"]  # and where the next does
    still: bool  # SAM does not learn from this batch
    encoded: list[EncodedPage] | None = None  # pages that are read again, as the encoder gave them

    def views(self) -> list[list[PageViews | EncodedPage]]:
        if self.encoded is not None:
            return [[page] for page in self.encoded]
        views: list[list[PageViews | EncodedPage]] = []
        for i, pixels in enumerate(self.pixels):
            tiles = None if self.tiles is None else self.tiles[i].expand(-1, 3, -1, -1)
            views.append([PageViews(pixels.expand(3, -1, -1), tiles, self.grid)])
        return views

    def pin_memory(self) -> "Batch":
        return self._each(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device) -> "Batch":
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change) -> "Batch":
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Batch(**{name: change(value) if isinstance(value, Tensor) else value for name, value in values.items()})


class Album:
    """Still pages of late as the encoder gave them, for the decoder to read again.

    Drawing and encoding them is half of a step's work. A run that goes on starts with an empty one.
    """

    def __init__(self, size: int = 100) -> None:
        self.batches: deque[Batch] = deque(maxlen=size)

    def keep(self, batch: Batch, encoded: list[EncodedPage]) -> None:
        self.batches.append(replace(batch, pixels=batch.pixels[:, :, :0, :0], tiles=None, encoded=encoded))

    def draw(self, count: int, step: int) -> list[Batch]:
        """`count` of them, one perhaps twice."""
        return Random(step).choices(self.batches, k=count) if self.batches else []


class Batches(torch.utils.data.Dataset):
    """Batch number `step`, drawn by whichever worker gets it."""

    def __init__(
        self,
        recipe,
        config: OCRConfig,
        tokenizer: Tokenizer,
        start: int,
        stop: int,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.recipe, self.config, self.tokenizer, self.start, self.stop = recipe, config, tokenizer, start, stop
        self.rank, self.processes = rank, processes

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __getitem__(self, index: int) -> Batch:
        step = self.start + index
        kind = self.recipe.kind_at(step)
        first = (step * self.processes + self.rank) * kind.batch
        pages = [draw_page(kind, self.recipe.seed, first + i) for i in range(kind.batch)]
        return self.collate(pages, kind)

    def collate(self, pages: list[Page], kind: Kind) -> Batch:
        views = [self.see(page, kind) for page in pages]
        prompts = [
            prompt_ids(self.config, self.tokenizer, PROMPTS[page.task], [image_positions(view)])
            for page, view in zip(pages, views, strict=True)
        ]
        targets = [[*self.tokenizer.encode(page.target), self.config.eos_token_id] for page in pages]
        rows = [prompt + target for prompt, target in zip(prompts, targets, strict=True)]
        ids, _ = pad_batch(rows, self.config.pad_token_id, "right")
        ids = F.pad(ids, (0, -ids.shape[1] % LENGTHS), value=self.config.pad_token_id)
        labels, gazes = torch.full_like(ids, IGNORED), torch.zeros(2, *ids.shape, 4, dtype=torch.long)
        orders = torch.full((*ids.shape, TOKEN // PATCH), -1)
        for i, (page, prompt, target) in enumerate(zip(pages, prompts, targets, strict=True)):
            start, end = len(prompt), len(prompt) + len(target)
            labels[i, start:end] = torch.tensor(target)
            ids[i, start:end] = torch.tensor(slip(target, page, kind))
            whole = PageViews(views[i].global_view)  # follows its tiles
            first = prompt.index(self.config.image_token_id) + image_positions(views[i]) - image_positions(whole)
            gazes[:, i, start - 1 : end - 1] = torch.tensor(self.places(page, target, first))
            told = F.pad(order(page), (0, 0, 0, 1), value=-1).flatten(0, 1)  # a newline follows each row
            orders[i, first : first + len(told)] = told
        return Batch(
            pixels=torch.stack([view.global_view[:1] for view in views]),
            tiles=None if views[0].tiles is None else torch.stack([view.tiles[:, :1] for view in views]),
            grid=views[0].grid,
            ids=ids,
            labels=labels,
            **{
                name: torch.stack([torch.from_numpy(getattr(page, name)) for page in pages])
                for name in ("patches", "centres", "begins")
            },
            order=orders,
            here=gazes[0],
            next=gazes[1],
            still=kind.still,
        )

    def see(self, page: Page, kind: Kind) -> PageViews:
        """The page as it is, or as a mode of several views shows it."""
        if kind.mode:
            return page_views(Image.fromarray(page.pixels), kind.mode)
        pixels = torch.from_numpy(page.pixels.copy())[None].float() / 127.5 - 1
        return PageViews(pixels.expand(3, -1, -1))

    def places(self, page: Page, target: list[int], first: int) -> list[list[tuple[int, int, int, int]]]:
        """Where the letter before each token of a page's target stands, and where its own first one does.

        Each is the position of a vision token and which of its patches, 1 to 16; and how far down and across the page
        that is, in sixty-fourths, 1 to 64. All are 0 where there is none. `first` is the position of the first vision
        token of the whole page; a newline follows each row of them.
        """
        grid, side = page.patches.shape[0], TOKEN // PATCH
        where = [NONE]
        for square in page.squares:
            if square == NOWHERE:
                where.append(NONE)
                continue
            y, x = divmod(square, grid)
            token, patch = first + y // side * (grid // side + 1) + x // side, 1 + y % side * side + x % side
            where.append((token, patch, 1 + y * SPOTS // grid, 1 + x * SPOTS // grid))
        total, before = 0, []  # how many letters before each byte
        for character in page.target:
            before += [total] * len(character.encode())
            total += not character.isspace()
        here, following, start = [], [], 0
        for token in target:
            written = before[start] if start < len(before) else total
            here.append(where[written] if written < len(where) else NONE)
            following.append(where[written + 1] if written + 1 < len(where) else NONE)
            start += len(self.tokenizer.bytes_of(token))
        return [here, following]


def order(page: Page) -> Int[Tensor, "h w rows"]:
    """For each vision token, how many characters of the text come before the first in each of its 4 rows of patches.

    -1 where none stands, and all over a page that is not read but summarized. A token is higher than a line of small
    letters, so that its first character alone may be on the end of one line or the next.
    """
    grid, side = page.patches.shape[0], TOKEN // PATCH
    found = torch.full((grid // side, grid // side, side), -1)
    if page.target != page.text:
        return found
    letters = [number for number, character in enumerate(page.target) if not character.isspace()]
    for square, number in reversed(list(zip(page.squares, letters, strict=False))):  # squares end where the page does
        y, x = divmod(square, grid)
        found[y // side, x // side, y % side] = number
    return found


def slip(target: list[int], page: Page, kind: Kind) -> list[int]:
    """What the decoder is shown as written: on some pages a tenth of the tokens are others of the same text.

    Reading on its own it makes mistakes too, and has to find its place again.
    """
    random = Random(page.text)
    if random.random() >= kind.slips:
        return target
    return [random.choice(target[:-1]) if random.random() < 0.1 else token for token in target]
