"""Batches of pages as tensors: the inputs of a training step, and the targets of its losses.

    Batches(recipe, config, tokenizer, start, stop)[i] -> Batch

A batch depends only on the recipe, the step and the number of the process. So it is the same for every worker, after
a resume, and on every machine.
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
from lightseek.model.config import OCRConfig
from lightseek.model.ocr import IGNORED
from lightseek.page.views import EncodedPage, PageViews, image_positions, page_views
from lightseek.text.kinds import PROMPTS
from lightseek.text.prompts import prompt_ids
from lightseek.text.tokenizer import Tokenizer
from lightseek.tools.padding import pad_batch

LENGTHS = 64  # sequences are padded to a multiple of it: in bfloat16 a CPU builds new kernels for every new shape
SPOTS = 64  # parts of a page's side: small enough that two lines of text are in different parts
NONE = (0, 0, 0, 0)  # the place of a character that is not on the page


@dataclass
class Batch:
    """Pages of one kind, with targets for the text and for the aids.

    Classes and places are 0 where an aid has no target. When a page is also cut into tiles, the aids' targets are for
    the view of the whole page. Axes: b pages, n positions, g x g patches, `centres` characters of a patch.
    """

    pixels: Float[Tensor, "b 1 s s"]  # the view of the whole page, one grey channel
    tiles: Float[Tensor, "b k 1 t t"] | None
    grid: tuple[int, int]  # columns and rows of tiles
    ids: Int[Tensor, "b n"]  # prompt and target; padded at the end, where only the experts' balance loss sees it
    labels: Int[Tensor, "b n"]  # the target, IGNORED elsewhere
    patches: Int[Tensor, "b g g"]  # the class of the character on each patch
    centres: Int[Tensor, "b g g centres"]  # the classes of the characters whose centre is on each patch
    begins: Bool[Tensor, "b g g"]  # whether one of these characters is the first of a word
    order: Int[Tensor, "b n rows"]  # for vision tokens, the numbers of `order`; -1 elsewhere
    here: Int[Tensor, "b n 4"]  # the place of the character that was written last, as `Batches.places` gives it
    next: Int[Tensor, "b n 4"]  # the place of the character to write next
    still: bool  # SAM does not learn from this batch
    encoded: list[EncodedPage] | None = None  # the encoder's output, for pages from the `Album`

    def views(self) -> list[list[PageViews | EncodedPage]]:
        """One page for each row, as the model takes them."""
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
    """The last `size` batches of still pages with the encoder's output, so that the decoder can learn from them again.

    This is cheap, because drawing and encoding pages is half of the work of a step. A resumed run starts with an empty
    album.
    """

    def __init__(self, size: int = 100) -> None:
        self.batches: deque[Batch] = deque(maxlen=size)

    def keep(self, batch: Batch, encoded: list[EncodedPage]) -> None:
        self.batches.append(replace(batch, pixels=batch.pixels[:, :, :0, :0], tiles=None, encoded=encoded))

    def draw(self, count: int, step: int) -> list[Batch]:
        """`count` random batches of the album; the same one may come twice. An empty album gives none."""
        return Random(step).choices(self.batches, k=count) if self.batches else []


class Batches(torch.utils.data.Dataset):
    """Item i is the batch of step `start + i`. With several processes, each gets other pages for the same step."""

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
        """The tensors of pages of one kind and one shape."""
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
            whole = PageViews(views[i].global_view)  # its vision tokens follow those of the tiles
            first = prompt.index(self.config.image_token_id) + image_positions(views[i]) - image_positions(whole)
            gazes[:, i, start - 1 : end - 1] = torch.tensor(self.places(page, target, first))
            told = F.pad(order(page), (0, 0, 0, 1), value=-1).flatten(0, 1)  # a newline token ends each row
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
        """The page as one view or, with a mode, as the views of that mode."""
        if kind.mode:
            return page_views(Image.fromarray(page.pixels), kind.mode)
        pixels = torch.from_numpy(page.pixels.copy())[None].float() / 127.5 - 1
        return PageViews(pixels.expand(3, -1, -1))

    def places(self, page: Page, target: list[int], first: int) -> list[list[tuple[int, int, int, int]]]:
        """For each token of `target`, the places of two characters: the one before the token, and its own first one.

        A place has four numbers: the position of a vision token, the patch in this token (1 to 16), and how far down
        and how far across the page the patch is (1 to 64, in sixty-fourths of its side). It is `NONE` for a character
        that is not on the page. `first` is the position of the first vision token of the whole page. Each row of
        vision tokens ends with a newline token.
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
        total, before = 0, []  # `before`: for each byte of the target, how many characters (without spaces) precede it
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
    """For each vision token and each of its 4 rows of patches, the index in the text of the first character there.

    It is -1 for a row without a character, and everywhere on a page that is summarized and not read. One number for a
    vision token is not enough, because it is taller than a line of small letters and can show parts of two lines.
    """
    grid, side = page.patches.shape[0], TOKEN // PATCH
    found = torch.full((grid // side, grid // side, side), -1)
    if page.target != page.text:
        return found
    letters = [number for number, character in enumerate(page.target) if not character.isspace()]
    shown = list(zip(page.squares, letters, strict=False))  # a text may be longer than its page
    for square, number in reversed(shown):  # the first character of a row is written last, and stays
        y, x = divmod(square, grid)
        found[y // side, x // side, y % side] = number
    return found


def slip(target: list[int], page: Page, kind: Kind) -> list[int]:
    """The target as the decoder's input. On some pages a tenth of its tokens are wrong: others of the same text.

    The decoder will make mistakes when it reads on its own, so it has to learn to find its place again after them.
    """
    random = Random(page.text)
    if random.random() >= kind.slips:
        return target
    return [random.choice(target[:-1]) if random.random() < 0.1 else token for token in target]
