"""Edits of the vision tokens: what does the decoder lean on?

    projector -> vision tokens of an image -> edit -> layout -> decoder

A model has one edit, `model.vision_edit`. Usually it is `Untouched`, which returns what it gets. `edited` puts another
one there for an evaluation and takes it away afterwards. An edit has no weights, so a checkpoint does not know it.

Every edit keeps the number of tokens and their positions. Newlines, the separator and the text stay as they are.
A zero vector is still a position that attention looks at. It tells the decoder nothing but that it is there.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lightseek.model.kinds import VISION_EDITS
from lightseek.model.ocr import DeepSeekOCR, DocumentModel


class VisionEdit(nn.Module):
    """The base class: `change` gets all vision tokens of one image. The tokens of tiles come before the global view."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def forward(
        self, global_view: Float[Tensor, "t d"], tiles: Float[Tensor, "k t2 d"] | None = None, key: int = 0
    ) -> tuple[Float[Tensor, "t d"], Float[Tensor, "k t2 d"] | None]:
        """Return the changed tokens. `key` tells images apart where something is random."""
        before = global_view if tiles is None else torch.cat([tiles.flatten(0, 1), global_view])
        after = self.change(before, key)
        if tiles is None:
            return after, None
        count = len(before) - len(global_view)
        return after[count:], after[:count].view_as(tiles)

    def change(self, tokens: Float[Tensor, "n d"], key: int) -> Float[Tensor, "n d"]:
        raise NotImplementedError


class Zeroed(VisionEdit):
    """Every token becomes zero: the decoder knows nothing of the page. What it still writes, it knew before."""

    def change(self, tokens: Float[Tensor, "n d"], key: int) -> Float[Tensor, "n d"]:
        return torch.zeros_like(tokens)


class Permuted(VisionEdit):
    """The tokens of an image change places at random: the decoder sees every part of the page, but not where it was.

    The order depends on the seed, on the document's name and on the number of the page in it.
    """

    def change(self, tokens: Float[Tensor, "n d"], key: int) -> Float[Tensor, "n d"]:
        return tokens[self.order(len(tokens), key).to(tokens.device)]

    def order(self, count: int, key: int) -> Int[Tensor, " n"]:
        """Return which token comes to each place."""
        return torch.from_numpy(np.random.default_rng([self.seed, key]).permutation(count))


class Mean(VisionEdit):
    """Every token becomes the mean of the image's tokens: only what they have in common stays."""

    def change(self, tokens: Float[Tensor, "n d"], key: int) -> Float[Tensor, "n d"]:
        return tokens.mean(0, keepdim=True).expand_as(tokens)


class Drop(VisionEdit):
    """The weakest `percent` of the image's tokens, those with the smallest norms, become zero.

    They are not taken out of the prompt, because then all later positions would change too. `percent=100` is `Zeroed`.
    """

    def __init__(self, percent: float | int, seed: int = 0) -> None:
        """Raises ValueError unless `percent` is from 0 to 100."""
        super().__init__(seed)
        if isinstance(percent, bool) or not isinstance(percent, int | float) or not 0 <= percent <= 100:
            raise ValueError(f"drop: percent must be a number from 0 to 100, got {percent!r}")
        self.percent = percent

    def change(self, tokens: Float[Tensor, "n d"], key: int) -> Float[Tensor, "n d"]:
        norms = torch.linalg.vector_norm(tokens.float(), dim=-1)
        weakest = norms.argsort(stable=True)[: round(len(tokens) * self.percent / 100)]
        return tokens.index_fill(0, weakest, 0)


@contextmanager
def edited(model: DocumentModel, name: str | None, seed: int = 0) -> Iterator[None]:
    """Let the model see its vision tokens through the edit `name`, one of `VISION_EDITS`. None changes nothing.

    Raises ValueError for an unknown edit, and for a model that reads text.
    """
    if name is None:
        yield
        return
    if not isinstance(model, DeepSeekOCR):
        raise ValueError(f"the edit {name} changes vision tokens, and this model reads text")
    before, model.vision_edit = model.vision_edit, VISION_EDITS.call(name, seed=seed)
    try:
        yield
    finally:
        model.vision_edit = before
