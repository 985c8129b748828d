"""From pages to tensors: what a step of the pre-training takes, and what its four aids are told.

    Batches(recipe, config, tokenizer, start, stop)[i] -> Batch

A batch follows from its step alone, so workers, resumed runs and machines all see the same ones.
"""

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pages import PATCH, TOKEN, Kind, Page, draw_page
from PIL import Image
from torch import Tensor

from lightseek.config import OCRConfig
from lightseek.model.ocr import IGNORED
from lightseek.pages import PageViews
from lightseek.processing import PROMPTS, image_positions, pad_batch, page_views, prompt_ids
from lightseek.tokenizer import Tokenizer


@dataclass
class Batch:
    """Pages of one kind. The aids' classes and places are 0 where there is nothing to tell; cut pages have none."""

    pixels: Float[Tensor, "b 1 s s"]  # grey: the three channels are the same
    tiles: Float[Tensor, "b k 1 t t"] | None
    ids: Int[Tensor, "b n"]
    labels: Int[Tensor, "b n"]
    mask: Bool[Tensor, "b n"]
    slots: Int[Tensor, "b t slots"] | None  # classes of the characters in each vision token's cell
    patches: Int[Tensor, "b g g"] | None  # the class of the character on each patch
    here: Int[Tensor, "b n"]  # the position of the vision token that holds the last character written
    next: Int[Tensor, "b n"]  # and of the one that holds the next

    def views(self) -> list[list[PageViews]]:
        views = []
        for i, pixels in enumerate(self.pixels):
            tiles = None if self.tiles is None else self.tiles[i].expand(-1, 3, -1, -1)
            side = 1 if tiles is None else round(len(tiles) ** 0.5)
            views.append([PageViews(pixels.expand(3, -1, -1), tiles, (side, side))])
        return views

    def pin_memory(self) -> "Batch":
        return self._each(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device) -> "Batch":
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change) -> "Batch":
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Batch(**{name: None if value is None else change(value) for name, value in values.items()})


class Batches(torch.utils.data.Dataset):
    """Batch number `step`, drawn by whichever worker gets it."""

    def __init__(self, recipe, config: OCRConfig, tokenizer: Tokenizer, start: int, stop: int) -> None:
        self.recipe, self.config, self.tokenizer, self.start, self.stop = recipe, config, tokenizer, start, stop

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __getitem__(self, index: int) -> Batch:
        step = self.start + index
        kind = self.recipe.kind_at(step)
        pages = [draw_page(kind, self.recipe.seed, step * kind.batch + i) for i in range(kind.batch)]
        return self.collate(pages, kind)

    def collate(self, pages: list[Page], kind: Kind) -> Batch:
        views = [self.see(page, kind) for page in pages]
        prompts = [
            prompt_ids(self.config, self.tokenizer, PROMPTS[page.task], [image_positions(view)])
            for page, view in zip(pages, views, strict=True)
        ]
        targets = [[*self.tokenizer.encode(page.target), self.config.eos_token_id] for page in pages]
        rows = [prompt + target for prompt, target in zip(prompts, targets, strict=True)]
        ids, mask = pad_batch(rows, self.config.pad_token_id, "right")
        labels, following = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
        for i, (page, prompt, target) in enumerate(zip(pages, prompts, targets, strict=True)):
            labels[i, len(prompt) : len(prompt) + len(target)] = torch.tensor(target)
            if not kind.mode:
                places = self.places(page, target, prompt.index(self.config.image_token_id))
                following[i, len(prompt) - 1 : len(prompt) - 1 + len(places)] = torch.tensor(places)
        return Batch(
            pixels=torch.stack([view.global_view[:1] for view in views]),
            tiles=None if views[0].tiles is None else torch.stack([view.tiles[:, :1] for view in views]),
            ids=ids,
            labels=labels,
            mask=mask,
            slots=None if kind.mode else torch.stack([torch.from_numpy(page.slots) for page in pages]),
            patches=None if kind.mode else torch.stack([torch.from_numpy(page.patches) for page in pages]),
            here=F.pad(following, (1, -1)),
            next=following,
        )

    def see(self, page: Page, kind: Kind) -> PageViews:
        """The page as it is, or as a mode of several views shows it."""
        if kind.mode:
            return page_views(Image.fromarray(page.pixels), kind.mode)
        pixels = torch.from_numpy(page.pixels.copy())[None].float() / 127.5 - 1
        return PageViews(pixels.expand(3, -1, -1))

    def places(self, page: Page, target: list[int], first: int) -> list[int]:
        """For each token of a page's text, the position of the vision token where its first letter stands, or 0.

        `first` is the position of the first vision token; a newline follows each row of them.
        """
        if page.target != page.text:
            return [0] * len(target)
        letters, number = [], 0  # for each byte of the text, which letter it belongs to, or comes before
        for character in page.text:
            letters += [number] * len(character.encode())
            number += not character.isspace()
        side, found, start = page.patches.shape[0] * PATCH // TOKEN, [], 0
        for token in target:
            if start < len(letters) and letters[start] < len(page.cells):
                row, column = divmod(page.cells[letters[start]], side)
                found.append(first + row * (side + 1) + column)
            else:
                found.append(0)
            start += len(self.tokenizer.bytes_of(token))
        return found
